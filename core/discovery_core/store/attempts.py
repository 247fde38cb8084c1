"""Attempts of a phase: intent, Job, failure, and how many may live at a time.

An attempt is committed before its Job is created and named by what it is, so that whoever finds
the row after a crash knows which Job to look for.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from ..errors import ErrorCode
from ..phases import Phase
from ..snapshots import Capacity, FlowSnapshot
from ..states import FlowState, RunState, Trigger
from .flow_steps import ACTOR
from .schema import LIVE_RUN_STATES, DiscoveryFlowRow, PhaseRun
from .transition import database_now, live_run, lock_flow, transition


async def start(
    session: AsyncSession,
    cluster_id: UUID,
    flow_id: UUID,
    *,
    round: int,  # noqa: A002 - the field's own word
    phase: Phase,
    attempt: int,
    job_name: str,
    launch_timeout: float,
    limits: tuple[int, int] | None,
) -> UUID | None:
    """Queued → Running: the intent to run a Job. None where there is no free slot."""
    await session.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 1))"),
        {"key": str(cluster_id)},
    )
    flow = await lock_flow(session, flow_id)
    known = await session.scalar(
        select(PhaseRun).where(
            PhaseRun.flow_id == flow_id,
            PhaseRun.round == round,
            PhaseRun.phase == phase,
            PhaseRun.attempt == attempt,
        )
    )
    if known is not None:
        return known.id
    if limits is not None:
        running, mine = await live_counts(session, flow.tenant_id)
        if running >= limits[0] or mine >= limits[1]:
            return None
    run = PhaseRun(
        tenant_id=flow.tenant_id,
        id=uuid4(),
        flow_id=flow_id,
        round=round,
        phase=phase,
        attempt=attempt,
        state=RunState.CREATED,
        job_name=job_name,
        deadline=await database_now(session) + timedelta(seconds=launch_timeout),
    )
    session.add(run)
    await session.flush()
    await transition(
        session,
        flow,
        Trigger.ATTEMPT_STARTED,
        actor=ACTOR,
        phase=phase,
        attempt=attempt,
        details={"job": job_name},
    )
    return run.id


async def mark_launched(session: AsyncSession, flow_id: UUID, run_id: UUID, job_uid: str) -> None:
    """Records the Job's uid."""
    await lock_flow(session, flow_id)
    run = await session.scalar(select(PhaseRun).where(PhaseRun.id == run_id))
    if run is not None and run.state == RunState.CREATED:
        run.state = RunState.LAUNCHED
        run.job_uid = job_uid
        run.launched_at = await database_now(session)


async def fail(
    session: AsyncSession,
    flow_id: UUID,
    run_id: UUID,
    *,
    code: ErrorCode,
    message: str,
    retry_delay: float | None,
    counted: bool,
) -> None:
    """Ends the current attempt: → Queued after a delay, or → Failed without one."""
    flow = await lock_flow(session, flow_id)
    run = await session.scalar(select(PhaseRun).where(PhaseRun.id == run_id))
    if run is None or flow.state not in (FlowState.RUNNING, FlowState.WAITING):
        return
    latest = await live_run(session, flow)
    if run.state not in (*LIVE_RUN_STATES, RunState.FAILED) or (
        latest is not None and latest.id != run_id
    ):
        return
    if run.state != RunState.FAILED:
        run.state = RunState.FAILED
        run.finished_at = await database_now(session)
    run.counted = counted
    run.error_code, run.error_message = code, message
    await session.flush()
    final = retry_delay is None
    await transition(
        session,
        flow,
        Trigger.ATTEMPTS_EXHAUSTED if final else Trigger.ATTEMPT_FAILED,
        actor=ACTOR,
        message=message,
        phase=run.phase,
        attempt=run.attempt,
        details={"code": code, "retryDelaySeconds": retry_delay},
    )
    if retry_delay is not None:
        now = await database_now(session)
        flow.not_before = now + timedelta(seconds=retry_delay)


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


async def capacity(session: AsyncSession, flow: FlowSnapshot, limits: tuple[int, int]) -> Capacity:
    """Slots for a queued flow, and how many flows that may start were queued before it."""
    running, mine = await live_counts(session, flow.tenant_id)
    ahead = await session.scalar(
        select(func.count())
        .select_from(DiscoveryFlowRow)
        .where(
            DiscoveryFlowRow.state == FlowState.QUEUED,
            DiscoveryFlowRow.flow_id != flow.flow_id,
            DiscoveryFlowRow.state_since < flow.state_since,
            (DiscoveryFlowRow.not_before.is_(None))
            | (DiscoveryFlowRow.not_before <= func.clock_timestamp()),
            ~_tenant_is_full(limits[1]),
        )
    )
    return Capacity(running, mine, *limits, ahead=int(ahead or 0))


def _tenant_is_full(limit: int) -> ColumnElement[bool]:
    live = (
        select(func.count())
        .select_from(PhaseRun)
        .where(
            PhaseRun.tenant_id == DiscoveryFlowRow.tenant_id,
            PhaseRun.state.in_(LIVE_RUN_STATES),
        )
        .scalar_subquery()
    )
    return live >= limit
