"""A flow's whole life through the store, on a real PostgreSQL."""

from __future__ import annotations

import pytest
from discovery_core import actions as act
from discovery_core.errors import ErrorCode, IllegalTransitionError
from discovery_core.states import TRANSITIONS, FlowState, Transition, Trigger
from discovery_core.store.database import database_url
from discovery_core.store.maintenance.retention import RetentionStore
from sqlalchemy import create_engine, text

from tests.postgres import Stores
from tests.store.flows import Flow


async def test_history_of_a_whole_flow(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.to_gate()
    await flow.answer(reason="looks right")
    done = await flow.finish()
    assert done.state == FlowState.SUCCEEDED
    assert done.assets == 3
    history = await stores.api.history(flow.tenant_id, flow.flow_id)
    assert [(event.trigger, event.to_state, event.phase) for event in history] == [
        ("Created", "Pending", "data_import"),
        ("Admitted", "Queued", "data_import"),
        ("AttemptStarted", "Running", "data_import"),
        ("PhaseSucceeded", "Queued", "data_import"),
        ("AttemptStarted", "Running", "data_cleansing"),
        ("PhaseSucceeded", "Queued", "data_cleansing"),
        ("AttemptStarted", "Running", "field_mapping"),
        ("ApprovalRequested", "AwaitingApproval", "field_mapping"),
        ("Approved", "Queued", "field_mapping"),
        ("AttemptStarted", "Running", "asset_inventory"),
        ("PhaseSucceeded", "Queued", "asset_inventory"),
        ("AttemptStarted", "Running", "dependency_analysis"),
        ("PhaseSucceeded", "Queued", "dependency_analysis"),
        ("AttemptStarted", "Running", "migration_strategy"),
        ("FlowSucceeded", "Succeeded", "migration_strategy"),
    ]
    assert [event.sequence for event in history] == list(range(1, 16))
    assert history[8].actor == "ann"
    assert history[8].message == "looks right"


async def test_every_step_of_the_history_is_in_the_state_table(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.to_gate()
    await flow.answer("Reject", reason="wrong file")
    for event in await stores.api.history(flow.tenant_id, flow.flow_id):
        step = Transition(
            FlowState(event.from_state) if event.from_state else None,
            Trigger(event.trigger),
            FlowState(event.to_state),
        )
        assert step in TRANSITIONS
    assert (await flow.load()).state == FlowState.REJECTED


async def test_an_illegal_step_is_refused(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.register()
    with pytest.raises(IllegalTransitionError, match="AttemptStarted is not possible in state"):
        await flow.start()
    assert (await flow.load()).state == FlowState.PENDING


async def test_register_is_all_or_nothing(stores: Stores) -> None:
    """Without the second row there is no first one."""
    engine = create_engine(database_url(stores.urls.superuser))
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE flow_events ADD CONSTRAINT no CHECK (false)"))
    flow = Flow(stores)
    with pytest.raises(Exception, match="violates check constraint"):
        await flow.register()
    with engine.connect() as connection:
        for table in ("master_flows", "discovery_flows", "tenants", "flow_events"):
            assert connection.scalar(text(f"SELECT count(*) FROM {table}")) == 0
    engine.dispose()


async def test_registering_twice_finds_the_same_flow(stores: Stores) -> None:
    flow = Flow(stores)
    first = await flow.register()
    again = await flow.register()
    assert again.version == first.version == 1
    assert len(await stores.api.history(flow.tenant_id, flow.flow_id)) == 1


async def test_retry_then_final_failure(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.queue()
    run = await flow.start()
    await stores.operator.apply(
        flow.flow_id,
        act.FailAttempt(run, code=ErrorCode.POD_LOST, message="the pod is gone", retry_delay=0.01),
    )
    retried = await flow.load()
    assert (retried.state, retried.failed_attempts) == (FlowState.QUEUED, 1)
    assert retried.not_before is not None
    run = await flow.start()
    assert (await flow.load()).last_attempt == 2
    await stores.operator.apply(
        flow.flow_id,
        act.FailAttempt(run, code=ErrorCode.EMPTY_FILE, message="no rows", retry_delay=None),
    )
    failed = await flow.load()
    assert (failed.state, failed.message) == (FlowState.FAILED, "no rows")


async def test_failing_twice_counts_once(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.queue()
    run = await flow.start()
    for _ in range(2):
        await stores.operator.apply(
            flow.flow_id,
            act.FailAttempt(run, code=ErrorCode.POD_LOST, message="gone", retry_delay=1),
        )
    snapshot = await flow.load()
    assert snapshot.failed_attempts == 1
    events = await stores.api.history(flow.tenant_id, flow.flow_id)
    assert [event.trigger for event in events].count("AttemptFailed") == 1


async def test_missing_references_are_named_until_found(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.register()
    await stores.operator.apply(flow.flow_id, act.ReferenceMissing(("ConfigMap servers",)))
    waiting = await flow.load()
    assert (waiting.state, waiting.missing) == (FlowState.WAITING, ("ConfigMap servers",))
    await stores.operator.apply(flow.flow_id, act.ReferenceFound())
    found = await flow.load()
    assert (found.state, found.missing) == (FlowState.QUEUED, ())


async def test_suspend_and_resume_keep_an_open_request(stores: Stores) -> None:
    flow = Flow(stores)
    before = (await flow.to_gate()).request
    await stores.operator.apply(flow.flow_id, act.Suspend())
    assert (await flow.load()).state == FlowState.SUSPENDED
    await stores.operator.apply(flow.flow_id, act.Resume())
    after = await flow.load()
    assert after.state == FlowState.AWAITING_APPROVAL
    assert before is not None
    assert after.request is not None
    assert after.request.request_id == before.request_id
    assert after.request.expires_at > before.expires_at


async def test_deletion_leaves_no_orphan(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.queue()
    await flow.run_phase()
    await flow.start()
    pod = await flow.claim()
    await pod.upload(b"half done")
    await stores.operator.apply(flow.flow_id, act.MarkDeleted())

    gone = await flow.load()
    assert (gone.state, gone.deleted) == (FlowState.CANCELLED, True)
    assert await stores.operator.open_flows() == []
    retention = RetentionStore(stores.operator)
    (left,) = await retention.deleted_flows(10)
    while not await retention.release_batch(left):
        pass
    await stores.operator.collect_garbage()
    assert await retention.deleted_flows(10) == []
    engine = create_engine(database_url(stores.urls.superuser))
    with engine.connect() as connection:
        for query in (
            "SELECT count(*) FROM artefacts",
            "SELECT count(*) FROM artefact_chunks",
            "SELECT count(*) FROM flow_artefacts",
            "SELECT count(*) FROM records",
            "SELECT count(*) FROM phase_runs WHERE state IN ('Created', 'Launched', 'Running')",
            "SELECT count(*) FROM approval_requests WHERE state = 'Open'",
        ):
            assert connection.scalar(text(query)) == 0, query
    engine.dispose()
