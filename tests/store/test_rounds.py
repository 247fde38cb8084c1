"""Rounds: asked again, re-opened, run once more; nothing of an earlier round counts beside it."""

from __future__ import annotations

import pytest
from discovery_core import actions as act
from discovery_core.errors import InvalidAnswerError, SupersededError
from discovery_core.mapping_edits import apply_edits
from discovery_core.phases import Phase
from discovery_core.resource_gate import MappingEdit, Rerun
from discovery_core.states import FlowState, Trigger
from discovery_core.store.database import database_url
from discovery_core.wire.results import FieldMapping, MappingResult, TargetDescription
from sqlalchemy import create_engine, text

from tests.postgres import Stores
from tests.store.flows import MAPPINGS, RESULTS, SPEC, Flow

FIELDS = [
    TargetDescription(name="hostname", required=True),
    TargetDescription(
        name="memory_gb",
        type="number",
        unit="GB",
        transforms=["unit:MiB", "unit:GB", "decimal:comma", "decimal:point"],
    ),
    TargetDescription(
        name="cpu_cores",
        type="integer",
        transforms=["decimal:comma", "decimal:point", "times:cpu_sockets"],
    ),
    TargetDescription(name="cpu_sockets", type="integer"),
    TargetDescription(name="owner"),
    TargetDescription(name="criticality", allowed_values=["low", "high"]),
    TargetDescription(name="retired_on", type="date"),
]
COLUMNS = [
    FieldMapping(
        column="Name", target="hostname", confidence=0.9, reason="header", samples=["web01"]
    ),
    FieldMapping(
        column="RAM",
        target="memory_gb",
        confidence=0.8,
        reason="unit",
        samples=["16"],
        transform="unit:GB",
    ),
    FieldMapping(column="Notes", target=None, confidence=0.4, reason="none", samples=["rack a"]),
    FieldMapping(column="System", target=None, confidence=0.4, reason="none", samples=["RHEL 9.3"]),
]
NAMES = [field.name for field in FIELDS]


async def rerun(flow: Flow, from_phase: str, id: str = "r1", hint: str | None = None) -> None:  # noqa: A002
    wanted = Rerun.model_validate({"id": id, "fromPhase": from_phase, "hint": hint})
    await flow.stores.operator.apply(flow.flow_id, act.StartRound(wanted))


def rows(stores: Stores, statement: str, **values: object) -> list[tuple[object, ...]]:
    engine = create_engine(database_url(stores.urls.superuser))
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.execute(text(statement), values)]
    engine.dispose()
    return found


async def test_asking_again_runs_the_mapping_with_the_hint(stores: Stores) -> None:
    flow = Flow(stores)
    first = (await flow.to_gate()).request
    assert first is not None
    await flow.answer("AskAgain", hint="Notes -> owner", reason="no owner")
    again = await flow.load()
    assert (again.state, again.phase, again.round) == (FlowState.QUEUED, Phase.FIELD_MAPPING, 2)
    assert (await stores.api.request(flow.tenant_id, first.request_id)).state == "AskedAgain"
    await flow.start()
    pod = await flow.claim()
    assert pod.claim.hint == "Notes -> owner"
    assert set(pod.claim.inputs) >= {"records", "profile"}
    await pod.do_phase()
    asked = await flow.load()
    assert asked.request is not None
    assert asked.request.request_id != first.request_id
    await flow.answer()
    assert (await flow.finish()).state == FlowState.SUCCEEDED


async def test_the_answer_to_the_first_question_is_late(stores: Stores) -> None:
    flow = Flow(stores)
    first = (await flow.to_gate()).request
    assert first is not None
    await flow.answer("AskAgain")
    await flow.run_phase()
    with pytest.raises(SupersededError):
        await flow.answer(request_id=first.request_id, artefact_digest=first.artefact_digest)


@pytest.mark.parametrize("ended", ["Reject", "Expire"])
async def test_a_request_that_was_not_approved_can_be_opened_again(
    stores: Stores, ended: str
) -> None:
    flow = Flow(stores, spec=SPEC | {"approvalPolicy": {"timeout": "1s"}})
    first = (await flow.to_gate()).request
    assert first is not None
    if ended == "Reject":
        await flow.answer("Reject")
    else:
        await _let_expire(flow, stores)
    assert (await flow.load()).state == FlowState.REJECTED
    await rerun(flow, "approval")
    reopened = await flow.load()
    assert (reopened.state, reopened.round) == (FlowState.AWAITING_APPROVAL, 2)
    assert reopened.request is not None
    assert reopened.request.request_id != first.request_id
    assert reopened.request.artefact_digest == first.artefact_digest
    assert reopened.request.columns == first.columns
    assert reopened.request.opened_at > first.opened_at
    assert reopened.request.expires_at > first.expires_at
    await flow.answer()
    assert (await flow.finish()).state == FlowState.SUCCEEDED


async def _let_expire(flow: Flow, stores: Stores) -> None:
    engine = create_engine(database_url(stores.urls.superuser))
    with engine.begin() as connection:
        connection.execute(text("UPDATE approval_requests SET expires_at = now()"))
    engine.dispose()
    request = (await flow.load()).request
    assert request is not None
    await stores.operator.apply(flow.flow_id, act.ExpireRequest(request.request_id))


async def test_a_later_approval_replaces_the_inventory(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.to_gate()
    await flow.answer()
    assert (await flow.finish()).assets == 3
    await rerun(flow, "approval")
    reopened = await flow.load()
    assert reopened.assets is None
    summary = await stores.api.inventory_summary(flow.tenant_id, None)
    assert summary["assets"] == 0
    await flow.answer(edits=[MappingEdit(column="RAM", target="")])
    await flow.finish()
    assert (await stores.api.inventory_summary(flow.tenant_id, None))["assets"] == 3
    approved = rows(
        stores, "SELECT name FROM flow_artefacts WHERE name LIKE 'approved/%' ORDER BY name"
    )
    assert len(approved) == 2


@pytest.mark.parametrize("phase", ["data_import", "field_mapping", "asset_inventory"])
async def test_a_round_supersedes_its_phase_and_later_ones(stores: Stores, phase: str) -> None:
    flow = Flow(stores)
    await flow.to_gate()
    await flow.answer()
    await flow.finish()
    await rerun(flow, phase)
    again = await flow.load()
    assert (again.state, again.phase, again.round) == (FlowState.QUEUED, phase, 2)
    order = list(Phase)
    kept = rows(stores, "SELECT phase FROM phase_runs WHERE state = 'Succeeded'")
    assert sorted(str(p) for (p,) in kept) == sorted(order[: order.index(Phase(phase))])
    await _to_end(flow)
    assert (await flow.load()).state == FlowState.SUCCEEDED
    assert (await stores.api.inventory_summary(flow.tenant_id, None))["assets"] == 3


async def _to_end(flow: Flow) -> None:
    for _ in range(8):
        state = (await flow.load()).state
        if state == FlowState.AWAITING_APPROVAL:
            await flow.answer()
        elif state == FlowState.QUEUED:
            await flow.run_phase()


async def test_a_round_ends_the_attempt_under_way(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.queue()
    await flow.run_phase()
    await flow.start()
    zombie = await flow.claim()
    await rerun(flow, "data_import")
    with pytest.raises(SupersededError):
        await zombie.do_phase()
    assert (await flow.load()).round == 2


async def test_an_id_is_followed_once(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.to_gate()
    await rerun(flow, "data_cleansing", id="a")
    await rerun(flow, "data_cleansing", id="b")
    await rerun(flow, "data_cleansing", id="a")
    assert (await flow.load()).round == 3


@pytest.mark.parametrize(
    ("from_phase", "why"),
    [
        ("asset_inventory", "field_mapping has no result; write fromPhase: field_mapping"),
        ("approval", "there are no mappings to ask about yet"),
    ],
)
async def test_an_impossible_round_is_told_and_changes_nothing(
    stores: Stores, from_phase: str, why: str
) -> None:
    flow = Flow(stores)
    await flow.queue()
    for _ in range(2):
        await flow.run_phase()
    before = await flow.load()
    await rerun(flow, from_phase)
    after = await flow.load()
    assert (after.state, after.phase, after.round) == (before.state, before.phase, before.round)
    assert why in after.answer_note
    assert "r1" in after.rerun_ids


async def test_mappings_that_were_rejected_cannot_be_skipped(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.to_gate()
    await flow.answer("Reject")
    await rerun(flow, "asset_inventory")
    assert (await flow.load()).state == FlowState.REJECTED
    assert "not approved" in (await flow.load()).answer_note


async def test_a_cancelled_flow_stays_cancelled(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.to_gate()
    await stores.operator.apply(flow.flow_id, act.Cancel())
    await rerun(flow, "data_import")
    assert (await flow.load()).state == FlowState.CANCELLED


async def _at_gate(stores: Stores, policy: dict[str, object], confidence: float = 0.96) -> Flow:
    flow = Flow(stores, spec=SPEC | {"approvalPolicy": policy})
    await flow.queue()
    for _ in range(2):
        await flow.run_phase()
    await flow.start()
    pod = await flow.claim()
    sure = [
        mapping.model_copy(update={"confidence": max(mapping.confidence, confidence)})
        for mapping in MAPPINGS
    ]
    await pod.complete(
        MappingResult(mappings=sure, targets=NAMES, fields=FIELDS, required_unmapped=[])
    )
    return flow


async def test_approval_by_policy_is_recorded_as_such(stores: Stores) -> None:
    flow = await _at_gate(stores, {"mode": "AutoApprove", "minConfidence": 0.9})
    request = (await flow.load()).request
    assert request is not None
    assert request.lowest_confidence == pytest.approx(0.96)
    assert request.required_unmapped == ()
    await stores.operator.apply(flow.flow_id, act.ApproveByPolicy(request.request_id))
    decided = await stores.api.request(flow.tenant_id, request.request_id)
    assert (decided.state, decided.decided_by) == ("Approved", "policy")
    events = await stores.api.history(flow.tenant_id, flow.flow_id)
    assert (events[-1].trigger, events[-1].actor) == (Trigger.APPROVED, "policy")


async def test_a_policy_that_asks_a_person_never_approves(stores: Stores) -> None:
    flow = await _at_gate(stores, {"mode": "Always"})
    request = (await flow.load()).request
    assert request is not None
    await stores.operator.apply(flow.flow_id, act.ApproveByPolicy(request.request_id))
    assert (await flow.load()).state == FlowState.AWAITING_APPROVAL


async def test_who_asked_again_is_asked_whatever_the_policy(stores: Stores) -> None:
    flow = await _at_gate(stores, {"mode": "AutoApprove", "minConfidence": 0.9})
    await flow.answer("AskAgain", hint="look at Notes")
    await flow.run_phase()
    request = (await flow.load()).request
    assert request is not None
    assert request.policy.mode == "Always"


def edit(column: str, target: str, transform: str | None = None) -> MappingEdit:
    return MappingEdit(column=column, target=target, transform=transform)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (edit("Notes", "memory_gb"), "values such as 'rack a', and 'memory_gb' takes numbers"),
        (edit("System", "memory_gb"), "values such as 'RHEL 9.3', and 'memory_gb' takes numbers"),
        (edit("Notes", "retired_on"), "takes dates"),
        (edit("Notes", "criticality"), "takes only low, high"),
        (edit("RAM", "memory_gb", "unit:GHz"), "'unit:GHz' is not possible for 'memory_gb'"),
        (edit("RAM", "", "unit:MiB"), "is not mapped, so it has no unit"),
        (edit("RAM", "memory_gb", "times:cpu_sockets"), "'times:cpu_sockets' is not possible"),
        (edit("RAM", "memory_gb", "decimal:comma,decimal:point"), "says the same twice"),
        (edit("Name", "owner", "decimal:comma"), "'decimal:comma' is not possible for 'owner'"),
        (edit("RAM", "cpu_cores", "times:cpu_sockets"), "to which no column is mapped"),
        (edit("RAM", "colour"), "not a target field"),
        (edit("Nope", "owner"), "no column 'Nope'"),
    ],
)
def test_edits_are_checked_against_fields_and_values(change: MappingEdit, problem: str) -> None:
    with pytest.raises(InvalidAnswerError) as refused:
        apply_edits(COLUMNS, [change], NAMES, FIELDS)
    assert len(refused.value.problems) == 1
    assert problem in refused.value.problems[0]


def test_a_unit_can_be_given_kept_and_taken_away() -> None:
    def transform(change: MappingEdit) -> str | None:
        return apply_edits(COLUMNS, [change], NAMES, FIELDS)[1].transform

    assert transform(edit("RAM", "memory_gb", "unit:MiB")) == "unit:MiB"
    assert transform(edit("RAM", "memory_gb")) == "unit:GB"
    assert transform(edit("RAM", "memory_gb", "none")) is None
    assert transform(edit("RAM", "owner")) is None


def test_what_an_edit_leaves_open_of_a_unit_and_decimals_stays_as_proposed() -> None:
    german = [
        mapping.model_copy(update={"transform": "unit:GB,decimal:comma"})
        if mapping.column == "RAM"
        else mapping
        for mapping in COLUMNS
    ]

    def transform(change: MappingEdit) -> str | None:
        return apply_edits(german, [change], NAMES, FIELDS)[1].transform

    assert transform(edit("RAM", "memory_gb", "unit:MiB")) == "unit:MiB,decimal:comma"
    assert transform(edit("RAM", "memory_gb", "decimal:point")) == "unit:GB,decimal:point"
    assert transform(edit("RAM", "memory_gb", "decimal:point,unit:MiB")) == "unit:MiB,decimal:point"
    assert transform(edit("RAM", "memory_gb", "none")) is None
    assert transform(edit("RAM", "cpu_cores")) == "decimal:comma"
    assert transform(edit("RAM", "owner")) is None


async def test_what_is_told_is_written_with_the_event(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.to_gate()
    await flow.answer()
    await flow.finish()
    told = rows(stores, "SELECT kind FROM notifications ORDER BY sequence")
    assert [kind for (kind,) in told] == ["request.opened", "request.decided", "flow.ended"]
    assert Phase.FIELD_MAPPING in RESULTS
