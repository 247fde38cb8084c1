"""Decisions by tables: one picture in, the actions and the wait out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from discovery_core.actions import (
    Admit,
    Cancel,
    DeleteJob,
    ExpireRequest,
    FailAttempt,
    LaunchJob,
    MarkDeleted,
    Note,
    ReferenceFound,
    ReferenceMissing,
    RefuseAnswer,
    Register,
    Resume,
    StartAttempt,
    Suspend,
    TakeAnswer,
    UpdateSpec,
)
from discovery_core.errors import ErrorCode
from discovery_core.resource_gate import ApprovalPolicy
from discovery_core.states import RERUN_FROM, FlowState, RunState, WaitsFor
from discovery_operator.decide import decide
from discovery_operator.observed import Guard, JobState, Observed, Presence, Rules
from discovery_operator.status import build_status

from tests.unit.operator.builders import (
    DIGEST,
    FULL,
    JOB_UID,
    OTHER,
    OTHER_DIGEST,
    REQUEST,
    RUN_ID,
    answer,
    answered,
    at,
    flow,
    job,
    observed,
    pod,
    request,
    resource,
    run,
    spec,
)

S = FlowState


def kinds(picture: Observed) -> list[type]:
    return [type(action) for action in decide(picture).actions]


UNREGISTERED: list[tuple[str, dict[str, Any], list[type]]] = [
    ("new", {}, [Register]),
    ("deleting", {"resource": resource(deleting=True)}, []),
    ("unreadable", {"resource": resource(spec=None, spec_problem="x")}, []),
    ("nothing at all", {"resource": None}, []),
]


@pytest.mark.parametrize(("changes", "expected"), [c[1:] for c in UNREGISTERED])
def test_resources_without_a_row(changes: dict[str, Any], expected: list[type]) -> None:
    assert kinds(observed(None, **changes)) == expected


STEPS: list[tuple[str, Observed, list[type]]] = [
    ("admitted", observed(S.PENDING), [Admit]),
    ("not checked yet", observed(S.PENDING, missing=None), []),
    ("missing source", observed(S.PENDING, missing=("ConfigMap 'x'",)), [ReferenceMissing]),
    ("slot free", observed(S.QUEUED), [StartAttempt]),
    ("no slot", observed(S.QUEUED, capacity=FULL), []),
    ("retry delay", observed(S.QUEUED, flow_not_before=at(5)), []),
    ("retry delay over", observed(S.QUEUED, flow_not_before=at(-1)), [StartAttempt]),
    ("source gone again", observed(S.QUEUED, missing=("ConfigMap 'x'",)), [ReferenceMissing]),
    ("found", observed(S.WAITING, flow_missing=("a",)), [ReferenceFound]),
    ("other one missing", observed(S.WAITING, flow_missing=("a",), missing=("b",)),
     [ReferenceMissing]),
    ("still missing", observed(S.WAITING, flow_missing=("a",), missing=("a",)), []),
    ("intent without Job", observed(S.RUNNING, flow_run=run(state=RunState.CREATED)), [LaunchJob]),
    ("at work", observed(S.RUNNING), []),
    ("pod starting", observed(S.RUNNING, flow_run=run(state=RunState.LAUNCHED)), []),
    ("asked", observed(S.AWAITING_APPROVAL), []),
    ("deadline passed", observed(S.AWAITING_APPROVAL, flow_request=request(expires_at=at(0))),
     [ExpireRequest]),
    ("suspended", observed(S.SUSPENDED, flow_spec=spec(state="Suspend")), []),
    ("resumed", observed(S.SUSPENDED), [Resume]),
    ("done", observed(S.SUCCEEDED), []),
    ("failed", observed(S.FAILED), []),
]  # fmt: skip


@pytest.mark.parametrize(("picture", "expected"), [s[1:] for s in STEPS], ids=[s[0] for s in STEPS])
def test_steps_of_a_flow(picture: Observed, expected: list[type]) -> None:
    assert kinds(picture) == expected


@pytest.mark.parametrize("state", list(S))
def test_a_gone_resource_comes_before_everything(state: FlowState) -> None:
    picture = observed(state, resource=None, resource_gone=True, flow_spec=spec(state="Cancel"))
    assert kinds(picture) == [MarkDeleted]


@pytest.mark.parametrize("state", list(S))
def test_a_resource_on_its_way_out_counts_as_gone(state: FlowState) -> None:
    assert kinds(observed(state, resource=resource(deleting=True))) == [MarkDeleted]


def test_an_absence_that_nobody_has_confirmed_changes_nothing() -> None:
    assert kinds(observed(S.RUNNING, resource=None)) == []


@pytest.mark.parametrize("state", list(S))
def test_a_newer_spec_is_stored_before_it_is_acted_on(state: FlowState) -> None:
    newer = resource(generation=2, spec=spec(state="Cancel"))
    assert kinds(observed(state, resource=newer)) == [UpdateSpec]


@pytest.mark.parametrize("state", [s for s in S if s is not S.SUSPENDED])
def test_wishes_of_people_reach_open_flows_only(state: FlowState) -> None:
    ended = state in (S.SUCCEEDED, S.FAILED, S.REJECTED, S.CANCELLED)
    cancelled = observed(state, flow_spec=spec(state="Cancel"), jobs=())
    suspended = observed(state, flow_spec=spec(state="Suspend"), jobs=())
    assert kinds(cancelled) == ([] if ended else [Cancel])
    assert kinds(suspended) == ([] if ended else [Suspend])


def test_start_attempt_numbers_on_from_the_last_one() -> None:
    (action,) = decide(observed(S.QUEUED, flow_last_attempt=2, flow_round=3)).actions
    assert isinstance(action, StartAttempt)
    assert (action.round, action.attempt, action.launch_timeout) == (3, 3, 600.0)


DEATHS: list[tuple[str, dict[str, Any], ErrorCode, bool]] = [
    ("deleted", {"job": None, "job_presence": Presence.ABSENT}, ErrorCode.POD_LOST, True),
    ("replaced", {"job": job(uid="other")}, ErrorCode.POD_LOST, True),
    ("silent end", {"job": job(JobState.COMPLETE)}, ErrorCode.CRASHED, True),
    ("exit code", {"job": job(JobState.FAILED), "pod": pod(exit_code=1, terminated="Error")},
     ErrorCode.CRASHED, True),
    ("memory", {"job": job(JobState.FAILED), "pod": pod(exit_code=137, terminated="OOMKilled")},
     ErrorCode.OUT_OF_MEMORY, True),
    ("evicted", {"job": job(JobState.FAILED), "pod": pod(reason="Evicted", message="disk")},
     ErrorCode.POD_LOST, True),
    ("drained", {"job": job(JobState.FAILED), "pod": pod(disruption="EvictionByEvictionAPI")},
     ErrorCode.POD_LOST, False),
    ("Job deadline", {"job": job(JobState.FAILED, failure_reason="DeadlineExceeded")},
     ErrorCode.DEADLINE_EXCEEDED, True),
    ("node gone", {"job": job(JobState.FAILED, failure_reason="BackoffLimitExceeded"), "pod": None},
     ErrorCode.POD_LOST, True),
    ("deadline", {"flow_run": run(deadline=at(0))}, ErrorCode.DEADLINE_EXCEEDED, True),
    ("silence", {"flow_run": run(heartbeat_deadline=at(0))}, ErrorCode.HEARTBEAT_LOST, True),
    ("never claimed", {"flow_run": run(state=RunState.LAUNCHED, deadline=at(0))},
     ErrorCode.NOT_STARTED, True),
    ("never created", {"flow_run": run(state=RunState.CREATED, deadline=at(0))},
     ErrorCode.NOT_STARTED, True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "code", "counted"), [d[1:] for d in DEATHS], ids=[d[0] for d in DEATHS]
)
def test_every_death_of_an_attempt_is_noticed_and_tried_again(
    changes: dict[str, Any], code: ErrorCode, counted: bool
) -> None:
    failed = decide(observed(S.RUNNING, **changes)).actions[0]
    assert isinstance(failed, FailAttempt)
    assert (failed.code, failed.counted, failed.run_id) == (code, counted, RUN_ID)
    assert failed.retry_delay is not None
    assert failed.retry_delay > 0
    assert len(failed.message) > 20


def test_an_overdue_attempt_takes_its_job_along() -> None:
    actions = decide(observed(S.RUNNING, flow_run=run(heartbeat_deadline=at(0)))).actions
    assert actions[1:] == (DeleteJob(run().job_name, JOB_UID),)


def test_a_finished_job_is_left_for_its_logs() -> None:
    assert kinds(observed(S.RUNNING, job=job(JobState.FAILED), jobs=())) == [FailAttempt]


@pytest.mark.parametrize(
    ("code", "failures", "final"),
    [
        (ErrorCode.EMPTY_FILE, 1, True),
        (ErrorCode.BAD_CREDENTIALS, 1, True),
        (ErrorCode.LLM_UNAVAILABLE, 1, False),
        (ErrorCode.LLM_UNAVAILABLE, 2, False),
        (ErrorCode.LLM_UNAVAILABLE, 3, True),
        ("SomethingNewer", 1, False),
    ],
)
def test_what_a_crew_reports_is_final_or_tried_again(code: str, failures: int, final: bool) -> None:
    reported = run(state=RunState.FAILED, error_code=code, error_message="why")
    picture = observed(S.RUNNING, flow_run=reported, flow_failed_attempts=failures)
    (action,) = decide(picture).actions
    assert isinstance(action, FailAttempt)
    assert (action.retry_delay is None) is final
    assert action.message == "why"


@pytest.mark.parametrize("asked", [0.0, 2.0, 90.0, 3600.0])
def test_the_next_attempt_waits_as_long_as_the_endpoint_has_asked(asked: float) -> None:
    reported = run(
        state=RunState.FAILED,
        error_code=ErrorCode.LLM_RATE_LIMITED,
        error_message="rate limited and asks to wait",
        retry_after=asked,
    )
    (action,) = decide(observed(S.RUNNING, flow_run=reported, flow_failed_attempts=1)).actions
    assert isinstance(action, FailAttempt)
    assert action.retry_delay is not None
    assert max(asked, 3.75) <= action.retry_delay <= max(asked * 1.25, 5.0)


def test_a_loss_that_does_not_count_never_exhausts_the_attempts() -> None:
    drained = {"job": job(JobState.FAILED), "pod": pod(disruption="DeletionByTaintManager")}
    action = decide(observed(S.RUNNING, flow_failed_attempts=2, **drained)).actions[0]
    assert isinstance(action, FailAttempt)
    assert action.retry_delay is not None


def test_a_missing_secret_makes_the_flow_wait_and_names_it() -> None:
    waiting = pod(
        phase="Pending",
        waiting="CreateContainerConfigError",
        waiting_message='secret "llm" not found',
    )
    launched = run(state=RunState.LAUNCHED)
    (action,) = decide(observed(S.RUNNING, flow_run=launched, pod=waiting)).actions
    assert action == ReferenceMissing(('secret "llm" not found',))
    kept = observed(
        S.WAITING,
        flow_run=launched,
        flow_missing=('secret "llm" not found',),
        job=job(),
        jobs=(job(),),
        pod=waiting,
    )
    assert decide(kept).actions == ()
    assert decide(kept).waits_for is WaitsFor.LIVE_JOB


def test_a_waiting_job_that_ends_is_tried_again_without_counting() -> None:
    ended = observed(
        S.WAITING,
        flow_run=run(state=RunState.LAUNCHED),
        flow_failed_attempts=2,
        job=job(JobState.FAILED, failure_reason="DeadlineExceeded"),
    )
    (action,) = decide(ended).actions
    assert isinstance(action, FailAttempt)
    assert (action.counted, action.retry_delay is None) == (False, False)


STRAY = job(name="servers-data-import-1-0", uid="77777777-2222-4333-8444-555555555555")


@pytest.mark.parametrize("state", [S.SUSPENDED, S.CANCELLED])
def test_a_stopped_flow_stops_its_jobs_at_once(state: FlowState) -> None:
    picture = observed(state, flow_spec=spec(state="Suspend"), jobs=(STRAY,))
    assert decide(picture).actions == (DeleteJob(STRAY.name, STRAY.uid),)


def test_a_pod_that_has_reported_may_exit_by_itself() -> None:
    fresh = observed(S.SUCCEEDED, jobs=(STRAY,))
    assert decide(fresh).actions == ()
    assert decide(fresh).requeue_at == at(30)
    old = observed(S.SUCCEEDED, jobs=(STRAY,), flow_state_since=at(-61))
    assert decide(old).actions == (DeleteJob(STRAY.name, STRAY.uid),)


def test_the_current_job_is_no_stray() -> None:
    assert decide(observed(S.RUNNING, flow_state_since=at(-9999))).actions == ()


# -- the gate ----------------------------------------------------------------------------------


def test_an_answer_is_taken() -> None:
    (action,) = decide(answered()).actions
    assert isinstance(action, TakeAnswer)
    assert action.approval.decided_by == "ann"


@pytest.mark.parametrize("presence", [Presence.ABSENT, Presence.UNKNOWN, None])
def test_s01_no_job_is_started_while_nobody_guards_crews(presence: Presence | None) -> None:
    guard = None if presence is None else Guard("discoveryflow-crews", presence)
    waiting = observed(FlowState.QUEUED, crew_guard=guard)
    assert decide(waiting).actions == ()
    assert decide(waiting).requeue_at is not None
    intended = run(state=RunState.CREATED, job_uid=None, deadline=at(60))
    unlaunched = observed(FlowState.RUNNING, flow_run=intended, crew_guard=guard)
    assert decide(unlaunched).actions == ()
    assert decide(unlaunched).requeue_at is not None
    guarded = Guard("discoveryflow-crews", Presence.PRESENT)
    assert kinds(observed(FlowState.QUEUED, crew_guard=guarded)) == [StartAttempt]
    assert kinds(observed(FlowState.RUNNING, flow_run=intended, crew_guard=guarded)) == [LaunchJob]


def test_an_answer_is_taken_although_the_deadline_has_passed() -> None:
    assert kinds(answered(flow_request=request(expires_at=at(-60)))) == [TakeAnswer]


def test_without_the_policy_an_answer_is_refused_for_good() -> None:
    (action,) = decide(answered(presence=Presence.ABSENT)).actions
    assert isinstance(action, RefuseAnswer)
    assert action.request_id == REQUEST
    assert "discoveryflow-approval" in action.problems[0]


def test_a_policy_that_cannot_be_read_delays_the_answer_and_the_deadline() -> None:
    first = answered(presence=Presence.UNKNOWN, flow_request=request(expires_at=at(-1)))
    (action,) = decide(first).actions
    assert isinstance(action, Note)
    again = answered(
        presence=Presence.UNKNOWN,
        flow_request=request(expires_at=at(-1)),
        flow_answer_note=action.message,
    )
    assert decide(again).actions == ()
    assert decide(again).requeue_at is not None


@pytest.mark.parametrize(
    "wrong",
    [answer(requestId=str(OTHER)), answer(artefactDigest=OTHER_DIGEST)],
    ids=["request", "digest"],
)
def test_an_answer_to_something_else_is_told_once_and_not_taken(wrong: dict[str, Any]) -> None:
    (action,) = decide(answered(answer=wrong)).actions
    assert isinstance(action, Note)
    told = answered(answer=wrong, flow_answer_note=action.message)
    assert decide(told).actions == ()
    assert decide(told).waits_for is WaitsFor.APPROVAL_DEADLINE
    late = answered(
        answer=wrong, flow_answer_note=action.message, flow_request=request(expires_at=at(0))
    )
    assert kinds(late) == [ExpireRequest]


def test_an_answer_to_a_closed_request_says_nothing_new() -> None:
    old = answered(answer=answer(requestId=str(OTHER)), flow_answered_requests=frozenset({OTHER}))
    assert decide(old).actions == ()


def test_automatic_approval_needs_the_installation() -> None:
    policy = ApprovalPolicy(on_timeout="Approve")
    overdue = request(expires_at=at(0), policy=policy)
    held = observed(S.AWAITING_APPROVAL, flow_request=overdue)
    assert decide(held).actions == ()
    assert decide(held).waits_for is WaitsFor.PERSON
    status = build_status(held)
    assert status is not None
    assert "does not allow" in status["message"]
    allowed = observed(
        S.AWAITING_APPROVAL,
        flow_request=overdue,
        rules=Rules(allow_automatic_approval=True),
    )
    assert kinds(allowed) == [ExpireRequest]


def test_the_gate_wakes_at_the_deadline() -> None:
    decision = decide(observed(S.AWAITING_APPROVAL))
    assert (decision.requeue_at, decision.waits_for) == (at(3600), WaitsFor.APPROVAL_DEADLINE)
    assert flow(S.AWAITING_APPROVAL).request == request()
    assert request().artefact_digest == DIGEST


@pytest.mark.parametrize("state", [S.SUCCEEDED, S.FAILED, S.REJECTED, S.CANCELLED])
def test_a_flow_without_data_begins_nothing_any_more(state: FlowState) -> None:
    again = {"rerun": {"id": "again", "fromPhase": "data_import"}}
    whole = observed(state, flow_spec=spec(**again))
    assert bool(decide(whole).actions) is (state in RERUN_FROM)
    assert whole.flow is not None
    purged = replace(whole, flow=replace(whole.flow, purged=True))
    assert decide(purged).actions == ()
    assert decide(replace(purged, resource=None, resource_gone=True)).actions == (MarkDeleted(),)
