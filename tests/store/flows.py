"""Helpers that drive flows through the store as operator and crew pods do."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID, uuid4

from discovery_core import actions as act
from discovery_core.phases import Phase
from discovery_core.resource import DiscoveryFlowSpec
from discovery_core.resource_gate import Approval
from discovery_core.snapshots import FlowSnapshot
from discovery_core.states import FlowState
from discovery_core.wire.protocol import Claim, Complete, PinInputs
from discovery_core.wire.results import (
    CleansingResult,
    DependencyResult,
    FieldMapping,
    ImportResult,
    InventoryRecord,
    InventoryResult,
    MappingResult,
    PhaseResult,
    StrategyResult,
    TargetDescription,
)

from tests.postgres import Stores

# with a password, which nobody but crews may get
SOURCE = b"name,password\nweb01,hunter2-Zq9\n"
SPEC = {"source": {"configMap": {"name": "servers", "key": "servers.csv"}}}


async def stream(*pieces: bytes) -> AsyncIterator[bytes]:
    """Bytes as an upload brings them."""
    for piece in pieces:
        yield piece


def digest_of(data: bytes) -> str:
    """The name of an artefact."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Pod:
    """A crew pod that holds a claim."""

    stores: Stores
    tenant_id: UUID
    claim: Claim
    pod_uid: str

    async def upload(self, data: bytes, media_type: str = "text/plain") -> str:
        """Stores an artefact and returns its digest."""
        reference = await self.stores.execution.store_artefact(
            tenant_id=self.tenant_id,
            pod_uid=self.pod_uid,
            fence=self.claim.fence,
            media_type=media_type,
            stream=stream(data),
            max_bytes=10_000_000,
        )
        return reference.digest

    async def complete(self, result: PhaseResult, **artefacts: str) -> None:
        """Submits the result."""
        await self.stores.execution.complete(
            tenant_id=self.tenant_id,
            pod_uid=self.pod_uid,
            message=Complete(fence=self.claim.fence, result=result, artefacts=artefacts),
        )

    async def stage(self, records: AsyncIterator[InventoryRecord]) -> None:
        """Sends inventory rows."""
        await self.stores.execution.stage_records(
            tenant_id=self.tenant_id,
            pod_uid=self.pod_uid,
            fence=self.claim.fence,
            records=(r.model_dump_json(by_alias=True).encode() async for r in records),
        )

    async def do_phase(self, records: AsyncIterator[InventoryRecord] | None = None) -> None:
        """Completes the claimed phase as its crew would."""
        phase = self.claim.phase
        if phase is Phase.DATA_IMPORT:
            source = await self.upload(SOURCE)
            await self.stores.execution.pin_inputs(
                tenant_id=self.tenant_id,
                pod_uid=self.pod_uid,
                pin=PinInputs(fence=self.claim.fence, source=source),
            )
        if phase is Phase.ASSET_INVENTORY:
            await self.stage(records or inventory_rows(3))
        artefacts = {
            name: await self.upload(JSON.get(name, f"{phase} {name}").encode())
            for name in ARTEFACTS.get(phase, ())
        }
        await self.complete(RESULTS[phase], **artefacts)


@dataclass
class Flow:
    """One flow of one tenant."""

    stores: Stores
    spec: dict[str, object] = field(default_factory=lambda: dict(SPEC))
    tenant_id: UUID = field(default_factory=uuid4)
    flow_id: UUID = field(default_factory=uuid4)
    name: str = "servers"
    created_at: datetime | None = None
    namespace: str = "migration"

    async def register(self) -> FlowSnapshot:
        """Creates it."""
        return await self.stores.operator.register(
            act.Register(DiscoveryFlowSpec.model_validate(self.spec), generation=1),
            flow_id=self.flow_id,
            tenant_id=self.tenant_id,
            namespace=self.namespace,
            name=self.name,
            created_at=self.created_at,
        )

    async def load(self) -> FlowSnapshot:
        """Reads it."""
        snapshot = await self.stores.operator.load(self.flow_id)
        assert snapshot is not None
        return snapshot

    async def queue(self) -> None:
        """Registers and admits it."""
        await self.register()
        await self.stores.operator.apply(self.flow_id, act.Admit())

    async def start(self, attempt: int | None = None, launch_timeout: float = 600) -> UUID:
        """Starts the next attempt of the current phase and records its Job."""
        flow = await self.load()
        number = attempt or flow.last_attempt + 1
        job = f"{self.flow_id}-{flow.phase}-{flow.round}-{number}"
        run_id = await self.stores.operator.start_attempt(
            self.flow_id,
            act.StartAttempt(
                round=flow.round,
                phase=flow.phase,
                attempt=number,
                job_name=job,
                launch_timeout=launch_timeout,
            ),
        )
        assert run_id is not None
        await self.stores.operator.mark_launched(run_id, self.flow_id, f"uid-{job}")
        return run_id

    async def claim(self, pod_uid: str | None = None) -> Pod:
        """A pod of the current Job claims it."""
        run = (await self.load()).run
        assert run is not None
        uid = pod_uid or str(uuid4())
        claim = await self.stores.execution.claim(
            tenant_id=self.tenant_id,
            job_name=run.job_name,
            job_uid=run.job_uid or f"uid-{run.job_name}",
            flow_id=self.flow_id,
            pod_uid=uid,
            pod_name="crew-pod",
        )
        return Pod(self.stores, self.tenant_id, claim, uid)

    async def run_phase(self, records: AsyncIterator[InventoryRecord] | None = None) -> Pod:
        """Starts, claims and completes the current phase; `records` are its inventory rows."""
        await self.start()
        pod = await self.claim()
        await pod.do_phase(records)
        return pod

    async def finish(self) -> FlowSnapshot:
        """Runs the phases that are left after the gate."""
        while (await self.load()).state == FlowState.QUEUED:
            await self.run_phase()
        return await self.load()

    async def to_gate(self) -> FlowSnapshot:
        """Runs everything up to the approval request."""
        await self.queue()
        for _ in range(3):
            await self.run_phase()
        return await self.load()

    async def answer(self, decision: str = "Approve", by: str = "ann", **changes: object) -> None:
        """Answers the open request."""
        request = (await self.load()).request
        assert request is not None
        values: dict[str, object] = {
            "request_id": request.request_id,
            "artefact_digest": request.artefact_digest,
            "decision": decision,
            "edits": [],
            "reason": "",
            "decided_by": by,
        } | changes
        given = Approval.model_validate(values)
        await self.stores.operator.apply(self.flow_id, act.TakeAnswer(given))


# what the API reads of the files
JSON = {"profile": "[]"}


async def inventory_rows(count: int, prefix: str = "web") -> AsyncIterator[InventoryRecord]:
    """Typed rows as the inventory crew sends them."""
    for row in range(1, count + 1):
        yield InventoryRecord(
            row=row,
            identity=f"hostname:{prefix}{row}",
            name=f"{prefix}{row}",
            asset_type="server",
            values={"hostname": f"{prefix}{row}", "memory_gb": row},
            originals={"hostname": f"{prefix}{row}", "memory_gb": f"{row} GB"},
            conversions={"memory_gb": {"unit": "GB", "rule": "unit_in_value"}},
            keys=[f"name:{prefix}{row}"],
            identity_confidence=0.8,
            class_rule="by_machine_facts",
        )


MAPPINGS = [
    FieldMapping(column="Name", target="hostname", confidence=0.9, reason="header"),
    FieldMapping(column="RAM", target="memory_gb", confidence=0.8, reason="unit"),
    FieldMapping(column="Notes", target=None, confidence=0.4, reason="no match"),
]

# the same, where it is known what the targets take
WITH_UNITS = MappingResult(
    mappings=[
        mapping.model_copy(update={"transform": "unit:MB"}) if mapping.column == "RAM" else mapping
        for mapping in MAPPINGS
    ],
    targets=["hostname", "memory_gb", "owner"],
    findings=["RAM: 2 values would be outside of what memory_gb usually is."],
    fields=[
        TargetDescription(name="hostname", type="string"),
        TargetDescription(name="memory_gb", type="number", transforms=["unit:MB", "unit:GB"]),
        TargetDescription(name="owner", type="string"),
    ],
)

RESULTS: dict[Phase, PhaseResult] = {
    Phase.DATA_IMPORT: ImportResult(
        rows_imported=1, rows_rejected=0, columns=["name"], format="csv"
    ),
    Phase.DATA_CLEANSING: CleansingResult(rows=1, rules=[]),
    Phase.FIELD_MAPPING: MappingResult(
        mappings=MAPPINGS, targets=["hostname", "memory_gb", "owner"]
    ),
    Phase.ASSET_INVENTORY: InventoryResult(records=3, assets=3, duplicates=0),
    Phase.DEPENDENCY_ANALYSIS: DependencyResult(dependencies=0),
    Phase.MIGRATION_STRATEGY: StrategyResult(assets=3),
}

# what later phases read
ARTEFACTS: dict[Phase, tuple[str, ...]] = {
    Phase.DATA_IMPORT: ("records", "profile"),
    Phase.DATA_CLEANSING: ("records", "profile"),
    Phase.ASSET_INVENTORY: ("inventory",),
    Phase.DEPENDENCY_ANALYSIS: ("dependencies",),
}
