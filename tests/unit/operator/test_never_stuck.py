"""In every reachable state there is an action, a timer, or something outside that will happen.

Hypothesis drives the model through anything that crews, nodes, people and clocks may do. After
each event the operator settles; then the flow must own what its state waits for, and if from
then on nothing happens but time, it must come to an end or to a wait that a person can name.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from datetime import timedelta

from discovery_core.actions import Decision
from discovery_core.errors import ErrorCode
from discovery_core.states import (
    FlowState,
    RunState,
    WaitsFor,
    is_ended,
    target_of,
)
from discovery_operator.decide import decide
from discovery_operator.decide_run import is_live
from discovery_operator.observed import JobState, PodView, Presence, Rules
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tests.unit.operator.builders import DIGEST, OTHER, OTHER_DIGEST
from tests.unit.operator.model import FREE, FULL, Model

S = FlowState


def check_wait(model: Model, decision: Decision) -> None:
    """What the decision says it waits for is really there."""
    flow = model.flow
    if flow is None or flow.deleted or is_ended(flow.state):
        return
    if flow.state is S.SUSPENDED:
        assert decision.waits_for is WaitsFor.PERSON
        assert flow.spec.state == "Suspend"
        return
    if decision.waits_for is WaitsFor.QUEUE_SLOT:
        assert not model.capacity.free, "nobody would give it a slot"
        assert decision.requeue_at is None, "the queue is not polled"
        return
    assert decision.requeue_at is not None, f"{flow.state} would never be looked at again"
    assert decision.requeue_at > model.now, "a timer in the past is a busy loop"
    if decision.waits_for is WaitsFor.LIVE_JOB:
        assert is_live(flow.run)
        assert flow.run is not None
        assert model.jobs[flow.run.job_name].state is JobState.ACTIVE
    if decision.waits_for is WaitsFor.APPROVAL_DEADLINE:
        assert flow.request is not None
        assert decision.requeue_at == flow.request.expires_at


def let_time_pass(model: Model) -> None:
    """Nothing happens any more but time: no pod speaks, nobody answers, nothing appears."""
    decision = model.settle()
    for _ in range(400):
        flow = model.flow
        if flow is None or flow.deleted or is_ended(flow.state) or decision.requeue_at is None:
            break
        model.now = max(model.now, decision.requeue_at)
        _kubelet(model)
        decision = model.settle()
        check_wait(model, decision)
    _assert_explained(model, decision)


def _kubelet(model: Model) -> None:
    """A Job that is left alone is ended by its activeDeadlineSeconds in the end."""
    flow = model.flow
    run = flow.run if flow is not None else None
    if flow is None or run is None or not is_live(run):
        return
    job = model.jobs.get(run.job_name)
    limit = model.row.state_since + timedelta(seconds=1500)
    if job is not None and job.state is JobState.ACTIVE and model.now >= limit:
        model.jobs[job.name] = replace(
            job, state=JobState.FAILED, failure_reason="DeadlineExceeded"
        )


def _assert_explained(model: Model, decision: Decision) -> None:
    flow = model.flow
    if flow is None or flow.deleted or is_ended(flow.state) or flow.state is S.SUSPENDED:
        return
    held = flow.request is not None and flow.request.policy.on_timeout != "Reject"
    unreadable = model.policy is Presence.UNKNOWN
    config = model.pod is not None and bool(model.pod.waiting)
    explained = {
        S.WAITING: bool(model.missing) or config,
        S.QUEUED: not model.capacity.free or bool(model.missing) or config,
        S.RUNNING: config,
        S.AWAITING_APPROVAL: held or unreadable,
    }
    assert explained.get(flow.state, False), f"{flow.state} for ever: {decision} {flow}"


class Life(RuleBasedStateMachine):
    """Everything that may happen to one flow."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.decision = Decision()

    @initialize(
        on_timeout=st.sampled_from(["Reject", "Approve", "Hold"]),
        allow=st.booleans(),
        attempts=st.integers(1, 3),
        state=st.sampled_from(["Run", "Run", "Run", "Suspend", "Cancel"]),
        missing=st.sampled_from([(), (), ("ConfigMap 'servers'",)]),
        good_phases=st.integers(0, 4),
        lives=st.sampled_from([True, True, True, True, False]),
        mode=st.sampled_from(["Always", "AutoApprove"]),
        confidence=st.sampled_from([0.5, 0.95]),
    )
    def begin(
        self,
        on_timeout: str,
        allow: bool,
        attempts: int,
        state: str,
        missing: tuple[str, ...],
        good_phases: int,
        lives: bool,
        mode: str,
        confidence: float,
    ) -> None:
        self.model.confidence = confidence
        self.model.missing = missing
        self.model.spec_fields = {
            "state": state,
            "approvalPolicy": {"onTimeout": on_timeout, "mode": mode, "minConfidence": 0.9},
            "retries": {"maxAttempts": attempts},
        }
        self.model.rules = Rules(allow_automatic_approval=allow)
        (register,) = decide(self.model.observe()).actions
        self.model.apply(register)
        self.model.resource_exists = lives
        self.settle()
        for _ in range(good_phases):
            if self.run_is(RunState.LAUNCHED):
                self.a_phase_goes_well()
            elif self.open() and self.model.row.state is S.AWAITING_APPROVAL:
                self.somebody_answers(right=True, digest=DIGEST, decision="Approve")

    def settle(self) -> None:
        before = len(self.model.transitions)
        self.decision = self.model.settle()
        for source, trigger, target in self.model.transitions[before:]:
            assert target_of(source, trigger) is target

    @invariant()
    def waits_for_something(self) -> None:
        check_wait(self.model, self.decision)

    def open(self) -> bool:
        flow = self.model.flow
        return flow is not None and not flow.deleted and not is_ended(flow.state)

    def run_is(self, *states: RunState) -> bool:
        flow = self.model.flow
        return (
            self.open()
            and flow is not None
            and flow.run is not None
            and (flow.run.state in states and flow.state in (S.RUNNING, S.WAITING))
        )

    # -- time and the cluster ------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.5, 5, 30, 61, 700, 4000, 300_000]))
    def time_passes(self, seconds: float) -> None:
        self.model.now += timedelta(seconds=seconds)
        self.settle()

    @precondition(lambda self: self.open() and self.model.row.request is not None)
    @rule()
    def the_deadline_passes(self) -> None:
        request = self.model.row.request
        assert request is not None
        self.model.now = max(self.model.now, request.expires_at)
        self.settle()

    @rule(names=st.sampled_from([(), ("ConfigMap 'servers'",), ("key 'x' of ConfigMap 'y'",)]))
    def references_change(self, names: tuple[str, ...]) -> None:
        self.model.missing = names
        self.settle()

    @rule(full=st.booleans())
    def slots_change(self, full: bool) -> None:
        self.model.capacity = FULL if full else FREE
        self.settle()

    @rule(refuse=st.booleans())
    def quota_changes(self, refuse: bool) -> None:
        self.model.refuse_launch = refuse
        self.settle()

    @precondition(lambda self: self.run_is(RunState.LAUNCHED))
    @rule(waiting=st.sampled_from(["CreateContainerConfigError", "ImagePullBackOff", ""]))
    def pod_has_trouble(self, waiting: str) -> None:
        self.model.pod = PodView("pod", "Pending", waiting=waiting, waiting_message="it is bad")
        self.settle()

    @precondition(lambda self: self.run_is(RunState.LAUNCHED, RunState.RUNNING))
    @rule(
        reason=st.sampled_from(["BackoffLimitExceeded", "DeadlineExceeded"]),
        words=st.sampled_from([{"terminated": "OOMKilled"}, {"exit_code": 1}, {},
                               {"disruption": "EvictionByEvictionAPI"}]),
        complete=st.booleans(),
    )  # fmt: skip
    def job_ends(self, reason: str, words: dict[str, object], complete: bool) -> None:
        run = self.model.row.run
        assert run is not None
        if run.job_name not in self.model.jobs:
            return
        self.model.pod = PodView("pod", "Failed", **words)  # type: ignore[arg-type]
        self.model.jobs[run.job_name] = replace(
            self.model.jobs[run.job_name],
            state=JobState.COMPLETE if complete else JobState.FAILED,
            failure_reason=reason,
        )
        self.settle()

    @rule()
    def jobs_are_deleted(self) -> None:
        self.model.jobs.clear()
        self.settle()

    # -- crews ---------------------------------------------------------------------------------

    @precondition(lambda self: self.run_is(RunState.LAUNCHED))
    @rule()
    def pod_claims(self) -> None:
        self.model.claim()
        self.settle()

    @precondition(lambda self: self.run_is(RunState.LAUNCHED))
    @rule()
    def a_phase_goes_well(self) -> None:
        self.model.claim()
        self.settle()
        if self.run_is(RunState.RUNNING):
            self.model.complete()
            self.settle()

    @precondition(lambda self: self.run_is(RunState.RUNNING))
    @rule()
    def crew_completes(self) -> None:
        self.model.complete()
        self.settle()

    @precondition(lambda self: self.run_is(RunState.RUNNING))
    @rule(code=st.sampled_from([ErrorCode.EMPTY_FILE, ErrorCode.LLM_UNAVAILABLE, "Newer"]))
    def crew_reports(self, code: str) -> None:
        self.model.report_failure(code)
        self.settle()

    # -- people --------------------------------------------------------------------------------

    @rule(state=st.sampled_from(["Run", "Suspend"]))
    def somebody_sets_state(self, state: str) -> None:
        if self.model.spec_fields.get("state") == "Cancel":
            return
        self.model.spec_fields = {**self.model.spec_fields, "state": state}
        self.model.generation += 1
        self.settle()

    @precondition(lambda self: self.open() and self.model.row.request is not None)
    @rule(
        right=st.booleans(),
        digest=st.sampled_from([DIGEST, DIGEST, OTHER_DIGEST]),
        decision=st.sampled_from(["Approve", "Reject", "AskAgain"]),
    )
    def somebody_answers(self, right: bool, digest: str, decision: str) -> None:
        request = self.model.row.request
        assert request is not None
        self.model.spec_fields = {
            **self.model.spec_fields,
            "approval": {
                "requestId": str(request.request_id if right else OTHER),
                "artefactDigest": digest,
                "decision": decision,
                "decidedBy": "ann",
            },
        }
        self.model.generation += 1
        self.settle()

    @precondition(lambda self: self.model.flow is not None and not self.model.flow.deleted)
    @rule(
        from_phase=st.sampled_from(["data_import", "field_mapping", "asset_inventory", "approval"])
    )
    def somebody_wants_another_round(self, from_phase: str) -> None:
        self.model.generation += 1
        rerun = {"id": f"rerun-{self.model.generation}", "fromPhase": from_phase}
        self.model.spec_fields = {**self.model.spec_fields, "rerun": rerun}
        self.settle()

    @rule(presence=st.sampled_from(list(Presence)))
    def policy_changes(self, presence: Presence) -> None:
        self.model.policy = presence
        self.settle()

    @precondition(lambda self: self.open())
    @rule(really=st.sampled_from([False, False, True]))
    def somebody_cancels(self, really: bool) -> None:
        if not really:
            return
        self.model.spec_fields = {**self.model.spec_fields, "state": "Cancel"}
        self.model.generation += 1
        self.settle()
        assert self.model.row.deleted or is_ended(self.model.row.state)

    @precondition(lambda self: self.open())
    @rule(really=st.sampled_from([False, False, True]))
    def resource_is_deleted(self, really: bool) -> None:
        if not really:
            return
        self.model.resource_exists = False
        self.settle()
        flow = self.model.flow
        assert flow is None or flow.deleted
        assert not any(job.state is JobState.ACTIVE for job in self.model.jobs.values())

    def teardown(self) -> None:
        let_time_pass(deepcopy(self.model))


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=300, stateful_step_count=30, derandomize=True, deadline=None
)
