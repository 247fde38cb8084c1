"""Two tenants that have everything the same but the namespace, and a secret word in every value."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from uuid import uuid4

import psycopg
from aiohttp import web
from discovery_core import actions as act
from discovery_core.errors import ErrorCode
from discovery_core.phases import Phase
from discovery_core.store import OperatorStore
from discovery_core.store.database import database_url
from discovery_core.wire.protocol import Fail, PinInputs
from discovery_core.wire.results import FieldMapping, InventoryRecord, MappingResult
from sqlalchemy import create_engine, text

from tests.api.kubernetes import FakeKubernetes, status
from tests.postgres import Stores
from tests.store.flows import RESULTS, SPEC, Flow, Pod, inventory_rows

ENGAGEMENT = "dc-exit"
PEOPLE = {"alpha": "ann", "beta": "bob"}
TOKENS = {name: {"Authorization": f"Bearer token-{user}"} for name, user in PEOPLE.items()}


@dataclass
class Tenant:
    """One of the two: `word` is in its columns, cells, hosts, reasons and file contents."""

    word: str
    flow: Flow
    old_pods: list[Pod] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)

    @property
    def secret(self) -> str:
        """What nobody else may ever read."""
        return f"{self.word}-secret"

    @property
    def namespace(self) -> str:
        """The namespace's name."""
        return self.flow.namespace

    async def rows(self) -> AsyncIterator[InventoryRecord]:
        """Inventory rows whose every text has the secret."""
        async for row in inventory_rows(3, prefix=f"{self.secret}-host"):
            yield row.model_copy(update={"unmapped": {"Notes": f"{self.secret} cell"}})

    async def work(self) -> Pod:
        """The current phase, by a crew that leaves the secret everywhere."""
        await self.flow.start()
        pod = await self.flow.claim()
        phase = pod.claim.phase
        if phase is Phase.DATA_IMPORT:
            source = await pod.upload(f"name\n{self.secret} source\n".encode())
            self.digests.append(source)
            await self.flow.stores.execution.pin_inputs(
                tenant_id=pod.tenant_id,
                pod_uid=pod.pod_uid,
                pin=PinInputs(fence=pod.claim.fence, source=source),
            )
        if phase is Phase.ASSET_INVENTORY:
            await pod.stage(self.rows())
        artefacts = {
            name: await pod.upload((body or f"{self.secret} {phase} {name}").encode())
            for name, body in FILES.get(phase, {}).items()
        }
        self.digests += artefacts.values()
        result = self.mappings() if phase is Phase.FIELD_MAPPING else RESULTS[phase]
        await pod.complete(result, **artefacts)
        self.old_pods.append(pod)
        return pod

    def mappings(self) -> MappingResult:
        """Columns of the same shape as the other tenant's."""
        columns = {"Name": "hostname", "RAM": "memory_gb", "Notes": None}
        return MappingResult(
            mappings=[
                FieldMapping(
                    column=f"{self.secret} {name}",
                    target=target,
                    confidence=0.9,
                    reason=f"{self.secret} reason",
                    samples=[f"{self.secret} sample"],
                )
                for name, target in columns.items()
            ],
            targets=["hostname", "memory_gb", "owner"],
        )

    async def live(self) -> None:
        """From the beginning to the end, with one failure on the way."""
        await self.flow.queue()
        run_id = await self.flow.start()
        pod = await self.flow.claim()
        await self.flow.stores.execution.fail(
            tenant_id=pod.tenant_id,
            pod_uid=pod.pod_uid,
            message=Fail(
                fence=pod.claim.fence, code=ErrorCode.CRASHED, message=f"{self.secret} failure"
            ),
        )
        self.old_pods.append(pod)
        failure = act.FailAttempt(run_id, ErrorCode.CRASHED, f"{self.secret} failure", 0)
        await self.flow.stores.operator.apply(self.flow.flow_id, failure)
        for _ in range(3):
            await self.work()
        await self.flow.answer(by=PEOPLE[self.word], reason=f"{self.secret} why")
        for _ in range(3):
            await self.work()
        self._more_rows()

    def _more_rows(self) -> None:
        """Rows of the tables that no phase fills."""
        engine = create_engine(database_url(self.flow.stores.urls.superuser))
        given = {"tenant": self.flow.tenant_id, "word": self.secret, "engagement": ENGAGEMENT,
                 "flow": self.flow.flow_id}  # fmt: skip
        with engine.begin() as connection:
            for statement in MORE_ROWS.split(";"):
                connection.execute(text(statement), given)
        engine.dispose()


FILES: dict[Phase, dict[str, str]] = {
    Phase.DATA_IMPORT: {"records": "", "profile": "[]", "rejected": ""},
    Phase.DATA_CLEANSING: {"records": "", "profile": "[]"},
    Phase.ASSET_INVENTORY: {"inventory": ""},
    Phase.DEPENDENCY_ANALYSIS: {"dependencies": ""},
}

MORE_ROWS = """
    INSERT INTO asset_decisions (tenant_id, engagement, identity, field, choice, value, decided_by)
    VALUES (:tenant, :engagement, 'x', 'owner', 'keep', to_jsonb(CAST(:word AS text)), 'ann');
    INSERT INTO asset_aliases (tenant_id, engagement, identity, asset, strength)
    VALUES (:tenant, :engagement, 'name:x', :word, 2);
    INSERT INTO identity_decisions (tenant_id, engagement, key, machines, choice, decided_by)
    VALUES (:tenant, :engagement, :word, '[]', 'same', 'ann');
    INSERT INTO uploads (tenant_id, id, name, uploaded_by, expires_at)
    VALUES (:tenant, gen_random_uuid(), :word, 'ann', now() + interval '1 day');
    INSERT INTO source_precedence (tenant_id, engagement, flow, position)
    VALUES (:tenant, :engagement, :word, 0);
    INSERT INTO notifications (tenant_id, flow_id, sequence, kind, problem)
    VALUES (:tenant, :flow, 1, 'other', :word);
    INSERT INTO circuit_breakers (tenant_id, endpoint)
    VALUES (:tenant, :word);
    INSERT INTO purges (tenant_id, flow_id, flow_name, requested_by)
    VALUES (:tenant, :flow, :word, 'ann')
"""


async def two_tenants(stores: Stores) -> tuple[Tenant, Tenant]:
    """Both with a finished flow of the same name and engagement, in clusters of their own."""
    pair = []
    for word in PEOPLE:
        operator = OperatorStore(stores.operator.db, uuid4())
        assert await operator.acquire_leadership(word, ttl=600)
        own = replace(stores, operator=operator, cluster_id=operator.cluster_id)
        spec: dict[str, object] = SPEC | {"engagement": ENGAGEMENT}
        tenant = Tenant(word, Flow(own, spec=spec, namespace=f"team-{word}"))
        await tenant.live()
        pair.append(tenant)
    return pair[0], pair[1]


def rows_of(url: str, settings: Mapping[str, object], table: str) -> list[str] | None:
    """Rows of a table as texts, within a scope; None where the role may not read it."""
    with psycopg.connect(url) as connection:
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, true)", [f"discovery.{name}", str(value)])
        try:
            return [str(row) for (row,) in connection.execute(f"SELECT t FROM {table} t".encode())]
        except psycopg.errors.InsufficientPrivilege:
            return None


class TwoNamespaces(FakeKubernetes):
    """Ann sees the one, Bob the other; both may do everything there and nothing elsewhere."""

    def settle(self, *tenants: Tenant) -> None:
        """Knows the flows of these tenants."""
        for tenant in tenants:
            flow = tenant.flow
            self.namespaces[tenant.namespace] = str(flow.tenant_id)
            self.resources.append(
                {
                    "metadata": {
                        "uid": str(flow.flow_id),
                        "name": flow.name,
                        "namespace": tenant.namespace,
                        "creationTimestamp": "2026-01-01T00:00:00Z",
                    },
                    "spec": {"engagement": ENGAGEMENT},
                    "status": {"state": "Succeeded", "message": f"{tenant.secret} status"},
                }
            )

    def _owns(self, request: web.Request, namespace: str | None) -> bool:
        user = self._user(request)
        words = [word for word, person in PEOPLE.items() if person == user]
        return namespace in [f"team-{word}" for word in words]

    def _refuse(self, request: web.Request) -> web.Response:
        return status(403, f"{self._user(request)} may not do that here")

    async def _get_flow(self, request: web.Request) -> web.Response:
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        if not self._owns(request, namespace):
            return self._refuse(request)
        for item in self.resources:
            if (item["metadata"]["namespace"], item["metadata"]["name"]) == (namespace, name):
                return web.json_response(item)
        return status(404, "not found")

    async def _patch_flow(self, request: web.Request) -> web.Response:
        if not self._owns(request, request.match_info["namespace"]):
            return self._refuse(request)
        self.changes.append({"path": request.path})
        return await self._get_flow(request)

    async def _list_flows(self, request: web.Request) -> web.Response:
        namespace = request.match_info.get("namespace")
        if not self._owns(request, namespace):
            return self._refuse(request)
        items = [item for item in self.resources if item["metadata"]["namespace"] == namespace]
        return web.json_response({"items": items, "metadata": {}})

    async def _create_flow(self, request: web.Request) -> web.Response:
        if not self._owns(request, request.match_info["namespace"]):
            return self._refuse(request)
        return await super()._create_flow(request)

    async def _get_namespace(self, request: web.Request) -> web.Response:
        # the execution API asks in its own name
        service = request.headers.get("Authorization") == "Bearer own-token"
        if not service and not self._owns(request, request.match_info["namespace"]):
            return self._refuse(request)
        return await super()._get_namespace(request)

    async def _may_approve(self, request: web.Request) -> web.Response:
        asked = (await request.json())["spec"]["resourceAttributes"]
        allowed = self._owns(request, asked.get("namespace"))
        return web.json_response({"spec": {}, "status": {"allowed": allowed}})
