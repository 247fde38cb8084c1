"""A pure model of the store and the cluster, for exploring what `decide` leads to.

It follows the contracts of the store (same steps, from the same state table) and of Kubernetes
as far as the operator relies on them, so that thousands of histories can be tried in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from discovery_core import actions as act
from discovery_core.durations import parse_duration
from discovery_core.phases import FIRST_PHASE, PHASES, Phase, next_phase, phase_spec
from discovery_core.resource_gate import Rerun
from discovery_core.snapshots import Capacity, FlowSnapshot, RequestSnapshot, RunSnapshot
from discovery_core.states import FlowState, RunState, Trigger, is_ended, target_of
from discovery_operator.decide import decide
from discovery_operator.decide_run import is_live
from discovery_operator.observed import (
    Guard,
    JobState,
    JobView,
    Observed,
    PodView,
    Presence,
    ResourceView,
    Rules,
)

from tests.unit.operator.builders import DIGEST, FLOW_ID, NOW, TENANT, spec

MAX_PASSES = 10
FREE = Capacity(0, 0, 20, 5)
FULL = Capacity(20, 0, 20, 5)


class IllegalStepError(AssertionError):
    """The decision asked for a step that the state table does not have."""


@dataclass
class Model:
    """One flow, its row, its Jobs, and everything outside that `decide` may depend on."""

    now: datetime = NOW
    spec_fields: dict[str, Any] = field(default_factory=dict)
    generation: int = 1
    resource_exists: bool = True
    flow: FlowSnapshot | None = None
    jobs: dict[str, JobView] = field(default_factory=dict)
    pod: PodView | None = None
    missing: tuple[str, ...] = ()
    capacity: Capacity = FREE
    policy: Presence = Presence.PRESENT
    crew_policy: Presence = Presence.PRESENT
    rules: Rules = field(default_factory=Rules)
    refuse_launch: bool = False
    confidence: float = 0.5
    transitions: list[tuple[FlowState | None, Trigger, FlowState]] = field(default_factory=list)
    serial: int = 0

    # -- what is seen --------------------------------------------------------------------------

    def observe(self) -> Observed:
        flow = self.flow
        run = flow.run if flow is not None else None
        job, presence = None, Presence.UNKNOWN
        if run is not None and run.state in (RunState.LAUNCHED, RunState.RUNNING):
            job = self.jobs.get(run.job_name)
            presence = Presence.PRESENT if job is not None else Presence.ABSENT
        resource = None
        if self.resource_exists:
            resource = ResourceView(
                uid=FLOW_ID,
                namespace="team-a",
                name="servers",
                generation=self.generation,
                resource_version="1",
                spec=spec(**self.spec_fields),
            )
        pinned = flow is not None and flow.source_pinned
        return Observed(
            now=self.now,
            rules=self.rules,
            resource=resource,
            resource_gone=not self.resource_exists,
            flow=flow,
            job=job,
            job_presence=presence,
            pod=self.pod,
            jobs=tuple(j for j in self.jobs.values() if j.state is JobState.ACTIVE),
            capacity=self.capacity,
            missing=() if pinned else self.missing,
            guard=Guard("policy", self.policy),
            crew_guard=Guard("crews", self.crew_policy),
        )

    def settle(self) -> act.Decision:
        """Decides and acts until nothing is to be done. Returns the last decision."""
        for _ in range(MAX_PASSES):
            decision = decide(self.observe())
            if not decision.actions:
                return decision
            for action in decision.actions:
                if not self.apply(action):
                    return act.Decision(requeue_at=self.now + timedelta(seconds=60))
        raise AssertionError(f"no end of actions: {decision.actions} in {self.flow}")

    # -- the store -----------------------------------------------------------------------------

    def step(self, trigger: Trigger, **changes: Any) -> None:
        """One transition, as the state table has it."""
        flow = self.row
        target = target_of(flow.state, trigger)
        if target is None:
            raise IllegalStepError(f"{trigger} in {flow.state}")
        self.transitions.append((flow.state, trigger, target))
        self.flow = replace(
            flow,
            **{
                "state": target,
                "version": flow.version + 1,
                "state_since": self.now,
                "reason": str(trigger),
                "missing": (),
                "not_before": None,
                **changes,
            },
        )

    @property
    def row(self) -> FlowSnapshot:
        assert self.flow is not None
        return self.flow

    def apply(self, action: act.Action) -> bool:
        """Carries out an action. False where the API server refused a Job."""
        match action:
            case act.Register():
                self._register(action)
            case act.UpdateSpec():
                self.flow = replace(self.row, spec=action.spec, generation=action.generation)
            case act.MarkDeleted():
                self._close("Deleted", Trigger.DELETED)
                self.flow = replace(self.row, deleted=True)
            case act.Cancel():
                self._close("Cancelled", Trigger.CANCELLED)
            case act.Suspend():
                self.step(Trigger.SUSPENDED, run=_superseded(self.row.run))
            case act.Resume():
                asked = self.row.request is not None
                self.step(Trigger.APPROVAL_REQUESTED if asked else Trigger.RESUMED)
            case act.StartRound():
                self._round(action.rerun)
            case act.Admit():
                self.step(Trigger.ADMITTED)
            case act.ReferenceFound():
                self.step(Trigger.REFERENCE_FOUND)
            case act.ReferenceMissing():
                if self.row.state is FlowState.WAITING:
                    self.flow = replace(self.row, missing=action.missing)
                else:
                    self.step(Trigger.REFERENCE_MISSING, missing=action.missing)
            case act.StartAttempt():
                self._start(action)
                return self._launch()
            case act.LaunchJob():
                return self._launch()
            case act.FailAttempt():
                self._fail(action)
            case act.DeleteJob():
                self.jobs.pop(action.name, None)
            case _:
                self._gate(action)
        return True

    def _register(self, action: act.Register) -> None:
        self.flow = FlowSnapshot(
            flow_id=FLOW_ID,
            tenant_id=TENANT,
            namespace="team-a",
            name="servers",
            engagement=None,
            spec=action.spec,
            generation=action.generation,
            round=1,
            phase=FIRST_PHASE,
            state=FlowState.PENDING,
            version=1,
            state_since=self.now,
            message="",
            reason="Created",
            created_at=self.now,
        )

    def _close(self, why: str, trigger: Trigger) -> None:
        del why
        if not is_ended(self.row.state):
            self.step(trigger, run=_superseded(self.row.run), request=None)

    def _round(self, wanted: Rerun) -> None:
        flow = self.row
        assert wanted.id not in flow.rerun_ids, "a rerun is followed twice"
        order = [spec.name for spec in PHASES]
        reopening = wanted.from_phase == "approval"
        phase = Phase.FIELD_MAPPING if reopening else Phase(wanted.from_phase)
        reached = order.index(phase) <= order.index(flow.phase)
        if reopening:
            reached = order.index(phase) < order.index(flow.phase) or is_ended(flow.state)
        heard = flow.rerun_ids | {wanted.id}
        if not reached or (reopening and flow.state is FlowState.AWAITING_APPROVAL):
            self.flow = replace(flow, rerun_ids=heard, answer_note="not possible")
            return
        self.step(
            Trigger.REOPENED if reopening else Trigger.RERUN,
            **self._new_round(phase),
            rerun_ids=heard,
            request=self._question() if reopening else None,
        )

    def _new_round(self, phase: Phase) -> dict[str, Any]:
        flow = self.row
        if flow.run is not None and is_live(flow.run):
            self.jobs.pop(flow.run.job_name, None)
        return {
            "round": flow.round + 1,
            "phase": phase,
            "run": None,
            "failed_attempts": 0,
            "last_attempt": 0,
            "answer_note": "",
        }

    def _question(self) -> RequestSnapshot:
        policy = self.row.spec.approval_policy
        expires = self.now + timedelta(seconds=parse_duration(policy.timeout))
        return RequestSnapshot(
            self._id(),
            DIGEST,
            3,
            policy,
            self.now,
            expires,
            lowest_confidence=self.confidence,
        )

    def _start(self, action: act.StartAttempt) -> None:
        flow = self.row
        assert not is_live(flow.run), "two live attempts"
        assert action.attempt > flow.last_attempt, "an attempt is used twice"
        run = RunSnapshot(
            run_id=self._id(),
            round=action.round,
            phase=action.phase,
            attempt=action.attempt,
            state=RunState.CREATED,
            job_name=action.job_name,
            job_uid=None,
            pod_name=None,
            deadline=self.now + timedelta(seconds=action.launch_timeout),
        )
        self.step(Trigger.ATTEMPT_STARTED, run=run, last_attempt=action.attempt)

    def _launch(self) -> bool:
        if self.refuse_launch:
            return False
        run = self.row.run
        assert run is not None
        assert run.job_name not in self.jobs, "a Job is made twice"
        uid = str(self._id())
        self.jobs[run.job_name] = JobView(run.job_name, uid, JobState.ACTIVE)
        self.pod = PodView("pod", "Pending")
        self.flow = replace(self.row, run=replace(run, state=RunState.LAUNCHED, job_uid=uid))
        return True

    def _fail(self, action: act.FailAttempt) -> None:
        flow = self.row
        run = flow.run
        assert run is not None
        assert run.run_id == action.run_id
        counted_before = run.state is RunState.FAILED
        failures = flow.failed_attempts + (1 if action.counted and not counted_before else 0)
        final = action.retry_delay is None
        self.step(
            Trigger.ATTEMPTS_EXHAUSTED if final else Trigger.ATTEMPT_FAILED,
            run=replace(run, state=RunState.FAILED, error_code=str(action.code)),
            failed_attempts=failures,
            message=action.message,
            not_before=(
                None
                if action.retry_delay is None
                else self.now + timedelta(seconds=action.retry_delay)
            ),
        )

    def _gate(self, action: act.Action) -> None:
        flow = self.row
        request = flow.request
        assert request is not None
        closed = flow.answered_requests | {request.request_id}
        match action:
            case act.TakeAnswer():
                assert action.approval.request_id == request.request_id
                if action.approval.decision == "AskAgain":
                    again = self._new_round(Phase.FIELD_MAPPING)
                    again |= {"request": None, "answered_requests": closed}
                    self.step(Trigger.ASKED_AGAIN, **again)
                    return
                approved = action.approval.decision == "Approve"
                self._decided(Trigger.APPROVED if approved else Trigger.REJECTED, approved, closed)
            case act.ApproveByPolicy():
                assert request.policy.mode == "AutoApprove"
                self._decided(Trigger.APPROVED, True, closed)
            case act.RefuseAnswer():
                renewed = replace(request, request_id=self._id())
                self.flow = replace(
                    flow, request=renewed, answered_requests=closed, answer_note="refused"
                )
            case act.Note():
                assert flow.answer_note != action.message, "told twice"
                self.flow = replace(flow, answer_note=action.message)
            case act.ExpireRequest():
                assert request.expires_at <= self.now
                if request.policy.on_timeout == "Hold":
                    length = parse_duration(request.policy.timeout)
                    later = self.now + timedelta(seconds=length)
                    self.flow = replace(flow, request=replace(request, expires_at=later))
                elif request.policy.on_timeout == "Approve":
                    self._decided(Trigger.EXPIRED_APPROVED, True, closed)
                else:
                    self._decided(Trigger.EXPIRED_REJECTED, False, closed)
            case _:
                raise AssertionError(f"unknown action {action}")

    def _decided(self, trigger: Trigger, approved: bool, closed: frozenset[UUID]) -> None:
        changes: dict[str, Any] = {"request": None, "answered_requests": closed, "answer_note": ""}
        following = next_phase(self.row.phase)
        if approved and following is not None:
            changes.update(phase=following, run=None, failed_attempts=0, last_attempt=0)
        self.step(trigger, **changes)

    # -- crews ---------------------------------------------------------------------------------

    def claim(self) -> None:
        """The pod reports for work."""
        flow, run = self.row, self.row.run
        assert run is not None
        claimed = replace(
            run,
            state=RunState.RUNNING,
            pod_name="pod",
            deadline=self.now + timedelta(seconds=parse_duration(flow.spec.phase_timeout)),
            heartbeat_deadline=self.now + timedelta(seconds=60),
        )
        self.pod = PodView("pod", "Running")
        if flow.state is FlowState.WAITING:
            self.step(Trigger.CLAIMED, run=claimed)
        else:
            self.flow = replace(flow, run=claimed)

    def complete(self) -> None:
        """The crew hands in the phase's result."""
        flow = self.row
        job = self.jobs.get(flow.run.job_name) if flow.run is not None else None
        if job is not None:
            self.jobs[job.name] = replace(job, state=JobState.COMPLETE)
        done: dict[str, Any] = {"run": None, "failed_attempts": 0, "last_attempt": 0}
        if phase_spec(flow.phase).gated:
            self.step(Trigger.APPROVAL_REQUESTED, request=self._question())
            return
        following = next_phase(flow.phase)
        if following is None:
            self.step(Trigger.FLOW_SUCCEEDED)
        else:
            self.step(Trigger.PHASE_SUCCEEDED, phase=following, source_pinned=True, **done)

    def report_failure(self, code: str) -> None:
        """The crew says what went wrong."""
        flow, run = self.row, self.row.run
        assert run is not None
        failed = replace(run, state=RunState.FAILED, error_code=code, error_message="why")
        self.flow = replace(flow, run=failed, failed_attempts=flow.failed_attempts + 1)

    def _id(self) -> UUID:
        self.serial += 1
        return uuid5(FLOW_ID, str(self.serial))


def _superseded(run: RunSnapshot | None) -> RunSnapshot | None:
    return replace(run, state=RunState.SUPERSEDED) if run is not None and is_live(run) else run
