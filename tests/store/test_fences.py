"""Stale writers: superseded attempts, foreign pods, old leaders, two writers at once."""

from __future__ import annotations

import asyncio

import pytest
from discovery_core import actions as act
from discovery_core.errors import (
    DiscoveryError,
    ErrorCode,
    NotFoundError,
    NotLaunchedError,
    SupersededError,
)
from discovery_core.phases import Phase
from discovery_core.resource_gate import Approval
from discovery_core.states import FlowState
from discovery_core.store import Database, OperatorStore
from discovery_core.wire.protocol import Claim, Fail, Heartbeat, HeartbeatAnswer

from tests.postgres import Stores
from tests.store.flows import RESULTS, Flow, inventory_rows, stream


async def test_a_superseded_attempts_late_result_is_refused(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.queue()
    run = await flow.start()
    zombie = await flow.claim()
    await stores.operator.apply(
        flow.flow_id,
        act.FailAttempt(run, code=ErrorCode.HEARTBEAT_LOST, message="silent", retry_delay=0),
    )
    await flow.start()
    second = await flow.claim()

    assert second.claim.fence > zombie.claim.fence
    with pytest.raises(SupersededError):
        await zombie.complete(RESULTS[Phase.DATA_IMPORT])
    with pytest.raises(SupersededError):
        await zombie.upload(b"late")
    assert (await flow.load()).state == FlowState.RUNNING


async def test_a_superseded_attempt_is_told_so_at_its_next_heartbeat(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.queue()
    run = await flow.start()
    pod = await flow.claim()

    async def beat(pod_uid: str, fence: int) -> HeartbeatAnswer:
        return await stores.execution.heartbeat(
            tenant_id=flow.tenant_id, pod_uid=pod_uid, beat=Heartbeat(fence=fence, done=3)
        )

    answer = await beat(pod.pod_uid, pod.claim.fence)
    now = (await flow.load()).run
    assert now is not None
    assert (now.progress_done, now.deadline) == (3, answer.deadline)
    for pod_uid, fence in (("another", pod.claim.fence), (pod.pod_uid, pod.claim.fence + 1)):
        with pytest.raises(SupersededError):
            await beat(pod_uid, fence)
    await stores.operator.apply(
        flow.flow_id,
        act.FailAttempt(run, code=ErrorCode.HEARTBEAT_LOST, message="silent", retry_delay=0),
    )
    with pytest.raises(SupersededError):
        await beat(pod.pod_uid, pod.claim.fence)


async def test_a_guessed_fence_is_refused(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.queue()
    await flow.start()
    pod = await flow.claim()
    with pytest.raises(SupersededError):
        await stores.execution.fail(
            tenant_id=flow.tenant_id,
            pod_uid=pod.pod_uid,
            message=Fail(fence=pod.claim.fence + 1, code=ErrorCode.CRASHED, message="x"),
        )
    with pytest.raises(SupersededError):
        await stores.execution.fail(
            tenant_id=flow.tenant_id,
            pod_uid="another-pod",
            message=Fail(fence=pod.claim.fence, code=ErrorCode.CRASHED, message="x"),
        )


async def test_only_the_recorded_job_may_claim(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.queue()
    snapshot = await flow.load()
    run_id = await stores.operator.start_attempt(
        flow.flow_id,
        act.StartAttempt(
            round=1, phase=snapshot.phase, attempt=1, job_name="job", launch_timeout=60
        ),
    )
    assert run_id is not None

    async def claim(job_name: str, job_uid: str, pod_uid: str = "pod") -> Claim:
        return await stores.execution.claim(
            tenant_id=flow.tenant_id,
            flow_id=flow.flow_id,
            job_name=job_name,
            job_uid=job_uid,
            pod_uid=pod_uid,
            pod_name=pod_uid,
        )

    with pytest.raises(NotLaunchedError):
        await claim("job", "right")
    await stores.operator.mark_launched(run_id, flow.flow_id, "right")
    with pytest.raises(SupersededError, match="replaced"):
        await claim("job", "stray")
    with pytest.raises(NotFoundError):
        await claim("other", "right")
    accepted = await claim("job", "right")
    again = await claim("job", "right")
    assert accepted.fence == again.fence == 1
    with pytest.raises(SupersededError, match="has claimed"):
        await claim("job", "right", "second")


async def test_two_writers_race_for_one_flow(stores: Stores) -> None:
    """Twenty concurrent answers: one is taken, nineteen are told that they are late."""
    flow = Flow(stores)
    request = (await flow.to_gate()).request
    assert request is not None
    outcomes = await asyncio.gather(
        *(
            stores.operator.apply(
                flow.flow_id,
                act.TakeAnswer(
                    Approval(
                        request_id=request.request_id,
                        artefact_digest=request.artefact_digest,
                        decision="Approve" if number % 2 else "Reject",
                        decided_by=f"user-{number}",
                    )
                ),
            )
            for number in range(20)
        ),
        return_exceptions=True,
    )
    taken = [number for number, outcome in enumerate(outcomes) if outcome is None]
    assert len(taken) == 1
    assert all(isinstance(o, SupersededError) for o in outcomes if o is not None)
    decided = await stores.api.request(flow.tenant_id, request.request_id)
    assert decided.decided_by == f"user-{taken[0]}"
    history = await stores.api.history(flow.tenant_id, flow.flow_id)
    assert [e.sequence for e in history] == list(range(1, len(history) + 1))


async def test_concurrent_results_of_one_attempt_are_accepted_once(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.queue()
    await flow.start()
    pod = await flow.claim()
    artefacts = {name: await pod.upload(name.encode()) for name in ("records", "profile")}
    await asyncio.gather(*(pod.complete(RESULTS[Phase.DATA_IMPORT], **artefacts) for _ in range(5)))
    events = await stores.api.history(flow.tenant_id, flow.flow_id)
    assert [event.trigger for event in events].count("PhaseSucceeded") == 1
    assert (await flow.load()).phase == Phase.DATA_CLEANSING


async def test_concurrent_starts_make_one_attempt(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.queue()
    ids = await asyncio.gather(*(flow.start(attempt=1) for _ in range(5)))
    assert len(set(ids)) == 1
    assert (await flow.load()).last_attempt == 1


async def test_a_result_of_another_phase_is_refused(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.queue()
    await flow.start()
    pod = await flow.claim()
    with pytest.raises(DiscoveryError, match="cannot complete data_import"):
        await pod.complete(RESULTS[Phase.DATA_CLEANSING])
    with pytest.raises(DiscoveryError, match="was not uploaded"):
        await pod.complete(RESULTS[Phase.DATA_IMPORT], records="sha256:" + "0" * 64)
    assert (await flow.load()).state == FlowState.RUNNING


async def test_an_old_leader_changes_nothing(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.register()
    database = Database(stores.urls.operator, application_name="second")
    second = OperatorStore(database, stores.cluster_id)
    assert await second.acquire_leadership("second", ttl=60) is None
    with pytest.raises(SupersededError):
        await second.apply(flow.flow_id, act.Admit())
    await stores.operator.acquire_leadership("test", ttl=0.01)
    await asyncio.sleep(0.05)
    assert await second.acquire_leadership("second", ttl=60) == stores.epoch + 1

    with pytest.raises(SupersededError, match=f"epoch {stores.epoch} is over"):
        await stores.operator.apply(flow.flow_id, act.Admit())
    assert (await flow.load()).state == FlowState.PENDING
    await second.apply(flow.flow_id, act.Admit())
    assert (await flow.load()).state == FlowState.QUEUED
    await database.close()


async def test_renewal_keeps_the_epoch(stores: Stores) -> None:
    epoch = stores.epoch
    for _ in range(3):
        assert await stores.operator.acquire_leadership("test", ttl=60) == epoch


async def test_slots_are_never_oversold(stores: Stores) -> None:
    flows = [Flow(stores, name=f"flow-{number}") for number in range(6)]
    for flow in flows:
        await flow.queue()

    async def start(flow: Flow) -> object:
        return await stores.operator.start_attempt(
            flow.flow_id,
            act.StartAttempt(
                round=1,
                phase=Phase.DATA_IMPORT,
                attempt=1,
                job_name=str(flow.flow_id),
                launch_timeout=60,
            ),
            (2, 2),
        )

    started = await asyncio.gather(*(start(flow) for flow in flows))
    assert sum(run is not None for run in started) == 2


async def test_staged_rows_count_only_when_accepted(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.to_gate()
    await flow.answer()
    run = await flow.start()
    zombie = await flow.claim()
    await zombie.stage(inventory_rows(50, prefix="ghost"))
    await stores.operator.apply(
        flow.flow_id, act.FailAttempt(run, code=ErrorCode.POD_LOST, message="gone", retry_delay=0)
    )
    await flow.run_phase()
    summary = await stores.api.inventory_summary(flow.tenant_id, None)
    assert summary == {"assets": 3, "by_type": {"server": 3}}


async def test_an_upload_beyond_the_limit_is_refused(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.queue()
    await flow.start()
    pod = await flow.claim()
    with pytest.raises(DiscoveryError) as refused:
        await stores.execution.store_artefact(
            tenant_id=flow.tenant_id,
            pod_uid=pod.pod_uid,
            fence=pod.claim.fence,
            media_type="text/plain",
            stream=stream(b"x" * 3_000_000),
            max_bytes=2_000_000,
        )
    assert refused.value.code == ErrorCode.LIMIT_EXCEEDED


async def test_an_artefact_is_its_bytes(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.queue()
    await flow.start()
    pod = await flow.claim()
    data = bytes(range(256)) * 10_000
    digest = await pod.upload(data)
    assert await pod.upload(data) == digest
    read = b""
    async for piece in stores.execution.read_artefact(
        tenant_id=flow.tenant_id, pod_uid=pod.pod_uid, fence=pod.claim.fence, digest=digest
    ):
        assert len(piece) <= 1024 * 1024
        read += piece
    assert read == data
