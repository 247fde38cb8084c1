"""Decisions about a flow whose attempt is on its way: launch, failure, deadlines.

Success is not decided here: it is a result that the execution API commits. Job and pod are only
asked why nothing comes. The Job is looked at before the row is read, so a Job that has ended
while the row still shows a live attempt cannot have handed in anything.
"""

from __future__ import annotations

from datetime import timedelta

from discovery_core.actions import (
    Action,
    Decision,
    DeleteJob,
    FailAttempt,
    LaunchJob,
    ReferenceMissing,
)
from discovery_core.errors import ErrorCode
from discovery_core.snapshots import FlowSnapshot, RunSnapshot
from discovery_core.states import RunState, WaitsFor

from .failures import (
    Failure,
    completed_without_result,
    config_problem,
    deadline_words,
    job_deleted,
    job_failed,
    no_room,
    not_started,
    silent,
)
from .observed import JobState, Observed, Presence
from .retries import retry_delay

_LIVE = (RunState.CREATED, RunState.LAUNCHED, RunState.RUNNING)


def is_live(run: RunSnapshot | None) -> bool:
    """Whether an attempt may still hand in a result."""
    return run is not None and run.state in _LIVE


def unguarded(observed: Observed) -> str:
    """Why no Job may be created now; empty where one may.

    Without the admission policy of crew pods, whoever may make pods in the flow's namespace could
    hand in a result in a crew's place.
    """
    guard = observed.crew_guard
    if guard is None:
        return "the admission policy of crew pods was not looked at"
    if guard.presence is Presence.PRESENT:
        return ""
    if guard.presence is Presence.UNKNOWN:
        return (
            f"the operator may not read the admission policy {guard.name} and its binding; "
            "install the chart again"
        )
    return (
        f"the admission policy {guard.name} or its binding is missing or does not deny, so others "
        "could hand in results in a crew's place; install the chart again"
    )


def decide_running(observed: Observed, flow: FlowSnapshot) -> Decision:
    """Running: the row says that an attempt is at work (or has just reported a failure)."""
    run = flow.run
    if run is None or run.state in (RunState.SUCCEEDED, RunState.SUPERSEDED):
        # only a read between two transactions can see this; the next one sees the flow moved
        return _soon(observed)
    if run.state is RunState.FAILED:
        return Decision((_reported_failure(flow, run),))
    if run.state is RunState.CREATED:
        return _decide_created(observed, flow, run)
    failure = no_room(observed.pod_refusal) or _job_failure(observed, run)
    if failure is None:
        missing = config_problem(observed.pod)
        if missing and run.state is RunState.LAUNCHED:
            return Decision((ReferenceMissing((missing,)),))
        failure = _overdue(observed, run)
    if failure is not None:
        return Decision(_end_attempt(observed, flow, run, failure))
    times = [run.deadline, observed.now + timedelta(seconds=observed.rules.progress_poll)]
    if run.heartbeat_deadline is not None:
        times.append(run.heartbeat_deadline)
    return Decision(requeue_at=min(times), waits_for=WaitsFor.LIVE_JOB)


def decide_waiting_run(observed: Observed, flow: FlowSnapshot) -> Decision | None:
    """Waiting with a live Job: its pod cannot be configured yet, and starts when it can.

    None where there is no live attempt. No failure is final here: what is missing may appear at
    any time, and the Job's own activeDeadlineSeconds ends the wait of each attempt.
    """
    run = flow.run
    if run is None or not is_live(run):
        return None
    failure = _job_failure(observed, run)
    if failure is not None:
        delay = retry_delay(
            flow.spec.retries, failure.code, failures=run.attempt, run_id=run.run_id, counted=False
        )
        return Decision(
            (FailAttempt(run.run_id, failure.code, failure.message, delay, counted=False),)
        )
    missing = config_problem(observed.pod)
    if missing and flow.missing != (missing,):
        return Decision((ReferenceMissing((missing,)),))
    later = observed.now + timedelta(seconds=observed.rules.progress_poll)
    return Decision(requeue_at=later, waits_for=WaitsFor.LIVE_JOB)


def _decide_created(observed: Observed, flow: FlowSnapshot, run: RunSnapshot) -> Decision:
    full = no_room(observed.launch_problem)
    if full is not None:
        return Decision(_end_attempt(observed, flow, run, full))
    if run.deadline <= observed.now:
        problem = observed.launch_problem or unguarded(observed)
        failure = not_started(run.job_name, None, problem)
        return Decision(_end_attempt(observed, flow, run, failure))
    if unguarded(observed):
        later = observed.now + timedelta(seconds=observed.rules.slot_poll)
        return Decision(requeue_at=min(later, run.deadline), waits_for=WaitsFor.TIMER)
    return Decision(
        (
            LaunchJob(
                run_id=run.run_id,
                round=run.round,
                phase=run.phase,
                attempt=run.attempt,
                job_name=run.job_name,
            ),
        )
    )


def _job_failure(observed: Observed, run: RunSnapshot) -> Failure | None:
    job = observed.job
    if observed.job_presence is Presence.ABSENT or (job is not None and job.uid != run.job_uid):
        return job_deleted(run.job_name)
    if job is None:
        return None
    if job.state is JobState.FAILED:
        return job_failed(job, observed.pod, claimed=run.state is RunState.RUNNING)
    if job.state is JobState.COMPLETE:
        return completed_without_result(job.name)
    return None


def _overdue(observed: Observed, run: RunSnapshot) -> Failure | None:
    if run.deadline <= observed.now:
        if run.state is RunState.RUNNING:
            return Failure(ErrorCode.DEADLINE_EXCEEDED, deadline_words())
        return not_started(
            run.job_name, observed.pod, observed.launch_problem, observed.pod_refusal
        )
    if run.heartbeat_deadline is not None and run.heartbeat_deadline <= observed.now:
        return silent(run.pod_name, observed.pod)
    return None


def _reported_failure(flow: FlowSnapshot, run: RunSnapshot) -> FailAttempt:
    """The crew has said itself what went wrong; it is counted in `failed_attempts` already."""
    code = run.error_code or ErrorCode.CRASHED
    counted = code != ErrorCode.LLM_BUDGET
    delay = retry_delay(
        flow.spec.retries,
        code,
        failures=max(flow.failed_attempts, 1),
        run_id=run.run_id,
        counted=counted,
        at_least=run.retry_after,
    )
    known = ErrorCode(code) if code in set(ErrorCode) else ErrorCode.CRASHED
    return FailAttempt(run.run_id, known, run.error_message or str(code), delay, counted)


def _end_attempt(
    observed: Observed, flow: FlowSnapshot, run: RunSnapshot, failure: Failure
) -> tuple[Action, ...]:
    failures = flow.failed_attempts + 1 if failure.counted else run.attempt
    delay = retry_delay(
        flow.spec.retries,
        failure.code,
        failures=failures,
        run_id=run.run_id,
        counted=failure.counted,
    )
    failed = FailAttempt(run.run_id, failure.code, failure.message, delay, failure.counted)
    job = observed.job
    if job is not None and job.state is JobState.ACTIVE and not job.deleting:
        return failed, DeleteJob(job.name, job.uid)
    return (failed,)


def _soon(observed: Observed) -> Decision:
    return Decision(requeue_at=observed.now + timedelta(seconds=1.0))
