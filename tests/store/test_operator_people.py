"""The whole operator but its watches: what people answer and want of a flow."""

from __future__ import annotations

import pytest
from discovery_core import actions as act
from discovery_core.errors import SupersededError
from discovery_core.phases import Phase
from discovery_core.states import FlowState
from discovery_operator.observed import Presence

from tests.store.flows import RESULTS
from tests.store.operator_world import NAMESPACE, World


async def test_a_bad_answer_is_refused_as_a_whole_and_asked_again(world: World) -> None:
    await world.to_gate()
    before = world.status()["approvalRequest"]["requestId"]
    world.answer(edits=[{"column": "Nmae", "target": "hostname"}])
    await world.see()
    asked = await world.settle()
    assert asked.state is FlowState.AWAITING_APPROVAL
    assert world.status()["approvalRequest"]["requestId"] != before
    assert "Nmae" in world.status()["message"]
    world.answer()
    await world.see()
    assert (await world.settle()).state is FlowState.RUNNING


async def test_an_answer_without_the_admission_policy_never_counts(world: World) -> None:
    await world.to_gate()
    world.cluster.policy = Presence.ABSENT
    world.answer()
    await world.see()
    refused = await world.settle()
    assert refused.state is FlowState.AWAITING_APPROVAL
    assert "admission policy" in world.status()["message"]
    world.cluster.policy = Presence.PRESENT
    assert (await world.settle()).state is FlowState.AWAITING_APPROVAL
    world.answer()
    await world.see()
    assert (await world.settle()).state is FlowState.RUNNING


async def test_an_answer_that_no_watch_has_delivered_beats_the_deadline(world: World) -> None:
    await world.to_gate()
    world.answer()
    await world.sql("UPDATE approval_requests SET expires_at = now()")
    assert (await world.settle()).state is FlowState.RUNNING


async def test_the_deadline_rejects(world: World) -> None:
    await world.to_gate()
    await world.sql("UPDATE approval_requests SET expires_at = now()")
    assert (await world.settle()).state is FlowState.REJECTED
    assert "approvalRequest" not in world.status()


async def test_a_stale_answer_is_told(world: World) -> None:
    await world.to_gate()
    world.answer(artefactDigest="sha256:" + "0" * 64)
    await world.see()
    assert (await world.settle()).state is FlowState.AWAITING_APPROVAL
    assert "another version of the mappings" in world.status()["message"]


async def test_suspend_stops_the_job_and_run_goes_on(world: World) -> None:
    await world.settle()
    pod = await world.flow.claim()
    world.cluster.edit(NAMESPACE, "servers", state="Suspend")
    await world.see()
    assert (await world.settle()).state is FlowState.SUSPENDED
    assert world.cluster.jobs == {}
    with pytest.raises(SupersededError):
        await pod.complete(RESULTS[Phase.DATA_IMPORT])
    world.cluster.edit(NAMESPACE, "servers", state="Run")
    await world.see()
    resumed = await world.settle()
    assert resumed.run is not None
    assert (resumed.state, resumed.run.attempt) == (FlowState.RUNNING, 2)


async def test_cancel_is_final(world: World) -> None:
    await world.settle()
    world.cluster.edit(NAMESPACE, "servers", state="Cancel")
    await world.see()
    assert (await world.settle()).state is FlowState.CANCELLED
    assert world.cluster.jobs == {}
    assert world.status()["observedGeneration"] == 2


@pytest.mark.parametrize("state", ["Suspend", "Cancel"])
async def test_a_state_that_is_written_twice_counts_once(world: World, state: str) -> None:
    await world.settle()
    for _ in range(2):
        world.cluster.edit(NAMESPACE, "servers", state=state)
        await world.see()
        stopped = await world.settle()
    history = await world.stores.api.history(stopped.tenant_id, world.uid)
    assert len([event for event in history if event.to_state != event.from_state]) == 4
    assert history[-1].to_state == stopped.state
    assert len(world.cluster.created_jobs) == 1
    assert world.status()["observedGeneration"] == 3


async def test_resumed_twice_is_resumed_once(world: World) -> None:
    await world.settle()
    for state in ("Suspend", "Run", "Run"):
        world.cluster.edit(NAMESPACE, "servers", state=state)
        await world.see()
        resumed = await world.settle()
    assert resumed.run is not None
    assert (resumed.state, resumed.run.attempt) == (FlowState.RUNNING, 2)
    assert len(world.cluster.created_jobs) == 2


async def test_a_rerun_that_is_written_twice_begins_one_round(world: World) -> None:
    await world.to_gate()
    for _ in range(2):
        world.cluster.edit(
            NAMESPACE, "servers", rerun={"id": "monday", "fromPhase": "data_cleansing"}
        )
        await world.see()
        again = await world.settle()
    assert (again.round, again.phase) == (2, Phase.DATA_CLEANSING)
    assert len(world.cluster.created_jobs) == 4


@pytest.mark.parametrize("step", [act.Suspend(), act.Resume(), act.Cancel()])
async def test_the_store_takes_a_repeated_step_for_done(world: World, step: act.Move) -> None:
    await world.settle()
    if step == act.Resume():
        await world.stores.operator.apply(world.uid, act.Suspend())
    await world.stores.operator.apply(world.uid, step)
    once = await world.flow.load()
    await world.stores.operator.apply(world.uid, step)
    assert await world.flow.load() == once
