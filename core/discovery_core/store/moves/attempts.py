"""Attempts of a phase: intent, Job, failure, and how many may live at a time.

An attempt is committed before its Job is created and named by what it is, so that whoever finds
the row after a crash knows which Job to look for.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, FromClause, Select, func, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from ...actions import FailAttempt, StartAttempt
from ...snapshots import Capacity, FlowSnapshot
from ...states import FlowState, Occurrence, RunState, Trigger, is_ended
from ..database import database_now
from ..ledger.snapshot import spec_of
from ..ledger.transition import append_event, lock_flow, transition
from ..schema import LIVE_RUN_STATES, DiscoveryFlowRow, PhaseRun
from .breakers import Refusal, admit, endpoint_of
from .steps import ACTOR

_ADMITTED = [
    str(state)
    for state in FlowState
    if not is_ended(state) and state not in (FlowState.PENDING, FlowState.WAITING)
]


async def start(
    session: AsyncSession,
    cluster_id: UUID,
    flow_id: UUID,
    wanted: StartAttempt,
    limits: tuple[int, int] | None,
) -> UUID | None:
    """Queued → Running: commits the intent to run a Job. Returns the attempt's id.

    The same intent again returns the same id. None where `limits` (in all, per tenant) leave no
    slot, or where the flow waits for its language model; slots are handed out one at a time, so the
    caps hold.
    """
    await session.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 1))"),
        {"key": str(cluster_id)},
    )
    flow = await lock_flow(session, flow_id)
    known = await session.scalar(
        select(PhaseRun).where(
            PhaseRun.flow_id == flow_id,
            PhaseRun.round == wanted.round,
            PhaseRun.phase == wanted.phase,
            PhaseRun.attempt == wanted.attempt,
        )
    )
    if known is not None:
        return known.id
    if limits is not None:
        running, mine = await live_counts(session, flow.tenant_id)
        if running >= limits[0] or mine >= limits[1]:
            return None
    run_id = uuid4()
    refusal = await _refused(session, flow, run_id)
    if refusal is not None:
        await _postpone(session, flow, refusal)
        return None
    run = PhaseRun(
        tenant_id=flow.tenant_id,
        id=run_id,
        flow_id=flow_id,
        round=wanted.round,
        phase=wanted.phase,
        attempt=wanted.attempt,
        state=RunState.CREATED,
        job_name=wanted.job_name,
        deadline=await database_now(session) + timedelta(seconds=wanted.launch_timeout),
    )
    session.add(run)
    await session.flush()
    await transition(
        session,
        flow,
        Trigger.ATTEMPT_STARTED,
        actor=ACTOR,
        phase=wanted.phase,
        attempt=wanted.attempt,
        details={"job": wanted.job_name},
    )
    return run.id


async def _refused(session: AsyncSession, flow: DiscoveryFlowRow, run_id: UUID) -> Refusal | None:
    """Why a flow that is to wait for its language model may not start an attempt."""
    llm = spec_of(flow).llm
    endpoint = endpoint_of(llm)
    if endpoint is None or llm.on_unavailable != "Wait" or flow.state != FlowState.QUEUED:
        return None
    return await admit(session, flow, endpoint, run_id, actor=ACTOR)


async def _postpone(session: AsyncSession, flow: DiscoveryFlowRow, refusal: Refusal) -> None:
    """Leaves a flow queued until its endpoint is tried again; told once per outage."""
    flow.not_before = refusal.retry_at
    if flow.reason == Occurrence.ENDPOINT_AWAITED and flow.message == refusal.message:
        return
    flow.reason, flow.message = Occurrence.ENDPOINT_AWAITED, refusal.message
    await append_event(
        session,
        flow,
        Occurrence.ENDPOINT_AWAITED,
        actor=ACTOR,
        from_state=flow.state,
        message=refusal.message,
        details={"endpoint": refusal.endpoint},
    )


async def mark_launched(session: AsyncSession, flow_id: UUID, run_id: UUID, job_uid: str) -> None:
    """Records the Job's uid."""
    await lock_flow(session, flow_id)
    run = await session.scalar(select(PhaseRun).where(PhaseRun.id == run_id))
    if run is not None and run.state == RunState.CREATED:
        run.state = RunState.LAUNCHED
        run.job_uid = job_uid
        run.launched_at = await database_now(session)


async def fail(session: AsyncSession, flow_id: UUID, failure: FailAttempt) -> None:
    """Ends the current attempt: → Queued after a delay, or → Failed without one.

    An attempt that has been dealt with already is left alone.
    """
    flow = await lock_flow(session, flow_id)
    run = await session.scalar(select(PhaseRun).where(PhaseRun.id == failure.run_id))
    if run is None or flow.state not in (FlowState.RUNNING, FlowState.WAITING):
        return
    if await _newest(session, flow) != failure.run_id:
        return
    if run.state != RunState.FAILED:
        run.state = RunState.FAILED
        run.finished_at = await database_now(session)
    run.counted = failure.counted
    run.error_code, run.error_message = failure.code, failure.message
    await session.flush()
    delay = failure.retry_delay
    await transition(
        session,
        flow,
        Trigger.ATTEMPTS_EXHAUSTED if delay is None else Trigger.ATTEMPT_FAILED,
        actor=ACTOR,
        message=failure.message,
        phase=run.phase,
        attempt=run.attempt,
        details={"code": failure.code, "retryDelaySeconds": delay},
    )
    if delay is not None:
        flow.not_before = await database_now(session) + timedelta(seconds=delay)


async def _newest(session: AsyncSession, flow: DiscoveryFlowRow) -> UUID | None:
    """The latest attempt of the flow's current phase: what a failure may still be about."""
    found: UUID | None = await session.scalar(
        select(PhaseRun.id)
        .where(
            PhaseRun.tenant_id == flow.tenant_id,
            PhaseRun.flow_id == flow.flow_id,
            PhaseRun.round == flow.round,
            PhaseRun.phase == flow.phase,
            PhaseRun.state.in_((*LIVE_RUN_STATES, RunState.FAILED)),
        )
        .order_by(PhaseRun.attempt.desc())
        .limit(1)
    )
    return found


async def live_counts(session: AsyncSession, tenant_id: UUID) -> tuple[int, int]:
    """Live attempts in the cluster, and of one tenant."""
    row = (
        await session.execute(
            select(func.count(), func.count().filter(PhaseRun.tenant_id == tenant_id)).where(
                PhaseRun.state.in_(LIVE_RUN_STATES)
            )
        )
    ).one()
    return int(row[0]), int(row[1])


async def admitted(session: AsyncSession, tenant_id: UUID) -> int:
    """How many flows of a tenant are open, those apart that have yet to begin, or cannot go on."""
    row = DiscoveryFlowRow
    found = await session.scalar(
        select(func.count()).where(row.tenant_id == tenant_id, row.state.in_(_ADMITTED))
    )
    return int(found or 0)


async def capacity(
    session: AsyncSession,
    flow: FlowSnapshot,
    limits: tuple[int, int],
    passed_over: Collection[UUID] = (),
) -> Capacity:
    """Slots for a queued flow, and how many flows have a turn before it.

    The tenant with the fewest live attempts is next, of several the one that has waited longest
    for an attempt to start; within a tenant, flows come in the order in which they were queued.
    So a tenant with one flow waits for one slot, however many flows others have queued. Other flows
    that are `passed_over` have no turn: nobody waits for one that cannot be started.
    """
    running, mine = await live_counts(session, flow.tenant_id)
    turns = _turns(set(passed_over) - {flow.flow_id}).cte("turns")
    own, others = turns.alias("own"), turns.alias("others")
    ahead = (
        select(func.count())
        .where(others.c.turn < limits[1], tuple_(*_place(others)) < tuple_(*_place(own)))
        .scalar_subquery()
    )
    found = (
        await session.execute(
            select(ahead, own.c.ahead_in_tenant).where(own.c.flow_id == flow.flow_id)
        )
    ).one_or_none()
    if found is None:
        # it has left the queue in the meantime
        return Capacity(running, mine, *limits, ahead=limits[0])
    return Capacity(running, mine, *limits, ahead=int(found[0]), ahead_in_tenant=int(found[1]))


def _place(turns: FromClause) -> tuple[ColumnElement[Any], ...]:
    return turns.c.turn, turns.c.served, turns.c.state_since, turns.c.flow_id


def _turns(passed_over: Collection[UUID]) -> Select[Any]:
    """Queued flows that are due. `turn` is which of its tenant's live attempts each would be."""
    row = DiscoveryFlowRow
    due = (
        select(row.tenant_id, row.flow_id, row.state_since)
        .where(
            row.state == FlowState.QUEUED,
            (row.not_before.is_(None)) | (row.not_before <= func.clock_timestamp()),
            row.flow_id.not_in(passed_over),
        )
        .cte("due")
    )
    live = (
        select(PhaseRun.tenant_id, func.count().label("attempts"))
        .where(PhaseRun.state.in_(LIVE_RUN_STATES))
        .group_by(PhaseRun.tenant_id)
        .cte("live")
    )
    tenants = select(due.c.tenant_id).distinct().cte("tenants")
    latest = (
        select(func.max(PhaseRun.created_at))
        .where(PhaseRun.tenant_id == tenants.c.tenant_id)
        .scalar_subquery()
    )
    served = select(tenants.c.tenant_id, latest.label("at")).cte("served")
    earlier = (
        func.row_number().over(
            partition_by=due.c.tenant_id, order_by=(due.c.state_since, due.c.flow_id)
        )
        - 1
    )
    return (
        select(
            due.c.flow_id,
            due.c.state_since,
            earlier.label("ahead_in_tenant"),
            (earlier + func.coalesce(live.c.attempts, 0)).label("turn"),
            func.coalesce(served.c.at, func.to_timestamp(0)).label("served"),
        )
        .join_from(due, served, served.c.tenant_id == due.c.tenant_id)
        .outerjoin(live, live.c.tenant_id == due.c.tenant_id)
    )
