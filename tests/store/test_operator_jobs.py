"""The whole operator but its watches: attempts, their Jobs and pods, and what keeps them back."""

from __future__ import annotations

import pytest
from discovery_core.errors import ErrorCode
from discovery_core.phases import Phase
from discovery_core.states import FlowState, RunState
from discovery_core.wire.protocol import Fail
from discovery_operator.cache import ObjectCache
from discovery_operator.execute import LaunchRefusedError
from discovery_operator.kube import KubernetesError
from discovery_operator.queue import KeyedQueue

from tests.postgres import Stores
from tests.store.operator_world import NAMESPACE, World, controller_of


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


async def test_an_account_that_has_gone_is_made_again_for_the_next_job(world: World) -> None:
    """As with a namespace that was deleted and made anew, or where somebody deletes it."""
    assert (await world.settle()).phase is Phase.DATA_IMPORT
    assert world.cluster.accounts == {NAMESPACE}
    world.cluster.accounts.clear()
    await world.work()
    assert (await world.settle()).phase is Phase.DATA_CLEANSING
    assert world.cluster.accounts == {NAMESPACE}


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
    denied = KubernetesError(403, "Forbidden", "denied by admission webhook: no label")
    world.cluster.refuse["create_job"] = [denied, denied]
    with pytest.raises(LaunchRefusedError):
        await world.settle()
    assert "no label" in world.status()["message"]
    await world.sql("UPDATE phase_runs SET deadline = now()")
    failed = await world.settle()
    assert (failed.state, failed.failed_attempts) == (FlowState.QUEUED, 1)
    assert "no label" in failed.message


FULL = KubernetesError(
    403,
    "Forbidden",
    'jobs.batch "j" is forbidden: exceeded quota: jobs, requested: count/jobs.batch=1, '
    "used: count/jobs.batch=1, limited: count/jobs.batch=1",
)


async def test_a_full_quota_is_waited_for_and_never_counted(world: World) -> None:
    world.cluster.edit(NAMESPACE, "servers", retries={"maxAttempts": 1})
    await world.see()
    for _ in range(3):
        world.cluster.refuse["create_job"] = [FULL]
        with pytest.raises(LaunchRefusedError):
            await world.settle()
        await world.sql("UPDATE phase_runs SET deadline = now() WHERE state = 'Created'")
        waits = await world.settle()
        assert (waits.state, waits.failed_attempts) == (FlowState.QUEUED, 0)
        assert waits.not_before is not None
        message = world.status()["message"]
        assert "is queued, because the namespace's ResourceQuota is full" in message
        assert "limited: count/jobs.batch=1" in message
        assert "tried again at" in message
        assert world.condition("Reconciling")["reason"] == "NamespaceQuota"
        assert world.queue.timers == 1
        await world.sql("UPDATE discovery_flows SET not_before = now()")
    running = await world.settle()
    assert running.state is FlowState.RUNNING
    assert len(world.cluster.created_jobs) == 1


async def test_a_job_that_filled_the_quota_itself_is_adopted(world: World) -> None:
    await world.settle()
    await world.sql("UPDATE phase_runs SET state = 'Created', job_uid = NULL, launched_at = NULL")
    world.cluster.refuse["create_job"] = [FULL]
    adopted = await world.settle()
    assert adopted.run is not None
    assert (adopted.state, adopted.run.state) == (FlowState.RUNNING, RunState.LAUNCHED)
    assert len(world.cluster.jobs) == 1


async def test_a_job_whose_pod_a_quota_refuses_waits_without_its_slot(world: World) -> None:
    launched = await world.settle()
    assert launched.run is not None
    assert launched.run.job_uid is not None
    await world.see()
    world.cluster.pod_refusals[launched.run.job_uid] = (
        'Error creating: pods "x" is forbidden: exceeded quota: compute, requested: pods=1, '
        "used: pods=4, limited: pods=4"
    )
    assert (await world.settle()).state is FlowState.RUNNING
    await world.sql("UPDATE discovery_flows SET state_since = now() - interval '6 seconds'")
    waits = await world.settle()
    assert (waits.state, waits.failed_attempts) == (FlowState.QUEUED, 0)
    assert "because the namespace's ResourceQuota is full" in world.status()["message"]
    assert world.cluster.jobs == {}
    await world.sql("UPDATE discovery_flows SET not_before = now()")
    assert (await world.settle()).state is FlowState.RUNNING


async def test_any_other_refusal_of_the_pod_is_told_while_it_lasts(world: World) -> None:
    launched = await world.settle()
    assert launched.run is not None
    assert launched.run.job_uid is not None
    world.cluster.pod_refusals[launched.run.job_uid] = "Error creating: violates PodSecurity"
    await world.sql("UPDATE discovery_flows SET state_since = now() - interval '6 seconds'")
    assert (await world.settle()).state is FlowState.RUNNING
    assert "its Job cannot make a pod yet: Error creating" in world.status()["message"]
    await world.sql("UPDATE phase_runs SET deadline = now()")
    failed = await world.settle()
    assert (failed.state, failed.failed_attempts) == (FlowState.QUEUED, 1)
    assert "could not make a pod: Error creating: violates PodSecurity" in failed.message
