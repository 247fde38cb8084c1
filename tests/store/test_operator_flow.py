"""The whole operator but its watches: a flow from its resource to its end."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from discovery_core import actions as act
from discovery_core.errors import ErrorCode, SupersededError
from discovery_core.phases import Phase
from discovery_core.states import FlowState
from discovery_core.store.operator import OperatorStore
from discovery_core.tasks import end
from discovery_core.wire.protocol import Fail, Usage
from discovery_operator.observed import Rules

from tests.postgres import Stores
from tests.store.flows import SPEC, Flow
from tests.store.operator_world import NAMESPACE, World, controller_of


async def test_a_flow_runs_from_resource_to_inventory(world: World) -> None:
    snapshot = await world.to_gate()
    assert snapshot.state is FlowState.AWAITING_APPROVAL
    assert world.condition("AwaitingApproval")["status"] == "True"
    assert world.condition("Reconciling")["status"] == "False"
    world.answer(edits=[{"column": "Notes", "target": "owner"}])
    await world.see()
    assert (await world.settle()).state is FlowState.RUNNING
    for _ in range(3):
        await world.work()
        done = await world.settle()
    assert done.state is FlowState.SUCCEEDED
    assert world.status()["progress"] == "6/6"
    assert world.status()["assets"] == 3
    assert world.condition("Succeeded")["status"] == "True"
    assert len(world.cluster.created_jobs) == len(set(world.cluster.created_jobs)) == 6
    assert world.cluster.accounts == {NAMESPACE}
    history = await world.stores.api.history(done.tenant_id, world.uid)
    assert [event.trigger for event in history if event.from_state != event.to_state] == [
        "Created", "Admitted", "AttemptStarted", "PhaseSucceeded", "AttemptStarted",
        "PhaseSucceeded", "AttemptStarted", "ApprovalRequested", "Approved", "AttemptStarted",
        "PhaseSucceeded", "AttemptStarted", "PhaseSucceeded", "AttemptStarted", "FlowSucceeded",
    ]  # fmt: skip


async def test_reconciling_again_changes_nothing(world: World) -> None:
    await world.to_gate()
    before, written = await world.flow.load(), world.cluster.status_writes
    await world.see()
    for _ in range(3):
        await world.settle()
    assert await world.flow.load() == before
    assert world.cluster.status_writes == written


async def test_a_missing_configmap_is_named_and_found_again(world: World) -> None:
    found = world.cluster.config_maps.pop((NAMESPACE, "servers"))
    assert (await world.settle()).state is FlowState.WAITING
    assert world.condition("Stalled")["status"] == "True"
    assert "ConfigMap 'servers'" in world.status()["message"]
    assert world.queue.timers == 1
    world.cluster.config_maps[NAMESPACE, "servers"] = {"data": {"other.csv": ""}}
    await world.settle()
    assert "key 'servers.csv' of ConfigMap 'servers'" in world.status()["message"]
    world.cluster.config_maps[NAMESPACE, "servers"] = found
    assert (await world.settle()).state is FlowState.RUNNING
    assert world.condition("Stalled")["status"] == "False"


async def test_s04_a_namespace_has_so_many_open_flows(world: World) -> None:
    """The next one waits, in words, for one of them to end, and for nothing of its own."""
    world.controller = controller_of(
        world.stores.operator, world.cluster, world.cache, world.queue,
        rules=Rules(most_open_flows=1),
    )  # fmt: skip
    other = Flow(world.stores, tenant_id=world.flow.tenant_id, namespace=NAMESPACE, name="other")
    await other.queue()
    elsewhere = Flow(world.stores, name="elsewhere")
    await elsewhere.queue()
    found = world.cluster.config_maps.pop((NAMESPACE, "servers"))
    assert (await world.settle()).state is FlowState.WAITING
    assert "this namespace has as many as it may, 1" in world.status()["message"]
    world.cluster.config_maps[NAMESPACE, "servers"] = found
    assert (await world.settle()).state is FlowState.WAITING
    assert "tenants.maxOpenFlows" in world.status()["message"]
    # another number, which is still not enough
    await Flow(
        world.stores, tenant_id=world.flow.tenant_id, namespace=NAMESPACE, name="third"
    ).queue()
    world.controller = controller_of(
        world.stores.operator, world.cluster, world.cache, world.queue,
        rules=Rules(most_open_flows=2),
    )  # fmt: skip
    assert (await world.settle()).state is FlowState.WAITING
    assert "as many as it may, 2" in world.status()["message"]
    await world.stores.operator.apply(other.flow_id, act.Cancel())
    assert (await world.settle()).state is FlowState.RUNNING


async def test_a_spent_budget_stalls_the_flow_until_it_is_raised(world: World) -> None:
    llm = {"provider": "openai", "model": "m", "apiKeySecret": {"name": "llm", "key": "k"}}
    world.cluster.edit(
        NAMESPACE,
        "servers",
        llm={**llm, "budget": {"maxTokens": 1000}, "onBudget": "Stall"},
        retries={"maxAttempts": 1, "initialDelay": "1s", "maxDelay": "1s"},
    )
    await world.see()
    await world.settle()
    pod = await world.flow.claim()
    assert pod.claim.llm.budget is not None
    assert pod.claim.llm.budget.tokens == 1000
    await world.stores.execution.fail(
        tenant_id=pod.tenant_id,
        pod_uid=pod.pod_uid,
        message=Fail(
            fence=pod.claim.fence,
            code=ErrorCode.LLM_BUDGET,
            message="used up",
            usage=Usage(planner="m", prompt_tokens=900, completion_tokens=150),
        ),
    )
    assert (await world.settle()).state is FlowState.QUEUED
    await world.sql("UPDATE discovery_flows SET not_before = now()")
    stalled = await world.settle()
    assert (stalled.state, stalled.failed_attempts) == (FlowState.WAITING, 0)
    assert world.condition("Stalled")["status"] == "True"
    assert "1050 used; raise spec.llm.budget.maxTokens" in world.status()["message"]
    world.cluster.edit(
        NAMESPACE, "servers", llm={**llm, "budget": {"maxTokens": 3000}, "onBudget": "Stall"}
    )
    await world.see()
    assert (await world.settle()).state is FlowState.RUNNING
    again = await world.flow.claim()
    assert again.claim.llm.budget is not None
    assert again.claim.llm.budget.tokens == 1950
    assert world.condition("Stalled")["status"] == "False"


async def _broken_endpoint(world: World, on_unavailable: str) -> None:
    """Two attempts whose language model does not answer open the tenant's circuit breaker."""
    world.cluster.edit(
        NAMESPACE,
        "servers",
        llm={
            "provider": "openaiCompatible",
            "baseUrl": "https://llm.example.org/v1",
            "model": "m",
            "onUnavailable": on_unavailable,
        },
        retries={"maxAttempts": 3, "initialDelay": "1s", "maxDelay": "1s"},
    )
    await world.see()
    for _ in range(2):
        await world.settle()
        pod = await world.flow.claim()
        await world.stores.execution.fail(
            tenant_id=pod.tenant_id,
            pod_uid=pod.pod_uid,
            message=Fail(fence=pod.claim.fence, code=ErrorCode.LLM_UNAVAILABLE, message="500"),
        )
        await world.settle()
        await world.sql("UPDATE discovery_flows SET not_before = now()")


async def test_an_unavailable_model_is_replaced_and_the_status_says_so(world: World) -> None:
    await _broken_endpoint(world, "Builtin")
    assert (await world.settle()).state is FlowState.RUNNING
    pod = await world.flow.claim()
    assert pod.claim.llm.provider == "builtin"
    await world.settle()
    assert (
        "The built-in planner judges: the language model at https://llm.example.org/v1"
        in (world.status()["message"])
    )
    await pod.do_phase()
    assert (await world.settle()).phase is Phase.DATA_CLEANSING


async def test_a_flow_waits_for_its_unavailable_model_without_an_attempt(world: World) -> None:
    await _broken_endpoint(world, "Wait")
    waiting = await world.settle()
    assert (waiting.state, waiting.last_attempt) == (FlowState.QUEUED, 2)
    assert world.condition("Reconciling")["reason"] == "EndpointAwaited"
    told = world.status()["message"]
    assert "the language model at https://llm.example.org/v1 has been unavailable since" in told
    assert "tried next at" in told
    assert world.queue.timers == 1
    jobs = len(world.cluster.created_jobs)
    await world.sql("UPDATE discovery_flows SET not_before = now()")
    assert (await world.settle()).state is FlowState.QUEUED
    assert len(world.cluster.created_jobs) == jobs
    await world.sql("UPDATE circuit_breakers SET retry_at = now()")
    await world.sql("UPDATE discovery_flows SET not_before = now()")
    assert (await world.settle()).state is FlowState.RUNNING
    assert (await world.flow.claim()).claim.llm.provider == "openaiCompatible"


async def test_a_rate_limited_model_is_left_alone_for_as_long_as_it_asks(world: World) -> None:
    await world.settle()
    pod = await world.flow.claim()
    await world.stores.execution.fail(
        tenant_id=pod.tenant_id,
        pod_uid=pod.pod_uid,
        message=Fail(
            fence=pod.claim.fence,
            code=ErrorCode.LLM_RATE_LIMITED,
            message="the model is rate limited and asks to wait 1800 s",
            retry_after_seconds=1800,
        ),
    )
    before = await world.stores.operator.now()
    waiting = await world.settle()
    after = await world.stores.operator.now()
    assert waiting.state is FlowState.QUEUED
    assert waiting.not_before is not None
    assert waiting.not_before >= before + timedelta(seconds=1800)
    assert waiting.not_before <= after + timedelta(seconds=1800 * 1.25)
    told = world.condition("Reconciling")["message"]
    assert "asks to wait 1800 s; the next attempt starts at" in told


async def test_a_queued_flow_that_cannot_be_reconciled_keeps_nobody_waiting(world: World) -> None:
    controller = controller_of(
        world.stores.operator, world.cluster, world.cache, world.queue, limits=(1, 1)
    )
    leads = asyncio.Event()
    leads.set()
    await controller.reconcile(world.uid)
    await world.sql("UPDATE phase_runs SET state = 'Superseded'")
    await world.sql(
        "UPDATE discovery_flows SET state = 'Queued', spec = '{}' WHERE flow_id = %(flow)s",
        flow=world.uid,
    )
    other = world.cluster.apply(NAMESPACE, "others", SPEC)
    await world.see()
    await controller.reconcile(other)
    queued = await world.stores.operator.load(other)
    assert queued is not None
    assert queued.state is FlowState.QUEUED
    world.queue.add(world.uid)
    working = asyncio.create_task(controller.work(leads))
    while world.uid not in world.queue.failing:  # noqa: ASYNC110 - the queue has no event for it
        await asyncio.sleep(0.01)
    await end(working)
    await controller.reconcile(other)
    started = await world.stores.operator.load(other)
    assert started is not None
    assert started.state is FlowState.RUNNING


async def test_deletion_ends_the_flow_and_its_job(world: World) -> None:
    await world.settle()
    del world.cluster.flows[NAMESPACE, "servers"]
    await world.see()
    gone = await world.settle()
    assert (gone.state, gone.deleted) == (FlowState.CANCELLED, True)
    assert world.cluster.jobs == {}
    assert world.controller.reconciled == {}, "what is gone is not remembered for ever"


async def test_a_namesake_is_another_flow(world: World) -> None:
    await world.settle()
    again = world.cluster.apply(NAMESPACE, "servers", SPEC)
    await world.see()
    assert (await world.settle()).deleted
    await world.controller.reconcile(again)
    second = await world.stores.operator.load(again)
    assert second is not None
    assert (second.state, second.flow_id) == (FlowState.RUNNING, again)


async def test_a_conflict_on_the_status_is_looked_at_again(world: World) -> None:
    raw = world.cluster.flows[NAMESPACE, "servers"]
    raw["metadata"]["resourceVersion"] = world.cluster._next()
    await world.settle()
    assert world.status()["state"] == "Running"


async def test_caps_hold_and_a_free_slot_is_given_on(world: World, stores: Stores) -> None:
    controller = controller_of(
        stores.operator, world.cluster, world.cache, world.queue, limits=(1, 1)
    )
    other = world.cluster.apply(NAMESPACE, "later", SPEC)
    await world.see()
    await controller.reconcile(world.uid)
    await controller.reconcile(other)
    waiting = await stores.operator.load(other)
    assert waiting is not None
    assert waiting.state is FlowState.QUEUED
    assert len(world.cluster.jobs) == 1
    world.cluster.edit(NAMESPACE, "servers", state="Cancel")
    await world.see()
    leads = asyncio.Event()
    leads.set()
    dispatching = asyncio.create_task(controller.dispatcher.run(leads))
    await controller.reconcile(world.uid)
    # long before the poll
    assert await asyncio.wait_for(world.queue.get(), 10) == other
    await end(dispatching)
    await controller.reconcile(other)
    started = await stores.operator.load(other)
    assert started is not None
    assert started.state is FlowState.RUNNING


async def test_without_leadership_nothing_is_written(world: World, stores: Stores) -> None:
    await stores.operator.acquire_leadership("test", ttl=600)
    usurper = OperatorStore(stores.operator.db, stores.cluster_id)
    await world.sql("UPDATE leader SET expires_at = now()")
    assert await usurper.acquire_leadership("usurper", ttl=600) == stores.epoch + 1
    with pytest.raises(SupersededError):
        await world.settle()
    assert await usurper.load(world.uid) is None
    assert world.cluster.jobs == {}
