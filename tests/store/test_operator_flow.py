"""The whole operator but its watches, on a real PostgreSQL and an API server in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import pytest
from discovery_core.errors import ErrorCode, SupersededError
from discovery_core.phases import Phase
from discovery_core.snapshots import FlowSnapshot
from discovery_core.states import FlowState, RunState
from discovery_core.store.operator import OperatorStore
from discovery_core.wire import Fail, Usage
from discovery_operator.cache import Kind, ObjectCache
from discovery_operator.controller import Controller
from discovery_operator.execute import Executor, LaunchRefusedError
from discovery_operator.kube import KubernetesError
from discovery_operator.manifests.job import JobSettings
from discovery_operator.observe import Observer
from discovery_operator.observed import Presence, Rules
from discovery_operator.queue import KeyedQueue

from tests.postgres import Stores
from tests.store.fake_cluster import FakeCluster
from tests.store.flows import RESULTS, SPEC, Flow, Pod

NAMESPACE = "team-a"


@dataclass
class World:
    """An operator with its cluster and database, and one flow `servers`."""

    stores: Stores
    cluster: FakeCluster
    cache: ObjectCache
    queue: KeyedQueue[UUID]
    controller: Controller
    uid: UUID
    flow: Flow

    async def settle(self) -> FlowSnapshot:
        """Reconciles until nothing is left to do, as the workers would."""
        await self.controller.reconcile(self.uid)
        return await self.flow.load()

    async def work(self) -> Pod:
        """A crew pod claims the current attempt and completes its phase."""
        pod = await self.flow.claim()
        await pod.do_phase()
        return pod

    async def to_gate(self) -> FlowSnapshot:
        """Runs everything up to the approval request."""
        await self.settle()
        for _ in range(3):
            await self.work()
            snapshot = await self.settle()
        return snapshot

    async def sql(self, statement: str, **values: Any) -> None:
        """Changes the database behind the operator's back, as its superuser."""
        connection = await psycopg.AsyncConnection.connect(self.stores.urls.superuser)
        async with connection:
            await connection.execute(statement, values)

    def status(self) -> dict[str, Any]:
        """The resource's status."""
        return self.cluster.status(NAMESPACE, "servers")

    def condition(self, kind: str) -> dict[str, Any]:
        """One condition of the status."""
        (found,) = [c for c in self.status()["conditions"] if c["type"] == kind]
        return dict(found)

    def answer(self, **changes: Any) -> None:
        """Somebody answers the request that the status shows."""
        shown = self.status()["approvalRequest"]
        given = {
            "requestId": shown["requestId"],
            "artefactDigest": shown["artefactDigest"],
            "decision": "Approve",
            "decidedBy": "ann",
            **changes,
        }
        self.cluster.edit(NAMESPACE, "servers", approval=given)

    async def see(self) -> None:
        """The watches deliver what has changed."""
        for kind, lister in (
            (Kind.FLOW, self.cluster.list_flows),
            (Kind.JOB, self.cluster.list_jobs),
        ):
            listed, version = await lister()
            self.cache.replace(kind, listed, version)


def controller_of(
    store: OperatorStore,
    cluster: FakeCluster,
    cache: ObjectCache,
    queue: KeyedQueue[UUID],
    *,
    limits: tuple[int, int] = (20, 5),
    rules: Rules | None = None,
) -> Controller:
    api: Any = cluster
    observer = Observer(
        store,
        api,
        cache,
        rules=rules or Rules(),
        limits=limits,
        policy="discoveryflow-approval",
    )
    settings = JobSettings(image="crews:test", execution_url="https://execution:8443")
    executor = Executor(store, api, cache, job_settings=settings, limits=limits)
    return Controller(observer, executor, api, cache, queue)


@pytest.fixture
async def world(stores: Stores) -> AsyncIterator[World]:
    cluster, cache = FakeCluster(), ObjectCache()
    queue: KeyedQueue[UUID] = KeyedQueue()
    cluster.config_maps[NAMESPACE, "servers"] = {"data": {"servers.csv": "name\nweb01\n"}}
    uid = cluster.apply(NAMESPACE, "servers", SPEC)
    controller = controller_of(stores.operator, cluster, cache, queue)
    flow = Flow(stores, tenant_id=cluster.namespaces[NAMESPACE], flow_id=uid)
    world = World(stores, cluster, cache, queue, controller, uid, flow)
    await world.see()
    yield world
    queue.close()


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


async def test_a_permanent_failure_ends_the_flow_with_its_words(world: World) -> None:
    await world.settle()
    pod = await world.flow.claim()
    await world.stores.execution.fail(
        tenant_id=pod.tenant_id,
        pod_uid=pod.pod_uid,
        message=Fail(fence=pod.claim.fence, code=ErrorCode.EMPTY_FILE, message="it is empty"),
    )
    assert (await world.settle()).state is FlowState.FAILED
    assert world.condition("Stalled")["reason"] == "EmptyFile"
    assert "it is empty" in world.status()["message"]
    assert len(world.cluster.created_jobs) == 1


async def test_a_crashed_pod_is_tried_again_until_attempts_are_used_up(world: World) -> None:
    for number in range(1, 4):
        snapshot = await world.settle()
        assert snapshot.run is not None
        assert (snapshot.state, snapshot.run.attempt) == (FlowState.RUNNING, number)
        await world.flow.claim()
        world.cluster.job_ends(snapshot.run.job_name, "Failed", "BackoffLimitExceeded")
        await world.see()
        failed = await world.settle()
        if number < 3:
            assert failed.state is FlowState.QUEUED
            assert failed.not_before is not None
            assert "next attempt" in world.status()["message"]
            await world.sql("UPDATE discovery_flows SET not_before = now()")
    assert failed.state is FlowState.FAILED
    assert len(set(world.cluster.created_jobs)) == 3


async def test_a_result_that_came_before_the_jobs_verdict_wins(world: World) -> None:
    first = await world.settle()
    assert first.run is not None
    await world.work()
    world.cluster.job_ends(first.run.job_name, "Complete")
    await world.see()
    second = await world.settle()
    assert (second.phase, second.state) == (Phase.DATA_CLEANSING, FlowState.RUNNING)
    assert second.failed_attempts == 0


async def test_a_deleted_job_is_noticed_only_by_asking(world: World) -> None:
    snapshot = await world.settle()
    assert snapshot.run is not None
    await world.flow.claim()
    world.cluster.jobs.clear()
    assert (await world.settle()).state is FlowState.RUNNING
    await world.see()
    lost = await world.settle()
    assert (lost.state, lost.failed_attempts) == (FlowState.QUEUED, 1)


async def test_a_crash_between_intent_and_job_makes_one_job(world: World, stores: Stores) -> None:
    world.cluster.refuse["create_job"] = [KubernetesError(500, "InternalError", "boom")]
    with pytest.raises(KubernetesError):
        await world.settle()
    halfway = await world.flow.load()
    assert halfway.run is not None
    assert halfway.run.state is RunState.CREATED
    restarted = controller_of(stores.operator, world.cluster, ObjectCache(), KeyedQueue())
    await restarted.reconcile(world.uid)
    after = await world.flow.load()
    assert after.run is not None
    assert (after.run.state, after.run.attempt) == (RunState.LAUNCHED, 1)
    assert len(world.cluster.created_jobs) == 1


async def test_a_job_that_was_created_but_not_recorded_is_adopted(world: World) -> None:
    await world.settle()
    await world.sql("UPDATE phase_runs SET state = 'Created', job_uid = NULL, launched_at = NULL")
    adopted = await world.settle()
    assert adopted.run is not None
    (job,) = world.cluster.jobs.values()
    assert adopted.run.job_uid == job["metadata"]["uid"]
    assert len(world.cluster.created_jobs) == 1


async def test_a_namesake_of_the_job_is_not_adopted(world: World) -> None:
    await world.settle()
    (job,) = world.cluster.jobs.values()
    job["metadata"]["ownerReferences"][0]["uid"] = "somebody-else"
    await world.sql("UPDATE phase_runs SET state = 'Created', job_uid = NULL, launched_at = NULL")
    with pytest.raises(LaunchRefusedError):
        await world.settle()
    assert "already exists" in world.status()["message"]
    run = (await world.flow.load()).run
    assert run is not None
    assert run.job_uid is None


async def test_a_refused_job_is_told_and_given_up_at_the_deadline(world: World) -> None:
    quota = KubernetesError(403, "Forbidden", "exceeded quota: jobs")
    world.cluster.refuse["create_job"] = [quota, quota]
    with pytest.raises(LaunchRefusedError):
        await world.settle()
    assert "exceeded quota" in world.status()["message"]
    await world.sql("UPDATE phase_runs SET deadline = now()")
    failed = await world.settle()
    assert failed.state is FlowState.QUEUED
    assert "exceeded quota" in failed.message


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


async def test_deletion_ends_the_flow_and_its_job(world: World) -> None:
    await world.settle()
    del world.cluster.flows[NAMESPACE, "servers"]
    await world.see()
    gone = await world.settle()
    assert (gone.state, gone.deleted) == (FlowState.CANCELLED, True)
    assert world.cluster.jobs == {}


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
    await controller.reconcile(world.uid)
    assert await asyncio.wait_for(world.queue.get(), 1) == other
    await controller.reconcile(other)
    started = await stores.operator.load(other)
    assert started is not None
    assert started.state is FlowState.RUNNING


async def test_without_leadership_nothing_is_written(world: World, stores: Stores) -> None:
    await stores.operator.acquire_leadership("test", ttl=600)
    usurper = OperatorStore(stores.operator.db, stores.cluster_id)
    await world.sql("UPDATE leader SET expires_at = now()")
    assert await usurper.acquire_leadership("usurper", ttl=600) == 2
    with pytest.raises(SupersededError):
        await world.settle()
    assert await usurper.load(world.uid) is None
    assert world.cluster.jobs == {}
