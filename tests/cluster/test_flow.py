"""DiscoveryFlows from file to inventory: real crews in real pods, approved as people approve."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from discovery_core.phases import PHASES

from tests.cluster.inventory import HAPPY, answer, approver, assert_no_orphan, assets
from tests.cluster.kube import ROOT, Kubectl, eventually
from tests.cluster.product import Flow

LLM_NAMESPACE = "llm-stub"
LLM_URL = "http://llm-stub.llm-stub.svc:8000/v1"


def test_flows_in_a_row_reach_one_inventory(flow: Flow) -> None:
    flow.source(ROOT / "examples" / "servers.csv")
    for number in range(2):
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
        assert (status["recordsImported"], status["recordsRejected"]) == (245, 4)
        assert status["progress"] == "6/6"
        assert flow.history() == HAPPY
        assert [list(run) for run in flow.attempts()] == [
            [spec.name, "1", "Succeeded"] for spec in PHASES
        ]
        assert_no_orphan(flow)
        # the same file again is the same inventory, not a second one
        assert len(assets(flow)) == status["assets"] == 237
    one = next(a for a in assets(flow) if (a["name"] or "").lower() == "dev-hr-batch090")
    assert one["type"] == "server"
    assert one["fields"]["memory_gb"] == 32
    decided = flow.product.sql(
        "SELECT actor, message FROM flow_events WHERE trigger = 'Approved' "
        f"AND flow_id = '{flow.uid}'"
    )
    assert decided == [[approver(flow), "as proposed"]]


def test_an_edit_changes_the_inventory(flow: Flow) -> None:
    flow.source("Name,Serial,Colour\nweb01,SN0001A,red\nweb02,SN0002B,blue\n")
    flow.create()
    flow.wait("AwaitingApproval", seconds=120)
    answer(flow, edits=[{"column": "Colour", "target": "description"}])
    flow.wait("Succeeded", seconds=120)
    assert sorted(asset["fields"]["description"] for asset in assets(flow)) == ["blue", "red"]


def test_a_bad_edit_is_refused_as_a_whole_and_asked_again(flow: Flow) -> None:
    first = flow.to_gate()["approvalRequest"]
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
    flow.to_gate()
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
    """All six crews with the real client over HTTP; the model declines one mapping."""
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
    assert usage == [[spec.name, "t", "stub-model"] for spec in PHASES]
