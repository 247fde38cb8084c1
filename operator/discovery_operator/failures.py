"""Why an attempt did not start, or died: Job and pod in words that people can act on.

Pure. A crew that can still speak reports its own failure; this is about the ones that cannot.
Reasons are those that Kubernetes writes (kubelet: container waiting and terminated reasons;
Job controller: condition reasons; scheduler and eviction: DisruptionTarget reasons).
"""

from __future__ import annotations

from dataclasses import dataclass

from discovery_core.errors import ErrorCode

from .observed import JobView, PodView

CONFIG_ERRORS = frozenset({"CreateContainerConfigError"})
IMAGE_ERRORS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"}
)
# the node went away or the pod was moved: not the doing of the flow
OUTSIDE_DISRUPTIONS = frozenset(
    {"PreemptionByScheduler", "DeletionByTaintManager", "EvictionByEvictionAPI", "DeletionByPodGC"}
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
    if pod is None or pod.phase != "Pending":
        return ""
    if pod.unschedulable:
        return f"no node can run the pod: {_cut(pod.unschedulable)}"
    if pod.waiting in IMAGE_ERRORS:
        return f"the crew image cannot be fetched ({pod.waiting}): {_cut(pod.waiting_message)}"
    if pod.waiting and pod.waiting not in ("ContainerCreating", "PodInitializing"):
        return f"the pod cannot start ({pod.waiting}): {_cut(pod.waiting_message)}"
    return ""


def not_started(job_name: str, pod: PodView | None, launch_problem: str) -> Failure:
    """The launch deadline has passed without a claim."""
    if launch_problem:
        why = f"its Job could not be created: {_cut(launch_problem)}"
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


def job_failed(job: JobView, pod: PodView | None, *, claimed: bool) -> Failure:
    """Why a Job has failed, from the pod's last words where it has left any."""
    if pod is not None and pod.disruption in OUTSIDE_DISRUPTIONS:
        return Failure(
            ErrorCode.POD_LOST,
            f"pod {pod.name} was taken from its node ({pod.disruption})",
            counted=False,
        )
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
    if pod is not None and pod.reason == "Evicted":
        return Failure(
            ErrorCode.POD_LOST, f"pod {pod.name} was evicted: {_cut(pod.message or 'no reason')}"
        )
    if pod is not None and pod.exit_code is not None:
        return Failure(
            ErrorCode.CRASHED,
            f"pod {pod.name} ended with exit code {pod.exit_code}; see kubectl logs {pod.name}",
        )
    told = _cut(job.failure_message) or job.failure_reason or "no reason given"
    return Failure(ErrorCode.POD_LOST, f"Job {job.name} failed and its pod is gone: {told}")


def deadline_words() -> str:
    """Message of an attempt that took longer than spec.phaseTimeout."""
    return "the attempt took longer than spec.phaseTimeout; raise it, or use a smaller file"


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MESSAGE_LIMIT else text[: _MESSAGE_LIMIT - 1] + "…"
