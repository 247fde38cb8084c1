"""The approval gate: what is asked, who may answer, and what happens at the deadline."""

from __future__ import annotations

import asyncio
import json

import pytest
from discovery_core import actions as act
from discovery_core.errors import InvalidAnswerError, SupersededError
from discovery_core.mapping_edits import apply_edits
from discovery_core.phases import Phase
from discovery_core.resource_gate import MappingEdit
from discovery_core.states import FlowState
from discovery_core.store.database import database_url
from discovery_core.wire.results import FieldMapping
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError

from tests.postgres import Stores
from tests.store.flows import MAPPINGS, SPEC, Flow, digest_of

TARGETS = ["hostname", "memory_gb", "owner"]


async def _approved(flow: Flow) -> list[FieldMapping]:
    """The mappings that the inventory phase is given."""
    await flow.start()
    pod = await flow.claim()
    reference = pod.claim.inputs["mappings"]
    data = b""
    async for piece in flow.stores.execution.read_artefact(
        tenant_id=flow.tenant_id,
        pod_uid=pod.pod_uid,
        fence=pod.claim.fence,
        digest=reference.digest,
    ):
        data += piece
    assert digest_of(data) == reference.digest
    return [FieldMapping.model_validate(item) for item in json.loads(data)]


async def test_the_request_shows_what_its_digest_names(stores: Stores) -> None:
    flow = Flow(stores)
    snapshot = await flow.to_gate()
    assert snapshot.request is not None
    assert snapshot.request.columns == ("Name", "RAM", "Notes")
    shown = await stores.api.mappings(flow.tenant_id, snapshot.request.request_id)
    assert shown == MAPPINGS
    document = json.dumps(
        [m.model_dump(mode="json", by_alias=True) for m in shown],
        ensure_ascii=False,
        sort_keys=True,
        separators=(",", ":"),
    ).encode()
    assert digest_of(document) == snapshot.request.artefact_digest


async def test_approval_with_edits_is_what_the_inventory_reads(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.to_gate()
    await flow.answer(
        edits=[MappingEdit(column="Notes", target="owner"), MappingEdit(column="RAM", target="")]
    )
    final = {mapping.column: mapping.target for mapping in await _approved(flow)}
    assert final == {"Name": "hostname", "RAM": None, "Notes": "owner"}


async def test_approved_mappings_are_remembered_for_the_tenant(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.to_gate()
    read = MappingEdit(column="RAM", target="memory_gb", transform="unit:MiB,decimal:comma")
    await flow.answer(edits=[MappingEdit(column="Notes", target="owner"), read])
    second = Flow(stores, tenant_id=flow.tenant_id, name="second")
    await second.queue()
    for _ in range(2):
        await second.run_phase()
    await second.start()
    lessons = (await second.claim()).claim.mapping_history
    assert {lesson.header: lesson.target for lesson in lessons} == {
        "name": "hostname",
        "ram": "memory_gb",
        "notes": "owner",
    }
    assert {lesson.approved_by for lesson in lessons} == {"ann"}
    assert [lesson.transform for lesson in lessons if lesson.transform] == [read.transform]

    foreign = Flow(stores, name="foreign")
    await foreign.queue()
    for _ in range(2):
        await foreign.run_phase()
    await foreign.start()
    assert (await foreign.claim()).claim.mapping_history == []


async def test_a_stale_digest_is_refused(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.to_gate()
    with pytest.raises(SupersededError):
        await flow.answer(artefact_digest="sha256:" + "0" * 64)
    assert (await flow.load()).state == FlowState.AWAITING_APPROVAL


async def test_a_bad_answer_is_refused_as_a_whole_and_asked_again(stores: Stores) -> None:
    flow = Flow(stores)
    first = (await flow.to_gate()).request
    assert first is not None
    edits = [
        MappingEdit(column="Name", target="owner"),
        MappingEdit(column="Nope", target="owner"),
        MappingEdit(column="RAM", target="colour"),
    ]
    with pytest.raises(InvalidAnswerError) as refused:
        await flow.answer(edits=edits)
    assert len(refused.value.problems) == 3
    await stores.operator.apply(
        flow.flow_id,
        act.RefuseAnswer(
            request_id=first.request_id, problems=tuple(refused.value.problems), decided_by="ann"
        ),
    )
    again = (await flow.load()).request
    assert again is not None
    assert again.request_id != first.request_id
    assert (again.artefact_digest, again.expires_at) == (first.artefact_digest, first.expires_at)
    assert (await stores.api.request(flow.tenant_id, first.request_id)).state == "Refused"
    with pytest.raises(SupersededError):
        await flow.answer(request_id=first.request_id)
    await flow.answer()
    assert (await flow.load()).phase == Phase.ASSET_INVENTORY


@pytest.mark.parametrize(
    ("on_timeout", "state", "request_state"),
    [
        ("Reject", FlowState.REJECTED, "Expired"),
        ("Approve", FlowState.QUEUED, "Approved"),
        ("Hold", FlowState.AWAITING_APPROVAL, "Open"),
    ],
)
async def test_the_deadline(
    stores: Stores, on_timeout: str, state: FlowState, request_state: str
) -> None:
    flow = Flow(stores, spec=SPEC | {"approvalPolicy": {"timeout": "1s", "onTimeout": on_timeout}})
    request = (await flow.to_gate()).request
    assert request is not None
    await stores.operator.apply(flow.flow_id, act.ExpireRequest(request.request_id))
    assert (await flow.load()).state == FlowState.AWAITING_APPROVAL, "not before the deadline"
    await asyncio.sleep(1.1)
    await stores.operator.apply(flow.flow_id, act.ExpireRequest(request.request_id))
    assert (await flow.load()).state == state
    row = await stores.api.request(flow.tenant_id, request.request_id)
    assert row.state == request_state
    if on_timeout == "Approve":
        assert row.decided_by == "policy"


async def test_the_policy_is_frozen_when_the_request_opens(stores: Stores) -> None:
    from discovery_core.resource import DiscoveryFlowSpec

    flow = Flow(stores)
    await flow.to_gate()
    changed = DiscoveryFlowSpec.model_validate(
        SPEC | {"approvalPolicy": {"timeout": "1s", "onTimeout": "Approve"}}
    )
    await stores.operator.apply(flow.flow_id, act.UpdateSpec(changed, generation=2))
    request = (await flow.load()).request
    assert request is not None
    assert (request.policy.timeout, request.policy.on_timeout) == ("72h", "Reject")


async def test_an_anonymous_decision_cannot_be_stored(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.to_gate()
    engine = create_engine(database_url(stores.urls.superuser))
    with engine.connect() as connection, pytest.raises(IntegrityError, match="attributable"):
        connection.execute(text("UPDATE approval_requests SET state = 'Approved'"))
    engine.dispose()


def test_an_edit_takes_the_primary_role() -> None:
    final = apply_edits(MAPPINGS, [MappingEdit(column="Notes", target="hostname")], TARGETS)
    roles = {mapping.column: (mapping.target, mapping.role) for mapping in final}
    assert roles["Notes"] == ("hostname", "primary")
    assert roles["Name"] == ("hostname", "alternate")


def test_two_edits_cannot_take_the_same_field() -> None:
    edits = [MappingEdit(column=column, target="owner") for column in ("Name", "RAM")]
    with pytest.raises(InvalidAnswerError, match="a field has one primary column"):
        apply_edits(MAPPINGS, edits, TARGETS)
