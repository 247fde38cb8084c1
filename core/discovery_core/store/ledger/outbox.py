"""The outbox of the webhook: what is to be told goes into the same transaction as the event.

A crash can therefore neither lose a message nor tell of something that did not happen; a message
may arrive twice, and its id says so. Delivery is the operator's; nothing here opens a connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from ...loops import set_aside
from ...states import FlowState, Occurrence, Trigger, is_ended
from ..schema import (
    ApprovalRequestRow,
    FlowEventRow,
    MasterFlow,
    Notification,
    Tenant,
)

OPENED = "request.opened"
REMINDER = "request.reminder"
DECIDED = "request.decided"
ENDED = "flow.ended"
_DECISIONS = (
    Trigger.APPROVED,
    Trigger.REJECTED,
    Trigger.EXPIRED_APPROVED,
    Trigger.EXPIRED_REJECTED,
    Trigger.ASKED_AGAIN,
)


@dataclass(frozen=True)
class Due:
    """One message to deliver; `id` is the same at every try. A `payload` that fails is empty."""

    tenant_id: UUID
    flow_id: UUID
    sequence: int
    kind: str
    tries: int
    namespace: str
    payload: dict[str, Any]

    @property
    def id(self) -> str:
        """Names the message, so that a receiver can tell a repetition."""
        return f"{self.flow_id}-{self.sequence}-{self.kind}"


def kinds_of(event: FlowEventRow) -> list[str]:
    """What an event has to be told as; most are not told."""
    kinds = []
    if event.trigger in (Trigger.APPROVAL_REQUESTED, Trigger.REOPENED):
        kinds.append(REMINDER if event.from_state == FlowState.SUSPENDED else OPENED)
    elif event.trigger == Occurrence.ANSWER_REFUSED:
        kinds.append(OPENED)
    elif event.trigger == Occurrence.APPROVAL_REMINDED:
        kinds.append(REMINDER)
    elif event.trigger in _DECISIONS:
        kinds.append(DECIDED)
    if event.from_state != event.to_state and is_ended(event.to_state):
        kinds.append(ENDED)
    return kinds


async def enqueue(session: AsyncSession, event: FlowEventRow) -> None:
    """Writes down what has to be told of an event."""
    told = [
        {
            "tenant_id": event.tenant_id,
            "flow_id": event.flow_id,
            "sequence": event.sequence,
            "kind": kind,
        }
        for kind in kinds_of(event)
    ]
    if told:
        # crews' side may write here and not read, so nothing is asked back
        await session.execute(insert(Notification).values(told))


async def due(session: AsyncSession, limit: int) -> list[Due]:
    """Messages whose time has come, the oldest first."""
    rows = await session.execute(
        select(Notification, FlowEventRow, MasterFlow, Tenant.namespace)
        .join(
            FlowEventRow,
            (FlowEventRow.tenant_id == Notification.tenant_id)
            & (FlowEventRow.flow_id == Notification.flow_id)
            & (FlowEventRow.sequence == Notification.sequence),
        )
        .join(
            MasterFlow,
            (MasterFlow.tenant_id == Notification.tenant_id)
            & (MasterFlow.flow_id == Notification.flow_id),
        )
        .join(Tenant, Tenant.id == Notification.tenant_id)
        .where(Notification.state == "Pending", Notification.next_try <= func.clock_timestamp())
        .order_by(Notification.next_try)
        .limit(limit)
    )
    found = []
    for waiting, event, master, namespace in rows.tuples().all():
        payload: dict[str, Any] = {}
        # one of which nothing can be told is tried later like any other, and keeps none waiting
        with set_aside("webhooks", known=(SQLAlchemyError,), flow=str(waiting.flow_id)):
            payload = _payload(waiting, event, master, namespace)
            payload |= await _request(session, waiting, event)
        found.append(
            Due(
                tenant_id=waiting.tenant_id,
                flow_id=waiting.flow_id,
                sequence=waiting.sequence,
                kind=waiting.kind,
                tries=waiting.tries,
                namespace=namespace,
                payload=payload,
            )
        )
    return found


def _payload(
    waiting: Notification, event: FlowEventRow, master: MasterFlow, namespace: str
) -> dict[str, Any]:
    return {
        "type": waiting.kind,
        "timestamp": event.at.isoformat(),
        "flow_id": str(waiting.flow_id),
        "namespace": namespace,
        "name": master.name,
        "engagement": master.engagement,
        "sequence": event.sequence,
        "event": event.trigger,
        "state": event.to_state,
        "phase": event.phase,
        "round": event.round,
        "actor": event.actor,
        "message": event.message,
    }


async def _request(
    session: AsyncSession, waiting: Notification, event: FlowEventRow
) -> dict[str, Any]:
    """The approval request that the event is about, as it is now."""
    request_id = event.details.get("requestId")
    try:
        key = (waiting.tenant_id, UUID(str(request_id)))
    except ValueError:
        return {}
    request = await session.get(ApprovalRequestRow, key)
    if request is None:
        return {}
    return {
        "request": {
            "requestId": request_id,
            "artefactDigest": request.artefact_digest,
            "state": request.state,
            "expiresAt": request.expires_at.isoformat(),
            "decidedBy": request.decided_by,
            "reason": request.reason,
            "edits": len(request.edits),
        }
    }


async def settle(
    session: AsyncSession, message: Due, *, state: str, problem: str, retry_seconds: float | None
) -> None:
    """Writes what became of a try; with `retry_seconds` it is tried again after that time."""
    # a problem may quote what is no text for the database, and has to be written all the same
    told = problem[:1000].replace("\0", "").encode("utf-8", "replace").decode()
    values: dict[str, Any] = {"tries": Notification.tries + 1, "problem": told}
    if retry_seconds is None:
        values["state"] = state
    else:
        values["next_try"] = func.clock_timestamp() + text("make_interval(secs => :wait)")
    statement = (
        update(Notification)
        .where(
            Notification.tenant_id == message.tenant_id,
            Notification.flow_id == message.flow_id,
            Notification.sequence == message.sequence,
            Notification.kind == message.kind,
            Notification.state == "Pending",
        )
        .values(values)
    )
    await session.execute(
        statement, {} if retry_seconds is None else {"wait": float(retry_seconds)}
    )
