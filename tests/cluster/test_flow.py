"""DiscoveryFlows from file to inventory: real crews in real pods, approved as people approve."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.cluster.kube import ROOT, Kubectl, eventually
from tests.cluster.product import Flow, Product

SHARED = ROOT.parent / "shared" / "data"
LLM_NAMESPACE = "llm-stub"
LLM_URL = "http://llm-stub.llm-stub.svc:8000/v1"
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
    "FlowSucceeded",
]


@pytest.fixture
def product(kubectl: Kubectl) -> Product:
    return Product(kubectl)


@pytest.fixture
def flow(product: Product, namespace: Kubectl) -> Flow:
    """A flow of an engagement of its own, in a namespace that enforces restricted pods."""
    label = "pod-security.kubernetes.io/enforce=restricted"
    product.admin("label", "namespace", str(namespace.namespace), label)
    namespace("create", "serviceaccount", "approver")
    namespace(
        *("create", "rolebinding", "approver", "--clusterrole=discoveryflow-approve"),
        f"--serviceaccount={namespace.namespace}:approver",
    )
    return Flow(namespace, product, spec={"engagement": f"e-{uuid4().hex[:8]}"})


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


def test_three_flows_in_a_row_reach_their_inventory(flow: Flow) -> None:
    flow.source(ROOT / "examples" / "servers.csv")
    for number in range(3):
        flow.name = f"servers-{number}"
        flow.create()
        flow.kubectl(
            *("wait", f"discoveryflow/{flow.name}", "--for=condition=AwaitingApproval"),
            "--timeout=120s",
            timeout=130,
        )
        waiting = flow.status()
        assert waiting["approvalRequest"]["mappings"] == 16
        conditions = {c["type"]: c["status"] for c in waiting["conditions"]}
        assert conditions["Reconciling"] == "False", "a parked flow is not reconciling"
        answer(flow, reason="as proposed")
        flow.kubectl(
            *("wait", f"discoveryflow/{flow.name}", "--for=condition=Succeeded"),
            "--timeout=120s",
            timeout=130,
        )
        status = flow.status()
        assert (status["recordsImported"], status["recordsRejected"]) == (246, 3)
        assert status["progress"] == "4/4"
        assert flow.history() == HAPPY
        assert [list(run) for run in flow.attempts()] == [
            [phase, "1", "Succeeded"]
            for phase in ("data_import", "data_cleansing", "field_mapping", "asset_inventory")
        ]
        assert_no_orphan(flow)
        # the same file again is the same inventory, not a second one
        assert len(assets(flow)) == status["assets"] == 238
    one = next(a for a in assets(flow) if (a["name"] or "").lower() == "dev-hr-batch090")
    assert one["type"] == "server"
    assert one["fields"]["memory_gb"] == 32
    decided = flow.product.sql(
        "SELECT actor, message FROM flow_events WHERE trigger = 'Approved' "
        f"AND flow_id = '{flow.uid}'"
    )
    assert decided == [[approver(flow), "as proposed"]]


@pytest.mark.parametrize(
    ("file", "rows", "name_field"),
    [
        (SHARED / "aws-cmf" / "server-list.csv", None, "hostname"),
        (SHARED / "kubev2v-rvtools" / "example1.xlsx", 9, "asset_name"),
    ],
    ids=["server-list.csv", "rvtools.xlsx"],
)
def test_a_real_export_reaches_its_inventory(
    flow: Flow, file: Path, rows: int | None, name_field: str
) -> None:
    if not file.exists():
        pytest.skip(f"{file.parent.name}/{file.name} is not beside the checkout")
    flow.source(file)
    flow.create()
    flow.wait("AwaitingApproval", seconds=120)
    answer(flow)
    status = flow.wait("Succeeded", seconds=120)
    assert status["recordsImported"] == (rows or status["recordsImported"])
    found = assets(flow)
    assert len(found) == status["assets"] > 0
    assert all(asset["fields"].get(name_field) for asset in found)
    assert flow.history() == HAPPY
    assert_no_orphan(flow)


def test_an_edit_changes_the_inventory(flow: Flow) -> None:
    flow.source("Name,Serial,Colour\nweb01,SN0001A,red\nweb02,SN0002B,blue\n")
    flow.create()
    flow.wait("AwaitingApproval", seconds=120)
    answer(flow, edits=[{"column": "Colour", "target": "description"}])
    flow.wait("Succeeded", seconds=120)
    assert sorted(asset["fields"]["description"] for asset in assets(flow)) == ["blue", "red"]


def test_a_bad_edit_is_refused_as_a_whole_and_asked_again(flow: Flow) -> None:
    flow.source()
    flow.create()
    first = flow.wait("AwaitingApproval", seconds=120)["approvalRequest"]
    answer(flow, edits=[{"column": "No such", "target": "hostname"}])
    renewed = eventually(
        lambda: (
            flow.status()
            if flow.status()["approvalRequest"]["requestId"] != first["requestId"]
            else None
        ),
        seconds=30,
        what="a new request",
    )
    assert renewed is not None
    assert renewed["state"] == "AwaitingApproval"
    assert "No such" in renewed["message"]
    assert renewed["approvalRequest"]["artefactDigest"] == first["artefactDigest"]
    answer(flow)
    flow.wait("Succeeded", seconds=120)


def test_a_rejected_flow_ends_without_inventory(flow: Flow) -> None:
    flow.source()
    flow.create()
    flow.wait("AwaitingApproval", seconds=120)
    answer(flow, "Reject", reason="the wrong file")
    status = flow.wait("Rejected", seconds=30)
    assert "the wrong file" in status["message"]
    assert assets(flow) == []
    assert flow.history()[-1] == "Rejected"
    assert_no_orphan(flow)


def test_nobody_answers(flow: Flow) -> None:
    flow.source()
    flow.spec["approvalPolicy"] = {"timeout": "3s"}
    flow.create()
    flow.wait("Rejected", seconds=120)
    assert flow.history()[-1] == "ExpiredRejected"
    assert_no_orphan(flow)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "servers.csv"),
        (b"", "empty"),
        (b"Name,OS\n", "servers.csv"),
    ],
    ids=["picture", "empty", "no-rows"],
)
def test_an_invalid_file_fails_with_a_clear_reason(
    flow: Flow, tmp_path: Path, content: bytes, words: str
) -> None:
    file = tmp_path / "servers.csv"
    file.write_bytes(content)
    flow.source(file)
    flow.create()
    status = flow.wait("Failed", seconds=90)
    assert words in status["message"]
    assert flow.condition("Stalled")["status"] == "True"
    assert [run[2] for run in flow.attempts()] == ["Failed"], "bad input is not tried again"
    assert assets(flow) == []
    assert_no_orphan(flow)


@pytest.fixture(scope="module")
def language_model(kubectl: Kubectl) -> Iterator[None]:
    """An OpenAI-compatible stub in the cluster, reached by its Service."""
    image = kubectl.within("discoveryflow").json("get", "deployment", "discoveryflow-operator")[
        "spec"
    ]["template"]["spec"]["containers"][0]["image"]
    script = (ROOT / "tests" / "stubs" / "llm_server.py").read_text(encoding="utf-8")
    kubectl("delete", "namespace", LLM_NAMESPACE, "--ignore-not-found", timeout=120)
    kubectl("create", "namespace", LLM_NAMESPACE)
    inside = kubectl.within(LLM_NAMESPACE)
    command = ["python", "/stub/llm_server.py", "--host", "0.0.0.0", "--port", "8000"]
    command += ["--behaviour", "script", "--script", json.dumps({"OS": "decline"})]
    inside.apply(
        [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "stub"},
                "data": {"llm_server.py": script},
            },
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "llm-stub", "labels": {"app": "llm-stub"}},
                "spec": {
                    "containers": [
                        {
                            "name": "stub",
                            "image": image,
                            "command": command,
                            "readinessProbe": {
                                "httpGet": {"path": "/stats", "port": 8000},
                                "periodSeconds": 1,
                            },
                            "volumeMounts": [{"name": "stub", "mountPath": "/stub"}],
                        }
                    ],
                    "volumes": [{"name": "stub", "configMap": {"name": "stub"}}],
                },
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "llm-stub"},
                "spec": {"selector": {"app": "llm-stub"}, "ports": [{"port": 8000}]},
            },
        ]
    )
    inside("wait", "pod/llm-stub", "--for=condition=Ready", "--timeout=60s", timeout=70)
    yield
    kubectl("delete", "namespace", LLM_NAMESPACE, "--wait=false")


def test_a_language_model_judges(flow: Flow, language_model: None) -> None:
    """All four crews with the real client over HTTP; the model declines one mapping."""
    flow.source()
    flow.kubectl("create", "secret", "generic", "llm", "--from-literal=api-key=not-a-real-key")
    flow.spec["llm"] = {
        "provider": "openaiCompatible",
        "baseUrl": LLM_URL,
        "model": "stub-model",
        "apiKeySecret": {"name": "llm", "key": "api-key"},
    }
    flow.create()
    flow.wait("AwaitingApproval", seconds=120)
    answer(flow)
    status = flow.wait("Succeeded", seconds=120)
    assert status["planner"] == "stub-model"
    assert len(assets(flow)) == 2
    assert all("os_name" not in asset["fields"] for asset in assets(flow)), "the model declined"
    usage = flow.product.sql(
        "SELECT phase, (usage->>'llmRequests')::int > 1, usage->>'planner' FROM phase_runs "
        f"WHERE flow_id = '{flow.uid}' ORDER BY claimed_at"
    )
    assert usage == [
        [phase, "t", "stub-model"]
        for phase in ("data_import", "data_cleansing", "field_mapping", "asset_inventory")
    ]


def test_a_file_on_a_volume(flow: Flow, product: Product) -> None:
    """The source on a PersistentVolumeClaim that somebody else has filled."""
    product.admin(
        *("label", "namespace", str(flow.kubectl.namespace), "--overwrite"),
        "pod-security.kubernetes.io/enforce=privileged",
    )
    volume = f"df-{uuid4().hex[:8]}"
    image = product.kubectl.json("get", "deployment", "discoveryflow-operator")["spec"]["template"][
        "spec"
    ]["containers"][0]["image"]
    product.admin.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": volume,
                "hostPath": {"path": f"/var/tmp/{volume}", "type": "DirectoryOrCreate"},
            },
        }
    )
    try:
        flow.kubectl.apply(_claim_and_writer(volume, image))
        flow.kubectl(
            *("wait", "pod/writer", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"),
            timeout=70,
        )
        flow.spec["source"] = {
            "persistentVolumeClaim": {"claimName": "exports", "path": "in/servers.csv"}
        }
        flow.create()
        status = flow.wait("AwaitingApproval", seconds=120)
        assert status["recordsImported"] == 1
    finally:
        flow.kubectl("delete", "discoveryflow", flow.name, "--ignore-not-found")
        product.admin("delete", "persistentvolume", volume, "--wait=false")


def _claim_and_writer(volume: str, image: str) -> list[dict[str, Any]]:
    write = (
        "import os; os.makedirs('/v/in'); open('/v/in/servers.csv', 'w').write('Name\\nweb01\\n')"
    )
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "exports"},
            "spec": {
                "storageClassName": volume,
                "volumeName": volume,
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "writer"},
            "spec": {
                "restartPolicy": "Never",
                "containers": [
                    {
                        "name": "writer",
                        "image": image,
                        "command": ["python", "-c", write],
                        "securityContext": {"runAsUser": 0},
                        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                    }
                ],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "exports"}}],
            },
        },
    ]
