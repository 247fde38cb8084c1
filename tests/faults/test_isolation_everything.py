"""Two tenants with everything the same but the namespace, and no way from one to the other.

Each check is made in both directions: the tenant's own secret is found where it belongs, so that
not finding the other's means something.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
import structlog
from discovery_api.execution.app import create_app as create_execution_app
from discovery_api.execution.identity import Identifier
from discovery_api.kubernetes import client_as
from discovery_api.settings import ExecutionSettings
from discovery_core import actions as act
from discovery_core.errors import NotFoundError
from discovery_core.store import Database, ExecutionStore
from discovery_core.store.database import TenantScope
from discovery_core.store.schema import TENANT_TABLES
from prometheus_client import REGISTRY, generate_latest
from sqlalchemy import text
from structlog.testing import capture_logs

from tests.api.desk import API, serving
from tests.api.pods import crew_pod, launch
from tests.api.test_live import address, listening, until  # noqa: F401 - address is a fixture
from tests.faults.two_tenants import (
    ENGAGEMENT,
    TOKENS,
    Tenant,
    TwoNamespaces,
    rows_of,
    two_tenants,
)
from tests.postgres import Stores
from tests.store.flows import Flow

Pair = tuple[Tenant, Tenant]
TABLES = [*TENANT_TABLES, "tenants"]
# what holds nothing that a person wrote
WORDLESS = {"discovery_flows", "master_flows", "tenants", "flow_artefacts", "artefacts",
            "artefact_chunks"}  # fmt: skip


@pytest.fixture
async def pair(stores: Stores) -> Pair:
    return await two_tenants(stores)


@pytest.fixture
def kubernetes(pair: Pair) -> TwoNamespaces:
    kubernetes = TwoNamespaces()
    kubernetes.settle(*pair)
    return kubernetes


@pytest.fixture
async def client(stores: Stores, kubernetes: TwoNamespaces) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(stores, kubernetes) as client:
        yield client


def both(pair: Pair) -> Iterator[tuple[Tenant, Tenant]]:
    """Each as oneself, with the other as the stranger."""
    yield pair
    yield pair[1], pair[0]


# -- tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["owner", "operator", "execution", "api"])
async def test_a_scope_shows_its_own_rows_of_every_table(
    stores: Stores, pair: Pair, role: str
) -> None:
    readable = 0
    for own, other in both(pair):
        scope = (
            {"cluster_id": own.flow.stores.cluster_id}
            if role == "operator"
            else {"tenant_id": own.flow.tenant_id}
        )
        for table in TABLES:
            rows = rows_of(getattr(stores.urls, role), scope, table)
            if rows is None:
                continue
            readable += 1
            shown = "\n".join(rows)
            assert str(own.flow.tenant_id) in shown, table
            assert str(other.flow.tenant_id) not in shown, table
            assert other.secret not in shown, table
            assert own.secret in shown or table in WORDLESS, table
    assert readable >= 2 * 8


@pytest.mark.parametrize("role", ["operator", "execution", "api"])
async def test_no_role_writes_a_foreign_row_of_any_table(
    stores: Stores, pair: Pair, role: str
) -> None:
    """Changing or deleting finds none, and an own row cannot be given away."""
    own, other = pair
    tried = 0
    with psycopg.connect(getattr(stores.urls, role)) as connection:
        name = "cluster_id" if role == "operator" else "tenant_id"
        scope = own.flow.stores.cluster_id if role == "operator" else own.flow.tenant_id
        for table in TABLES:
            key = "id" if table == "tenants" else "tenant_id"
            for statement in (
                f"UPDATE {table} SET {key} = {key} WHERE {key} = %(other)s",
                f"DELETE FROM {table} WHERE {key} = %(other)s",
                f"UPDATE {table} SET {key} = %(other)s WHERE {key} = %(own)s",
            ):
                with connection.transaction(force_rollback=True):
                    connection.execute(
                        "SELECT set_config(%s, %s, true)", [f"discovery.{name}", str(scope)]
                    )
                    try:
                        done = connection.execute(
                            statement.encode(),
                            {"own": own.flow.tenant_id, "other": other.flow.tenant_id},
                        )
                    except (
                        psycopg.errors.InsufficientPrivilege,
                        psycopg.errors.ForeignKeyViolation,
                    ):
                        tried += 1
                        continue
                    tried += 1
                    assert done.rowcount == 0, statement
    assert tried == 3 * len(TABLES)


async def test_one_connection_serves_both_and_keeps_neither(stores: Stores, pair: Pair) -> None:
    """A pool of one, also after a transaction that failed."""
    database = Database(stores.urls.api, application_name="one", pool_size=1)

    async def names(scope: TenantScope | None) -> set[str]:
        async with database.transaction(scope) as session:
            found = await session.scalars(text("SELECT tenant_id::text FROM discovery_flows"))
            return set(found)

    async def fails(scope: TenantScope) -> None:
        async with database.transaction(scope) as session:
            await session.execute(text("SELECT 1"))
            raise ZeroDivisionError

    for own, _ in (*both(pair), *both(pair)):
        scope = TenantScope(own.flow.tenant_id)
        assert await names(scope) == {str(own.flow.tenant_id)}
        assert await names(None) == set()
        with pytest.raises(ZeroDivisionError):
            await fails(scope)
        assert await names(None) == set()
    await database.close()


# -- the API for people ----------------------------------------------------------------------------


ANSWER = {"requestId": str(uuid4()), "artefactDigest": "sha256:" + "0" * 64}
BODIES: dict[str, dict[str, Any]] = {
    "/rerun": {"fromPhase": "data_import"},
    "/approve-mappings": {**ANSWER, "mappings": []},
    "/conflicts": {"identity": "a", "field": "b", "choice": "keep"},
    "/source-precedence": {"flows": []},
}
QUERIES = {"/conflicts": {"identity": "a", "field": "b"}, "/lessons": {"header": "a"},
           "/assets/sources": {"identity": "x"}}  # fmt: skip


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Every operation of the document but streams, which have no end."""
    for path, methods in document["paths"].items():
        for method in methods:
            if not path.endswith("/events"):
                yield method, path


async def test_no_route_gives_a_neighbour_anything(client: httpx.AsyncClient, pair: Pair) -> None:
    """Every operation of the document, on the other's flow, by somebody who has rights at home."""
    document = (await client.get("/api/v1/openapi.json")).json()
    tried = 0
    for own, other in both(pair):
        for method, path in operations(document):
            if "{flow_id}" not in path:
                continue
            ending = path.removeprefix("/api/v1/discovery/flows/{flow_id}")
            answers = []
            for flow_id in (other.flow.flow_id, uuid4()):
                where = path.format(flow_id=flow_id, phase="data_import", name="records")
                body = BODIES.get(ending, ANSWER if method == "post" else None)
                answer = await client.request(
                    method, where, json=body, params=QUERIES.get(ending), headers=TOKENS[own.word]
                )
                assert answer.status_code == 404, (method, path, answer.text)
                assert other.secret not in answer.text
                assert other.namespace not in answer.text
                answers.append(answer.text.replace(str(flow_id), "…"))
            assert answers[0] == answers[1], "a hidden flow looks different from one that is not"
            tried += 1
    assert tried >= 40


async def test_every_route_of_ones_own_flow_is_free_of_the_neighbour(
    client: httpx.AsyncClient, pair: Pair
) -> None:
    """Merged, counted and listed things too: nothing of another tenant has flown in."""
    document = (await client.get("/api/v1/openapi.json")).json()
    for own, other in both(pair):
        shown = ""
        for method, path in operations(document):
            if method != "get":
                continue
            ending = path.removeprefix("/api/v1/discovery/flows/{flow_id}")
            query = {"namespace": own.namespace, "engagement": ENGAGEMENT}
            if "{flow_id}" in path:
                query = QUERIES.get(ending, {})
            answer = await client.get(
                path.format(flow_id=own.flow.flow_id, phase="data_import", name="records"),
                params=query,
                headers=TOKENS[own.word],
            )
            assert answer.status_code < 500, (path, answer.text)
            shown += answer.text
            assert other.secret not in answer.text, path
            assert other.namespace not in answer.text, path
        assert shown.count(own.secret) > 10
        for path in ("/flows", "/analytics", "/overview", "/flows?limit=1"):
            foreign = await client.get(
                f"{API}{path}", params={"namespace": other.namespace}, headers=TOKENS[own.word]
            )
            assert other.secret not in foreign.text, path


async def test_pages_show_nothing_of_the_neighbour(
    client: httpx.AsyncClient, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = ["", "/live", "/review", "/quality", "/rejected", "/inventory", "/dependencies",
             "/history", "/files", "/inventory/asset?identity=x"]  # fmt: skip
    for own, other in both(pair):
        client.cookies.clear()
        token = TOKENS[own.word]["Authorization"].removeprefix("Bearer ")
        assert (await client.post("/sign-in", data={"token": token})).status_code == 303
        seen = ""
        for page in pages:
            foreign = await client.get(f"/flows/{other.flow.flow_id}{page}")
            assert foreign.status_code == 404, page
            mine = await client.get(f"/flows/{own.flow.flow_id}{page}")
            assert mine.status_code < 500, (page, mine.text)
            for answer in (foreign, mine):
                assert other.secret not in answer.text, page
                assert other.namespace not in answer.text, page
            seen += mine.text
        for page in ("/", "/flows", "/analytics", "/overview"):
            answer = await client.get(page)
            assert other.secret not in answer.text, page
        assert own.secret in seen


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discovery_api.routes.live.RECHECK_SECONDS", 0.2)


async def test_streams_tell_of_ones_own_flows_only(
    address: str,  # noqa: F811
    pair: Pair,
) -> None:
    own, other = pair
    paths = [f"{API}/flows/{own.flow.flow_id}/events", f"{API}/events?namespace={own.namespace}"]
    for path in paths:
        async with listening(address, path, TOKENS[own.word]) as stream:
            await until(lambda: stream.messages, "the beginning")
            before = len(stream.messages)
            for tenant in pair:
                await tenant.flow.stores.operator.apply(
                    tenant.flow.flow_id, act.Note(f"{tenant.secret} {path}")
                )
            await until(lambda: len(stream.messages) > before, "what has moved")  # noqa: B023
            told = json.dumps(stream.messages)
        assert str(other.flow.flow_id) not in told
        assert other.secret not in told
        assert str(own.flow.flow_id) in told or own.secret in told
    async with httpx.AsyncClient(base_url=address) as client:
        foreign = f"{API}/flows/{other.flow.flow_id}/events"
        assert (await client.get(foreign, headers=TOKENS[own.word])).status_code == 404
        elsewhere = f"{API}/events?namespace={other.namespace}"
        assert (await client.get(elsewhere, headers=TOKENS[own.word])).status_code == 403


async def test_a_stream_ends_where_the_namespace_was_made_anew(
    address: str,  # noqa: F811
    pair: Pair,
    kubernetes: TwoNamespaces,
    short: None,
) -> None:
    """The same name, another uid: the flow there is somebody else's."""
    own, _ = pair
    path = f"{API}/flows/{own.flow.flow_id}/events"
    async with listening(address, path, TOKENS[own.word]) as stream:
        await until(lambda: stream.messages, "the beginning")
        kubernetes.resources[0]["metadata"]["uid"] = str(uuid4())
        await own.flow.stores.operator.apply(own.flow.flow_id, act.Note("wake up"))
        await until(lambda: stream.messages[-1]["event"] == "gone", "the end")


# -- the API for pods ------------------------------------------------------------------------------


@pytest.fixture
async def pods(stores: Stores, kubernetes: TwoNamespaces) -> AsyncIterator[httpx.AsyncClient]:
    settings = ExecutionSettings(
        host="127.0.0.1",
        database_url=stores.urls.execution,
        kubernetes_url=await kubernetes.start(),
        identity_cache_seconds=0,
    )
    kube = client_as(settings, "own-token")
    app = create_execution_app(stores.execution.db, settings, Identifier(kube, 0))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://execution") as client:
        yield client
    await kube.close()
    await kubernetes.stop()


async def test_a_foreign_pod_gets_nothing_from_any_route(
    pods: httpx.AsyncClient, stores: Stores, pair: Pair, kubernetes: TwoNamespaces
) -> None:
    """A pod with an attempt of its own, that knows the other's fence, digests and flow."""
    own, other = pair
    intruder = Flow(own.flow.stores, tenant_id=own.flow.tenant_id, namespace=own.namespace)
    await intruder.queue()
    await launch(intruder, kubernetes, token="intruder")
    kubernetes.namespaces["migration"] = str(own.flow.tenant_id)
    headers = {"Authorization": "Bearer intruder"}
    claimed = await pods.post("/execution/v1/claim", json={}, headers=headers)
    assert claimed.status_code == 200, claimed.text
    fence = claimed.json()["fence"]
    victim = other.old_pods[-1]
    document = (await pods.get("/execution/v1/openapi.json")).json()
    paths = {path for path in document["paths"] if path.startswith("/execution/v1/")}
    tried = set()
    for guess in {fence, victim.claim.fence, 1, 2, 3}:
        for digest in other.digests:
            path = "/execution/v1/artefacts/{digest}"
            tried.add(path)
            answer = await pods.get(
                path.format(digest=digest), params={"fence": guess}, headers=headers
            )
            assert answer.status_code in (404, 409), answer.text
            assert other.secret not in answer.text
        for path, body in (
            ("/execution/v1/heartbeat", {"fence": guess}),
            ("/execution/v1/inputs", {"fence": guess, "source": other.digests[0]}),
            ("/execution/v1/engagement", {"fence": guess}),
            ("/execution/v1/fail", {"fence": guess, "code": "Crashed", "message": "x"}),
            ("/execution/v1/complete", {
                "fence": guess,
                "result": {"kind": "data_import", "rowsImported": 1, "rowsRejected": 0,
                           "columns": ["a"], "format": "csv"},
                "artefacts": {"records": other.digests[1]},
            }),
        ):  # fmt: skip
            tried.add(path)
            if guess == fence and path in ("/execution/v1/heartbeat", "/execution/v1/fail"):
                continue
            answer = await pods.post(path, json=body, headers=headers)
            assert answer.status_code in (404, 409, 422), (path, answer.text)
            assert other.secret not in answer.text
        for path in ("/execution/v1/artefacts", "/execution/v1/records"):
            tried.add(path)
            if guess != fence:
                answer = await pods.put(path, params={"fence": guess}, content=b"", headers=headers)
                assert answer.status_code == 409, (path, answer.text)
    tried.add("/execution/v1/claim")
    assert tried == paths
    assert str((await other.flow.load()).state) == "Succeeded"


async def test_a_used_attempts_token_is_worth_nothing_more(
    pods: httpx.AsyncClient, pair: Pair, kubernetes: TwoNamespaces
) -> None:
    """A pod whose attempt has ended, and whose token is still good."""
    own, _ = pair
    failed = own.old_pods[0]
    flow = own.flow
    (job, uid) = f"{flow.flow_id}-data_import-1-1", f"uid-{flow.flow_id}-data_import-1-1"
    crew_pod(kubernetes, "used", flow, job, uid, failed.pod_uid)
    kubernetes.namespaces["migration"] = str(flow.tenant_id)
    headers = {"Authorization": "Bearer used"}
    assert (await pods.post("/execution/v1/claim", json={}, headers=headers)).status_code == 409
    for digest in own.digests:
        answer = await pods.get(
            f"/execution/v1/artefacts/{digest}",
            params={"fence": failed.claim.fence},
            headers=headers,
        )
        assert answer.status_code == 409
        assert own.secret not in answer.text


async def test_a_namespace_that_was_made_anew_inherits_nothing(
    pods: httpx.AsyncClient, stores: Stores, pair: Pair, kubernetes: TwoNamespaces
) -> None:
    """The same name and another uid: a new tenant, for pods, uploads and lessons."""
    own, _ = pair
    spec: dict[str, object] = {"source": {"artefact": {"digest": own.digests[0], "name": "x.csv"}}}
    anew = Flow(own.flow.stores, namespace=own.namespace, spec=spec)
    await anew.register()
    assert (await anew.load()).upload_missing
    assert await stores.api.lessons(anew.tenant_id) == []
    assert await stores.api.lessons(own.flow.tenant_id) != []
    assert await stores.api.list_assets(anew.tenant_id, ENGAGEMENT) == []
    with pytest.raises(NotFoundError):
        await stores.api.flow(anew.tenant_id, own.flow.flow_id)
    job = own.old_pods[-1].claim
    stranger = Flow(own.flow.stores, tenant_id=anew.tenant_id, flow_id=own.flow.flow_id)
    name = f"{own.flow.flow_id}-{job.phase}-1-{job.attempt}"
    crew_pod(kubernetes, "anew", stranger, name, f"uid-{name}", own.old_pods[-1].pod_uid)
    kubernetes.namespaces["migration"] = str(anew.tenant_id)
    headers = {"Authorization": "Bearer anew"}
    answer = await pods.post("/execution/v1/claim", json={}, headers=headers)
    assert answer.status_code == 403
    assert own.secret not in answer.text
    execution = ExecutionStore(stores.execution.db)
    with pytest.raises(NotFoundError):
        await execution.claim(
            tenant_id=anew.tenant_id,
            flow_id=own.flow.flow_id,
            job_name=name,
            job_uid=f"uid-{name}",
            pod_uid="x",
            pod_name="x",
        )


# -- what is told outside --------------------------------------------------------------------------


async def test_logs_and_metrics_hold_no_data_of_anybody(
    stores: Stores, kubernetes: TwoNamespaces, client: httpx.AsyncClient, pair: Pair
) -> None:
    """They name flows, tenants and namespaces; columns, cells and hosts are nobody's to log."""
    structlog.reset_defaults()
    with capture_logs() as lines:
        fresh = await two_tenants(stores)
        for own, other in both(pair):
            for path in ("", "/history", "/assets", "/lessons", "/artefacts/data_import/records"):
                await client.get(f"{API}/flows/{own.flow.flow_id}{path}", headers=TOKENS[own.word])
                await client.get(
                    f"{API}/flows/{other.flow.flow_id}{path}", headers=TOKENS[own.word]
                )
    assert lines
    told = json.dumps(lines, default=str) + generate_latest(REGISTRY).decode()
    for tenant in (*pair, *fresh):
        assert tenant.secret not in told
    tenants = {(line.get("tenant"), line.get("user")) for line in lines if line.get("tenant")}
    people = {str(t.flow.tenant_id): user for t, user in zip(pair, ("ann", "bob"), strict=True)}
    assert all(people[str(tenant)] == user for tenant, user in tenants if user), tenants
