"""Both APIs on the cluster: real users with real tokens, and pods that want what is not theirs."""

from __future__ import annotations

import base64
import re
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.cluster.kube import Kubectl
from tests.cluster.product import INSTALLED_IN, Flow, Product


@dataclass(frozen=True)
class Door:
    """An API behind a port-forward, verified against the chart's CA under its service name."""

    client: httpx.Client
    host: str

    def call(self, method: str, path: str, token: str, **more: Any) -> httpx.Response:
        """One request as the owner of `token`."""
        return self.client.request(
            method,
            path,
            headers={"Authorization": f"Bearer {token}", "Host": self.host},
            extensions={"sni_hostname": self.host},
            **more,
        )


def _door(product: Product, component: str, port: int, tmp_path: Path) -> Iterator[Door]:
    host = f"discoveryflow-{component}.{INSTALLED_IN}.svc"
    secret = product.kubectl.json("get", "secret", f"discoveryflow-{component}-tls")
    authority = base64.b64decode(secret["data"]["ca.crt"]).decode()
    kubectl = product.kubectl
    process = subprocess.Popen(
        [
            *("kubectl", f"--kubeconfig={kubectl.kubeconfig}", f"--namespace={INSTALLED_IN}"),
            *("port-forward", f"service/discoveryflow-{component}", f":{port}"),
        ],
        env={**kubectl.environment, "PATH": kubectl.path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        assert found, line
        context = ssl.create_default_context(cadata=authority)
        with httpx.Client(
            base_url=f"https://127.0.0.1:{found[1]}", verify=context, timeout=30
        ) as client:
            yield Door(client, host)
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def product(kubectl: Kubectl) -> Product:
    return Product(kubectl)


@pytest.fixture
def api(product: Product, tmp_path: Path) -> Iterator[Door]:
    yield from _door(product, "api", 8444, tmp_path)


@pytest.fixture
def execution(product: Product, tmp_path: Path) -> Iterator[Door]:
    yield from _door(product, "execution", 8443, tmp_path)


@pytest.fixture
def flow(product: Product, namespace: Kubectl) -> Flow:
    """A flow that waits for approval, in a namespace with an approver, a viewer and a stranger."""
    for name, role in (("approver", "approve"), ("viewer", "view")):
        namespace("create", "serviceaccount", name)
        namespace(
            *("create", "rolebinding", name, f"--clusterrole=discoveryflow-{role}"),
            f"--serviceaccount={namespace.namespace}:{name}",
        )
    namespace("create", "serviceaccount", "stranger")
    flow = Flow(namespace, product, spec={"engagement": f"e-{uuid4().hex[:8]}"})
    flow.source()
    flow.create()
    flow.wait("AwaitingApproval", seconds=120)
    return flow


def token(flow: Flow, user: str, *more: str) -> str:
    """A fresh token of a ServiceAccount of the flow's namespace."""
    return flow.kubectl("create", "token", user, *more).strip()


def url(flow: Flow, action: str = "") -> str:
    return f"/api/v1/discovery/flows/{flow.uid}{action}"


def asked(flow: Flow) -> dict[str, str]:
    request = flow.status()["approvalRequest"]
    return {key: request[key] for key in ("requestId", "artefactDigest")}


def test_approving_over_rest(api: Door, flow: Flow) -> None:
    approver = token(flow, "approver")
    shown = api.call("GET", url(flow), approver).json()
    assert shown["phase_status"] == "awaiting_approval"
    mappings = shown["ui_state"]["mappings_to_approve"]
    assert {m["column"]: m["target"] for m in mappings}["OS"] == "os_name"
    assert all(m["reason"] and m["samples"] for m in mappings)
    final = [{"column": m["column"], "target": m["target"]} for m in mappings]
    body = asked(flow) | {"mappings": final, "reason": "read it"}
    done = api.call("POST", url(flow, "/approve-mappings"), approver, json=body)
    assert done.status_code == 200, done.text
    who = f"system:serviceaccount:{flow.kubectl.namespace}:approver"
    assert (done.json()["decision"], done.json()["decided_by"]) == ("Approved", who)
    again = {key: body[key] for key in ("requestId", "artefactDigest")}
    late = api.call("POST", url(flow, "/reject-mappings"), approver, json=again)
    assert late.status_code == 409
    assert who in late.json()["detail"]
    flow.wait("Succeeded", seconds=120)


def test_who_may_not_approve_is_told_why(api: Door, flow: Flow) -> None:
    viewer = token(flow, "viewer")
    assert api.call("GET", url(flow), viewer).status_code == 200
    refused = api.call("POST", url(flow, "/approve-mappings"), viewer, json=asked(flow))
    assert refused.status_code == 403
    assert flow.status()["state"] == "AwaitingApproval"


def test_who_may_not_see_learns_nothing(api: Door, flow: Flow) -> None:
    stranger = token(flow, "stranger")
    hidden = api.call("GET", url(flow), stranger)
    unknown = api.call("GET", f"/api/v1/discovery/flows/{uuid4()}", stranger)
    assert hidden.status_code == unknown.status_code == 404
    assert hidden.json() == unknown.json()
    assert api.call("GET", url(flow), "not-a-token").status_code == 401
    assert (
        api.call("POST", url(flow, "/approve-mappings"), stranger, json=asked(flow)).status_code
        == 404
    )


def test_a_foreign_pods_token_gets_no_attempt(execution: Door, flow: Flow) -> None:
    """The right audience is not enough: the token has to be bound to the attempt's own pod."""
    audience = "--audience=discoveryflow-execution"
    unbound = token(flow, "stranger", audience)
    answer = execution.call("POST", "/execution/v1/claim", unbound, json={})
    assert answer.status_code == 403
    pods = flow.kubectl.json("get", "pods", "-l", "discoveryflow.dev/phase=data_import")["items"]
    finished = pods[0]["metadata"]
    reused = token(
        flow,
        "discoveryflow-crew",
        *(audience, "--bound-object-kind=Pod", f"--bound-object-name={finished['name']}"),
        f"--bound-object-uid={finished['uid']}",
    )
    answer = execution.call("POST", "/execution/v1/claim", reused, json={})
    assert answer.status_code == 409, "the attempt has ended; its pod may not claim it again"
    default_audience = token(flow, "discoveryflow-crew")
    answer = execution.call("POST", "/execution/v1/claim", default_audience, json={})
    assert answer.status_code == 401


def test_crew_pods_hold_no_password_and_no_rights(flow: Flow) -> None:
    for pod in flow.kubectl.json("get", "pods", "-l", "app.kubernetes.io/component=crew")["items"]:
        text = str(pod["spec"])
        assert "DATABASE" not in text
        assert "postgres" not in text
        assert pod["spec"]["automountServiceAccountToken"] is False
    crew = f"system:serviceaccount:{flow.kubectl.namespace}:discoveryflow-crew"
    allowed = flow.kubectl.acting_as(crew)("auth", "can-i", "--list", "--no-headers")
    assert "discoveryflows" not in allowed
    assert "pods" not in allowed
    assert "secrets" not in allowed
