"""What the operator does on a real cluster when things go wrong, are missing or are taken back."""

from __future__ import annotations

import pytest

from tests.cluster.kube import eventually
from tests.cluster.product import Flow

MODEL = {"provider": "openai", "model": "none", "apiKeySecret": {"name": "llm", "key": "api-key"}}


def started(flow: Flow) -> dict[str, str]:
    """Waits for the first Job; returns its labels."""
    jobs = eventually(flow.jobs, seconds=30, what="a Job")
    labels: dict[str, str] = jobs[0]["metadata"]["labels"]
    return labels


def test_a_missing_source_is_named_and_the_flow_goes_on_when_it_appears(flow: Flow) -> None:
    flow.create()
    message = flow.wait("Waiting")["message"]
    assert "ConfigMap 'servers'" in message
    assert flow.condition("Stalled")["status"] == "True"
    assert flow.jobs() == []
    flow.source()
    flow.wait("Running", "Queued", seconds=40)
    assert started(flow)["discoveryflow.dev/attempt"] == "1"


def test_a_missing_secret_is_named_and_the_same_pod_goes_on_when_it_appears(flow: Flow) -> None:
    flow.source()
    flow.spec["llm"] = MODEL
    flow.create()
    message = flow.wait("Waiting")["message"]
    assert "llm" in message
    assert "not found" in message
    flow.kubectl("create", "secret", "generic", "llm", "--from-literal=api-key=x")
    claimed = "SELECT count(*) FROM phase_runs WHERE claimed_at IS NOT NULL AND attempt = 1 AND "
    uid = flow.uid
    eventually(
        lambda: flow.product.sql(f"{claimed} flow_id = '{uid}'") == [["1"]],
        seconds=120,
        what="the waiting pod claims its attempt",
    )
    assert "Claimed" in flow.history()


def test_deletion_in_the_middle_leaves_nothing_behind(flow: Flow) -> None:
    flow.source()
    flow.create()
    started(flow)
    uid = flow.uid
    flow.kubectl("delete", "discoveryflow", flow.name)
    eventually(
        lambda: (
            flow.product.sql(f"SELECT state FROM discovery_flows WHERE flow_id = '{uid}'")
            == [["Cancelled"]]
        ),
        seconds=30,
        what="the flow's row has ended",
    )
    assert flow.history(uid)[-1] == "Deleted"
    eventually(lambda: flow.jobs() == [], seconds=60, what="the Jobs are gone")
    left = flow.product.sql(
        f"SELECT count(*) FROM flow_artefacts WHERE flow_id = '{uid}' "
        f"UNION ALL SELECT count(*) FROM phase_runs WHERE flow_id = '{uid}' "
        "AND state IN ('Created', 'Launched', 'Running')"
    )
    assert left == [["0"], ["0"]]


def test_a_deleted_job_is_replaced_by_another_attempt(flow: Flow) -> None:
    flow.source()
    flow.spec["retries"] = {"maxAttempts": 5, "initialDelay": "1s", "maxDelay": "2s"}
    flow.create()
    started(flow)
    flow.kubectl("delete", "jobs", "--all", "--wait=true")
    uid = flow.uid
    eventually(
        lambda: any(int(attempt) > 1 for _, attempt, _ in flow.attempts(uid)),
        seconds=60,
        what="a second attempt",
    )
    assert "AttemptFailed" in flow.history()


def test_suspend_stops_the_pod_and_run_goes_on(flow: Flow) -> None:
    flow.source()
    flow.create()
    started(flow)
    flow.set(state="Suspend")
    flow.wait("Suspended", seconds=30)
    eventually(
        lambda: not [j for j in flow.jobs() if not (j.get("status") or {}).get("conditions")],
        seconds=30,
        what="no Job runs while the flow is suspended",
    )
    flow.set(state="Run")
    flow.wait("Running", "AwaitingApproval", seconds=30)
    flow.set(state="Cancel")
    flow.wait("Cancelled", seconds=30)
    refused = flow.kubectl.try_(
        "patch", "discoveryflow", flow.name, "--type=merge", "-p", '{"spec":{"state":"Run"}}'
    )
    assert not refused.ok
    assert "Cancel is final" in refused.stderr


@pytest.mark.alone
def test_an_operator_killed_in_the_middle_makes_no_second_attempt(flow: Flow) -> None:
    flow.source()
    flow.create()
    started(flow)
    flow.product.kill_operator()
    flow.wait("AwaitingApproval", seconds=120)
    attempts = flow.attempts()
    assert [(phase, attempt) for phase, attempt, _ in attempts] == [
        ("data_import", "1"), ("data_cleansing", "1"), ("field_mapping", "1"),
    ]  # fmt: skip
    assert {state for _, _, state in attempts} == {"Succeeded"}
    assert len(flow.jobs()) == 3
