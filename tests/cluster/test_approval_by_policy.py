"""Approval by policy on the real cluster; the chart is installed with approval.allowAutomatic.

Whether the policy may decide is looked at twice: by admission, when somebody asks for it, and by
the operator, when the mappings are there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any
from uuid import uuid4

import pytest

from tests.cluster.kube import Kubectl, Outcome
from tests.cluster.people import Person
from tests.cluster.product import Flow, Product

# "Zweck" is in no schema
UNSURE = "Name,OS,Zweck\nweb01,Debian 12,Schaufenster\nweb02,Debian 12,Lager\n"
NAMELESS = "OS,RAM (MB),CPUs\nDebian 12,4096,2\nDebian 12,8192,4\n"


def policy(confidence: float) -> dict[str, Any]:
    """An approvalPolicy that approves from that confidence on."""
    return {"approvalPolicy": {"mode": "AutoApprove", "minConfidence": confidence}}


@pytest.fixture
def flow(product: Product, namespace: Kubectl) -> Flow:
    return Flow(namespace, product, spec={"engagement": f"e-{uuid4().hex[:8]}"})


def test_where_every_mapping_is_sure_enough_nobody_is_asked(product: Product, flow: Flow) -> None:
    flow.source()
    flow.spec |= policy(0.3)
    flow.create()
    flow.wait("Succeeded", seconds=240)
    (request,) = product.sql(
        "SELECT state, decided_by, decided_via, reason FROM approval_requests "
        f"WHERE flow_id = '{flow.uid}'"
    )
    assert request[:3] == ["Approved", "policy", "policy"]
    assert request[3] == "every mapping has at least confidence 0.3"
    (event,) = product.sql(
        "SELECT actor, message FROM flow_events "
        f"WHERE flow_id = '{flow.uid}' AND trigger = 'Approved'"
    )
    assert event[0] == "policy"
    assert "approval" not in flow.get()["spec"]
    assert flow.status()["assets"] == 2


@pytest.mark.parametrize(
    ("content", "confidence", "why"),
    [
        (UNSURE, 0.95, r"least certain mapping has confidence 0\.\d\d.*minConfidence is 0\.95"),
        (NAMELESS, 0, "no column is mapped to asset_name"),
    ],
    ids=["one mapping is not sure enough", "a required field has no column"],
)
def test_otherwise_a_person_is_asked_and_told_why(
    product: Product, flow: Flow, content: str, confidence: float, why: str
) -> None:
    flow.source(content)
    flow.spec |= policy(confidence)
    flow.create()
    status = flow.wait("AwaitingApproval", seconds=240)
    assert re.search(why, status["message"]), status["message"]
    # and it stays so: the operator looks again every few seconds
    sleep(8)
    assert flow.status()["state"] == "AwaitingApproval"
    requests = product.sql(
        f"SELECT state, decided_by FROM approval_requests WHERE flow_id = '{flow.uid}'"
    )
    assert requests == [["Open", ""]]


def test_only_who_may_approve_may_let_a_policy_approve(
    flow: Flow, person: Callable[..., Person], namespace: Kubectl, tmp_path: Path
) -> None:
    """Else whoever may create a flow could answer for those who may approve it."""
    flow.source()

    def creates(who: Person, name: str, **spec: Any) -> Outcome:
        token = who.headers["Authorization"].removeprefix("Bearer ")
        source = {"configMap": {"name": "servers", "key": "servers.csv"}}
        return namespace.with_token(token, tmp_path).try_create(
            {
                "apiVersion": "discoveryflow.dev/v1alpha1",
                "kind": "DiscoveryFlow",
                "metadata": {"name": name},
                "spec": {"source": source} | spec,
            },
            dry_run=True,
        )

    bob, ann = person("bob", "edit"), person("ann", "edit", "discoveryflow-approve")
    assert creates(bob, "asked").ok
    refused = creates(bob, "unasked", **policy(0.3))
    assert not refused.ok
    assert "verb approve" in refused.stderr
    allowed = creates(ann, "unasked", **policy(0.3))
    assert allowed.ok, allowed.stderr
