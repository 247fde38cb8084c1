"""Steps of the approval gate under the flow's lock: answer, refuse, expire, close."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ...durations import parse_duration
from ...errors import SupersededError
from ...phases import next_phase
from ...resource_gate import Approval, ApprovalPolicy
from ...states import FlowState, Occurrence, Trigger
from ..database import database_now
from ..ledger.requests import decide_request, reopen_refused
from ..ledger.transition import append_event, lock_flow, open_request, transition
from ..schema import ApprovalRequestRow, DiscoveryFlowRow
from .rounds import ask_again

ACTOR = "operator"
POLICY = "policy"
VIA_RESOURCE = "resource"


async def _open(
    session: AsyncSession, flow: DiscoveryFlowRow, request_id: UUID
) -> ApprovalRequestRow:
    request = await open_request(session, flow)
    if request is None or request.id != request_id or flow.state != FlowState.AWAITING_APPROVAL:
        raise SupersededError(f"request {request_id} is not open")
    return request


async def answer(session: AsyncSession, flow_id: UUID, given: Approval) -> None:
    """One compare-and-set on the open request; the flow moves in the same transaction.

    Raises SupersededError for a late or stale answer, InvalidAnswerError for bad edits.
    """
    flow = await lock_flow(session, flow_id)
    request = await _open(session, flow, given.request_id)
    if request.artefact_digest != given.artefact_digest:
        raise SupersededError(f"the answer is about {given.artefact_digest}, not what is asked")
    await decide_request(
        session,
        flow,
        request,
        decision=given.decision,
        edits=given.edits,
        reason=given.reason,
        decided_by=given.decided_by,
        via=VIA_RESOURCE,
    )
    details = {
        "requestId": str(request.id),
        "artefactDigest": given.artefact_digest,
        "edits": len(given.edits),
        "via": VIA_RESOURCE,
    }
    if given.decision == "AskAgain":
        await ask_again(
            session,
            flow,
            hint=given.hint,
            by=given.decided_by,
            reason=given.reason,
            details=details,
        )
        return
    await _move(
        session,
        flow,
        Trigger.APPROVED if given.decision == "Approve" else Trigger.REJECTED,
        actor=given.decided_by,
        message=given.reason,
        details=details,
    )


async def approve_by_policy(session: AsyncSession, flow_id: UUID, request_id: UUID) -> None:
    """Approves a request as its frozen policy says; a request that is not open is left alone."""
    flow = await lock_flow(session, flow_id)
    request = await open_request(session, flow)
    if request is None or request.id != request_id or flow.state != FlowState.AWAITING_APPROVAL:
        return
    policy = ApprovalPolicy.model_validate(request.policy)
    if policy.mode != "AutoApprove":
        return
    reason = f"every mapping has at least confidence {policy.min_confidence}"
    await decide_request(
        session,
        flow,
        request,
        decision="Approve",
        edits=[],
        reason=reason,
        decided_by=POLICY,
        via=POLICY,
    )
    await _move(
        session,
        flow,
        Trigger.APPROVED,
        actor=POLICY,
        message=f"approved by policy: {reason}",
        details={"requestId": str(request.id), "artefactDigest": request.artefact_digest},
    )


async def _move(
    session: AsyncSession,
    flow: DiscoveryFlowRow,
    trigger: Trigger,
    *,
    actor: str,
    message: str,
    details: dict[str, object],
) -> None:
    phase = flow.phase
    following = next_phase(phase)
    if trigger in (Trigger.APPROVED, Trigger.EXPIRED_APPROVED) and following is not None:
        flow.phase = following
    flow.answer_note = ""
    await transition(
        session, flow, trigger, actor=actor, message=message, phase=phase, details=details
    )


async def refuse(
    session: AsyncSession,
    flow_id: UUID,
    request_id: UUID,
    problems: list[str],
    decided_by: str,
) -> None:
    """Refuses a bad answer as a whole and asks again under a new request id."""
    flow = await lock_flow(session, flow_id)
    request = await open_request(session, flow)
    if request is None or request.id != request_id:
        return
    renewed = await reopen_refused(session, flow, request, problems=problems, decided_by=decided_by)
    flow.answer_note = "the answer was refused: " + "; ".join(problems)
    await append_event(
        session,
        flow,
        Occurrence.ANSWER_REFUSED,
        actor=decided_by,
        from_state=flow.state,
        message=flow.answer_note,
        details={"refusedRequestId": str(request_id), "requestId": str(renewed.id)},
    )


async def note(session: AsyncSession, flow_id: UUID, message: str) -> None:
    """Tells once why an answer was not taken."""
    flow = await lock_flow(session, flow_id)
    if flow.answer_note == message:
        return
    flow.answer_note = message
    if message:
        await append_event(
            session,
            flow,
            Occurrence.ANSWER_NOT_TAKEN,
            actor=ACTOR,
            from_state=flow.state,
            message=message,
        )


async def expire(session: AsyncSession, flow_id: UUID, request_id: UUID) -> None:
    """What the policy, frozen when the request opened, says about its deadline."""
    flow = await lock_flow(session, flow_id)
    request = await open_request(session, flow)
    now = await database_now(session)
    if request is None or request.id != request_id or request.expires_at > now:
        return
    if flow.state != FlowState.AWAITING_APPROVAL:
        return
    policy = ApprovalPolicy.model_validate(request.policy)
    details: dict[str, object] = {"requestId": str(request.id), "onTimeout": policy.on_timeout}
    if policy.on_timeout == "Hold":
        request.reminders += 1
        request.expires_at = now + timedelta(seconds=parse_duration(policy.timeout))
        await append_event(
            session,
            flow,
            Occurrence.APPROVAL_REMINDED,
            actor=POLICY,
            from_state=flow.state,
            message="the request is still open",
            details=details,
        )
        return
    if policy.on_timeout == "Approve":
        await decide_request(
            session,
            flow,
            request,
            decision="Approve",
            edits=[],
            reason="deadline passed",
            decided_by=POLICY,
            via=POLICY,
        )
        await _move(
            session,
            flow,
            Trigger.EXPIRED_APPROVED,
            actor=POLICY,
            message="approved by policy at the deadline",
            details=details,
        )
        return
    request.state = "Expired"
    request.decided_at = now
    request.reason = "deadline passed"
    await session.flush()
    await _move(
        session,
        flow,
        Trigger.EXPIRED_REJECTED,
        actor=POLICY,
        message="nobody answered before the deadline",
        details=details,
    )
