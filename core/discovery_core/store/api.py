"""The store as the user API uses it: one tenant at a time, after authorisation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from ..errors import NotFoundError
from ..snapshots import AttemptRecord, FlowEvent, FlowSnapshot
from ..wire.protocol import ApprovedMapping
from ..wire.results import FieldMapping
from . import sessions
from .artefacts import uploads
from .artefacts.streams import read_chunks
from .database import Database, TenantScope
from .inventory import assets, conflicts
from .inventory.conflicts import Choice, Conflict
from .ledger.lessons import mapping_history, remove_lesson
from .ledger.requests import proposals
from .ledger.snapshot import flow_snapshot, history
from .listener import listen
from .maintenance import retention
from .reads import analytics, contents
from .schema import ApprovalRequestRow, PhaseRun

T = TypeVar("T")
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Location:
    """Whose a flow is; found before it is known whether the caller may see it."""

    tenant_id: UUID
    cluster_id: UUID
    namespace: str
    name: str


@dataclass(frozen=True)
class RequestRow:
    """An approval request and its outcome."""

    request_id: UUID
    flow_id: UUID
    artefact_digest: str
    state: str
    decided_by: str | None
    decided_at: datetime | None
    reason: str
    problems: list[str]


class ApiStore:
    """Reads for people. Nothing here changes a flow: decisions go through the resource."""

    def __init__(self, db: Database) -> None:
        self.db = db

    async def _read(self, tenant_id: UUID, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        return await self.db.read(TenantScope(tenant_id), work)

    async def _write(self, tenant_id: UUID, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        return await self.db.run(TenantScope(tenant_id), work)

    async def locate(self, flow_id: UUID) -> Location | None:
        """Tenant, cluster, namespace and name of a flow, or None. Authorise before using more."""

        async def work(session: AsyncSession) -> Location | None:
            row = (
                await session.execute(
                    text("SELECT * FROM locate_flow(CAST(:flow AS uuid))"), {"flow": flow_id}
                )
            ).one_or_none()
            return None if row is None else Location(*row)

        return await self.db.read(None, work)

    async def flow(self, tenant_id: UUID, flow_id: UUID) -> FlowSnapshot:
        """The flow. Raises NotFoundError."""
        snapshot = await self._read(tenant_id, lambda session: flow_snapshot(session, flow_id))
        if snapshot is None:
            raise NotFoundError(f"no flow {flow_id}")
        return snapshot

    async def mappings(self, tenant_id: UUID, request_id: UUID) -> list[FieldMapping]:
        """The proposed mappings of a request, in the order of the columns."""
        return await self._read(tenant_id, lambda session: proposals(session, request_id))

    async def request(self, tenant_id: UUID, request_id: UUID) -> RequestRow:
        """A request, open or decided. Raises NotFoundError."""

        async def work(session: AsyncSession) -> RequestRow:
            row = await session.scalar(
                select(ApprovalRequestRow).where(ApprovalRequestRow.id == request_id)
            )
            if row is None:
                raise NotFoundError(f"no approval request {request_id}")
            return RequestRow(
                request_id=row.id,
                flow_id=row.flow_id,
                artefact_digest=row.artefact_digest,
                state=row.state,
                decided_by=row.decided_by,
                decided_at=row.decided_at,
                reason=row.reason,
                problems=list(row.problems),
            )

        return await self._read(tenant_id, work)

    async def wait_for_decision(
        self,
        tenant_id: UUID,
        request_id: UUID,
        timeout: float,  # noqa: ASYNC109
    ) -> RequestRow:
        """The request as soon as it is decided, or as it is after `timeout` seconds."""
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            row = await self.request(tenant_id, request_id)
            if row.state != "Open" or asyncio.get_running_loop().time() >= deadline:
                return row
            await asyncio.sleep(POLL_SECONDS)

    async def attempts(self, tenant_id: UUID, flow_id: UUID) -> list[AttemptRecord]:
        """All attempts of a flow, the oldest first."""

        async def work(session: AsyncSession) -> list[AttemptRecord]:
            runs = await session.scalars(
                select(PhaseRun)
                .where(PhaseRun.flow_id == flow_id)
                .order_by(PhaseRun.created_at, PhaseRun.id)
            )
            return [
                AttemptRecord(
                    round=run.round,
                    phase=run.phase,
                    attempt=run.attempt,
                    state=run.state,
                    claimed_at=run.claimed_at,
                    finished_at=run.finished_at,
                    error_code=run.error_code,
                    error_message=run.error_message,
                    usage=run.usage,
                )
                for run in runs
            ]

        return await self._read(tenant_id, work)

    async def lessons(self, tenant_id: UUID) -> list[ApprovedMapping]:
        """What this tenant's people decided for headers, the latest first."""
        return await self._read(tenant_id, mapping_history)

    async def remove_lesson(self, tenant_id: UUID, header: str, removed_by: str) -> None:
        """Takes a lesson back. Raises NotFoundError."""
        await self._write(tenant_id, lambda session: remove_lesson(session, header, removed_by))

    async def request_purge(
        self, tenant_id: UUID, flow_id: UUID, *, by: str, inventory: bool
    ) -> retention.PurgeRecord:
        """Asks for the flow's data to go. Raises NotFoundError and IllegalTransitionError."""
        return await self._write(
            tenant_id,
            lambda session: retention.request_purge(
                session, tenant_id, flow_id, by=by, inventory=inventory
            ),
        )

    async def purges(self, tenant_id: UUID, flow_id: UUID) -> list[retention.PurgeRecord]:
        """The purges of a flow, the oldest first."""
        return await self._read(tenant_id, lambda session: retention.purges(session, flow_id))

    async def history(self, tenant_id: UUID, flow_id: UUID, after: int = 0) -> list[FlowEvent]:
        """The flow's history after a sequence number, oldest first."""
        return await self._read(tenant_id, lambda session: history(session, flow_id, after))

    async def results(self, tenant_id: UUID, flow_id: UUID) -> dict[str, dict[str, Any]]:
        """The accepted result of each phase that has one."""
        return await self._read(tenant_id, lambda session: contents.results(session, flow_id))

    async def artefacts(self, tenant_id: UUID, flow_id: UUID) -> list[contents.StoredArtefact]:
        """Artefacts of the accepted results."""
        return await self._read(tenant_id, lambda session: contents.artefacts(session, flow_id))

    async def artefact(
        self, tenant_id: UUID, flow_id: UUID, phase: str, name: str
    ) -> contents.StoredArtefact:
        """One artefact by phase and name. Raises NotFoundError."""
        return await self._read(
            tenant_id, lambda session: contents.artefact(session, flow_id, phase, name)
        )

    def read_artefact(
        self, tenant_id: UUID, artefact: contents.StoredArtefact
    ) -> AsyncIterator[bytes]:
        """An artefact's bytes, in pieces."""
        return read_chunks(self.db, TenantScope(tenant_id), artefact.artefact_id, artefact.size)

    async def asset_sources(
        self, tenant_id: UUID, engagement: str | None, identity: str
    ) -> list[assets.AssetSource]:
        """The rows that an asset is made of."""
        return await self._read(
            tenant_id,
            lambda session: assets.asset_sources(session, tenant_id, engagement, identity),
        )

    async def list_assets(
        self,
        tenant_id: UUID,
        engagement: str | None,
        *,
        search: str = "",
        asset_type: str = "",
        after: str = "",
        limit: int = 100,
    ) -> list[contents.AssetRow]:
        """Assets of an engagement in the order of their identity."""
        return await self._read(
            tenant_id,
            lambda session: contents.assets(
                session,
                engagement,
                search=search,
                asset_type=asset_type,
                after=after,
                limit=limit,
            ),
        )

    async def states(self, tenant_id: UUID, flow_ids: list[UUID]) -> list[contents.FlowState]:
        """Where these flows of a tenant stand."""
        return await self._read(tenant_id, lambda session: contents.states(session, flow_ids))

    async def known_namespaces(self) -> list[str]:
        """Names of namespaces that have or had flows. Authorise before showing any of them."""

        async def work(session: AsyncSession) -> list[str]:
            found = await session.scalars(text("SELECT known_namespaces()"))
            return list(found)

        return await self.db.read(None, work)

    async def end_sessions(self, person: str, begun: float, longest: float) -> None:
        """Ends a person's browser sessions begun by `begun` (seconds since 1970).

        `person` is a hash, and none of their sessions lasts longer than `longest` seconds.
        """
        await self.db.run(
            None, lambda session: sessions.end_sessions(session, person, begun, longest)
        )

    async def ended_sessions(self) -> dict[str, float]:
        """By person when the last of their sessions began that was ended (seconds since 1970)."""
        return await self.db.read(None, sessions.ended_sessions)

    async def offer_tenant(
        self, namespace_uid: UUID, namespace: str, cluster_id: UUID | None
    ) -> bool:
        """Makes a namespace a tenant where it is none; False where its cluster is not clear."""
        return await uploads.offer_tenant(self.db, namespace_uid, namespace, cluster_id)

    async def store_upload(
        self,
        tenant_id: UUID,
        *,
        name: str,
        media_type: str,
        uploaded_by: str,
        stream: AsyncIterator[bytes],
        max_bytes: int,
        tenant_bytes: int | None = None,
        declared: int = 1,
    ) -> uploads.Uploaded:
        """Stores a person's file. Raises DiscoveryError (LIMIT_EXCEEDED, QUOTA_EXCEEDED)."""
        return await uploads.store_upload(
            self.db,
            tenant_id,
            name=name,
            media_type=media_type,
            uploaded_by=uploaded_by,
            stream=stream,
            max_bytes=max_bytes,
            tenant_bytes=tenant_bytes,
            declared=declared,
        )

    async def analytics(self, tenant_id: UUID, engagement: str | None) -> dict[str, Any]:
        """Durations, waits, approvals, confidence, edits, tokens and failures."""
        return await self._read(tenant_id, lambda session: analytics.of(session, engagement))

    def listen(self) -> AsyncIterator[UUID | None]:
        """Ids of flows that changed; None after each (re)connection, which means: rescan."""
        return listen(self.db.url)

    async def inventory_summary(self, tenant_id: UUID, engagement: str | None) -> dict[str, Any]:
        """Number of assets of an engagement, in all and by type."""
        return await self._read(
            tenant_id, lambda session: assets.inventory_summary(session, engagement)
        )

    async def conflicts(self, tenant_id: UUID, engagement: str | None) -> list[Conflict]:
        """Fields of the engagement's assets that sources disagree on, the undecided first."""
        return await self._read(
            tenant_id, lambda session: conflicts.conflicts(session, tenant_id, engagement)
        )

    async def decide_conflict(
        self,
        tenant_id: UUID,
        engagement: str | None,
        *,
        identity: str,
        field: str,
        choice: Choice,
        decided_by: str,
    ) -> assets.Changes:
        """Decides a field. Raises NotFoundError and InvalidAnswerError."""
        return await self._write(
            tenant_id,
            lambda session: conflicts.decide_conflict(
                session,
                tenant_id,
                engagement,
                identity=identity,
                field=field,
                choice=choice,
                decided_by=decided_by,
            ),
        )

    async def undo_decision(
        self, tenant_id: UUID, engagement: str | None, *, identity: str, field: str
    ) -> assets.Changes:
        """Takes a decision back. Raises NotFoundError."""
        return await self._write(
            tenant_id,
            lambda session: conflicts.undo_decision(
                session, tenant_id, engagement, identity=identity, field=field
            ),
        )

    async def precedence(self, tenant_id: UUID, engagement: str | None) -> list[str]:
        """Names of flows in the order in which their values count."""
        return await self._read(
            tenant_id, lambda session: conflicts.precedence(session, engagement)
        )

    async def set_precedence(
        self, tenant_id: UUID, engagement: str | None, flows: list[str]
    ) -> assets.Changes:
        """Says whose values count first."""
        return await self._write(
            tenant_id,
            lambda session: conflicts.set_precedence(session, tenant_id, engagement, flows),
        )
