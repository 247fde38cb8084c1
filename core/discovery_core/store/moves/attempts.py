"""Attempts of a phase: intent, Job, failure, and how many may live at a time.

An attempt is committed before its Job is created and named by what it is, so that whoever finds
the row after a crash knows which Job to look for.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from ...actions import FailAttempt, StartAttempt
from ...states import FlowState, Occurrence, RunState, Trigger, is_ended
from ..database import database_now
from ..ledger.snapshot import spec_of
from ..ledger.transition import append_event, lock_flow, transition
from ..schema import LIVE_RUN_STATES, DiscoveryFlowRow, PhaseRun
from .breakers import Refusal, admit, endpoint_of
from .queue import live_counts
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


async def admitted(session: AsyncSession, tenant_id: UUID) -> int:
    """How many flows of a tenant are open, those apart that have yet to begin, or cannot go on."""
    row = DiscoveryFlowRow
    found = await session.scalar(
        select(func.count()).where(row.tenant_id == tenant_id, row.state.in_(_ADMITTED))
    )
    return int(found or 0)
