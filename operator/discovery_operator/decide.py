"""The one place that decides: `decide(Observed) -> Decision`, pure and total.

The order matters and is the order of this file: a resource that is gone ends everything, a
newer spec is stored before it is acted on, what a person said (Cancel, Suspend, Run) comes
before what the flow's state asks for, and leftover Jobs are cleared last. For every state there
is either an action, a time to look again, or something outside that will happen for sure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from discovery_core.actions import (
    Action,
    Admit,
    Cancel,
    Decision,
    DeleteJob,
    MarkDeleted,
    ReferenceFound,
    ReferenceMissing,
    Register,
    Resume,
    StartAttempt,
    StartRound,
    Suspend,
    UpdateSpec,
)
from discovery_core.snapshots import FlowSnapshot
from discovery_core.states import RERUN_FROM, FlowState, WaitsFor, is_ended

from .decide_gate import decide_awaiting_approval
from .decide_run import decide_running, decide_waiting_run, is_live, unguarded
from .manifests.names import job_name
from .observed import JobView, Observed

_ENDED = Decision(waits_for=WaitsFor.NOTHING)
_STOPPED = (FlowState.SUSPENDED, FlowState.CANCELLED)


def decide(observed: Observed) -> Decision:
    """What to do about one flow now. See the module's text for the order of precedence."""
    flow = observed.flow
    if flow is None:
        return _decide_unregistered(observed)
    decision = _decide_flow(observed, flow)
    if any(isinstance(action, DeleteJob) for action in decision.actions):
        return decision
    return _with_stray_jobs(observed, flow, decision)


def _decide_unregistered(observed: Observed) -> Decision:
    resource = observed.resource
    if resource is None or resource.deleting or resource.spec is None:
        return _ENDED
    return Decision((Register(resource.spec, resource.generation),))


def _decide_flow(observed: Observed, flow: FlowSnapshot) -> Decision:
    resource = observed.resource
    if flow.deleted:
        return _ENDED
    if observed.resource_gone or (resource is not None and resource.deleting):
        return Decision((MarkDeleted(),))
    if resource is not None and resource.spec is not None and resource.generation > flow.generation:
        return Decision((UpdateSpec(resource.spec, resource.generation),))
    if flow.purged:
        return _ENDED
    wanted = flow.spec.state
    rerun = flow.spec.rerun
    unheard = rerun is not None and rerun.id not in flow.rerun_ids
    if rerun is not None and unheard and wanted == "Run" and flow.state in RERUN_FROM:
        return Decision((StartRound(rerun),))
    if is_ended(flow.state):
        return _ENDED
    if wanted == "Cancel":
        return Decision((Cancel(),))
    if wanted == "Suspend":
        if flow.state is FlowState.SUSPENDED:
            return Decision(waits_for=WaitsFor.PERSON)
        return Decision((Suspend(),))
    return _BY_STATE[flow.state](observed, flow)


def _decide_pending(observed: Observed, flow: FlowSnapshot) -> Decision:
    del flow
    if observed.missing is None:
        return _look_again(observed, observed.rules.slot_poll)
    if observed.missing:
        return Decision((ReferenceMissing(observed.missing),))
    return Decision((Admit(),))


def _decide_queued(observed: Observed, flow: FlowSnapshot) -> Decision:
    if flow.not_before is not None and flow.not_before > observed.now:
        return Decision(requeue_at=flow.not_before, waits_for=WaitsFor.TIMER)
    if observed.missing is None:
        return _look_again(observed, observed.rules.slot_poll)
    if observed.missing:
        return Decision((ReferenceMissing(observed.missing),))
    if observed.capacity is None:
        return _look_again(observed, observed.rules.slot_poll)
    if not observed.capacity.free:
        return Decision(waits_for=WaitsFor.QUEUE_SLOT)
    if unguarded(observed):
        return _look_again(observed, observed.rules.slot_poll)
    attempt = flow.last_attempt + 1
    return Decision(
        (
            StartAttempt(
                round=flow.round,
                phase=flow.phase,
                attempt=attempt,
                job_name=job_name(
                    flow.name, flow.flow_id, round=flow.round, phase=flow.phase, attempt=attempt
                ),
                launch_timeout=observed.rules.launch_timeout,
            ),
        )
    )


def _decide_waiting(observed: Observed, flow: FlowSnapshot) -> Decision:
    run = decide_waiting_run(observed, flow)
    if run is not None:
        return run
    if observed.missing is None:
        return _look_again(observed, observed.rules.slot_poll)
    if not observed.missing:
        return Decision((ReferenceFound(),))
    if observed.missing != flow.missing:
        return Decision((ReferenceMissing(observed.missing),))
    waited = (observed.now - flow.state_since).total_seconds()
    return _look_again(observed, min(30.0, max(2.0, waited / 10)))


def _decide_suspended(observed: Observed, flow: FlowSnapshot) -> Decision:
    del observed, flow
    return Decision((Resume(),))


def _look_again(observed: Observed, seconds: float) -> Decision:
    return Decision(requeue_at=observed.now + timedelta(seconds=seconds))


_BY_STATE: dict[FlowState, Callable[[Observed, FlowSnapshot], Decision]] = {
    FlowState.PENDING: _decide_pending,
    FlowState.QUEUED: _decide_queued,
    FlowState.WAITING: _decide_waiting,
    FlowState.RUNNING: decide_running,
    FlowState.AWAITING_APPROVAL: decide_awaiting_approval,
    FlowState.SUSPENDED: _decide_suspended,
}


def _with_stray_jobs(observed: Observed, flow: FlowSnapshot, decision: Decision) -> Decision:
    """Adds the removal of Jobs that still run but are no longer the flow's current attempt.

    A flow that was stopped stops its Jobs at once. Otherwise a pod that has just reported gets
    time to exit by itself.
    """
    strays = [job for job in observed.jobs if not job.deleting and _is_stray(flow, job)]
    if not strays:
        return decision
    at_once = flow.deleted or flow.state in _STOPPED
    due = flow.state_since + timedelta(seconds=observed.rules.stray_grace)
    if at_once or due <= observed.now:
        removals: tuple[Action, ...] = tuple(DeleteJob(job.name, job.uid) for job in strays)
        return replace(decision, actions=decision.actions + removals)
    return replace(decision, requeue_at=_earlier(decision.requeue_at, due))


def _is_stray(flow: FlowSnapshot, job: JobView) -> bool:
    run = flow.run
    return run is None or not is_live(run) or job.name != run.job_name


def _earlier(first: datetime | None, second: datetime) -> datetime:
    return second if first is None else min(first, second)
