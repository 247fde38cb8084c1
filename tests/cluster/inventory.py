"""What tests of whole flows share: answering, the inventory, and that nothing is left over."""

from __future__ import annotations

import json
from typing import Any

from tests.cluster.kube import eventually
from tests.cluster.product import Flow

# the transitions of a flow whose mappings were approved
HAPPY = [
    "Created",
    "Admitted",
    "AttemptStarted",
    "PhaseSucceeded",
    "AttemptStarted",
    "PhaseSucceeded",
    "AttemptStarted",
    "ApprovalRequested",
    "Approved",
    "AttemptStarted",
    "PhaseSucceeded",
    "AttemptStarted",
    "PhaseSucceeded",
    "AttemptStarted",
    "FlowSucceeded",
]


def approver(flow: Flow) -> str:
    """The user who may answer."""
    return f"system:serviceaccount:{flow.kubectl.namespace}:approver"


def answer(flow: Flow, decision: str = "Approve", **more: Any) -> None:
    """Answers the open request as the approver, by kubectl."""
    request = flow.status()["approvalRequest"]
    value = {
        "requestId": request["requestId"],
        "artefactDigest": request["artefactDigest"],
        "decision": decision,
        "decidedBy": approver(flow),
        **more,
    }
    patch = json.dumps([{"op": "add", "path": "/spec/approval", "value": value}])
    flow.kubectl.acting_as(approver(flow))(
        "patch", "discoveryflow", flow.name, "--type=json", "-p", patch
    )


def assert_no_orphan(flow: Flow) -> None:
    """Nothing is left that no accepted result or history row needs."""
    uid = flow.uid
    for what, query in {
        "live attempts": "SELECT count(*) FROM phase_runs WHERE state IN "
        f"('Created', 'Launched', 'Running') AND flow_id = '{uid}'",
        "open requests": "SELECT count(*) FROM approval_requests WHERE state = 'Open' "
        f"AND flow_id = '{uid}'",
        "rows of attempts that were not accepted": "SELECT count(*) FROM records r JOIN "
        "phase_runs p ON p.id = r.run_id WHERE p.state <> 'Succeeded' "
        f"AND p.flow_id = '{uid}'",
    }.items():
        assert flow.product.sql(query) == [["0"]], what
    # a Job's status follows its container by a second or two
    eventually(
        lambda: all(job["status"].get("active", 0) == 0 for job in flow.jobs()),
        seconds=20,
        what="no Job works any more",
    )
    for job in flow.jobs():
        owner = job["metadata"]["ownerReferences"][0]["uid"]
        assert owner == job["metadata"]["labels"]["discoveryflow.dev/flow-uid"]


def assets(flow: Flow) -> list[dict[str, Any]]:
    """The merged inventory of the flow's engagement."""
    rows = flow.product.sql(
        "SELECT json_build_object('name', name, 'type', asset_type, 'fields', fields) "
        f"FROM assets WHERE engagement = '{flow.spec['engagement']}' ORDER BY identity"
    )
    return [json.loads(row[0]) for row in rows]
