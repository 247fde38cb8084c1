"""Raw Kubernetes objects as the frozen views that decisions are made on.

Pure, and tolerant: an object of a newer or older Kubernetes may lack any field. Field meanings
are those of the Kubernetes API reference (Job v1 conditions, Pod v1 status).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from discovery_core.resource import DiscoveryFlowSpec
from pydantic import ValidationError

from .manifests.names import ATTEMPT_LABEL, CONTAINER, PHASE_LABEL, ROUND_LABEL
from .observed import JobState, JobView, PodView, ResourceView

Raw = Mapping[str, Any]


def resource_view(raw: Raw) -> ResourceView:
    """A DiscoveryFlow. A spec that the models refuse is told in `spec_problem`."""
    meta = raw["metadata"]
    spec, problem = _spec(raw.get("spec") or {})
    return ResourceView(
        uid=UUID(meta["uid"]),
        namespace=meta["namespace"],
        name=meta["name"],
        generation=int(meta.get("generation") or 1),
        resource_version=str(meta.get("resourceVersion") or ""),
        spec=spec,
        spec_problem=problem,
        deleting=meta.get("deletionTimestamp") is not None,
        status=dict(raw.get("status") or {}),
        created_at=_moment(meta.get("creationTimestamp")),
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _spec(raw: Raw) -> tuple[DiscoveryFlowSpec | None, str]:
    try:
        return DiscoveryFlowSpec.model_validate(raw), ""
    except ValidationError as error:
        told = (
            f"spec.{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)[:5]
        )
        return None, "; ".join(told)


def job_view(raw: Raw) -> JobView:
    """A Job: failed and complete as soon as the Job controller has decided it."""
    meta = raw["metadata"]
    labels = meta.get("labels") or {}
    state, reason, message = JobState.ACTIVE, "", ""
    status = raw.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("status") != "True":
            continue
        kind = condition.get("type")
        if kind in ("Failed", "FailureTarget"):
            state = JobState.FAILED
            reason = condition.get("reason") or reason
            message = condition.get("message") or message
        elif kind in ("Complete", "SuccessCriteriaMet") and state is JobState.ACTIVE:
            state = JobState.COMPLETE
    return JobView(
        name=meta["name"],
        uid=meta["uid"],
        state=state,
        attempt_key=(
            labels.get(ROUND_LABEL, ""),
            labels.get(PHASE_LABEL, ""),
            labels.get(ATTEMPT_LABEL, ""),
        ),
        owner_uid=next(
            (o.get("uid", "") for o in meta.get("ownerReferences") or [] if o.get("controller")), ""
        ),
        deleting=meta.get("deletionTimestamp") is not None,
        failure_reason=reason,
        failure_message=message,
        created_at=_moment(meta.get("creationTimestamp")),
        made_pod=any(status.get(count) for count in ("active", "succeeded", "failed")),
    )


def pod_view(raw: Raw) -> PodView:
    """A crew pod, reduced to what explains why it does not run or how it ended."""
    status = raw.get("status") or {}
    container: Raw = next(
        (c for c in status.get("containerStatuses") or [] if c.get("name") == CONTAINER), {}
    )
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    terminated = state.get("terminated") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or []}
    disruption = conditions.get("DisruptionTarget") or {}
    scheduled = conditions.get("PodScheduled") or {}
    return PodView(
        name=raw["metadata"]["name"],
        phase=status.get("phase") or "Pending",
        waiting=waiting.get("reason") or "",
        waiting_message=waiting.get("message") or "",
        terminated=terminated.get("reason") or "",
        terminated_message=terminated.get("message") or "",
        exit_code=terminated.get("exitCode"),
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        disruption=(disruption.get("reason") or "") if disruption.get("status") == "True" else "",
        unschedulable=_unschedulable(scheduled),
        node=(raw.get("spec") or {}).get("nodeName") or "",
        node_silent=_node_is_silent(status, container, conditions.get("Ready") or {}),
        deleting=raw["metadata"].get("deletionTimestamp") is not None,
    )


def _unschedulable(scheduled: Raw) -> str:
    """Why no node takes the pod: the scheduler's message, or ""."""
    if scheduled.get("status") != "False":
        return ""
    if scheduled.get("reason") not in ("Unschedulable", "SchedulingGated"):
        return ""
    return scheduled.get("message") or "no node fits"


def _node_is_silent(status: Raw, container: Raw, ready: Raw) -> bool:
    """Whether the node of the pod does not report.

    The node controller then takes the pod's Ready condition away, while the container's state
    stays as the kubelet last told it; a crew container has no readiness probe of its own.
    """
    if status.get("phase") == "Unknown" or status.get("reason") == "NodeLost":
        return True
    running = "running" in (container.get("state") or {}) and container.get("ready") is True
    return running and ready.get("status") == "False"
