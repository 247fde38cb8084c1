"""The gate on the real cluster: asked again, re-opened, raced for, answered with parts away."""

from __future__ import annotations

import base64
import concurrent.futures
import functools
import hashlib
import hmac
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.kube import Kubectl, eventually
from tests.cluster.people import Person, make_person, reached
from tests.cluster.product import INSTALLED_IN, SAMPLE, Flow, Product

API = "/api/v1/discovery"
EDITOR = ("discoveryflow-edit", "discoveryflow-approve", "view")
RECEIVER = "webhook-receiver"
WEBHOOK_KEY = "whsec_" + base64.b64encode(b"a key of the tests").decode()
PAIRS = 200 if os.environ.get("FAULTS") == "full" else 20


@pytest.fixture(scope="module")
def product(kubectl: Kubectl) -> Product:
    return Product(kubectl)


@pytest.fixture
def flow(product: Product, namespace: Kubectl) -> Flow:
    flow = Flow(namespace, product)
    flow.to_gate()
    return flow


def url(flow_id: str, action: str = "") -> str:
    return f"{API}/flows/{flow_id}{action}"


def asked(api: httpx.Client, flow_id: str, who: Person) -> dict[str, Any]:
    """What an answer has to name."""
    shown = api.get(url(flow_id), headers=who.headers).json()["approval_request"]
    return {key: shown[key] for key in ("requestId", "artefactDigest")}


def test_a_file_is_uploaded_watched_edited_and_approved(
    api: httpx.Client, namespace: Kubectl, product: Product, person: Callable[..., Person]
) -> None:
    ann = person("ann", *EDITOR)
    made = api.post(
        f"{API}/flows",
        headers=ann.headers,
        files=[
            ("namespace", (None, str(namespace.namespace))),
            ("name", (None, "uploaded")),
            ("file", ("servers.csv", SAMPLE.encode(), "text/csv")),
        ],
    )
    assert made.status_code == 201, made.text
    flow_id = made.json()["flow_id"]
    flow = Flow(namespace, product, name="uploaded")
    flow.wait("AwaitingApproval", seconds=120)
    shown = api.get(url(flow_id), headers=ann.headers).json()
    assert shown["permissions"] == {"approve": True, "update": True, "delete": True}
    columns = {m["column"]: m["target"] for m in shown["ui_state"]["mappings_to_approve"]}
    assert columns["RAM (MB)"] == "memory_gb"

    wrong = asked(api, flow_id, ann) | {"edits": [{"column": "OS", "target": "cpu_cores"}]}
    refused = api.post(url(flow_id, "/approve-mappings"), json=wrong, headers=ann.headers)
    assert refused.status_code == 422, refused.text
    assert "takes numbers" in refused.text
    right = asked(api, flow_id, ann) | {
        "edits": [{"column": "RAM (MB)", "target": "memory_gb", "transform": "unit:GB"}]
    }
    done = api.post(url(flow_id, "/approve-mappings"), json=right, headers=ann.headers)
    assert done.is_success, done.text
    flow.wait("Succeeded", seconds=120)
    page = api.get(url(flow_id, "/assets?q=web01"), headers=ann.headers).json()
    # 4096 "GB", because a person said so
    assert [item["fields"]["memory_gb"] for item in page["items"]] == [4096]
    rejected = api.get(url(flow_id, "/rejected-rows"), headers=ann.headers)
    assert rejected.status_code == 200
    names = {
        (a["phase"], a["name"])
        for a in api.get(url(flow_id, "/artefacts"), headers=ann.headers).json()
    }
    assert ("migration_strategy", "assets_xlsx") in names
    assert api.get(url(flow_id, "/records"), headers=ann.headers).json()["total"] == 2
    assert api.get(url(flow_id, "/quality"), headers=ann.headers).json()["quality_score"] > 0
    assert api.get(url(flow_id, "/dependencies"), headers=ann.headers).status_code == 200
    assert api.get(url(flow_id, "/strategies"), headers=ann.headers).json()["assets"] == 2


def test_asking_again_follows_the_hint_and_asks_anew(
    api: httpx.Client, flow: Flow, person: Callable[..., Person]
) -> None:
    ann = person("ann", *EDITOR)
    first = asked(api, flow.uid, ann)
    body = first | {"hint": "OS -> description\nand look at the rest", "reason": "OS is free text"}
    answer = api.post(url(flow.uid, "/ask-again"), json=body, headers=ann.headers)
    assert answer.is_success, answer.text

    def renewed() -> dict[str, Any] | None:
        shown = api.get(url(flow.uid), headers=ann.headers).json()
        request = shown["approval_request"]
        return shown if request and request["requestId"] != first["requestId"] else None

    shown = eventually(renewed, seconds=60, what="another request")
    assert shown is not None
    mapped = {m["column"]: m for m in shown["ui_state"]["mappings_to_approve"]}
    assert mapped["OS"]["target"] == "description"
    assert mapped["OS"]["reason"] == "As the hint asks."
    assert shown["round"] == 2
    late = api.post(url(flow.uid, "/approve-mappings"), json=first, headers=ann.headers)
    assert late.status_code == 409
    flow.set(approval=None)
    assert flow.status()["state"] == "AwaitingApproval"


def test_a_rejected_flow_is_opened_again_by_kubectl(
    api: httpx.Client, flow: Flow, person: Callable[..., Person]
) -> None:
    ann = person("ann", *EDITOR)
    first = asked(api, flow.uid, ann)
    body = first | {"reason": "not yet"}
    assert (
        api.post(url(flow.uid, "/reject-mappings"), json=body, headers=ann.headers).status_code
        == 200
    )
    flow.wait("Rejected")
    flow.set(rerun={"id": "again", "fromPhase": "approval"})
    flow.wait_for("AwaitingApproval")
    second = asked(api, flow.uid, ann)
    assert second["requestId"] != first["requestId"]
    assert second["artefactDigest"] == first["artefactDigest"]
    approved = api.post(url(flow.uid, "/approve-mappings"), json=second, headers=ann.headers)
    assert approved.is_success, approved.text
    flow.wait("Succeeded", seconds=120)
    assert flow.history().count("Approved") == 1


def test_a_round_from_a_phase_over_rest(
    api: httpx.Client, flow: Flow, person: Callable[..., Person]
) -> None:
    ann = person("ann", *EDITOR)
    approved = api.post(
        url(flow.uid, "/approve-mappings"), json=asked(api, flow.uid, ann), headers=ann.headers
    )
    assert approved.is_success, approved.text
    flow.wait("Succeeded", seconds=120)
    headers = ann.headers | {"Idempotency-Key": "strategy-again"}
    for _ in range(2):
        again = api.post(
            url(flow.uid, "/rerun"), json={"fromPhase": "migration_strategy"}, headers=headers
        )
        assert again.status_code == 200, again.text
    eventually(lambda: flow.status()["round"] == 2, seconds=30, what="the second round")
    flow.wait("Succeeded", seconds=90)
    assert [a for a in flow.attempts() if a[0] == "migration_strategy"] == [
        ["migration_strategy", "1", "Superseded"],
        ["migration_strategy", "1", "Succeeded"],
    ]


def test_stop_and_go_on_over_rest(
    api: httpx.Client, flow: Flow, person: Callable[..., Person]
) -> None:
    ann, bob = person("ann", *EDITOR), person("bob", "discoveryflow-approve")
    assert api.post(url(flow.uid, "/suspend"), headers=bob.headers).status_code == 403
    assert api.post(url(flow.uid, "/suspend"), headers=ann.headers).status_code == 200
    flow.wait("Suspended")
    assert api.post(url(flow.uid, "/resume"), headers=ann.headers).status_code == 200
    flow.wait("AwaitingApproval")
    assert api.post(url(flow.uid, "/cancel"), headers=ann.headers).status_code == 200
    eventually(lambda: flow.status()["state"] == "Cancelled", seconds=20, what="the end")


def test_of_many_pairs_each_has_one_decision(
    api: httpx.Client, flow: Flow, person: Callable[..., Person], product: Product
) -> None:
    """Approve and ask-again or reject at the same moment, again and again on one flow."""
    ann, bob = person("ann", *EDITOR), person("bob", *EDITOR)
    flow_id = flow.uid
    outcomes: Counter[str] = Counter()

    def send(answer: tuple[str, Person, dict[str, Any]]) -> httpx.Response:
        action, who, body = answer
        return api.post(url(flow_id, f"/{action}"), json=body, headers=who.headers)

    def question(of_round: int) -> bool:
        # not by kubectl: a process for each look is what this test would mostly do
        shown = api.get(url(flow_id), headers=ann.headers).json()
        return shown["round"] == of_round and shown["approval_request"] is not None

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for number in range(PAIRS):
            body = asked(api, flow_id, ann)
            pair = [("approve-mappings", ann, body), ("reject-mappings", bob, body)]
            # who is sent first changes from pair to pair
            answers = list(pool.map(send, pair if number % 2 else reversed(pair)))
            codes = sorted(answer.status_code for answer in answers)
            assert codes == [200, 409], [answer.text for answer in answers]
            (won,) = [answer.json() for answer in answers if answer.status_code == 200]
            outcomes[won["decision"]] += 1
            winner = ann.user if won["decision"] == "Approved" else bob.user
            assert won["decided_by"] == winner
            flow.set(rerun={"id": f"pair-{number}", "fromPhase": "approval"})
            upcoming = functools.partial(question, number + 2)
            eventually(upcoming, seconds=30, what="the next question", every=0.1)
    assert sum(outcomes.values()) == PAIRS
    decided = product.sql(
        "SELECT count(*), count(DISTINCT id), count(decided_by) FROM approval_requests "
        f"WHERE flow_id = '{flow_id}' AND state IN ('Approved', 'Rejected')"
    )
    assert decided == [[str(PAIRS)] * 3]


@pytest.mark.alone
def test_kubectl_answers_while_the_api_is_away(
    flow: Flow, product: Product, person: Callable[..., Person], tmp_path: Path
) -> None:
    ann = person("ann", "discoveryflow-approve")
    scale = ("scale", "deployment/discoveryflow-api")
    product.kubectl(*scale, "--replicas=0")
    try:
        request = flow.status()["approvalRequest"]
        answer = {key: request[key] for key in ("requestId", "artefactDigest")}
        patch = [
            {
                "op": "add",
                "path": "/spec/approval",
                "value": answer | {"decision": "Approve", "decidedBy": ann.user},
            }
        ]
        token = ann.headers["Authorization"].removeprefix("Bearer ")
        told = flow.kubectl.with_token(token, tmp_path).try_patch(
            "discoveryflows", flow.name, patch
        )
        assert told.ok, told.stderr
        flow.wait("Succeeded", seconds=120)
    finally:
        product.kubectl(*scale, "--replicas=1")
        product.kubectl("rollout", "status", "deployment/discoveryflow-api", "--timeout=90s")


@pytest.mark.alone
def test_an_answer_given_while_the_operator_is_away_counts_when_it_is_back(
    flow: Flow, product: Product, person: Callable[..., Person]
) -> None:
    ann = person("ann", "discoveryflow-approve")
    scale = ("scale", "deployment/discoveryflow-operator")
    product.kubectl(*scale, "--replicas=0")
    try:
        eventually(
            lambda: (
                not product.kubectl.json(
                    "get", "pods", "-l", "app.kubernetes.io/component=operator"
                )["items"]
            ),
            seconds=60,
            what="no operator",
        )
        with reached(product, "api", 8444) as api:
            body = asked(api, flow.uid, ann)
            answer = api.post(url(flow.uid, "/approve-mappings"), json=body, headers=ann.headers)
        assert answer.status_code == 202, answer.text
        assert answer.json()["committed"] is False
    finally:
        product.kubectl(*scale, "--replicas=2")
    flow.wait("Succeeded", seconds=150)
    assert product.sql(
        f"SELECT decided_by FROM approval_requests WHERE flow_id = '{flow.uid}'"
    ) == [[ann.user]]


SERVER = """
import http.server, json
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        kept = {name: self.headers[name] for name in self.headers if name.startswith("webhook")}
        print(json.dumps({"headers": kept, "body": body}), flush=True)
        Receiver.seen = getattr(Receiver, "seen", 0) + 1
        # the first message is refused once, so that it has to come again
        self.send_response(500 if Receiver.seen == 1 else 204)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("", 8080), Receiver).serve_forever()
"""


@pytest.fixture
def receiver(kubectl: Kubectl, product: Product) -> Iterator[Kubectl]:
    """A pod that writes down what it is told."""
    inside = kubectl.within(RECEIVER)
    kubectl("create", "namespace", RECEIVER)
    operator = product.kubectl.json("get", "deployment", "discoveryflow-operator")
    container = {
        "name": "receiver",
        "image": operator["spec"]["template"]["spec"]["containers"][0]["image"],
        "command": ["python3", "-c", SERVER],
        "ports": [{"containerPort": 8080}],
    }
    labels = {"app": "receiver"}
    inside.apply(
        [
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "receiver", "labels": labels},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "receiver"},
                "spec": {"selector": labels, "ports": [{"port": 8080}]},
            },
        ]
    )
    inside("wait", "pod/receiver", "--for=condition=Ready", "--timeout=60s")
    yield inside
    kubectl("delete", "namespace", RECEIVER, "--wait=true")


def test_the_namespaces_webhook_is_told_signed_and_again_after_a_failure(
    receiver: Kubectl, namespace: Kubectl, product: Product, api: httpx.Client
) -> None:
    namespace(
        *("create", "secret", "generic", "discoveryflow-webhook"),
        f"--from-literal=url=http://receiver.{RECEIVER}.svc:8080/hook",
        f"--from-literal=key={WEBHOOK_KEY}",
    )
    flow = Flow(namespace, product)
    flow.to_gate()
    ann = make_person(namespace, "ann", *EDITOR)
    body = asked(api, flow.uid, ann) | {"reason": "no"}
    api.post(url(flow.uid, "/reject-mappings"), json=body, headers=ann.headers)

    def told() -> list[dict[str, Any]] | None:
        lines = [json.loads(line) for line in receiver("logs", "receiver").splitlines()]
        kinds = [json.loads(line["body"])["type"] for line in lines]
        return (
            lines if {"request.opened", "request.decided", "flow.ended"} <= set(kinds[1:]) else None
        )

    lines = eventually(told, seconds=60, what="three messages")
    assert lines is not None
    first = lines[0]["headers"]["webhook-id"]
    assert [line["headers"]["webhook-id"] for line in lines].count(first) == 2
    for line in lines:
        sent = line["headers"]
        signed = f"{sent['webhook-id']}.{sent['webhook-timestamp']}.{line['body']}".encode()
        key = base64.b64decode(WEBHOOK_KEY.removeprefix("whsec_"))
        expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        assert sent["webhook-signature"] == f"v1,{expected}"
    bodies = {json.loads(line["body"])["type"]: json.loads(line["body"]) for line in lines}
    assert bodies["request.opened"]["url"] == f"https://discovery.test/flows/{flow.uid}/review"
    assert bodies["request.decided"]["request"]["decidedBy"] == ann.user
    assert bodies["flow.ended"]["state"] == "Rejected"
    assert INSTALLED_IN not in json.dumps(bodies["request.opened"]["text"])
