"""Lists of flows, uploads, new flows, and changes to them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from discovery_core import actions as act
from discovery_core.resource import DiscoveryFlowSpec
from discovery_core.resource_gate import Rerun
from discovery_core.store.database import database_url
from sqlalchemy import create_engine, text

from tests.api.desk import ANN, API, BOB, EVE, resource, serving, url
from tests.api.kubernetes import FakeKubernetes
from tests.postgres import Stores
from tests.store.flows import Flow, digest_of

FILE = b"name,ram\nweb01,16\n"


@pytest.fixture
def kubernetes() -> FakeKubernetes:
    return FakeKubernetes(namespaces={"migration": str(uuid4())})


@pytest.fixture
async def client(stores: Stores, kubernetes: FakeKubernetes) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(stores, kubernetes, max_upload_bytes=3_000_000) as client:
        yield client


def rows(stores: Stores, table: str) -> int:
    engine = create_engine(database_url(stores.urls.superuser))
    with engine.connect() as connection:
        count = connection.scalar(text(f"SELECT count(*) FROM {table}"))
    engine.dispose()
    return int(count or 0)


def form(**fields: str) -> dict[str, Any]:
    """Fields first, the file last."""
    parts = [(name, (None, value)) for name, value in fields.items()]
    return {"files": [*parts, ("file", ("Server List.csv", FILE, "text/csv"))]}


async def test_a_file_becomes_a_flow_that_reads_it(
    client: httpx.AsyncClient, kubernetes: FakeKubernetes, stores: Stores
) -> None:
    made = await client.post(
        f"{API}/flows",
        headers=ANN,
        **form(namespace="migration", engagement="dc", spec='{"phaseTimeout": "5m"}'),
    )
    assert made.status_code == 201, made.text
    (body,) = kubernetes.resources
    assert made.headers["Location"] == f"{API}/flows/{made.json()['flow_id']}"
    assert made.json()["name"].startswith("server-list-")
    spec = body["spec"]
    assert spec["source"] == {
        "artefact": {"digest": digest_of(FILE), "name": "Server List.csv"},
        "format": "auto",
    }
    assert (spec["requestedBy"], spec["engagement"]) == ("ann", "dc")
    assert spec["phaseTimeout"] == "5m"

    flow = Flow(
        stores,
        spec=DiscoveryFlowSpec.model_validate(spec).model_dump(by_alias=True, exclude_none=True),
        tenant_id=UUID(kubernetes.namespaces["migration"]),
    )
    await flow.queue()
    assert not (await flow.load()).upload_missing
    await flow.start()
    pod = await flow.claim()
    assert pod.claim.source_path is None
    assert pod.claim.uploaded is not None
    assert pod.claim.source_name == "Server List.csv"
    data = b""
    async for piece in stores.execution.read_artefact(
        tenant_id=flow.tenant_id,
        pod_uid=pod.pod_uid,
        fence=pod.claim.fence,
        digest=pod.claim.uploaded.digest,
    ):
        data += piece
    assert data == FILE


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_a_form_may_arrive_in_any_pieces(
    client: httpx.AsyncClient, kubernetes: FakeKubernetes, size: int
) -> None:
    made = httpx.Request("POST", "http://api", **form(namespace="migration", engagement="dc"))
    body = made.read()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    headers = ANN | {"Content-Type": made.headers["Content-Type"]}
    sent = await client.post(f"{API}/flows", content=pieces(), headers=headers)
    assert sent.status_code == 201, sent.text
    (resource,) = kubernetes.resources
    assert resource["spec"]["engagement"] == "dc"
    assert resource["spec"]["source"]["artefact"]["digest"] == digest_of(FILE)


async def test_an_upload_stays_as_long_as_it_is_needed(
    client: httpx.AsyncClient, kubernetes: FakeKubernetes, stores: Stores
) -> None:
    where = {"namespace": "migration", "name": "a.csv"}
    sent = await client.post(f"{API}/uploads", params=where, content=FILE, headers=ANN)
    assert sent.status_code == 201, sent.text
    assert sent.json()["digest"] == digest_of(FILE)
    await stores.operator.collect_garbage()
    assert rows(stores, "artefacts") == 1
    spec: dict[str, object] = {"source": {"artefact": {"digest": digest_of(FILE), "name": "a.csv"}}}
    flow = Flow(stores, spec=spec, tenant_id=UUID(kubernetes.namespaces["migration"]))
    await flow.queue()
    engine = create_engine(database_url(stores.urls.superuser))
    with engine.begin() as connection:
        connection.execute(text("UPDATE uploads SET expires_at = now()"))
    engine.dispose()
    await stores.operator.collect_garbage()
    assert (rows(stores, "artefacts"), rows(stores, "uploads")) == (1, 0)
    await stores.operator.apply(flow.flow_id, act.Cancel())
    await stores.operator.collect_garbage()
    assert rows(stores, "artefacts") == 0


async def test_a_flow_without_its_upload_says_so(stores: Stores) -> None:
    spec: dict[str, object] = {
        "source": {"artefact": {"digest": digest_of(b"gone"), "name": "a.csv"}}
    }
    flow = Flow(stores, spec=spec)
    await flow.queue()
    assert (await flow.load()).upload_missing


async def test_an_upload_that_is_too_large_leaves_nothing(
    client: httpx.AsyncClient, stores: Stores
) -> None:
    where = {"namespace": "migration", "name": "a.csv"}
    big = b"x" * 3_000_001
    sent = await client.post(f"{API}/uploads", params=where, content=big, headers=ANN)
    assert sent.status_code == 413, sent.text
    assert sent.json()["code"] == "LimitExceeded"
    assert [rows(stores, name) for name in ("uploads", "artefacts", "artefact_chunks")] == [0, 0, 0]


async def test_an_upload_that_breaks_off_leaves_nothing(
    client: httpx.AsyncClient, stores: Stores
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="namespace"\r\n\r\nmigration\r\n'
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
        yield b"x" * 2_500_000

    headers = ANN | {"Content-Type": "multipart/form-data; boundary=b"}
    sent = await client.post(f"{API}/flows", content=broken(), headers=headers)
    assert sent.status_code == 400, sent.text
    assert "breaks off" in sent.json()["detail"]
    assert [rows(stores, name) for name in ("uploads", "artefacts", "artefact_chunks")] == [0, 0, 0]


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({}, 422, "send the field `namespace` before the file"),
        ({"namespace": "Migration"}, 422, "namespace"),
        ({"namespace": "elsewhere"}, 404, "not-found"),
        ({"namespace": "migration", "spec": "no"}, 422, "spec is not JSON"),
        ({"namespace": "migration", "spec": '{"source": {}}'}, 422, "without source"),
    ],
)
async def test_bad_forms_are_refused_in_words(
    client: httpx.AsyncClient, stores: Stores, fields: dict[str, str], code: int, says: str
) -> None:
    made = await client.post(f"{API}/flows", headers=ANN, **form(**fields))
    assert made.status_code == code, made.text
    assert says in made.text
    assert rows(stores, "uploads") == 0


async def test_a_form_without_a_file_and_a_body_that_is_no_form(client: httpx.AsyncClient) -> None:
    only: dict[str, Any] = {"files": [("namespace", (None, "migration"))]}
    assert (await client.post(f"{API}/flows", headers=ANN, **only)).status_code == 422
    assert (await client.post(f"{API}/flows", headers=ANN, json={})).status_code == 415


async def test_who_may_not_create_is_told_before_a_byte_is_kept(
    client: httpx.AsyncClient, stores: Stores
) -> None:
    made = await client.post(f"{API}/flows", headers=BOB, **form(namespace="migration"))
    assert made.status_code == 403
    assert "bob may not create DiscoveryFlows in namespace migration" in made.json()["detail"]
    assert rows(stores, "uploads") == 0


async def test_the_same_key_makes_one_flow(
    client: httpx.AsyncClient, kubernetes: FakeKubernetes
) -> None:
    headers = ANN | {"Idempotency-Key": "k1"}
    first = await client.post(f"{API}/flows", headers=headers, **form(namespace="migration"))
    again = await client.post(f"{API}/flows", headers=headers, **form(namespace="migration"))
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert len(kubernetes.resources) == 1
    other = form(namespace="migration")
    other["files"][-1] = ("file", ("Server List.csv", b"x", "text/csv"))
    reused = await client.post(f"{API}/flows", headers=headers, **other)
    assert reused.status_code == 422
    assert reused.json()["type"].endswith("idempotency-key-reused")


async def test_two_clusters_need_to_be_told_apart(
    client: httpx.AsyncClient, stores: Stores
) -> None:
    engine = create_engine(database_url(stores.urls.superuser))
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO clusters (id) VALUES (gen_random_uuid())"))
    engine.dispose()
    made = await client.post(f"{API}/flows", headers=ANN, **form(namespace="migration"))
    assert made.status_code == 503
    assert "api.clusterId" in made.json()["detail"]


async def test_lists_show_what_kubernetes_shows(
    client: httpx.AsyncClient, kubernetes: FakeKubernetes, stores: Stores
) -> None:
    flows = [Flow(stores, name=f"f{number}") for number in range(3)]
    for flow in flows:
        await flow.register()
    waiting = {"requestId": str(uuid4()), "expiresAt": "2030-01-01T00:00:00Z", "mappings": 3}
    kubernetes.resources = [
        resource(flows[0]),
        resource(flows[1], state="AwaitingApproval", approvalRequest=waiting),
        resource(flows[2], namespace="other"),
    ]
    kubernetes.cluster_viewers = {"ann"}
    everything = (await client.get(f"{API}/flows", headers=ANN)).json()
    assert [item["name"] for item in everything["items"]] == ["f0", "f1", "f2"]
    assert everything["next_cursor"] is None
    page = (await client.get(f"{API}/flows?limit=2", headers=ANN)).json()
    rest = await client.get(f"{API}/flows?limit=2&cursor={page['next_cursor']}", headers=ANN)
    assert [item["name"] for item in rest.json()["items"]] == ["f2"]
    asked = (await client.get(f"{API}/flows?state=AwaitingApproval", headers=ANN)).json()["items"]
    assert [item["approval_request"] for item in asked] == [waiting]
    # bob may list in namespaces, but not everywhere: those with flows are asked one by one
    his = (await client.get(f"{API}/flows", headers=BOB)).json()["items"]
    assert {item["name"] for item in his} == {"f0", "f1"}
    assert (await client.get(f"{API}/flows", headers=EVE)).json()["items"] == []
    assert (await client.get(f"{API}/flows?namespace=migration", headers=EVE)).status_code == 403
    assert (await client.get(f"{API}/flows")).status_code == 401
    odd = await client.get(f"{API}/flows?engagement=a,b", headers=ANN)
    assert odd.status_code == 422


async def test_the_overview_is_for_who_may_see_all(
    client: httpx.AsyncClient, kubernetes: FakeKubernetes, stores: Stores
) -> None:
    flow = Flow(stores)
    kubernetes.resources = [resource(flow, state="Failed")]
    kubernetes.cluster_viewers = {"ann"}
    seen = (await client.get(f"{API}/overview", headers=ANN)).json()
    assert (seen["flows"], seen["by_state"]) == (1, {"Failed": 1})
    assert [item["name"] for item in seen["stalled"]] == ["servers"]
    assert (await client.get(f"{API}/overview", headers=BOB)).status_code == 403


async def test_who_am_i(client: httpx.AsyncClient) -> None:
    assert (await client.get(f"{API}/me", headers=ANN)).json() == {
        "user": "ann",
        "groups": ["team"],
    }


@pytest.mark.parametrize(
    ("action", "change"),
    [("suspend", "Suspend"), ("resume", "Run"), ("cancel", "Cancel")],
)
async def test_states_are_written_in_the_callers_name(
    client: httpx.AsyncClient,
    kubernetes: FakeKubernetes,
    stores: Stores,
    action: str,
    change: str,
) -> None:
    flow = Flow(stores)
    await flow.register()
    kubernetes.flow_uid = str(flow.flow_id)
    done = await client.post(url(flow, f"/{action}"), headers=ANN)
    assert done.status_code == 200, done.text
    assert kubernetes.changes == [{"op": "add", "path": "/spec/state", "value": change}]
    again = await client.post(url(flow, f"/{action}"), headers=ANN)
    assert (again.status_code, again.json()) == (200, done.json())
    assert len(kubernetes.changes) == 1
    refused = await client.post(url(flow, f"/{action}"), headers=BOB)
    assert refused.status_code == 403
    assert (await client.post(url(flow, f"/{action}"), headers=EVE)).status_code == 404


async def test_a_rerun_has_the_callers_key_as_its_id(
    client: httpx.AsyncClient, kubernetes: FakeKubernetes, stores: Stores
) -> None:
    flow = Flow(stores)
    await flow.register()
    kubernetes.flow_uid = str(flow.flow_id)
    wanted = {"fromPhase": "field_mapping", "hint": "Name -> hostname"}
    headers = ANN | {"Idempotency-Key": "again-1"}
    done = await client.post(url(flow, "/rerun"), json=wanted, headers=headers)
    assert done.status_code == 200, done.text
    assert kubernetes.changes[0]["value"] == wanted | {"id": "again-1"}
    bad = await client.post(url(flow, "/rerun"), json={"fromPhase": "lunch"}, headers=ANN)
    assert bad.status_code == 422, bad.text
    assert "asset_inventory" in json.dumps(bad.json())


async def test_a_rerun_that_is_asked_for_twice_begins_one_round(
    client: httpx.AsyncClient, kubernetes: FakeKubernetes, stores: Stores
) -> None:
    flow = Flow(stores)
    await flow.to_gate()
    await flow.answer()
    await flow.finish()
    kubernetes.flow_uid = str(flow.flow_id)

    async def ask(key: str) -> tuple[int, str]:
        """Asks, and has the operator follow what is then in the resource."""
        done = await client.post(
            url(flow, "/rerun"),
            json={"fromPhase": "asset_inventory"},
            headers=ANN | {"Idempotency-Key": key},
        )
        assert done.status_code == 200, done.text
        wanted = Rerun.model_validate(kubernetes.spec["rerun"])
        await stores.operator.apply(flow.flow_id, act.StartRound(wanted))
        now = await flow.load()
        return now.round, str(now.state)

    assert await ask("again-1") == (2, "Queued")
    assert await ask("again-1") == (2, "Queued")
    await flow.finish()
    assert await ask("again-1") == (2, "Succeeded")
    history = await stores.api.history(flow.tenant_id, flow.flow_id)
    assert [event.trigger for event in history].count("Rerun") == 1
    assert await ask("again-2") == (3, "Queued")
