"""Raw objects, as Kubernetes writes them, and what is made of them."""

from __future__ import annotations

from typing import Any

import pytest
from discovery_core.errors import ErrorCode
from discovery_operator.failures import config_problem, job_failed, not_started, start_problem
from discovery_operator.observed import JobState
from discovery_operator.views import job_view, pod_view, resource_view

from tests.unit.operator.builders import FLOW_ID, job, pod


def raw_job(*conditions: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "j",
            "uid": "u",
            "labels": {
                "discoveryflow.dev/round": "1",
                "discoveryflow.dev/phase": "data_import",
                "discoveryflow.dev/attempt": "2",
            },
            "ownerReferences": [{"uid": "x"}, {"uid": str(FLOW_ID), "controller": True}],
        },
        "status": {"conditions": list(conditions)},
    }


def condition(kind: str, status: str = "True", **more: str) -> dict[str, Any]:
    return {"type": kind, "status": status, **more}


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        ([], JobState.ACTIVE),
        ([condition("Failed", "False")], JobState.ACTIVE),
        ([condition("Suspended")], JobState.ACTIVE),
        ([condition("SuccessCriteriaMet")], JobState.COMPLETE),
        ([condition("SuccessCriteriaMet"), condition("Complete")], JobState.COMPLETE),
        ([condition("FailureTarget", reason="DeadlineExceeded")], JobState.FAILED),
        ([condition("Complete"), condition("Failed")], JobState.FAILED),
    ],
)
def test_a_job_is_what_its_conditions_say(
    conditions: list[dict[str, Any]], state: JobState
) -> None:
    view = job_view(raw_job(*conditions))
    assert view.state is state
    assert view.attempt_key == ("1", "data_import", "2")
    assert view.owner_uid == str(FLOW_ID)


def raw_pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "status": status}


def crew(state: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "sidecar", "state": {}}, {"name": "crew", "state": state}]


def test_a_pod_that_misses_a_secret() -> None:
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "llm" not found'}
    view = pod_view(raw_pod(phase="Pending", containerStatuses=crew({"waiting": waiting})))
    assert config_problem(view) == 'secret "llm" not found'


def test_a_pod_that_no_node_takes() -> None:
    scheduled = condition(
        "PodScheduled", "False", reason="Unschedulable", message="Insufficient memory"
    )
    view = pod_view(raw_pod(phase="Pending", conditions=[scheduled]))
    assert "Insufficient memory" in start_problem(view)
    assert "Insufficient memory" in not_started("j", view, "").message


def test_a_pod_without_its_image() -> None:
    waiting = {"reason": "ImagePullBackOff", "message": "not found"}
    view = pod_view(raw_pod(phase="Pending", containerStatuses=crew({"waiting": waiting})))
    assert "crew image cannot be fetched" in start_problem(view)
    assert config_problem(view) == ""


def test_a_pod_that_just_starts_has_no_problem() -> None:
    waiting = {"reason": "ContainerCreating"}
    view = pod_view(raw_pod(phase="Pending", containerStatuses=crew({"waiting": waiting})))
    assert start_problem(view) == ""


def test_a_pod_that_ran_out_of_memory() -> None:
    ended = {"reason": "OOMKilled", "exitCode": 137}
    view = pod_view(raw_pod(phase="Failed", containerStatuses=crew({"terminated": ended})))
    failure = job_failed(job(JobState.FAILED), view, claimed=True)
    assert failure.code is ErrorCode.OUT_OF_MEMORY
    assert "memory limit" in failure.message


def test_a_pod_that_was_drained() -> None:
    target = condition("DisruptionTarget", reason="EvictionByEvictionAPI")
    view = pod_view(raw_pod(phase="Failed", conditions=[target]))
    assert job_failed(job(JobState.FAILED), view, claimed=True).counted is False


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (None, "made no pod"),
        (pod(phase="Running"), "did not reach the execution API"),
        (pod(phase="Pending"), "stayed Pending"),
    ],
)
def test_what_never_started_says_where_to_look(view: Any, words: str) -> None:
    message = not_started("servers-data-import-1", view, "").message
    assert words in message
    assert "kubectl" in message


def test_a_resource_with_a_spec_of_another_version_is_told_by_field() -> None:
    raw = {
        "metadata": {"uid": str(FLOW_ID), "namespace": "a", "name": "b", "generation": 3},
        "spec": {"source": {"configMap": {"name": "x", "key": "y"}}, "retries": {"maxAttempts": 0}},
    }
    view = resource_view(raw)
    assert view.spec is None
    assert view.spec_problem.startswith("spec.retries.maxAttempts: ")
    assert not view.deleting
