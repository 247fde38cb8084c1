"""`status` of the resource: a pure function of the database row and what is observed.

Nothing is decided here and nothing is remembered: a status that was lost or overwritten comes
back by itself. Times that say "since when" are taken from the row or kept from the old status,
so that writing the same status twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from discovery_core.errors import ErrorCode
from discovery_core.phases import phase_spec, progress
from discovery_core.resource import ApprovalRequest, Condition, DiscoveryFlowStatus
from discovery_core.snapshots import FlowSnapshot, RequestSnapshot, RunSnapshot
from discovery_core.states import CONDITION_TYPES, STATES, FlowState, Occurrence, RunState

from .decide_gate import may_expire, why_a_person_is_asked
from .decide_run import is_live, unguarded
from .failures import pod_problem, start_problem
from .observed import Observed, ResourceView

_MESSAGE_LIMIT = 4000
_INVALID_SPEC = "InvalidSpec"
_UNGUARDED = "AdmissionPolicyMissing"
# what the status said about results stays there when the results are gone
_OUTLIVES_DATA = ("attempt", "planner", "recordsImported", "recordsRejected", "assets")


def build_status(observed: Observed) -> dict[str, Any] | None:
    """The whole status as it should be, absent fields as None; None where there is none to write.

    An older row than the one that the present status shows is never written over it.
    """
    resource, flow = observed.resource, observed.flow
    if resource is None:
        return None
    if flow is None:
        return _unreadable(observed, resource) if resource.spec is None else None
    if flow.deleted or flow.version < int(resource.status.get("rowVersion") or 0):
        return None
    message = _message(observed, flow)
    run = flow.run
    status = DiscoveryFlowStatus(
        observed_generation=flow.generation,
        state=str(flow.state),
        phase=str(flow.phase),
        progress=progress(flow.phase, finished=flow.state is FlowState.SUCCEEDED),
        round=flow.round,
        attempt=run.attempt if run is not None else None,
        message=message,
        planner=(flow.planner or "")[:128] or None,
        records_imported=flow.records_imported,
        records_rejected=flow.records_rejected,
        assets=flow.assets,
        row_version=flow.version,
        approval_request=_request(flow),
        conditions=_conditions(
            resource,
            STATES[flow.state].conditions,
            generation=flow.generation,
            since=flow.state_since,
            reason=_UNGUARDED if _no_guard(observed) else _reason(flow),
            message=message,
        ),
    )
    complete = _complete(status)
    if flow.purged:
        complete |= {key: resource.status.get(key) for key in _OUTLIVES_DATA}
    return complete


def status_patch(resource: ResourceView, status: Mapping[str, Any]) -> dict[str, Any] | None:
    """A merge patch that makes the resource's status this one, or None where it is so already.

    It carries the resourceVersion that was looked at: a writer that is behind gets a conflict.
    """
    if all(resource.status.get(key) == value for key, value in status.items()):
        return None
    return {
        "metadata": {"resourceVersion": resource.resource_version},
        "status": dict(status),
    }


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as Kubernetes writes times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _complete(status: DiscoveryFlowStatus) -> dict[str, Any]:
    """All fields by their names in YAML; None removes a field that an older status had."""
    written = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    names = (
        info.serialization_alias or info.alias or name
        for name, info in type(status).model_fields.items()
    )
    return {name: written.get(name) for name in names}


def _unreadable(observed: Observed, resource: ResourceView) -> dict[str, Any]:
    """A resource that the models refuse has no row; its status says what is wrong with it."""
    message = _cut(f"the spec cannot be used: {resource.spec_problem}")
    conditions = _conditions(
        resource,
        {name: "True" if name == "Stalled" else "False" for name in CONDITION_TYPES},
        generation=resource.generation,
        since=observed.now,
        reason=_INVALID_SPEC,
        message=message,
    )
    return _complete(
        DiscoveryFlowStatus(
            observed_generation=resource.generation, message=message, conditions=conditions
        )
    )


def _conditions(
    resource: ResourceView,
    wanted: Mapping[str, str],
    *,
    generation: int,
    since: datetime,
    reason: str,
    message: str,
) -> list[Condition]:
    old = {c.get("type"): c for c in resource.status.get("conditions") or []}
    result = []
    for name in CONDITION_TYPES:
        value = wanted[name]
        before = old.get(name) or {}
        kept = before.get("lastTransitionTime") if before.get("status") == value else None
        result.append(
            Condition.model_validate(
                {
                    "type": name,
                    "status": value,
                    "observedGeneration": generation,
                    "lastTransitionTime": kept or timestamp(since),
                    "reason": reason,
                    "message": message if value == "True" or name == "Ready" else "",
                }
            )
        )
    return result


def _request(flow: FlowSnapshot) -> ApprovalRequest | None:
    request = flow.request
    if request is None or flow.state is not FlowState.AWAITING_APPROVAL:
        return None
    return ApprovalRequest(
        request_id=request.request_id,
        artefact_digest=request.artefact_digest,
        mappings=request.mappings,
        expires_at=timestamp(request.expires_at),
    )


def _reason(flow: FlowSnapshot) -> str:
    """The trigger of the last step; after a failure the error code, where it says more."""
    run = flow.run
    if (
        run is not None
        and run.error_code
        and (flow.state is FlowState.FAILED or _has_no_room(flow))
    ):
        return run.error_code
    return flow.reason or str(flow.state)


def _message(observed: Observed, flow: FlowSnapshot) -> str:
    text = _state_message(observed, flow)
    resource = observed.resource
    if resource is not None and resource.spec is None:
        text += (
            f". The current spec is not used, because it cannot be read: {resource.spec_problem}"
        )
    return _cut(text)


def _state_message(observed: Observed, flow: FlowSnapshot) -> str:
    if flow.purged:
        return f"{flow.message}; a new round is not possible, create a new flow instead"
    title = phase_spec(flow.phase).title
    if flow.state is FlowState.QUEUED:
        return _queued(observed, flow, title)
    if flow.state is FlowState.RUNNING and flow.run is not None:
        return _running(observed, flow.run, title)
    if flow.state is FlowState.AWAITING_APPROVAL and flow.request is not None:
        return _awaiting(observed, flow, flow.request)
    if flow.state is FlowState.FAILED:
        return f"{title} failed: {flow.message}"
    return flow.message or STATES[flow.state].meaning


def _queued(observed: Observed, flow: FlowSnapshot, title: str) -> str:
    run = flow.run
    if flow.not_before is not None and flow.not_before > observed.now:
        if _has_no_room(flow):
            return (
                f"{title} is queued, because {flow.message}; "
                f"it is tried again at {timestamp(flow.not_before)}"
            )
        if flow.reason == Occurrence.ENDPOINT_AWAITED:
            return f"{title} waits: {flow.message}; tried next at {timestamp(flow.not_before)}"
        attempt = f"attempt {run.attempt} " if run is not None else ""
        return (
            f"{title}: {attempt}failed: {flow.message}; "
            f"the next attempt starts at {timestamp(flow.not_before)}"
        )
    problem = _no_guard(observed)
    return f"{title} waits: {problem}" if problem else f"{title} waits for a free slot"


def _no_guard(observed: Observed) -> str:
    """Why a flow whose turn it is does not start; empty where the guard was not looked at."""
    return "" if observed.crew_guard is None else unguarded(observed)


def _has_no_room(flow: FlowSnapshot) -> bool:
    """Whether the namespace's quota or limits have refused the last attempt's Job or pod."""
    run = flow.run
    return (
        flow.state is FlowState.QUEUED
        and flow.not_before is not None
        and run is not None
        and run.error_code == ErrorCode.NAMESPACE_QUOTA
    )


def _running(observed: Observed, run: RunSnapshot, title: str) -> str:
    head = f"{title}, attempt {run.attempt}"
    problem = observed.launch_problem or _no_guard(observed)
    if run.state is RunState.CREATED and problem:
        return f"{head}: its Job cannot be created yet: {problem}"
    if run.state is not RunState.RUNNING and is_live(run):
        if observed.pod is None and observed.pod_refusal:
            return f"{head}: its Job cannot make a pod yet: {observed.pod_refusal}"
        return f"{head}: {start_problem(observed.pod) or 'its pod is starting'}"
    parts = [run.progress_message.strip()] if run.progress_message.strip() else []
    if run.progress_done is not None:
        total = f" of {run.progress_total}" if run.progress_total is not None else ""
        parts.append(f"{run.progress_done}{total} rows")
    if run.state is RunState.RUNNING and is_live(run):
        parts += [problem for problem in (pod_problem(observed.pod),) if problem]
    text = f"{head}: {', '.join(parts) or 'at work'}"
    return f"{text}. {run.llm_fallback}" if run.llm_fallback else text


def _awaiting(observed: Observed, flow: FlowSnapshot, request: RequestSnapshot) -> str:
    head = f"{request.mappings} field mappings wait for approval"
    if request.policy.on_timeout == "Hold":
        text = f"{head}, without a time limit"
    elif request.expires_at <= observed.now and not may_expire(observed.rules, request):
        text = (
            f"{head}; the deadline has passed, but this installation does not allow "
            "onTimeout: Approve, so the request stays open until a person answers"
        )
    else:
        text = f"{head} until {timestamp(request.expires_at)}"
    notes = [why_a_person_is_asked(observed.rules, request), flow.answer_note]
    return "; ".join([text, *(note for note in notes if note)])


def _cut(text: str) -> str:
    return text if len(text) <= _MESSAGE_LIMIT else text[: _MESSAGE_LIMIT - 1] + "…"
