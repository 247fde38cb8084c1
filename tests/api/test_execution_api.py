"""The execution API over a real PostgreSQL: identity from tokens, and every route."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
import structlog
from discovery_api.execution.app import create_app
from discovery_api.execution.identity import Identifier
from discovery_api.kubernetes import client_as
from discovery_api.settings import ExecutionSettings
from discovery_core import actions as act
from discovery_core.phases import Phase
from discovery_core.store import Database
from discovery_core.wire.protocol import Claim, Complete

from tests.api.kubernetes import FakeKubernetes
from tests.api.pods import POD, crew_pod, executing, launch
from tests.postgres import Stores
from tests.store.flows import RESULTS, Flow, inventory_rows


@pytest.fixture
async def kubernetes() -> AsyncIterator[FakeKubernetes]:
    fake = FakeKubernetes()
    yield fake
    await fake.stop()


@pytest.fixture
async def client(stores: Stores, kubernetes: FakeKubernetes) -> AsyncIterator[httpx.AsyncClient]:
    limits = {
        "body_stall_seconds": 0.5,
        "max_message_bytes": 20_000,
        "identity_cache_seconds": 0,
        "max_artefact_bytes": 3_000_000,
        "max_record_bytes": 4096,
    }
    async with executing(stores, kubernetes, **limits) as client:
        yield client


async def _claim(client: httpx.AsyncClient) -> Claim:
    response = await client.post("/execution/v1/claim", json={}, headers=POD)
    assert response.status_code == 200, response.text
    return Claim.model_validate(response.json())


@pytest.fixture
async def flow(stores: Stores, kubernetes: FakeKubernetes) -> Flow:
    flow = Flow(stores)
    await flow.queue()
    await launch(flow, kubernetes)
    return flow


async def test_an_import_over_the_protocol(client: httpx.AsyncClient, flow: Flow) -> None:
    claim = await _claim(client)
    assert (claim.phase, claim.attempt, claim.source_name) == (
        Phase.DATA_IMPORT,
        1,
        "servers.csv",
    )
    assert claim.source_path == "/var/run/discovery/source/servers.csv"
    fence = {"fence": claim.fence}
    beat = await client.post(
        "/execution/v1/heartbeat", json=fence | {"done": 5, "total": 9}, headers=POD
    )
    assert beat.status_code == 200
    run = (await flow.load()).run
    assert run is not None
    assert (run.progress_done, run.progress_total) == (5, 9)

    digests = {}
    for name in ("source", "records", "profile"):
        put = await client.put(
            "/execution/v1/artefacts", params=fence, content=name.encode(), headers=POD
        )
        digests[name] = put.json()["digest"]
        assert put.json()["size"] == len(name)
    pinned = await client.post(
        "/execution/v1/inputs", json=fence | {"source": digests.pop("source")}, headers=POD
    )
    assert pinned.status_code == 200
    read = await client.get(
        f"/execution/v1/artefacts/{digests['records']}", params=fence, headers=POD
    )
    assert read.content == b"records"
    message = Complete(
        fence=claim.fence, result=RESULTS[Phase.DATA_IMPORT], artefacts=digests
    ).model_dump(mode="json", by_alias=True)
    for _ in range(2):
        done = await client.post("/execution/v1/complete", json=message, headers=POD)
        assert (done.status_code, done.json()) == (200, {"accepted": True})
    assert (await flow.load()).phase == Phase.DATA_CLEANSING


async def test_a_failure_over_the_protocol(client: httpx.AsyncClient, flow: Flow) -> None:
    claim = await _claim(client)
    body = {"fence": claim.fence, "code": "EmptyFile", "message": "servers.csv is empty"}
    assert (await client.post("/execution/v1/fail", json=body, headers=POD)).status_code == 200
    run = (await flow.load()).run
    assert run is not None
    assert (run.state, run.error_code, run.retry_after) == ("Failed", "EmptyFile", None)


async def test_the_wait_that_an_endpoint_has_asked_for_is_kept_within_bounds(
    client: httpx.AsyncClient, flow: Flow
) -> None:
    claim = await _claim(client)
    body = {"fence": claim.fence, "code": "LLMRateLimited", "message": "slower", "newer": 1}
    for asked in (-1, 3601, "soon"):
        refused = await client.post(
            "/execution/v1/fail", json=body | {"retryAfterSeconds": asked}, headers=POD
        )
        assert refused.status_code == 422, asked
    told = body | {"retryAfterSeconds": 90}
    for _ in range(2):
        done = await client.post("/execution/v1/fail", json=told, headers=POD)
        assert done.status_code == 200, done.text
    run = (await flow.load()).run
    assert run is not None
    assert (run.state, run.retry_after) == ("Failed", 90)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda k, review: k.reviews.clear(), 401),
        (lambda k, review: review.update(audiences=["other"]), 401),
        (lambda k, review: review["user"].update(extra={}), 403),
        (lambda k, review: review["user"].update(username="ann"), 403),
        (lambda k, review: review["user"].update(username="migration:discoveryflow-crew"), 403),
        (
            lambda k, review: review["user"].update(
                username="system:serviceaccount:migration:default"
            ),
            403,
        ),
        (lambda k, review: k.objects.clear(), 403),
        (lambda k, review: k.of("pods")["metadata"].update(uid="another"), 403),
        (lambda k, review: k.of("pods")["metadata"].update(ownerReferences=[]), 403),
        (lambda k, review: k.owner_of("pods").update(controller=False), 403),
        (
            lambda k, review: k.of("pods")["metadata"].update(
                creationTimestamp="2026-01-01T00:00:00Z"
            ),
            403,
        ),
        (lambda k, review: k.of("jobs")["metadata"].update(uid="another"), 403),
        (lambda k, review: k.owner_of("jobs").update(kind="CronJob"), 403),
        (lambda k, review: k.owner_of("jobs").update(apiVersion="example.org/v1"), 403),
    ],
    ids=[
        "unknown",
        "other-audience",
        "not-bound-to-a-pod",
        "a-person",
        "a-person-named-like-it",
        "s01-another-account",
        "pod-is-gone",
        "pod-was-replaced",
        "pod-without-job",
        "pod-of-a-mere-owner",
        "s01-pod-from-before-its-job",
        "job-was-replaced",
        "job-of-another-kind",
        "job-of-another-group",
    ],
)
async def test_who_is_not_a_crew_pod_gets_nothing(
    client: httpx.AsyncClient, flow: Flow, kubernetes: FakeKubernetes, spoil: Any, code: int
) -> None:
    spoil(kubernetes, kubernetes.reviews["pod-token"])
    response = await client.post("/execution/v1/claim", json={}, headers=POD)
    assert response.status_code == code, response.text
    assert response.headers["content-type"] == "application/problem+json"
    run = (await flow.load()).run
    assert run is not None
    assert run.state == "Launched"


async def test_without_a_token(client: httpx.AsyncClient, flow: Flow) -> None:
    response = await client.post("/execution/v1/claim", json={})
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_a_pod_of_another_job_cannot_take_the_attempt(
    client: httpx.AsyncClient, flow: Flow, kubernetes: FakeKubernetes
) -> None:
    """A Job that somebody else made, with our flow as its owner: it is nobody's attempt."""
    crew_pod(kubernetes, "forged", flow, "forged-job", "forged-uid", str(uuid4()))
    response = await client.post(
        "/execution/v1/claim", json={}, headers={"Authorization": "Bearer forged"}
    )
    assert response.status_code == 403


async def test_a_pod_of_another_namespace_cannot_name_this_flow(
    client: httpx.AsyncClient, flow: Flow, kubernetes: FakeKubernetes
) -> None:
    """The tenant is the namespace of the token, whatever the owner reference says."""
    stranger = Flow(flow.stores, tenant_id=uuid4(), flow_id=flow.flow_id)
    run = (await flow.load()).run
    assert run is not None
    crew_pod(kubernetes, "foreign", stranger, run.job_name, str(run.job_uid), str(uuid4()))
    response = await client.post(
        "/execution/v1/claim", json={}, headers={"Authorization": "Bearer foreign"}
    )
    assert response.status_code == 403


async def test_before_the_job_is_recorded_the_pod_waits(
    client: httpx.AsyncClient, stores: Stores, kubernetes: FakeKubernetes
) -> None:
    flow = Flow(stores)
    await flow.queue()
    await stores.operator.start_attempt(
        flow.flow_id,
        act.StartAttempt(
            round=1, phase=Phase.DATA_IMPORT, attempt=1, job_name="early", launch_timeout=60
        ),
    )
    crew_pod(kubernetes, "pod-token", flow, "early", "uid-early", str(uuid4()))
    response = await client.post("/execution/v1/claim", json={}, headers=POD)
    assert (response.status_code, response.headers["Retry-After"]) == (425, "1")
    assert response.json()["type"].endswith("/not-launched")


async def test_a_stopped_attempt_is_told_superseded(client: httpx.AsyncClient, flow: Flow) -> None:
    claim = await _claim(client)
    await flow.stores.operator.apply(flow.flow_id, act.Cancel())
    for method, path, more in (
        ("POST", "heartbeat", {"json": {"fence": claim.fence}}),
        ("PUT", "artefacts", {"params": {"fence": claim.fence}, "content": b"x"}),
        ("PUT", "records", {"params": {"fence": claim.fence}, "content": b""}),
        ("POST", "fail", {"json": {"fence": claim.fence, "code": "Crashed", "message": "x"}}),
    ):
        response = await client.request(method, f"/execution/v1/{path}", headers=POD, **more)
        assert response.status_code == 409, path
        assert response.json()["type"].endswith("/superseded")


async def test_an_artefact_beyond_the_limit(client: httpx.AsyncClient, flow: Flow) -> None:
    claim = await _claim(client)

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 100_000

    response = await client.put(
        "/execution/v1/artefacts", params={"fence": claim.fence}, content=endless(), headers=POD
    )
    assert response.status_code == 413
    assert response.json()["code"] == "LimitExceeded"


async def test_a_body_that_says_that_it_is_too_large_is_not_even_read(
    client: httpx.AsyncClient, flow: Flow
) -> None:
    claim = await _claim(client)

    read = []

    async def watched() -> AsyncIterator[bytes]:
        read.append(True)
        yield b"x"

    for path in ("artefacts", "records"):
        response = await client.put(
            f"/execution/v1/{path}",
            params={"fence": claim.fence},
            content=watched(),
            headers=POD | {"Content-Length": "3000001"},
        )
        assert (response.status_code, response.json()["code"]) == (413, "LimitExceeded")
    assert read == []
    large = await client.post("/execution/v1/claim", content=b" " * 20_001, headers=POD)
    assert (large.status_code, large.json()["type"].rsplit("/", 1)[1]) == (413, "too-large")


async def test_records_are_bounded_in_all(client: httpx.AsyncClient, flow: Flow) -> None:
    claim = await _claim(client)

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(4000):
            yield b" " * 1000 + b"\n"

    response = await client.put(
        "/execution/v1/records", params={"fence": claim.fence}, content=endless(), headers=POD
    )
    assert (response.status_code, "in all" in response.json()["detail"]) == (413, True)


async def test_a_body_that_stops_arriving_is_given_up(
    client: httpx.AsyncClient, flow: Flow
) -> None:
    claim = await _claim(client)

    async def stalling() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(5)
        yield b"y"

    response = await client.put(
        "/execution/v1/artefacts", params={"fence": claim.fence}, content=stalling(), headers=POD
    )
    assert (response.status_code, response.json()["type"].rsplit("/", 1)[1]) == (408, "stalled")


async def test_an_empty_artefact(client: httpx.AsyncClient, flow: Flow) -> None:
    params = {"fence": (await _claim(client)).fence}
    put = await client.put("/execution/v1/artefacts", params=params, content=b"", headers=POD)
    assert (put.status_code, put.json()["size"]) == (200, 0)
    digest = put.json()["digest"]
    read = await client.get(f"/execution/v1/artefacts/{digest}", params=params, headers=POD)
    assert (read.status_code, read.content) == (200, b"")


async def test_kubernetes_away_is_told_with_a_time_to_retry(
    client: httpx.AsyncClient, flow: Flow, kubernetes: FakeKubernetes
) -> None:
    kubernetes.drops = True
    response = await client.post("/execution/v1/claim", json={}, headers=POD)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
    assert "pod-token" not in response.text


async def test_the_database_away_is_told_with_a_time_to_retry(
    kubernetes: FakeKubernetes, flow: Flow
) -> None:
    url = "postgresql://nobody@127.0.0.1:1/none"
    settings = ExecutionSettings(
        host="127.0.0.1", database_url=url, kubernetes_url=await kubernetes.start()
    )
    kube = client_as(settings, "own-token")
    app = create_app(Database(url, application_name="x"), settings, Identifier(kube, 0))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://execution") as client:
        response = await client.post("/execution/v1/claim", json={}, headers=POD)
    await kube.close()
    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
    assert response.json()["detail"] == "the database does not answer; try again"


async def test_the_request_log_names_the_attempt_and_no_token(
    client: httpx.AsyncClient, flow: Flow
) -> None:
    with structlog.testing.capture_logs() as lines:
        await _claim(client)
    (line,) = [line for line in lines if line["event"] == "request"]
    assert (line["flow"], line["tenant"]) == (str(flow.flow_id), str(flow.tenant_id))
    assert (line["phase"], line["attempt"], line["status"]) == ("data_import", "1", 200)
    assert "pod-token" not in str(lines)


async def test_tokens_stay_out_of_the_log_at_level_debug(
    client: httpx.AsyncClient, flow: Flow, caplog: pytest.LogCaptureFixture
) -> None:
    """A TokenReview's answer repeats the token, and the client logs answers at level debug."""
    with caplog.at_level(logging.DEBUG):
        await _claim(client)
    assert "pod-token" not in caplog.text


async def test_an_artefact_of_another_flow_is_not_found(
    client: httpx.AsyncClient, flow: Flow, stores: Stores
) -> None:
    other = Flow(stores, tenant_id=flow.tenant_id, name="other")
    await other.queue()
    await other.start()
    digest = await (await other.claim()).upload(b"theirs")
    claim = await _claim(client)
    response = await client.get(
        f"/execution/v1/artefacts/{digest}", params={"fence": claim.fence}, headers=POD
    )
    assert response.status_code == 404


async def test_records_are_read_line_by_line(
    client: httpx.AsyncClient, stores: Stores, kubernetes: FakeKubernetes
) -> None:
    flow = Flow(stores)
    await flow.to_gate()
    await flow.answer()
    await launch(flow, kubernetes)
    claim = await _claim(client)
    assert set(claim.inputs) == {"records", "mappings", "source"}
    params = {"fence": claim.fence}

    async def ndjson() -> AsyncIterator[bytes]:
        async for record in inventory_rows(2500):
            line = record.model_dump_json(by_alias=True).encode() + b"\n"
            yield line[:7]
            yield line[7:]

    put = await client.put(
        "/execution/v1/records", params=params, content=ndjson(), headers=POD, timeout=60
    )
    assert (put.status_code, put.json()) == (200, {"records": 2500})

    broken = b'{"row": 1, "identity": "a", "assetType": "server", "values": {}}\n{"row": "x"}\n'
    response = await client.put("/execution/v1/records", params=params, content=broken, headers=POD)
    assert response.status_code == 422
    assert "line 2" in response.json()["detail"]
    assert response.json()["line"] == 2
    line = b'{"row": 1, "identity": "' + b"x" * 10_000
    for long in (line, b"\n\n" + line + b"\n"):
        response = await client.put(
            "/execution/v1/records", params=params, content=long, headers=POD
        )
        assert response.status_code == 413
        assert response.json()["code"] == "LimitExceeded"
    assert "line 3" in response.json()["detail"]
    # a number that Postgres cannot hold is the crew's fault; trying again would not help
    huge = b'{"row": 99999999999999999999, "identity": "a", "assetType": "x", "values": {}}\n'
    response = await client.put("/execution/v1/records", params=params, content=huge, headers=POD)
    assert (response.status_code, response.json()["code"]) == (422, "InvalidResult")


async def test_a_record_is_kept_in_its_own_words(
    client: httpx.AsyncClient, stores: Stores, kubernetes: FakeKubernetes
) -> None:
    """What is left out has its default; a NUL, which Postgres cannot store, is replaced."""
    flow = Flow(stores)
    await flow.to_gate()
    await flow.answer()
    await launch(flow, kubernetes)
    params = {"fence": (await _claim(client)).fence}
    texts = [r"nul \u0000", r"the text \\u0000", r"a backslash and nul \\\u0000", "tab \\t", "ü"]
    lines = "".join(
        f'{{"row": {row}, "identity": "i", "assetType": "server", "values": {{"v": "{text}"}}}}\r\n'
        for row, text in enumerate(texts)
    )
    put = await client.put(
        "/execution/v1/records", params=params, content=lines.encode(), headers=POD
    )
    assert put.json() == {"records": len(texts)}
    async with await psycopg.AsyncConnection.connect(stores.urls.superuser) as connection:
        rows = await connection.execute(
            "SELECT fields->>'v', name, class_rule, keys, originals, conversions, unmapped, "
            "problems FROM records ORDER BY row"
        )
        found = await rows.fetchall()
    assert [row[0] for row in found] == [
        "nul \ufffd", "the text \\u0000", "a backslash and nul \\\ufffd", "tab \t", "ü",
    ]  # fmt: skip
    assert {str(row[1:]) for row in found} == {"(None, None, [], {}, {}, {}, [])"}
    for value, told in (("NaN", "NaN is not a number"), ("-Infinity", "-Infinity is not")):
        none = f'{{"row": 1, "identity": "i", "assetType": "NaN", "values": {{"v": {value}}}}}'
        refused = await client.put(
            "/execution/v1/records", params=params, content=none.encode(), headers=POD
        )
        assert (refused.status_code, told in refused.json()["detail"]) == (422, True)
    whole = b'{"row": 1.0, "identity": "i", "assetType": "server", "values": {}}'
    refused = await client.put("/execution/v1/records", params=params, content=whole, headers=POD)
    assert refused.json()["detail"].startswith("line 1, row: ")
    # the fields' names are those of the protocol
    other = b'{"row": 1, "identity": "i", "asset_type": "server", "values": {}}'
    refused = await client.put("/execution/v1/records", params=params, content=other, headers=POD)
    assert "assetType" in refused.json()["detail"]


@pytest.fixture
async def identifying(
    stores: Stores, kubernetes: FakeKubernetes
) -> AsyncIterator[Callable[[float], Identifier]]:
    """Makes an Identifier that remembers reviewed tokens for so many seconds."""
    settings = ExecutionSettings(
        host="127.0.0.1",
        database_url=stores.urls.execution,
        kubernetes_url=await kubernetes.start(),
    )
    kube = client_as(settings, "own-token")
    yield lambda seconds: Identifier(kube, cache_seconds=seconds)
    await kube.close()


async def test_a_token_is_remembered_only_for_a_moment(
    kubernetes: FakeKubernetes, flow: Flow, identifying: Callable[[float], Identifier]
) -> None:
    identifier = identifying(0.2)
    first = await identifier.identify("Bearer pod-token")
    assert first.tenant_id == flow.tenant_id
    assert isinstance(first.flow_id, UUID)
    kubernetes.reviews.clear()
    assert await identifier.identify("Bearer pod-token") == first
    await asyncio.sleep(0.25)
    with pytest.raises(Exception, match="not accepted"):
        await identifier.identify("Bearer pod-token")


async def test_a_pods_way_to_its_flow_is_walked_once_but_its_token_is_reviewed_again(
    kubernetes: FakeKubernetes, flow: Flow, identifying: Callable[[float], Identifier]
) -> None:
    """A StatefulSet's pod, say, comes back under its name: another UID is another pod."""
    identifier = identifying(0)
    first = await identifier.identify("Bearer pod-token")
    kubernetes.objects.clear()
    assert await identifier.identify("Bearer pod-token") == first
    kubernetes.reviews["pod-token"]["user"]["extra"]["authentication.kubernetes.io/pod-uid"] = [
        "another"
    ]
    with pytest.raises(Exception, match="gone"):
        await identifier.identify("Bearer pod-token")
    kubernetes.reviews.clear()
    with pytest.raises(Exception, match="not accepted"):
        await identifier.identify("Bearer pod-token")
