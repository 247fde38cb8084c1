"""What keeps a crew's pod from its work, or takes it away: told in words, and tried again by rule.

The scheduler, the kubelet, the garbage collector of pods and the Eviction API do here what they do
on any cluster. What is no doing of the flow costs none of its attempts; all else does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.cluster.kube import Helm, Kubectl, eventually
from tests.cluster.outages import cordoned
from tests.cluster.product import INSTALLED_IN, Flow
from tests.cluster.sandbox import CHART

# these change what is installed, and the node
pytestmark = pytest.mark.alone

RELEASE = "discoveryflow"
ONCE = {"maxAttempts": 1, "initialDelay": "1s", "maxDelay": "2s"}
Configured = Callable[..., None]


def says(flow: Flow, *words: str, seconds: float = 90) -> str:
    """Waits until the flow's message has all these words; returns it."""

    def probe() -> str:
        message = str(flow.status().get("message", ""))
        return message if all(part in message for part in words) else ""

    return eventually(probe, seconds=seconds, what=f"the message says {words}")


def failures(flow: Flow) -> list[list[str]]:
    """Error codes and messages of the attempts that have failed, the oldest first."""
    return flow.product.sql(
        "SELECT error_code, error_message FROM phase_runs WHERE state = 'Failed' "
        f"AND flow_id = '{flow.uid}' ORDER BY launched_at"
    )


def pod_of(flow: Flow) -> str:
    """Waits until a pod of the flow has a node; returns its name."""

    def probe() -> str:
        pods = flow.kubectl.json("get", "pods", "--field-selector=status.phase!=Failed")["items"]
        bound = [p["metadata"]["name"] for p in pods if p["spec"].get("nodeName")]
        return bound[-1] if bound else ""

    return eventually(probe, seconds=60, what="a crew pod on a node")


@pytest.fixture
def waiting_crew(flow: Flow) -> Iterator[Flow]:
    """A flow whose pod stays at its work: the execution API that it reports to is away."""
    deployment = f"deployment/{RELEASE}-execution"
    product = flow.product.kubectl
    before = str(product.json("get", deployment)["spec"]["replicas"])
    product("scale", deployment, "--replicas=0")
    try:
        flow.source()
        flow.spec["retries"] = ONCE
        flow.create()
        yield flow
    finally:
        product("scale", deployment, f"--replicas={before}")
        product("rollout", "status", deployment, "--timeout=120s", timeout=130)


def test_a_drained_node(waiting_crew: Flow, kubectl: Kubectl) -> None:
    flow = waiting_crew
    pod_of(flow)
    with cordoned(kubectl) as nodes:
        flow.kubectl(
            "drain", *nodes, f"--pod-selector=discoveryflow.dev/flow-uid={flow.uid}",
            "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s", timeout=70,
        )  # fmt: skip
        says(flow, "attempt 2", "no node can run the pod:", "unschedulable")
    ((code, message),) = failures(flow)
    assert code == "PodLost"
    assert "because it was evicted, as when a node is drained (EvictionByEvictionAPI)" in message
    pod_of(flow)


def test_a_pod_that_somebody_deletes(waiting_crew: Flow) -> None:
    flow = waiting_crew
    flow.kubectl("delete", "pod", pod_of(flow), "--wait=false")
    flow.wait_for("Failed")
    stalled = flow.condition("Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "PodLost")
    assert "was deleted" in stalled["message"]


@pytest.fixture
def dead_node(kubectl: Kubectl) -> Iterator[str]:
    """A node that has said that it is ready and will never say anything again."""
    name = f"dead-{uuid4().hex[:8]}"
    room = {"cpu": "8", "memory": "16Gi", "pods": "20", "ephemeral-storage": "50Gi"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready"}
    kubectl.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    status = {"status": {"capacity": room, "allocatable": room, "conditions": [ready]}}
    patch("node", name, kubectl, status)
    yield name
    kubectl("delete", "node", name)


def patch(kind: str, name: str, kubectl: Kubectl, status: dict[str, Any]) -> None:
    """Reports a status, as a kubelet does."""
    kubectl("patch", kind, name, "--subresource=status", "--type=merge", "-p", json.dumps(status))


@pytest.mark.exhaustive
def test_a_node_that_dies(flow: Flow, kubectl: Kubectl, dead_node: str) -> None:
    flow.source()
    flow.spec["retries"] = ONCE
    with cordoned(kubectl, but=dead_node):
        flow.create()
        pod = pod_of(flow)
        # the last that was heard of it
        started = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
        crew = {"name": "crew", "image": "crew", "imageID": "crew", "ready": True,
                "restartCount": 0, "state": started}  # fmt: skip
        ready = [{"type": kind, "status": "True"} for kind in ("PodScheduled", "Ready")]
        told = {"phase": "Running", "conditions": ready, "containerStatuses": [crew]}
        patch("pod", pod, flow.kubectl, {"status": told})
        says(flow, f"node {dead_node} does not answer, nothing is known of the pod", seconds=180)
        # what an administrator does then
        kubectl("taint", "node", dead_node, "node.kubernetes.io/out-of-service=yes:NoExecute")
        says(flow, "attempt 2", "no node can run the pod:")
    ((code, message),) = failures(flow)
    assert code == "PodLost"
    assert f"was taken from node {dead_node} because the node was tainted" in message
    eventually(
        lambda: ["data_import", "2", "Succeeded"] in [list(run) for run in flow.attempts()],
        seconds=120,
        what="the second attempt, on a node that lives, does the work",
    )


@pytest.fixture(scope="module")
def configured(
    helm: Helm, kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Configured]:
    """Gives the installed release other values, until the end of this file."""
    inside = kubectl.within(INSTALLED_IN)
    release = (RELEASE, f"--namespace={INSTALLED_IN}")
    history = json.loads(helm("history", *release, "--output=json"))
    values = tmp_path_factory.mktemp("helm") / "values.json"
    values.write_text(helm("get", "values", *release, "--output=json"))

    def rolled_out() -> None:
        deployment = f"deployment/{RELEASE}-operator"
        inside("rollout", "status", deployment, "--timeout=120s", timeout=130)

    def configure(*changes: str) -> None:
        settings = [f"--set={change}" for change in changes]
        helm("upgrade", *release, str(CHART), f"--values={values}", *settings)
        rolled_out()

    yield configure
    helm("rollback", *release, str(history[-1]["revision"]))
    rolled_out()


def test_an_image_that_cannot_be_pulled(flow: Flow, configured: Configured) -> None:
    configured("crews.image.tag=none-of-this-name", "crews.pendingAllowanceSeconds=30")
    flow.source()
    flow.spec["retries"] = ONCE
    flow.create()
    remedy = "check the chart's crews.image and crews.imagePullSecrets"
    says(flow, "the crew image cannot be fetched", "none-of-this-name", remedy)
    flow.wait_for("Failed", seconds=120)
    stalled = flow.condition("Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "NotStarted")
    assert "the attempt did not start in time: the crew image cannot be" in stalled["message"]


def test_too_little_memory(flow: Flow, configured: Configured) -> None:
    configured("crews.resources.requests.memory=16Mi", "crews.resources.limits.memory=40Mi")
    flow.source()
    flow.spec["retries"] = ONCE | {"maxAttempts": 2}
    flow.create()
    flow.wait_for("Failed", seconds=120)
    stalled = flow.condition("Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "OutOfMemory")
    assert "needed more memory than its limit; ask the administrator to raise" in stalled["message"]
    assert [code for code, _ in failures(flow)] == ["OutOfMemory"] * 2
