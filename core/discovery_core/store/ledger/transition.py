"""The single way to change where a flow stands.

Whoever wants to move a flow locks its row, and calls `transition`: it consults the state table,
bumps the version, appends the history row and notifies. Nothing else writes `state`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from ...errors import IllegalTransitionError, NotFoundError
from ...states import FlowState, Occurrence, RunState, Trigger, target_of
from ..database import database_now
from ..schema import (
    LIVE_RUN_STATES,
    ApprovalRequestRow,
    DiscoveryFlowRow,
    FlowEventRow,
    PhaseRun,
)
from .outbox import enqueue

CHANNEL = "discovery_flows"
MESSAGE_LIMIT = 4000


async def lock_flow(session: AsyncSession, flow_id: UUID) -> DiscoveryFlowRow:
    """The flow's row, locked until the transaction ends. Raises NotFoundError."""
    row = await session.scalar(
        select(DiscoveryFlowRow)
        .where(DiscoveryFlowRow.flow_id == flow_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if row is None:
        raise NotFoundError(f"no flow {flow_id}")
    return row


async def live_run(session: AsyncSession, flow: DiscoveryFlowRow) -> PhaseRun | None:
    """The flow's live attempt; at most one exists."""
    found: PhaseRun | None = await session.scalar(
        select(PhaseRun).where(
            PhaseRun.tenant_id == flow.tenant_id,
            PhaseRun.flow_id == flow.flow_id,
            PhaseRun.state.in_(LIVE_RUN_STATES),
        )
    )
    return found


async def open_request(session: AsyncSession, flow: DiscoveryFlowRow) -> ApprovalRequestRow | None:
    """The flow's open approval request; at most one exists."""
    found: ApprovalRequestRow | None = await session.scalar(
        select(ApprovalRequestRow).where(
            ApprovalRequestRow.tenant_id == flow.tenant_id,
            ApprovalRequestRow.flow_id == flow.flow_id,
            ApprovalRequestRow.state == "Open",
        )
    )
    return found


async def transition(
    session: AsyncSession,
    flow: DiscoveryFlowRow,
    trigger: Trigger,
    *,
    actor: str,
    message: str = "",
    phase: str | None = None,
    attempt: int | None = None,
    details: dict[str, Any] | None = None,
) -> None:
    """Moves a locked flow. `phase` is the phase that the step is about, by default the current.

    Raises IllegalTransitionError where the state table has no such step.
    """
    source = FlowState(flow.state)
    target = target_of(source, trigger)
    if target is None:
        raise IllegalTransitionError(f"{trigger} is not possible in state {source}")
    flow.state = target
    flow.reason = trigger
    flow.message = message[:MESSAGE_LIMIT]
    flow.state_since = await database_now(session)
    if target is not FlowState.WAITING:
        flow.missing = []
    if target is not FlowState.QUEUED:
        flow.not_before = None
    await append_event(
        session,
        flow,
        trigger,
        actor=actor,
        from_state=source,
        message=message,
        phase=phase,
        attempt=attempt,
        details=details,
        at=flow.state_since,
    )


async def append_event(
    session: AsyncSession,
    flow: DiscoveryFlowRow,
    trigger: Trigger | Occurrence,
    *,
    actor: str,
    from_state: str | None,
    message: str = "",
    phase: str | None = None,
    attempt: int | None = None,
    details: dict[str, Any] | None = None,
    at: datetime | None = None,
) -> None:
    """Bumps the version of a locked flow, appends to its history, and notifies the operator."""
    flow.version += 1
    flow.event_sequence += 1
    flow.updated_at = at or await database_now(session)
    event = FlowEventRow(
        tenant_id=flow.tenant_id,
        flow_id=flow.flow_id,
        sequence=flow.event_sequence,
        at=flow.updated_at,
        actor=actor,
        trigger=trigger,
        from_state=from_state,
        to_state=flow.state,
        phase=phase or flow.phase,
        round=flow.round,
        attempt=attempt,
        message=message[:MESSAGE_LIMIT],
        details=details or {},
    )
    session.add(event)
    await session.flush()
    await enqueue(session, event)
    await session.execute(
        text("SELECT pg_notify(:channel, :flow)"), {"channel": CHANNEL, "flow": str(flow.flow_id)}
    )


async def end_live_run(
    session: AsyncSession, flow: DiscoveryFlowRow, state: RunState, message: str
) -> PhaseRun | None:
    """Ends the flow's live attempt, if it has one, so that its late result is refused."""
    run = await live_run(session, flow)
    if run is not None:
        run.state = state
        run.error_message = message
        run.finished_at = await database_now(session)
        await session.flush()
    return run
