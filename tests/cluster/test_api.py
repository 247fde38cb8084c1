"""Both APIs as they are installed: real tokens, real roles, the real admission policy."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from discovery_core.wire.protocol import CREW_ACCOUNT, TOKEN_AUDIENCE

from tests.cluster.kube import Kubectl, eventually
from tests.cluster.people import Person, reached
from tests.cluster.product import Flow, Product


@pytest.fixture(scope="module")
def product(kubectl: Kubectl) -> Product:
    return Product(kubectl)


@pytest.fixture(scope="module")
def execution(product: Product) -> Iterator[httpx.Client]:
    with reached(product, "execution", 8443) as client:
        yield client


@pytest.fixture
def flow(product: Product, namespace: Kubectl) -> Flow:
    return Flow(namespace, product, spec={"engagement": f"e-{uuid4().hex[:8]}"})


@pytest.fixture
def waiting(flow: Flow) -> Flow:
    """A flow that waits for approval."""
    flow.to_gate()
    return flow


def url(flow: Flow, action: str = "") -> str:
    return f"/api/v1/discovery/flows/{flow.uid}{action}"


def asked(shown: dict[str, Any]) -> dict[str, Any]:
    request = shown["approval_request"]
    return {key: request[key] for key in ("requestId", "artefactDigest")}


def test_a_flow_is_read_and_approved_over_rest(
    waiting: Flow, api: httpx.Client, person: Callable[..., Person]
) -> None:
    ann = person("ann", "discoveryflow-approve")
    response = api.get(url(waiting), headers=ann.headers)
    assert response.status_code == 200, response.text
    shown = response.json()
    assert (shown["flow_id"], shown["namespace"]) == (waiting.uid, waiting.kubectl.namespace)
    assert (shown["current_phase"], shown["phase_status"]) == (
        "field_mapping",
        "awaiting_approval",
    )
    assert shown["ui_state"]["show_approval_ui"] is True
    assert asked(shown)["requestId"] == waiting.status()["approvalRequest"]["requestId"]
    unchanged = ann.headers | {"If-None-Match": response.headers["ETag"]}
    assert api.get(url(waiting), headers=unchanged).status_code == 304

    proposed = shown["ui_state"]["mappings_to_approve"]
    assert [m["column"] for m in proposed] == ["Name", "OS", "RAM (MB)", "CPUs", "IP"]
    short = {"mappings": [{"column": "Name", "target": "hostname"}]}
    refused = api.post(
        url(waiting, "/approve-mappings"), headers=ann.headers, json=asked(shown) | short
    )
    assert refused.status_code == 422
    assert "'OS' is missing" in refused.text
    bare = api.post(url(waiting, "/approve-mappings"), headers=ann.headers, json={})
    assert bare.status_code == 428

    final = [
        {"column": m["column"], "target": None if m["column"] == "CPUs" else m["target"]}
        for m in proposed
    ]
    body = asked(shown) | {"mappings": final, "reason": "looked at it"}
    approved = api.post(url(waiting, "/approve-mappings"), headers=ann.headers, json=body)
    assert approved.is_success, approved.text
    waiting.wait("Queued", "Running", "Succeeded")
    # the same question again has an answer already
    again = api.post(url(waiting, "/approve-mappings"), headers=ann.headers, json=body)
    assert again.status_code == 409
    waiting.wait("Succeeded", seconds=120)
    rows = waiting.product.sql(
        "SELECT decided_by, reason FROM approval_requests WHERE state = 'Approved' "
        f"AND flow_id = '{waiting.uid}'"
    )
    assert rows == [[ann.user, "looked at it"]]
    # nobody's rights but the person's were used: the API server names the last writer of the spec
    assert waiting.get()["spec"]["approval"]["decidedBy"] == ann.user


def test_of_two_answers_at_once_one_wins_and_the_other_is_told(
    waiting: Flow, api: httpx.Client, person: Callable[..., Person]
) -> None:
    people = [person(name, "discoveryflow-approve") for name in ("ann", "bob")]
    body = asked(api.get(url(waiting), headers=people[0].headers).json())
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        futures = [
            pool.submit(api.post, url(waiting, action), headers=one.headers, json=body)
            for one, action in zip(people, ("/approve-mappings", "/reject-mappings"), strict=True)
        ]
        answers = [future.result() for future in futures]
    assert sorted(answer.status_code for answer in answers) == [200, 409], [
        answer.text for answer in answers
    ]
    winner = next(i for i, answer in enumerate(answers) if answer.status_code == 200)
    assert answers[winner].json()["decided_by"] == people[winner].user
    assert answers[1 - winner].headers["content-type"] == "application/problem+json"
    waiting.wait("Succeeded" if winner == 0 else "Rejected", seconds=120)


def test_who_may_see_but_not_answer_is_told_why(
    waiting: Flow, api: httpx.Client, person: Callable[..., Person]
) -> None:
    viewer = person("viewer", "view")
    editor = person("editor", "edit")
    body = asked(api.get(url(waiting), headers=viewer.headers).json())
    before = waiting.status()["approvalRequest"]["requestId"]
    for who, words in ((viewer, "cannot patch"), (editor, "may not answer approval requests")):
        response = api.post(url(waiting, "/approve-mappings"), headers=who.headers, json=body)
        assert response.status_code == 403, response.text
        assert words in response.json()["detail"]
    assert waiting.status()["approvalRequest"]["requestId"] == before


def test_who_may_not_see_learns_nothing(
    flow: Flow, api: httpx.Client, person: Callable[..., Person], product: Product
) -> None:
    flow.source()
    flow.create()
    flow.wait("Queued", "Running", "AwaitingApproval")
    elsewhere = product.admin.within(f"test-{uuid4().hex[:12]}")
    elsewhere("create", "namespace", str(elsewhere.namespace))
    try:
        nobody = person("nobody")
        foreigner = person("foreigner", "admin", within=elsewhere)
        unknown = api.get(f"/api/v1/discovery/flows/{uuid4()}", headers=nobody.headers)
        assert unknown.status_code == 404
        for who in (nobody, foreigner):
            hidden = api.get(url(flow), headers=who.headers)
            assert (hidden.status_code, hidden.json()) == (404, unknown.json())
            answer = api.post(
                url(flow, "/approve-mappings"),
                headers=who.headers,
                json={"requestId": str(uuid4()), "artefactDigest": "sha256:" + "0" * 64},
            )
            assert answer.status_code == 404
    finally:
        elsewhere("delete", "namespace", str(elsewhere.namespace), "--wait=false")
    assert api.get(url(flow)).status_code == 401
    forged = nobody.headers["Authorization"][:-8] + "AAAAAAAA"
    assert api.get(url(flow), headers={"Authorization": forged}).status_code == 401


def bound_token(kubectl: Kubectl, pod: str, account: str, audience: str = TOKEN_AUDIENCE) -> str:
    """A token as a projected volume holds it: for one audience, bound to one pod.

    Only a kubelet gets one; the other group lets this one ask for pods that are not on its node.
    """
    kubelet = kubectl.acting_as("kubelet", "system:nodes", "system:masters")
    return kubelet(
        *("create", "token", account, f"--audience={audience}"),
        *("--bound-object-kind=Pod", f"--bound-object-name={pod}"),
    ).strip()


def crew_pod(flow: Flow) -> dict[str, Any]:
    """The pod of the flow's first attempt, once it has claimed."""
    uid = flow.uid

    def claimed() -> str | None:
        rows = flow.product.sql(
            "SELECT pod_name FROM phase_runs WHERE state = 'Running' AND pod_name IS NOT NULL "
            f"AND flow_id = '{uid}'"
        )
        return rows[0][0] if rows else None

    name = eventually(claimed, seconds=60, what="a pod has claimed the attempt")
    found: dict[str, Any] = flow.kubectl.json("get", "pod", str(name))
    return found


def call(client: httpx.Client, method: str, path: str, token: str, **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return client.request(method, f"/execution/v1{path}", headers=headers, **more)


def stranger(
    kubectl: Kubectl,
    name: str,
    owner: dict[str, Any] | None = None,
    *,
    account: str = CREW_ACCOUNT,
) -> None:
    """A pod that never runs: what counts here is its token."""
    metadata: dict[str, Any] = {"name": name}
    if owner:
        metadata["ownerReferences"] = [owner]
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": {
                "serviceAccountName": account,
                "schedulingGates": [{"name": "test.discoveryflow.dev/never"}],
                "containers": [{"name": "x", "image": "localhost/none"}],
            },
        }
    )


@contextmanager
def forged_job(kubectl: Kubectl, name: str, flow: Flow) -> Iterator[dict[str, Any]]:
    """An owner reference to a Job of a new namespace that names a foreign flow as its owner.

    The finalizer keeps the garbage collector, which sees through this, from ending it too soon.
    """
    kubectl("create", "namespace", str(kubectl.namespace))
    eventually(
        lambda: kubectl.try_("get", "serviceaccount", "default").ok,
        seconds=20,
        what="the namespace's ServiceAccount",
    )
    container = {"name": "x", "image": "localhost/none"}
    kubectl.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": name,
                "finalizers": ["test.discoveryflow.dev/hold"],
                "ownerReferences": [
                    {
                        "apiVersion": "discoveryflow.dev/v1alpha1",
                        "kind": "DiscoveryFlow",
                        "name": flow.name,
                        "uid": flow.uid,
                        "controller": True,
                    }
                ],
            },
            "spec": {
                "suspend": True,
                "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
            },
        }
    )
    try:
        uid = kubectl.json("get", "job", name)["metadata"]["uid"]
        yield {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": name,
            "uid": uid,
            "controller": True,
        }
    finally:
        kubectl("patch", "job", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        kubectl("delete", "namespace", str(kubectl.namespace), "--wait=false")


def test_only_the_attempts_own_pod_is_served(
    flow: Flow, execution: httpx.Client, namespace: Kubectl, product: Product
) -> None:
    flow.source()
    flow.create()
    pod = crew_pod(flow)["metadata"]
    account = "discoveryflow-crew"

    # not a pod's token, or not for this audience
    nobody = call(execution, "POST", "/claim", "nonsense", json={})
    assert nobody.status_code == 401
    assert nobody.headers["content-type"] == "application/problem+json"
    ordinary = namespace("create", "token", "default").strip()
    assert call(execution, "POST", "/claim", ordinary, json={}).status_code == 401

    # a pod of the same namespace with another account, and one that no Job made
    stranger(namespace, "loose", account="default")
    loose = bound_token(namespace, "loose", "default")
    refused = call(execution, "POST", "/claim", loose, json={})
    assert refused.status_code == 403
    assert f"not of ServiceAccount {account}" in refused.json()["detail"]
    stranger(namespace, "jobless")
    jobless = bound_token(namespace, "jobless", account)
    refused = call(execution, "POST", "/claim", jobless, json={})
    assert refused.status_code == 403
    assert "not controlled by a Job" in refused.json()["detail"]

    # a Job of another namespace that says it belongs to our flow, and its pod
    elsewhere = product.admin.within(f"test-{uuid4().hex[:12]}")
    with forged_job(elsewhere, pod["labels"]["job-name"], flow) as owner:
        elsewhere("create", "serviceaccount", account)
        stranger(elsewhere, "foreign", owner)
        foreign = bound_token(elsewhere, "foreign", account)
        refused = call(execution, "POST", "/claim", foreign, json={})
        assert refused.status_code == 403
        assert refused.json()["detail"] == f"no flow {flow.uid}"

    # a second pod that says it belongs to the Job: the attempt has been claimed
    stranger(namespace, "second", pod["ownerReferences"][0])
    second = bound_token(namespace, "second", account)
    taken = call(execution, "POST", "/claim", second, json={})
    assert taken.status_code in (403, 409), taken.text

    # the pod itself, with its fence and with a wrong one
    own = bound_token(namespace, pod["name"], account)
    fence = product.sql(f"SELECT fence FROM phase_runs WHERE pod_uid = '{pod['uid']}'")[0][0]
    stale = call(execution, "POST", "/heartbeat", own, json={"fence": int(fence) + 1})
    assert stale.status_code == 409
    assert stale.json()["type"].endswith("/superseded")


def test_a_crew_pod_cannot_reach_another_tenants_data(
    flow: Flow,
    execution: httpx.Client,
    namespace: Kubectl,
    product: Product,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """With its own token and fence, a pod reads its own flow's bytes and nobody else's."""
    elsewhere = product.admin.within(f"test-{uuid4().hex[:12]}")
    elsewhere("create", "namespace", str(elsewhere.namespace))
    request.addfinalizer(
        lambda: elsewhere("delete", "namespace", str(elsewhere.namespace), "--wait=false")
    )
    other = Flow(elsewhere, product)
    other.source()
    other.create()
    sealed = f"SELECT digest FROM flow_artefacts WHERE flow_id = '{other.uid}' LIMIT 1"
    theirs = eventually(lambda: product.sql(sealed), seconds=60, what="their first artefact")
    source = tmp_path / "servers.csv"
    rows = (f"host{i},{i % 7} GB,team{i % 9}" for i in range(20_000))
    source.write_text("Name,RAM,Owner\n" + "\n".join(rows))
    flow.source(source)
    flow.create()
    pod = crew_pod(flow)["metadata"]
    own = bound_token(namespace, pod["name"], "discoveryflow-crew")
    fence = product.sql(f"SELECT fence FROM phase_runs WHERE pod_uid = '{pod['uid']}'")[0][0]
    params = {"fence": fence}
    mine = call(execution, "PUT", "/artefacts", own, params=params, content=b"mine")
    read = call(execution, "GET", f"/artefacts/{mine.json()['digest']}", own, params=params)
    assert (read.status_code, read.content) == (200, b"mine")
    response = call(execution, "GET", f"/artefacts/{theirs[0][0]}", own, params=params)
    assert response.status_code == 404, "409 would mean that the attempt was over too soon to try"
