"""The state table as data: it is complete, every state leads somewhere, and the page shows it."""

from __future__ import annotations

import pytest
from discovery_core.phases import PHASES, next_phase, phase_spec, progress
from discovery_core.state_table import PAGE, render
from discovery_core.states import (
    CONDITION_TYPES,
    STATES,
    TRANSITIONS,
    FlowState,
    Trigger,
    WaitsFor,
    is_ended,
    target_of,
)


def test_every_state_is_described() -> None:
    assert set(STATES) == set(FlowState)
    for info in STATES.values():
        assert set(info.conditions) == set(CONDITION_TYPES)
        assert info.phase_status in (
            "pending",
            "running",
            "awaiting_approval",
            "completed",
            "failed",
        )


def test_a_trigger_leads_to_one_state() -> None:
    steps = [(step.source, step.trigger) for step in TRANSITIONS]
    assert len(steps) == len(set(steps))
    assert {step.trigger for step in TRANSITIONS} == set(Trigger)


@pytest.mark.parametrize("state", list(FlowState))
def test_open_states_reach_success_and_ended_ones_stay(state: FlowState) -> None:
    reached, frontier = {state}, [state]
    while frontier:
        here = frontier.pop()
        for step in TRANSITIONS:
            if step.source is here and step.target not in reached:
                reached.add(step.target)
                frontier.append(step.target)
    if is_ended(state):
        assert STATES[state].waits_for is WaitsFor.NOTHING
        ways_out = {step.trigger for step in TRANSITIONS if step.source is state}
        round_or_none = {Trigger.RERUN, Trigger.REOPENED}
        assert ways_out == (set() if state is FlowState.CANCELLED else round_or_none)
    else:
        assert {FlowState.SUCCEEDED, FlowState.CANCELLED} <= reached


def test_every_open_state_can_be_stopped() -> None:
    for state in FlowState:
        if not is_ended(state):
            assert target_of(state, Trigger.CANCELLED) is FlowState.CANCELLED
            assert target_of(state, Trigger.DELETED) is FlowState.CANCELLED


def test_a_flow_parked_for_a_person_is_not_reconciling() -> None:
    conditions = STATES[FlowState.AWAITING_APPROVAL].conditions
    assert (conditions["Reconciling"], conditions["AwaitingApproval"]) == ("False", "True")


def test_the_page_shows_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run `make generate`"


def test_phases_only_need_what_earlier_ones_make() -> None:
    names = [spec.name for spec in PHASES]
    for position, spec in enumerate(PHASES):
        assert all(names.index(wanted.phase) < position for wanted in spec.inputs)
    assert [next_phase(name) for name in names] == [*names[1:], None]
    assert progress(names[2], finished=False) == "2/6"
    assert progress(names[-1], finished=True) == "6/6"
    with pytest.raises(KeyError):
        phase_spec("nothing")
