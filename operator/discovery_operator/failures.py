"""Why an attempt did not start, or died: Job and pod in words that people can act on.

Pure. A crew that can still speak reports its own failure; this is about the ones that cannot.
Reasons are those that Kubernetes writes (kubelet: container waiting and terminated reasons;
Job controller: condition reasons; scheduler and eviction: DisruptionTarget reasons).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from discovery_core.errors import ErrorCode

from .observed import JobView, PodView

CONFIG_ERRORS = frozenset({"CreateContainerConfigError"})
IMAGE_ERRORS = {
    "ErrImagePull": "check the chart's crews.image and crews.imagePullSecrets",
    "ImagePullBackOff": "check the chart's crews.image and crews.imagePullSecrets",
    "RegistryUnavailable": "the registry does not answer",
    "ErrImageNeverPull": "crews.image.pullPolicy is Never and the node has no such image",
    "InvalidImageName": "the name is not valid, correct the chart's crews.image",
}
# the node went away or the pod was moved: not the doing of the flow
OUTSIDE_DISRUPTIONS = {
    "PreemptionByScheduler": "to make room for a pod of higher priority",
    "DeletionByTaintManager": "because the node was tainted, as one that does not answer is",
    "EvictionByEvictionAPI": "because it was evicted, as when a node is drained",
    "DeletionByPodGC": "because the node no longer exists",
}
# a container that its runtime could not even start
START_ERRORS = frozenset({"StartError", "ContainerCannotRun"})
# the kubelet's pod reasons when the node is shut down
SHUTDOWN_REASONS = frozenset({"Terminated", "NodeShutdown", "Shutdown"})
# how Kubernetes' admission of ResourceQuota and LimitRange words its refusals: what it means and
# what to do
_NO_ROOM = (
    (
        re.compile(r"(exceeded quota|insufficient quota|status unknown for quota)\b.*"),
        "the namespace's ResourceQuota is full",
        "it goes on when other work there has ended, or when the administrator raises it",
    ),
    (
        re.compile(r"failed quota: .*"),
        "the namespace's ResourceQuota asks for what crew pods do not set",
        "ask the administrator to set it in the chart's crews.resources, or by a LimitRange",
    ),
    (
        re.compile(
            r"((maximum|minimum) \S+ usage per|\S+ max limit to request ratio per) "
            r"(Container|Pod) is .*"
        ),
        "the namespace's LimitRange does not allow the crew pod",
        "ask the administrator to change it, or the chart's crews.resources",
    ),
)
_MESSAGE_LIMIT = 500


@dataclass(frozen=True)
class Failure:
    """What to record of a failed attempt. Only `counted` ones use up `retries.maxAttempts`."""

    code: ErrorCode
    message: str
    counted: bool = True


def config_problem(pod: PodView | None) -> str:
    """What the pod's environment names but does not exist (a Secret or its key), or ""."""
    if pod is None or pod.waiting not in CONFIG_ERRORS:
        return ""
    return _cut(pod.waiting_message or "the pod's configuration names something missing")


def start_problem(pod: PodView | None) -> str:
    """Why the pod has not started yet, or "" where nothing is known to be wrong."""
    if pod is None:
        return ""
    if pod.phase != "Pending":
        return pod_problem(pod)
    if pod.unschedulable:
        return f"no node can run the pod: {_cut(pod.unschedulable)}"
    if pod.waiting in IMAGE_ERRORS:
        why = f"{pod.waiting}: {_cut(pod.waiting_message)}"
        return f"the crew image cannot be fetched ({why}); {IMAGE_ERRORS[pod.waiting]}"
    if pod.waiting and pod.waiting not in ("ContainerCreating", "PodInitializing"):
        return f"the pod cannot start ({pod.waiting}): {_cut(pod.waiting_message)}"
    return pod_problem(pod)


def pod_problem(pod: PodView | None) -> str:
    """What happens to a pod that has a node and has not ended yet, or ""."""
    if pod is None or pod.phase in ("Succeeded", "Failed"):
        return ""
    if pod.disruption in OUTSIDE_DISRUPTIONS:
        return f"its pod is being taken from {_node(pod)} {OUTSIDE_DISRUPTIONS[pod.disruption]}"
    if pod.node_silent:
        return f"{_node(pod)} does not answer, nothing is known of the pod"
    if pod.deleting:
        return f"its pod is being deleted from {_node(pod)}"
    return ""


def no_room(refusal: str) -> Failure | None:
    """What to record where the namespace's quota or limits refuse a Job or its pod, else None.

    It is a wait and not the doing of the flow: it never counts.
    """
    told = " ".join(refusal.split())
    for pattern, why, remedy in _NO_ROOM:
        found = pattern.search(told)
        if found is not None:
            message = f"{why} ({_cut(found[0].rstrip(']'))}); {remedy}"
            return Failure(ErrorCode.NAMESPACE_QUOTA, message, counted=False)
    return None


def not_started(
    job_name: str, pod: PodView | None, launch_problem: str, pod_refusal: str = ""
) -> Failure:
    """The launch deadline has passed without a claim."""
    if launch_problem:
        why = f"its Job could not be created: {_cut(launch_problem)}"
    elif pod is None and pod_refusal:
        why = f"its Job could not make a pod: {_cut(pod_refusal)}"
    elif pod is None:
        why = f"its Job made no pod; see kubectl describe job {job_name}"
    elif pod.phase == "Running":
        why = f"its pod did not reach the execution API; see kubectl logs {pod.name}"
    else:
        why = start_problem(pod) or f"its pod stayed {pod.phase}; see kubectl describe {pod.name}"
    return Failure(ErrorCode.NOT_STARTED, f"the attempt did not start in time: {why}")


def job_deleted(job_name: str) -> Failure:
    """Somebody has deleted the Job of a live attempt."""
    return Failure(ErrorCode.POD_LOST, f"Job {job_name} was deleted while it was at work")


def completed_without_result(job_name: str) -> Failure:
    """The container ended well, but no result was committed."""
    return Failure(
        ErrorCode.CRASHED,
        f"Job {job_name} ended without handing in a result; see kubectl logs job/{job_name}",
    )


def lost_with_its_node(pod: PodView | None) -> Failure | None:
    """The loss of a pod that nobody in the namespace has caused; None where it is not one."""
    if pod is None:
        return None
    if pod.disruption in OUTSIDE_DISRUPTIONS:
        why = f"was taken from {_node(pod)} {OUTSIDE_DISRUPTIONS[pod.disruption]}"
        words = f"pod {pod.name} {why} ({pod.disruption})"
    elif pod.node_silent:
        words = f"pod {pod.name} is lost: {_node(pod)} does not answer"
    elif pod.reason in SHUTDOWN_REASONS:
        words = f"pod {pod.name} was ended because {_node(pod)} shuts down"
    else:
        return None
    return Failure(ErrorCode.POD_LOST, words, counted=False)


def job_failed(job: JobView, pod: PodView | None, *, claimed: bool) -> Failure:
    """Why a Job has failed, from the pod's last words where it has left any."""
    lost = lost_with_its_node(pod)
    if lost is not None:
        return lost
    if pod is not None and pod.terminated == "OOMKilled":
        return Failure(
            ErrorCode.OUT_OF_MEMORY,
            f"pod {pod.name} needed more memory than its limit; ask the administrator to raise "
            "the crews' memory limit, or split the file",
        )
    if job.failure_reason == "DeadlineExceeded":
        if claimed:
            return Failure(ErrorCode.DEADLINE_EXCEEDED, deadline_words())
        return not_started(job.name, pod, "")
    if pod is not None:
        ended = _ended(pod)
        if ended is not None:
            return ended
    told = _cut(job.failure_message) or job.failure_reason or "no reason given"
    return Failure(ErrorCode.POD_LOST, f"Job {job.name} failed and its pod is gone: {told}")


def _ended(pod: PodView) -> Failure | None:
    """What a pod that has ended by itself, or on its own account, says of it."""
    if pod.reason == "Evicted":
        return Failure(
            ErrorCode.POD_LOST,
            f"pod {pod.name} was evicted from {_node(pod)}: {_cut(pod.message or 'no reason')}",
        )
    if pod.terminated in START_ERRORS:
        told = _cut(pod.terminated_message) or "no reason given"
        return Failure(
            ErrorCode.NOT_STARTED,
            f"the container of pod {pod.name} could not be started: {told}; check the chart's "
            "crews.image",
        )
    if pod.terminated == "ContainerStatusUnknown":
        return Failure(
            ErrorCode.POD_LOST,
            f"{_node(pod)} has lost the container of pod {pod.name}, as after a restart",
            counted=False,
        )
    if pod.deleting:
        return Failure(
            ErrorCode.POD_LOST, f"pod {pod.name} was deleted from {_node(pod)} while it was at work"
        )
    if pod.exit_code is not None:
        return Failure(
            ErrorCode.CRASHED,
            f"pod {pod.name} ended with exit code {pod.exit_code}; see kubectl logs {pod.name}",
        )
    return None


def silent(pod_name: str | None, pod: PodView | None) -> Failure:
    """No heartbeat has come in time."""
    return lost_with_its_node(pod) or Failure(
        ErrorCode.HEARTBEAT_LOST,
        f"pod {pod_name} has not been heard of in time; its node or network may be down",
    )


def deadline_words() -> str:
    """Message of an attempt that took longer than spec.phaseTimeout."""
    return "the attempt took longer than spec.phaseTimeout; raise it, or use a smaller file"


def _node(pod: PodView) -> str:
    return f"node {pod.node}" if pod.node else "its node"


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MESSAGE_LIMIT else text[: _MESSAGE_LIMIT - 1] + "…"
