"""Carries out the operator's actions that only touch the database, one transaction each.

The caller opens the transaction. A move locks the flow, and does nothing where it finds itself
made already, so an action may come again.
"""

from __future__ import annotations

from typing import assert_never
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ... import actions as act
from ...states import FlowState, Trigger
from . import attempts, gate, rounds, steps


async def apply(session: AsyncSession, flow_id: UUID, action: act.Move) -> None:
    """Makes one move of a flow.

    Raises NotFoundError for an unknown flow, and for an answer SupersededError where it is late or
    stale, InvalidAnswerError where its edits are bad.
    """
    match action:
        case (
            act.ApproveByPolicy()
            | act.ExpireRequest()
            | act.Note()
            | act.RefuseAnswer()
            | act.TakeAnswer()
        ):
            await _at_the_gate(session, flow_id, action)
        case act.UpdateSpec(spec, generation):
            await steps.update_spec(session, flow_id, spec, generation)
        case act.MarkDeleted():
            await steps.mark_deleted(session, flow_id)
        case act.Admit():
            await steps.step(session, flow_id, Trigger.ADMITTED, FlowState.PENDING)
        case act.ReferenceMissing(missing):
            await steps.reference_missing(session, flow_id, list(missing))
        case act.ReferenceFound():
            await steps.step(session, flow_id, Trigger.REFERENCE_FOUND, FlowState.WAITING)
        case act.Suspend():
            await steps.suspend(session, flow_id)
        case act.Resume():
            await steps.resume(session, flow_id)
        case act.Cancel():
            await steps.cancel(session, flow_id)
        case act.FailAttempt():
            await attempts.fail(session, flow_id, action)
        case act.StartRound(wanted):
            await rounds.rerun(session, flow_id, wanted)
        case _:
            assert_never(action)


async def _at_the_gate(session: AsyncSession, flow_id: UUID, action: act.GateMove) -> None:
    match action:
        case act.TakeAnswer(approval):
            await gate.answer(session, flow_id, approval)
        case act.RefuseAnswer(request_id, problems, decided_by):
            await gate.refuse(session, flow_id, request_id, list(problems), decided_by)
        case act.Note(message):
            await gate.note(session, flow_id, message)
        case act.ExpireRequest(request_id):
            await gate.expire(session, flow_id, request_id)
        case act.ApproveByPolicy(request_id):
            await gate.approve_by_policy(session, flow_id, request_id)
        case _:
            assert_never(action)
