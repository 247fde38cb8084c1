"""Every step of the state table is taken by the decisions, once something makes it due.

Together with the exploration beside it: that one shows that no history gets stuck, this one that
no step of the table is dead. Each script makes one step due; the operator has to take it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from discovery_core.actions import Register
from discovery_core.errors import ErrorCode
from discovery_core.states import TRANSITIONS, FlowState, Transition, Trigger, is_ended
from discovery_operator.decide import decide
from discovery_operator.observed import JobState, PodView, Rules

from tests.unit.operator.builders import DIGEST
from tests.unit.operator.model import FULL, Model

S, T = FlowState, Trigger


def pending(**fields: object) -> Model:
    """Registered, and nothing else yet."""
    model = Model(spec_fields=dict(fields))
    (register,) = decide(model.observe()).actions
    assert isinstance(register, Register)
    model.apply(register)
    return model


def queued(**fields: object) -> Model:
    model = pending(**fields)
    model.capacity = FULL
    model.settle()
    return model


def running(**fields: object) -> Model:
    model = pending(**fields)
    model.settle()
    return model


def waiting(**fields: object) -> Model:
    model = pending(**fields)
    model.missing = ("ConfigMap 'servers'",)
    model.settle()
    return model


def waiting_with_job(**fields: object) -> Model:
    model = running(**fields)
    model.pod = PodView(
        "pod", "Pending", waiting="CreateContainerConfigError", waiting_message="no secret"
    )
    model.settle()
    return model


def phase(model: Model) -> Model:
    model.claim()
    model.complete()
    model.settle()
    return model


def asked(**fields: object) -> Model:
    model = running(**fields)
    for _ in range(3):
        phase(model)
    return model


def suspended(model: Model) -> Model:
    model.spec_fields["state"] = "Suspend"
    model.generation += 1
    model.settle()
    return model


REACH: dict[FlowState, Callable[[], Model]] = {
    S.PENDING: pending,
    S.QUEUED: queued,
    S.RUNNING: running,
    S.WAITING: waiting,
    S.AWAITING_APPROVAL: asked,
    S.SUSPENDED: lambda: suspended(running()),
}


def wish(model: Model, state: str) -> Model:
    model.spec_fields["state"] = state
    model.generation += 1
    return model


def answered(decision: str) -> Model:
    model = asked()
    request = model.row.request
    assert request is not None
    model.spec_fields["approval"] = {
        "requestId": str(request.request_id),
        "artefactDigest": DIGEST,
        "decision": decision,
        "decidedBy": "ann",
    }
    model.generation += 1
    return model


def expired(on_timeout: str) -> Model:
    model = asked(approvalPolicy={"onTimeout": on_timeout})
    model.rules = Rules(allow_automatic_approval=True)
    model.now += timedelta(days=3)
    return model


def missing(model: Model) -> Model:
    model.missing = ("ConfigMap 'servers'",)
    return model


def crashed(model: Model) -> Model:
    (name,) = model.jobs
    model.jobs[name] = replace(model.jobs[name], state=JobState.FAILED)
    return model


def reported(model: Model, code: ErrorCode) -> Model:
    model.claim()
    model.report_failure(code)
    return model


def found(model: Model) -> Model:
    model.missing = ()
    return model


def claimed(model: Model) -> Model:
    model.claim()
    return model


def completed(model: Model) -> Model:
    model.claim()
    model.complete()
    return model


def approved() -> Model:
    model = answered("Approve")
    model.settle()
    return model


def rerun(model: Model, from_phase: str = "data_import") -> Model:
    model.spec_fields["rerun"] = {"id": "again", "fromPhase": from_phase}
    model.generation += 1
    return model


def in_inventory() -> Model:
    """Running the phase after the gate."""
    model = approved()
    assert model.row.state is S.RUNNING
    return model


def after_gate(state: FlowState) -> Model:
    """In a state that is reached with approved mappings."""
    if state is S.QUEUED:
        model = answered("Approve")
        model.capacity = FULL
        model.settle()
        return model
    model = in_inventory()
    if state is S.WAITING:
        model.pod = PodView(
            "pod", "Pending", waiting="CreateContainerConfigError", waiting_message="no secret"
        )
        model.settle()
    return model


def ended(state: FlowState) -> Model:
    if state is S.SUCCEEDED:
        model = phase(phase(phase(approved())))
    elif state is S.FAILED:
        model = reported(in_inventory(), ErrorCode.EMPTY_FILE)
    else:
        model = answered("Reject")
    model.settle()
    assert model.row.state is state
    return model


SCRIPTS: dict[tuple[FlowState, Trigger], Callable[[], Model]] = {
    (S.PENDING, T.ADMITTED): pending,
    (S.PENDING, T.REFERENCE_MISSING): lambda: missing(pending()),
    (S.QUEUED, T.REFERENCE_MISSING): lambda: missing(queued()),
    (S.RUNNING, T.REFERENCE_MISSING): waiting_with_job,
    (S.WAITING, T.REFERENCE_FOUND): lambda: found(waiting()),
    (S.WAITING, T.CLAIMED): lambda: claimed(waiting_with_job()),
    (S.WAITING, T.ATTEMPT_FAILED): lambda: crashed(waiting_with_job()),
    (S.QUEUED, T.ATTEMPT_STARTED): running,
    (S.RUNNING, T.PHASE_SUCCEEDED): lambda: completed(running()),
    (S.RUNNING, T.APPROVAL_REQUESTED): asked,
    (S.RUNNING, T.FLOW_SUCCEEDED): lambda: phase(phase(phase(approved()))),
    (S.RUNNING, T.ATTEMPT_FAILED): lambda: crashed(running()),
    (S.RUNNING, T.ATTEMPTS_EXHAUSTED): lambda: reported(running(), ErrorCode.EMPTY_FILE),
    (S.AWAITING_APPROVAL, T.APPROVED): lambda: answered("Approve"),
    (S.AWAITING_APPROVAL, T.REJECTED): lambda: answered("Reject"),
    (S.AWAITING_APPROVAL, T.EXPIRED_APPROVED): lambda: expired("Approve"),
    (S.AWAITING_APPROVAL, T.EXPIRED_REJECTED): lambda: expired("Reject"),
    (S.SUSPENDED, T.RESUMED): lambda: wish(suspended(running()), "Run"),
    (S.SUSPENDED, T.APPROVAL_REQUESTED): lambda: wish(suspended(asked()), "Run"),
}
SCRIPTS[S.AWAITING_APPROVAL, T.ASKED_AGAIN] = lambda: answered("AskAgain")
for _state in (S.QUEUED, S.RUNNING, S.WAITING, S.AWAITING_APPROVAL):
    SCRIPTS[_state, T.RERUN] = lambda state=_state: rerun(REACH[state]())  # type: ignore[misc]
for _state in (S.QUEUED, S.RUNNING, S.WAITING):
    SCRIPTS[_state, T.REOPENED] = lambda state=_state: rerun(after_gate(state), "approval")  # type: ignore[misc]
for _state in (S.SUCCEEDED, S.FAILED, S.REJECTED):
    SCRIPTS[_state, T.RERUN] = lambda state=_state: rerun(ended(state))  # type: ignore[misc]
    SCRIPTS[_state, T.REOPENED] = lambda state=_state: rerun(ended(state), "approval")  # type: ignore[misc]
for _state, _reach in REACH.items():
    if _state is not S.SUSPENDED:
        SCRIPTS[_state, T.SUSPENDED] = lambda reach=_reach: wish(reach(), "Suspend")  # type: ignore[misc]
    SCRIPTS[_state, T.CANCELLED] = lambda reach=_reach: wish(reach(), "Cancel")  # type: ignore[misc]
    SCRIPTS[_state, T.DELETED] = lambda reach=_reach: deleted(reach())  # type: ignore[misc]


def deleted(model: Model) -> Model:
    model.resource_exists = False
    return model


STEPS = [step for step in TRANSITIONS if step.source is not None]


@pytest.mark.parametrize("step", STEPS, ids=[f"{t.source} {t.trigger}" for t in STEPS])
def test_a_due_step_is_taken(step: Transition) -> None:
    assert step.source is not None
    model = SCRIPTS[step.source, step.trigger]()
    model.settle()
    assert (step.source, step.trigger, step.target) in model.transitions
    if is_ended(model.row.state):
        before = list(model.transitions)
        model.now += timedelta(days=400)
        model.settle()
        assert model.transitions == before


@pytest.mark.parametrize("state", REACH)
def test_the_scripts_reach_their_states(state: FlowState) -> None:
    assert REACH[state]().row.state is state
