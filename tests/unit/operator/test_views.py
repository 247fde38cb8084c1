"""Raw objects, as Kubernetes writes them, and what is made of them."""

from __future__ import annotations

from typing import Any

import pytest
from discovery_core.errors import ErrorCode
from discovery_core.states import FlowState, RunState
from discovery_operator.failures import (
    config_problem,
    job_failed,
    no_room,
    not_started,
    pod_problem,
    silent,
    start_problem,
)
from discovery_operator.observed import JobState
from discovery_operator.status import build_status
from discovery_operator.views import job_view, pod_view, resource_view

from tests.unit.operator.builders import FLOW_ID, job, observed, pod, run


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


COUNTED = 'jobs.batch "servers-1" is forbidden: exceeded quota: jobs, requested: '
FULL = COUNTED + "count/jobs.batch=1, used: count/jobs.batch=5, limited: count/jobs.batch=5"
NO_ROOM = [
    (FULL, "ResourceQuota is full (exceeded quota: jobs, requested: count/jobs.batch=1"),
    (
        (
            'Error creating: pods "servers-1-x7" is forbidden: exceeded quota: compute, requested: '
            "requests.memory=512Mi, used: requests.memory=1Gi, limited: requests.memory=1Gi"
        ),
        "limited: requests.memory=1Gi); it goes on when other work there has ended",
    ),
    (
        (
            'Error creating: pods "servers-1-x7" is forbidden: failed quota: compute: must specify '
            "limits.cpu for: crew"
        ),
        "asks for what crew pods do not set (failed quota: compute: must specify limits.cpu",
    ),
    (
        (
            'Error creating: pods "servers-1-x7" is forbidden: [maximum memory usage per Container '
            "is 1Gi, but limit is 2Gi, minimum cpu usage per Pod is 1, but request is 250m]"
        ),
        (
            "LimitRange does not allow the crew pod (maximum memory usage per Container is 1Gi, "
            "but limit is 2Gi, minimum cpu usage per Pod is 1, but request is 250m); ask"
        ),
    ),
    (
        (
            'pods "x" is forbidden: memory max limit to request ratio per Container is 2, but '
            "provided ratio is 4.000000"
        ),
        "LimitRange does not allow the crew pod (memory max limit to request ratio",
    ),
]


@pytest.mark.parametrize(("refusal", "words"), NO_ROOM)
def test_a_namespace_without_room_is_told_and_does_not_count(refusal: str, words: str) -> None:
    failure = no_room(refusal)
    assert failure is not None
    assert words in failure.message
    assert (failure.code, failure.counted) == (ErrorCode.NAMESPACE_QUOTA, False)


@pytest.mark.parametrize(
    "refusal",
    [
        "",
        'jobs.batch "servers-1" already exists',
        'Error creating: pods "x" is forbidden: violates PodSecurity "restricted:latest"',
        'Error creating: pods "x" is forbidden: error looking up service account a/crew',
    ],
)
def test_other_refusals_are_no_wait_for_room(refusal: str) -> None:
    assert no_room(refusal) is None


def test_a_job_has_made_a_pod_as_soon_as_one_is_counted() -> None:
    assert not job_view(raw_job()).made_pod
    assert job_view({**raw_job(), "status": {"active": 1, "ready": 0}}).made_pod


def test_a_pod_that_ran_out_of_memory() -> None:
    ended = {"reason": "OOMKilled", "exitCode": 137}
    view = pod_view(raw_pod(phase="Failed", containerStatuses=crew({"terminated": ended})))
    failure = job_failed(job(JobState.FAILED), view, claimed=True)
    assert failure.code is ErrorCode.OUT_OF_MEMORY
    assert "memory limit" in failure.message


STARTED = {
    "name": "crew",
    "ready": True,
    "state": {"running": {"startedAt": "2026-11-23T12:00:00Z"}},
}
DISRUPTED = [
    ("PreemptionByScheduler", "to make room for a pod of higher priority"),
    ("DeletionByTaintManager", "the node was tainted"),
    ("EvictionByEvictionAPI", "as when a node is drained"),
    ("DeletionByPodGC", "the node no longer exists"),
]


def on_node(**status: Any) -> Any:
    return pod_view({**raw_pod(**status), "spec": {"nodeName": "worker-3"}})


@pytest.mark.parametrize(("reason", "words"), DISRUPTED)
def test_a_pod_that_is_taken_from_its_node(reason: str, words: str) -> None:
    target = condition("DisruptionTarget", reason=reason)
    running = on_node(phase="Running", conditions=[target], containerStatuses=[STARTED])
    assert "being taken from node worker-3" in pod_problem(running)
    assert words in pod_problem(running)
    ended = on_node(
        phase="Failed",
        conditions=[target],
        containerStatuses=crew({"terminated": {"reason": "Error", "exitCode": 143}}),
    )
    assert pod_problem(ended) == ""
    failure = job_failed(job(JobState.FAILED), ended, claimed=True)
    assert (failure.code, failure.counted) == (ErrorCode.POD_LOST, False)
    assert words in failure.message
    assert "node worker-3" in failure.message


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Unknown"},
        {"phase": "Running", "reason": "NodeLost", "message": "Node worker-3 is unresponsive"},
        {
            "phase": "Running",
            "conditions": [condition("Ready", "False"), condition("PodScheduled")],
            "containerStatuses": [STARTED],
        },
    ],
    ids=["phase", "reason", "condition"],
)
def test_a_pod_whose_node_does_not_answer(status: dict[str, Any]) -> None:
    view = on_node(**status)
    assert pod_problem(view).startswith("node worker-3 does not answer")
    failure = silent("p", view)
    assert (failure.code, failure.counted) == (ErrorCode.POD_LOST, False)


def test_a_pod_that_runs_and_is_silent_counts() -> None:
    view = on_node(phase="Running", conditions=[condition("Ready")], containerStatuses=[STARTED])
    assert pod_problem(view) == ""
    failure = silent("p", view)
    assert (failure.code, failure.counted) == (ErrorCode.HEARTBEAT_LOST, True)


def test_a_pod_whose_deletion_is_pending() -> None:
    raw = raw_pod(phase="Running", containerStatuses=[STARTED])
    raw["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z"
    assert "being deleted" in pod_problem(pod_view(raw))


@pytest.mark.parametrize(
    "state",
    [{"running": {}}, {"terminated": {"reason": "Error", "exitCode": 143}}],
    ids=["ending", "ended"],
)
def test_a_pod_that_somebody_has_deleted(state: dict[str, Any]) -> None:
    raw = raw_pod(phase="Running", containerStatuses=crew(state))
    raw["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z"
    failure = job_failed(job(JobState.FAILED), pod_view(raw), claimed=True)
    assert (failure.code, failure.counted) == (ErrorCode.POD_LOST, True)
    assert "was deleted from its node while it was at work" in failure.message


ENDS = [
    (
        {"reason": "StartError", "exitCode": 128, "message": 'exec: "python": not found'},
        {},
        ErrorCode.NOT_STARTED,
        True,
        'could not be started: exec: "python": not found',
    ),
    (
        {"reason": "ContainerStatusUnknown", "exitCode": 137, "message": "could not be located"},
        {},
        ErrorCode.POD_LOST,
        False,
        "has lost the container",
    ),
    (
        {"reason": "Error", "exitCode": 137},
        {
            "reason": "Evicted",
            "message": "The node was low on resource: ephemeral-storage.",
            "conditions": [condition("DisruptionTarget", reason="TerminationByKubelet")],
        },
        ErrorCode.POD_LOST,
        True,
        "evicted from node worker-3: The node was low on resource: ephemeral-storage.",
    ),
    (
        {"reason": "Error", "exitCode": 143},
        {"reason": "Terminated", "message": "Pod was terminated in response to node shutdown."},
        ErrorCode.POD_LOST,
        False,
        "node worker-3 shuts down",
    ),
    ({"reason": "Error", "exitCode": 2}, {}, ErrorCode.CRASHED, True, "exit code 2"),
]


@pytest.mark.parametrize(("ended", "status", "code", "counted", "words"), ENDS)
def test_how_a_pod_ended_is_told(
    ended: dict[str, Any], status: dict[str, Any], code: ErrorCode, counted: bool, words: str
) -> None:
    view = on_node(phase="Failed", containerStatuses=crew({"terminated": ended}), **status)
    failure = job_failed(job(JobState.FAILED), view, claimed=True)
    assert (failure.code, failure.counted) == (code, counted)
    assert words in failure.message


@pytest.mark.parametrize("claimed", [True, False])
def test_a_job_that_ran_out_of_time(claimed: bool) -> None:
    late = job(JobState.FAILED, failure_reason="DeadlineExceeded")
    failure = job_failed(late, None, claimed=claimed)
    expected = ErrorCode.DEADLINE_EXCEEDED if claimed else ErrorCode.NOT_STARTED
    assert failure.code is expected


NOT_STARTING = [
    ("ErrImagePull", "not found", "crews.imagePullSecrets"),
    ("ImagePullBackOff", 'Back-off pulling image "x"', "crews.imagePullSecrets"),
    ("ErrImageNeverPull", "is not present with pull policy of Never", "crews.image.pullPolicy"),
    ("InvalidImageName", 'couldn\'t parse image name "A b"', "not valid"),
    ("CreateContainerError", "context deadline exceeded", "the pod cannot start"),
    ("CreateContainerConfigError", 'secret "llm" not found', 'secret "llm" not found'),
]


@pytest.mark.parametrize(("reason", "message", "words"), NOT_STARTING)
def test_why_a_pod_does_not_start_is_told_while_it_waits(
    reason: str, message: str, words: str
) -> None:
    waiting = {"waiting": {"reason": reason, "message": message}}
    view = on_node(phase="Pending", containerStatuses=crew(waiting))
    assert message in start_problem(view)
    assert words in start_problem(view)
    picture = observed(FlowState.RUNNING, flow_run=run(state=RunState.LAUNCHED), pod=view)
    status = build_status(picture)
    assert status is not None
    assert message in status["message"]
    assert message in not_started("j", view, "").message


def test_what_happens_to_a_working_pod_is_told_while_it_lasts() -> None:
    target = condition("DisruptionTarget", reason="EvictionByEvictionAPI")
    view = on_node(phase="Running", conditions=[target], containerStatuses=[STARTED])
    status = build_status(observed(FlowState.RUNNING, pod=view))
    assert status is not None
    assert "being taken from node worker-3" in status["message"]


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
