"""NetworkPolicies, enforced: what no policy allows is not reached, and a crew does its work.

The native cluster's bridge enforces none, so an enforcer runs beside it for these tests. The pods
here say over and over what they reach, since an enforcer learns of a pod only after it has begun.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import yaml

from tests.cluster.kube import ROOT, Kubectl, eventually
from tests.cluster.product import Flow, Product
from tests.cluster.provision.native import ADDRESS

# what is enforced is so for the whole node
pytestmark = [pytest.mark.alone, pytest.mark.native]

EXAMPLE = ROOT / "examples" / "crew-network-policy.yaml"
LOOK = """
import json, socket, sys, time
while True:
    reached = []
    for name, (host, port) in json.loads(sys.argv[1]).items():
        try:
            socket.create_connection((host, port), timeout=3).close()
            reached.append(name)
        except OSError:
            pass
    print(json.dumps(sorted(reached)), flush=True)
    time.sleep(0.5)
"""
CREW = {"app.kubernetes.io/managed-by": "discoveryflow", "app.kubernetes.io/component": "crew"}
MIGRATION = {
    "app.kubernetes.io/name": "discoveryflow",
    "app.kubernetes.io/instance": "discoveryflow",
    "app.kubernetes.io/component": "migration",
}


def switch(state: str) -> None:
    """Has policies enforced, or no more."""
    subprocess.run(
        [sys.executable, "-m", "tests.cluster.provision", "policies", state], cwd=ROOT, check=True
    )


def crew_policy() -> dict[str, Any]:
    """The example's policy. Names are answered by the machine here, not by pods."""
    policy: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    policy["spec"]["egress"][0]["to"].append({"ipBlock": {"cidr": f"{ADDRESS}/32"}})
    return policy


def targets(product: Product) -> dict[str, tuple[str, int]]:
    """What a pod may try to reach, by name: host and port."""
    (pod, *_) = product.kubectl.json(
        "get", "pods", "-l", "app.kubernetes.io/component=operator"
    )["items"]  # fmt: skip
    return {
        "execution": ("discoveryflow-execution.discoveryflow.svc", 8443),
        "api": ("discoveryflow-api.discoveryflow.svc", 8444),
        "postgresql": ("discoveryflow-postgresql.discoveryflow.svc", 5432),
        "metrics": (pod["status"]["podIP"], 8080),
        "kubernetes": ("kubernetes.default.svc", 443),
    }


class Looker:
    """A pod that tells what it reaches."""

    def __init__(self, kubectl: Kubectl, product: Product, labels: dict[str, str]) -> None:
        self._kubectl = kubectl
        self.last: list[str] | None = None
        self.name = f"looker-{uuid4().hex[:8]}"
        deployment = product.kubectl.json("get", "deployment", "discoveryflow-operator")
        image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
        container = {
            "name": "looker",
            "image": image,
            "command": ["python3", "-c", LOOK, json.dumps(targets(product))],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
        }
        kubectl.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": self.name, "labels": labels},
                "spec": {
                    "automountServiceAccountToken": False,
                    "terminationGracePeriodSeconds": 0,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [container],
                },
            }
        )

    def reaches(self, *expected: str) -> None:
        """Waits until exactly these are reached."""

        def probe() -> bool:
            told = self._kubectl.try_("logs", self.name, "--tail=1").stdout
            self.last = json.loads(told) if told.startswith("[") and told.endswith("]\n") else None
            return self.last == sorted(expected)

        eventually(probe, seconds=60, what=f"{self.name} reaches {expected} and nothing else")

    def remove(self) -> None:
        """Ends it."""
        self._kubectl("delete", "pod", self.name, "--ignore-not-found", "--wait=false")


@pytest.fixture
def lookers(flow: Flow, product: Product) -> Iterator[dict[str, Looker]]:
    """Pods by what they are: of a crew and of nobody in a flow's namespace, and of the release."""
    made: dict[str, Looker] = {}
    try:
        made["crew"] = Looker(flow.kubectl, product, CREW)
        made["stranger"] = Looker(flow.kubectl, product, {})
        made["neighbour"] = Looker(product.kubectl, product, {})
        made["migration"] = Looker(product.kubectl, product, MIGRATION)
        yield made
    finally:
        for looker in made.values():
            looker.remove()


@pytest.fixture
def enforced() -> Iterator[None]:
    """Policies are enforced, and afterwards none of it is left."""
    try:
        switch("on")
        yield
    finally:
        switch("off")
    rules = subprocess.run(["iptables-save"], check=True, capture_output=True, text=True).stdout
    assert "KUBE-ROUTER" not in rules
    assert "KUBE-POD-FW" not in rules


def test_without_an_enforcer_everything_is_reached(
    lookers: dict[str, Looker], flow: Flow, product: Product
) -> None:
    flow.kubectl.apply(crew_policy())
    for looker in lookers.values():
        looker.reaches(*targets(product))


@pytest.mark.usefixtures("enforced")
def test_s20_only_what_a_policy_allows_is_reached(lookers: dict[str, Looker], flow: Flow) -> None:
    flow.kubectl.apply(crew_policy())
    lookers["crew"].reaches("execution")
    lookers["stranger"].reaches("api", "kubernetes")
    lookers["neighbour"].reaches("api", "kubernetes")
    lookers["migration"].reaches("postgresql")


@pytest.mark.usefixtures("enforced")
def test_s20_a_flow_reaches_its_gate_under_enforced_policies(flow: Flow) -> None:
    flow.kubectl.apply(crew_policy())
    assert flow.to_gate()["approvalRequest"]
