"""A namespace's ResourceQuota or LimitRange has no room for a crew: told, and waited for.

The namespace's limits are somebody else's decision, and they change: such a wait costs none of the
flow's attempts (this one has only one), and it ends by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tests.cluster.kube import Kubectl, Manifest, eventually
from tests.cluster.product import Flow

Lift = Callable[[Kubectl], object]
OTHER_WORK: Manifest = {
    # never started, and counted all the same
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "other-work"},
    "spec": {
        "schedulingGates": [{"name": "example.org/never"}],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "work",
                "image": "localhost/none",
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    },
}


def quota(name: str, **hard: str) -> Manifest:
    """A ResourceQuota."""
    return _object("ResourceQuota", name, {"hard": hard})


def limit_range(**most: str) -> Manifest:
    """A LimitRange with the most that a container may use."""
    return _object("LimitRange", "tight", {"limits": [{"type": "Container", "max": most}]})


def _object(kind: str, name: str, spec: Mapping[str, Any]) -> Manifest:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


# what stands in the way, from first to last; what is told of it; how it goes away
OBSTACLES: tuple[tuple[str, tuple[str, ...], Lift], ...] = (
    (
        "limit range",
        ("the namespace's LimitRange does not allow the crew pod", "is 64Mi, but limit is"),
        lambda kubectl: kubectl("delete", "limitrange", "tight"),
    ),
    (
        "processors",
        ("the namespace's ResourceQuota is full", "limited: requests.cpu=100m"),
        lambda kubectl: kubectl.apply(quota("cpu", **{"requests.cpu": "2"})),
    ),
    (
        "pods",
        ("the namespace's ResourceQuota is full", "limited: pods=1"),
        lambda kubectl: kubectl("delete", "pod", "other-work", "--grace-period=0", "--force"),
    ),
)


def test_no_room_is_told_and_waited_for(flow: Flow) -> None:
    flow.kubectl.apply(
        [OTHER_WORK, quota("cpu", **{"requests.cpu": "100m"}), quota("pods", pods="1")]
    )
    # a quota refuses with other words until it has been counted for the first time
    eventually(
        lambda: [q["metadata"]["name"] for q in counted(flow.kubectl)] == ["cpu", "pods"],
        seconds=30,
        what="both quotas are in force",
    )
    flow.kubectl.apply(limit_range(memory="64Mi"))
    flow.source()
    flow.spec["retries"] = {"maxAttempts": 1, "initialDelay": "1s", "maxDelay": "2s"}
    flow.create()
    for what, told, lift in OBSTACLES:
        message = eventually(partial(refusal, flow, told), seconds=90, what=f"{what}: told")
        assert "is queued, because the namespace's" in message
        assert "it is tried again at" in message
        lift(flow.kubectl)
    eventually(
        lambda: ["data_import", "Succeeded"] in [[run[0], run[2]] for run in flow.attempts()],
        seconds=90,
        what="the crew has done its work",
    )


def counted(kubectl: Kubectl) -> list[dict[str, Any]]:
    """The quotas that are in force."""
    return [q for q in kubectl.json("get", "quota")["items"] if (q.get("status") or {}).get("used")]


def refusal(flow: Flow, words: tuple[str, ...]) -> str:
    """The flow's condition while it waits for room and says so with these words, else ""."""
    for condition in flow.status().get("conditions", []):
        if condition["type"] == "Reconciling" and condition["reason"] == "NamespaceQuota":
            assert condition["status"] == "True"
            message = str(condition["message"])
            return message if all(part in message for part in words) else ""
    return ""
