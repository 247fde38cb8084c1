"""The user API over a real PostgreSQL; Kubernetes is a stand-in that knows three users."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import structlog
from discovery_api.app import create_app
from discovery_api.settings import ApiSettings
from discovery_core import actions as act
from discovery_core.resource_gate import MappingEdit

from tests.api.kubernetes import FakeKubernetes, status
from tests.postgres import Stores
from tests.store.flows import Flow

ANN = {"Authorization": "Bearer token-ann"}


@pytest.fixture
async def kubernetes() -> AsyncIterator[FakeKubernetes]:
    fake = FakeKubernetes()
    yield fake
    await fake.stop()


@pytest.fixture
async def flow(stores: Stores, kubernetes: FakeKubernetes) -> Flow:
    """A flow that waits for approval, with an operator that takes answers at once."""
    flow = Flow(stores)
    await flow.to_gate()
    kubernetes.flow_uid = str(flow.flow_id)
    kubernetes.request_id = (await _asked(flow))["requestId"]

    async def take(value: dict[str, Any], user: str) -> None:
        assert value["decidedBy"] == user
        await flow.answer(
            value["decision"],
            by=user,
            edits=[MappingEdit.model_validate(edit) for edit in value["edits"]],
            reason=value["reason"],
        )

    kubernetes.on_answer = take
    return flow


@pytest.fixture
async def client(stores: Stores, kubernetes: FakeKubernetes) -> AsyncIterator[httpx.AsyncClient]:
    settings = ApiSettings(
        host="127.0.0.1",
        database_url=stores.urls.api,
        kubernetes_url=await kubernetes.start(),
        decision_wait_seconds=0.5,
    )
    app = create_app(stores.api.db, settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        yield client


def _url(flow: Flow, action: str = "") -> str:
    return f"/api/v1/discovery/flows/{flow.flow_id}{action}"


async def _asked(flow: Flow) -> dict[str, str]:
    request = (await flow.load()).request
    assert request is not None
    return {
        "requestId": str(request.request_id),
        "artefactDigest": request.artefact_digest,
    }


async def test_a_waiting_flow_shows_what_to_approve(client: httpx.AsyncClient, flow: Flow) -> None:
    response = await client.get(_url(flow), headers=ANN)
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["flow_id"] == str(flow.flow_id)
    assert (body["current_phase"], body["phase_status"]) == ("field_mapping", "awaiting_approval")
    assert body["ui_state"]["show_approval_ui"] is True
    shown = body["ui_state"]["mappings_to_approve"]
    assert [mapping["column"] for mapping in shown] == ["Name", "RAM", "Notes"]
    assert body["approval_request"]["requestId"] == (await _asked(flow))["requestId"]
    assert body["approval_request"]["targets"] == ["hostname", "memory_gb", "owner"]


async def test_an_unchanged_flow_is_not_sent_again(client: httpx.AsyncClient, flow: Flow) -> None:
    first = await client.get(_url(flow), headers=ANN)
    headers = ANN | {"If-None-Match": first.headers["ETag"]}
    assert (await client.get(_url(flow), headers=headers)).status_code == 304
    await flow.answer()
    assert (await client.get(_url(flow), headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, 401),
        ({"Authorization": "Basic x"}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Bearer token-eve"}, 404),
    ],
    ids=["no-token", "not-bearer", "unknown-token", "may-not-see"],
)
async def test_who_may_not_see_learns_nothing(
    client: httpx.AsyncClient, flow: Flow, headers: dict[str, str], code: int
) -> None:
    response = await client.get(_url(flow), headers=headers)
    assert response.status_code == code
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == code
    assert "migration" not in response.text


async def test_an_unknown_flow_and_a_hidden_one_look_alike(
    client: httpx.AsyncClient, flow: Flow, kubernetes: FakeKubernetes
) -> None:
    unknown = await client.get(f"/api/v1/discovery/flows/{uuid4()}", headers=ANN)
    kubernetes.viewers = set()
    hidden = await client.get(_url(flow), headers=ANN)
    assert unknown.status_code == hidden.status_code == 404
    assert unknown.json() == hidden.json()


async def test_a_replaced_resource_of_the_same_name_is_another_flow(
    client: httpx.AsyncClient, flow: Flow, kubernetes: FakeKubernetes
) -> None:
    kubernetes.flow_uid = str(uuid4())
    assert (await client.get(_url(flow), headers=ANN)).status_code == 404


async def test_approving_with_a_final_list(
    client: httpx.AsyncClient, flow: Flow, kubernetes: FakeKubernetes
) -> None:
    final = [
        {"column": "Name", "target": "hostname"},
        {"column": "RAM", "target": None},
        {"column": "Notes", "target": "owner"},
    ]
    body = await _asked(flow) | {"mappings": final, "reason": "checked"}
    response = await client.post(_url(flow, "/approve-mappings"), json=body, headers=ANN)
    assert response.status_code == 200, response.text
    assert response.json() | {"decided_at": None} == {
        "flow_id": str(flow.flow_id),
        "request_id": body["requestId"],
        "committed": True,
        "decision": "Approved",
        "decided_by": "ann",
        "decided_at": None,
        "reason": "checked",
        "message": "",
    }
    assert kubernetes.answers[0]["edits"] == [
        {"column": "RAM", "target": ""},
        {"column": "Notes", "target": "owner"},
    ]


async def test_every_call_carries_the_callers_own_token(
    client: httpx.AsyncClient, flow: Flow, kubernetes: FakeKubernetes
) -> None:
    await client.get(_url(flow), headers={"Authorization": "Bearer token-bob"})
    assert set(kubernetes.tokens) == {"token-bob"}
    kubernetes.tokens.clear()
    await client.post(_url(flow, "/approve-mappings"), json=await _asked(flow), headers=ANN)
    assert set(kubernetes.tokens) == {"token-ann"}


async def test_rejecting(client: httpx.AsyncClient, flow: Flow) -> None:
    body = await _asked(flow) | {"reason": "wrong file"}
    response = await client.post(_url(flow, "/reject-mappings"), json=body, headers=ANN)
    assert (response.status_code, response.json()["decision"]) == (200, "Rejected")


async def test_an_answer_must_say_what_it_answers(client: httpx.AsyncClient, flow: Flow) -> None:
    asked = await _asked(flow)
    for missing in ("requestId", "artefactDigest"):
        body = {key: value for key, value in asked.items() if key != missing}
        response = await client.post(_url(flow, "/approve-mappings"), json=body, headers=ANN)
        assert response.status_code == 428


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"mappings": [{"column": "Name", "target": "hostname"}]}, ["'RAM' is missing"]),
        ({"edits": [{"column": "Nope", "target": "owner"}]}, ["no column 'Nope'"]),
        ({"edits": [{"column": "RAM", "target": "colour"}]}, ["'colour' is not a target"]),
        ({"edits": [], "mappings": []}, ["not both"]),
        ({"edit": []}, ["edit"]),
    ],
)
async def test_a_bad_answer_names_each_problem_and_changes_nothing(
    client: httpx.AsyncClient,
    flow: Flow,
    kubernetes: FakeKubernetes,
    more: dict[str, Any],
    words: list[str],
) -> None:
    body = await _asked(flow) | more
    response = await client.post(_url(flow, "/approve-mappings"), json=body, headers=ANN)
    assert response.status_code == 422
    assert all(word in response.json()["detail"] for word in words)
    assert kubernetes.answers == []


async def test_a_stale_digest_and_a_late_answer_are_conflicts(
    client: httpx.AsyncClient, flow: Flow
) -> None:
    asked = await _asked(flow)
    stale = asked | {"artefactDigest": "sha256:" + "0" * 64}
    response = await client.post(_url(flow, "/approve-mappings"), json=stale, headers=ANN)
    assert (response.status_code, response.json()["type"].rsplit("/", 1)[1]) == (409, "stale")
    await flow.answer("Reject", by="bob")
    late = await client.post(_url(flow, "/approve-mappings"), json=asked, headers=ANN)
    assert late.status_code == 409
    assert "rejected by bob" in late.json()["detail"]


async def test_the_loser_of_a_race_is_told_who_won(
    client: httpx.AsyncClient, flow: Flow, kubernetes: FakeKubernetes
) -> None:
    asked = await _asked(flow)

    async def bob_was_faster(value: dict[str, Any], user: str) -> None:
        await flow.answer("Reject", by="bob")

    kubernetes.on_answer = bob_was_faster
    response = await client.post(_url(flow, "/approve-mappings"), json=asked, headers=ANN)
    assert response.status_code == 409
    assert "rejected by bob" in response.json()["detail"]


async def test_an_answer_that_is_not_committed_yet_is_accepted(
    client: httpx.AsyncClient, flow: Flow, kubernetes: FakeKubernetes
) -> None:
    kubernetes.on_answer = None
    response = await client.post(
        _url(flow, "/approve-mappings"), json=await _asked(flow), headers=ANN
    )
    assert (response.status_code, response.json()["committed"]) == (202, False)


async def test_an_answer_that_the_operator_refuses_is_told(
    client: httpx.AsyncClient, flow: Flow, kubernetes: FakeKubernetes, stores: Stores
) -> None:
    async def refuse(value: dict[str, Any], user: str) -> None:
        await stores.operator.apply(
            flow.flow_id,
            act.RefuseAnswer(
                request_id=UUID(value["requestId"]),
                problems=("the target schema has changed",),
                decided_by=user,
            ),
        )

    kubernetes.on_answer = refuse
    response = await client.post(
        _url(flow, "/approve-mappings"), json=await _asked(flow), headers=ANN
    )
    assert response.status_code == 422
    assert response.json()["problems"] == ["the target schema has changed"]


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        ((403, "denied by policy: decidedBy must be ann"), 403),
        ((422, "spec: Invalid value: this request has been answered already"), 409),
        ((422, "spec.approval.reason: Too long"), 422),
        ((409, "the object has been modified"), 409),
        ((500, "etcd is away"), 503),
    ],
)
async def test_what_kubernetes_refuses_is_passed_on(
    client: httpx.AsyncClient,
    flow: Flow,
    kubernetes: FakeKubernetes,
    refusal: tuple[int, str],
    code: int,
) -> None:
    kubernetes.refusal = status(*refusal)
    response = await client.post(
        _url(flow, "/approve-mappings"), json=await _asked(flow), headers=ANN
    )
    assert response.status_code == code
    assert refusal[1] in response.json()["detail"]


async def test_without_the_verb_the_policys_words_are_told(
    client: httpx.AsyncClient, flow: Flow
) -> None:
    response = await client.post(
        _url(flow, "/approve-mappings"),
        json=await _asked(flow),
        headers={"Authorization": "Bearer token-bob"},
    )
    assert (response.status_code, response.json()["detail"]) == (
        403,
        "an answer needs the verb approve",
    )


async def test_health_and_openapi(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).status_code == 200
    assert (await client.get("/readyz")).json() == {"status": "ok"}
    document = (await client.get("/api/v1/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    one = "/api/v1/discovery/flows/{flow_id}"
    assert {f"{one}/approve-mappings", f"{one}/events", f"{one}/rerun"} <= set(document["paths"])
    assert not [path for path in document["paths"] if not path.startswith("/api/v1/discovery/")]
    missing = await client.get("/api/v1/nothing")
    assert missing.headers["content-type"] == "application/problem+json"


async def test_an_answer_waits_until_the_resource_shows_the_request(
    client: httpx.AsyncClient, flow: Flow, kubernetes: FakeKubernetes
) -> None:
    """Admission compares with the status, which the operator writes a moment after the commit."""
    kubernetes.shown_after = 3
    response = await client.post(
        _url(flow, "/approve-mappings"), json=await _asked(flow), headers=ANN
    )
    assert response.status_code == 200
    assert kubernetes.shown_after < 0


async def test_a_resource_that_never_shows_the_request(
    client: httpx.AsyncClient,
    flow: Flow,
    kubernetes: FakeKubernetes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("discovery_api.decisions.SHOWN_SECONDS", 0.3)
    kubernetes.shown_after = 1000
    response = await client.post(
        _url(flow, "/approve-mappings"), json=await _asked(flow), headers=ANN
    )
    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
    assert kubernetes.answers == []


async def test_a_refused_patch_whose_request_is_gone_is_a_conflict(
    client: httpx.AsyncClient, flow: Flow, kubernetes: FakeKubernetes
) -> None:
    """Bob's answer is committed between our look and our patch; admission then says 422."""
    asked = await _asked(flow)
    refused = status(422, "the answer is not about the open request")

    async def bob_was_faster(value: dict[str, Any], user: str) -> None:
        await flow.answer("Reject", by="bob")
        kubernetes.refusal = refused

    kubernetes.before_answer = bob_was_faster
    response = await client.post(_url(flow, "/approve-mappings"), json=asked, headers=ANN)
    assert response.status_code == 409
    assert "rejected by bob" in response.json()["detail"]


async def test_an_answer_to_a_suspended_flow_says_when_it_counts(
    client: httpx.AsyncClient, flow: Flow, kubernetes: FakeKubernetes, stores: Stores
) -> None:
    kubernetes.on_answer = None
    asked = await _asked(flow)
    await stores.operator.apply(flow.flow_id, act.Suspend())
    shown = (await client.get(_url(flow), headers=ANN)).json()
    assert shown["ui_state"] == {
        "show_approval_ui": False,
        "mappings_to_approve": [],
        "findings": [],
    }
    response = await client.post(_url(flow, "/approve-mappings"), json=asked, headers=ANN)
    assert response.status_code == 202
    assert "resumed" in response.json()["message"]


async def test_kubernetes_away_is_told_with_a_time_to_retry(
    client: httpx.AsyncClient, flow: Flow, kubernetes: FakeKubernetes
) -> None:
    kubernetes.drops = True
    for call in (
        client.get(_url(flow), headers=ANN),
        client.post(_url(flow, "/approve-mappings"), json=await _asked(flow), headers=ANN),
    ):
        response = await call
        assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
        assert "token-ann" not in response.text


async def test_a_lost_confirmation_does_not_hide_the_decision(
    client: httpx.AsyncClient, flow: Flow, kubernetes: FakeKubernetes
) -> None:
    kubernetes.drops_confirmation = True
    response = await client.post(
        _url(flow, "/approve-mappings"), json=await _asked(flow), headers=ANN
    )
    assert (response.status_code, response.json()["decision"]) == (200, "Approved")


@pytest.mark.parametrize(
    ("given", "code"),
    [("W/{}", 304), ('"0", {}', 304), ("*", 304), ('"0"', 200), ("", 200)],
)
async def test_conditional_requests(
    client: httpx.AsyncClient, flow: Flow, given: str, code: int
) -> None:
    first = await client.get(_url(flow), headers=ANN)
    headers = ANN | {"If-None-Match": given.format(first.headers["ETag"])}
    assert (await client.get(_url(flow), headers=headers)).status_code == code


async def test_a_body_without_end_is_cut_off(client: httpx.AsyncClient, flow: Flow) -> None:
    body = b'{"reason": "' + b"x" * 3_000_000

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 100_000

    for content in (body, endless()):
        response = await client.post(
            _url(flow, "/approve-mappings"),
            content=content,
            headers=ANN | {"Content-Type": "application/json"},
        )
        assert response.status_code == 413
        assert response.json()["type"].endswith("/too-large")


async def test_the_request_log_names_flow_tenant_and_person_and_no_token(
    client: httpx.AsyncClient, flow: Flow
) -> None:
    with structlog.testing.capture_logs() as lines:
        await client.post(_url(flow, "/approve-mappings"), json=await _asked(flow), headers=ANN)
    (line,) = [line for line in lines if line["event"] == "request"]
    assert (line["flow"], line["tenant"]) == (str(flow.flow_id), str(flow.tenant_id))
    assert (line["user"], line["decision"], line["status"]) == ("ann", "Approve", 200)
    assert "token-ann" not in str(lines)


async def test_the_document_describes_problems(client: httpx.AsyncClient) -> None:
    document = (await client.get("/api/v1/openapi.json")).json()
    assert "HTTPValidationError" not in document["components"]["schemas"]
    path = "/api/v1/discovery/flows/{flow_id}"
    for operation, codes in (
        (document["paths"][path]["get"], {"401", "404", "503"}),
        (
            document["paths"][f"{path}/approve-mappings"]["post"],
            {"401", "403", "404", "409", "413", "422", "428", "503"},
        ),
    ):
        assert codes <= set(operation["responses"])
        for code in codes:
            (media,) = operation["responses"][code]["content"]
            assert media == "application/problem+json"
        assert operation["security"] == [{"HTTPBearer": []}]


BODIES: dict[str, dict[str, Any]] = {
    "/rerun": {"fromPhase": "data_import"},
    "/conflicts": {"identity": "a", "field": "b", "choice": "keep"},
    "/source-precedence": {"flows": []},
}
QUERIES = {"/conflicts": {"identity": "a", "field": "b"}, "/lessons": {"header": "a"}}


async def test_no_route_about_a_flow_answers_a_stranger(
    client: httpx.AsyncClient, flow: Flow
) -> None:
    """Every route of the document, with the token of somebody who may not see the flow."""
    document = (await client.get("/api/v1/openapi.json")).json()
    tried = 0
    for path, operations in document["paths"].items():
        if "{flow_id}" not in path:
            continue
        where = path.format(flow_id=flow.flow_id, phase="data_import", name="records")
        ending = path.removeprefix("/api/v1/discovery/flows/{flow_id}")
        for method in operations:
            body = BODIES.get(ending, await _asked(flow) if method == "post" else None)
            for headers, code in (({"Authorization": "Bearer token-eve"}, 404), ({}, 401)):
                answer = await client.request(
                    method, where, json=body, params=QUERIES.get(ending), headers=headers
                )
                assert answer.status_code == code, (method, path, answer.text)
                assert flow.name not in answer.text
                tried += 1
    assert tried >= 40
