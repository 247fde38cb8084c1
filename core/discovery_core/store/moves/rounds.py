"""Rounds: the only way out of an ended state, and the way back to an earlier phase.

A round supersedes what came after the phase that it begins with: live attempt, open request and
accepted results, so that results of two rounds are never mixed. The inventory is derived from
accepted results and is derived anew in the same transaction.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from ...phases import PHASES, Phase
from ...resource_gate import Rerun
from ...states import RERUN_FROM, FlowState, Occurrence, RunState, Trigger
from ..database import database_now
from ..inventory.assets import rebuild_assets
from ..ledger.requests import reopen_latest
from ..ledger.transition import append_event, end_live_run, lock_flow, open_request, transition
from ..schema import ApprovalRequestRow, DiscoveryFlowRow, MasterFlow, PhaseRun

ACTOR = "operator"
APPROVAL = "approval"
_ORDER = [spec.name for spec in PHASES]


async def close_everything(session: AsyncSession, flow: DiscoveryFlowRow, why: str) -> None:
    """Ends the live attempt and the open request of a flow that goes elsewhere."""
    await end_live_run(session, flow, RunState.SUPERSEDED, why)
    request = await open_request(session, flow)
    if request is not None:
        request.state = "Cancelled"
        request.decided_at = await database_now(session)
        request.reason = why
        await session.flush()


async def ask_again(
    session: AsyncSession,
    flow: DiscoveryFlowRow,
    *,
    hint: str | None,
    by: str,
    reason: str,
    details: dict[str, Any],
) -> None:
    """The mapping runs once more, with a person's hint. The request is closed already."""
    await _begin(session, flow, Phase.FIELD_MAPPING, hint=hint, by=by, trigger=Trigger.ASKED_AGAIN)
    await transition(
        session,
        flow,
        Trigger.ASKED_AGAIN,
        actor=by,
        message=reason or "asked to map again",
        details=details | {"hint": hint or ""},
    )


async def rerun(session: AsyncSession, flow_id: UUID, wanted: Rerun) -> None:
    """Begins the round that spec.rerun asks for, once per id; says why where it is impossible."""
    flow = await lock_flow(session, flow_id)
    if wanted.id in flow.rerun_ids or flow.state not in RERUN_FROM or flow.is_purged:
        return
    flow.rerun_ids = [*flow.rerun_ids, wanted.id]
    details = {"rerunId": wanted.id, "fromPhase": wanted.from_phase, "hint": wanted.hint or ""}
    problem = await _impossible(session, flow, wanted)
    if problem:
        flow.answer_note = f"rerun {wanted.id} is not possible: {problem}"
        await append_event(
            session,
            flow,
            Occurrence.RERUN_REFUSED,
            actor=ACTOR,
            from_state=flow.state,
            message=flow.answer_note,
            details=details,
        )
        return
    await close_everything(session, flow, f"superseded by rerun {wanted.id}")
    reopening = wanted.from_phase == APPROVAL
    phase = Phase.FIELD_MAPPING if reopening else Phase(wanted.from_phase)
    trigger = Trigger.REOPENED if reopening else Trigger.RERUN
    await _begin(
        session,
        flow,
        phase,
        hint=wanted.hint,
        by=ACTOR,
        trigger=trigger,
        keep_result=reopening,
    )
    if reopening:
        run = await _accepted(session, flow, phase)
        assert run is not None  # noqa: S101 - _impossible has looked
        request = await reopen_latest(session, flow, run.id)
        details["requestId"] = str(request.id)
    await transition(
        session,
        flow,
        trigger,
        actor=ACTOR,
        message="asked again about the mappings" if reopening else f"once more from {phase}",
        details=details,
    )


async def _impossible(session: AsyncSession, flow: DiscoveryFlowRow, wanted: Rerun) -> str:
    """Why a round cannot begin there; empty where it can."""
    if wanted.from_phase == APPROVAL:
        if flow.state == FlowState.AWAITING_APPROVAL:
            return "a request is open already"
        if await _accepted(session, flow, Phase.FIELD_MAPPING) is None:
            return "there are no mappings to ask about yet"
        return ""
    for phase in _ORDER[: _ORDER.index(Phase(wanted.from_phase))]:
        if await _accepted(session, flow, phase) is None:
            return f"{phase} has no result; write fromPhase: {phase}"
        if phase == Phase.FIELD_MAPPING and not await _is_approved(session, flow):
            return "the mappings are not approved; write fromPhase: approval"
    return ""


async def _accepted(session: AsyncSession, flow: DiscoveryFlowRow, phase: Phase) -> PhaseRun | None:
    found: PhaseRun | None = await session.scalar(
        select(PhaseRun)
        .where(
            PhaseRun.flow_id == flow.flow_id,
            PhaseRun.phase == phase,
            PhaseRun.state == RunState.SUCCEEDED,
        )
        .order_by(PhaseRun.round.desc())
        .limit(1)
    )
    return found


async def _is_approved(session: AsyncSession, flow: DiscoveryFlowRow) -> bool:
    """Whether the answer that counts is an approval: the latest request of all."""
    if flow.state == FlowState.AWAITING_APPROVAL:
        return False

    state = await session.scalar(
        select(ApprovalRequestRow.state)
        .where(ApprovalRequestRow.flow_id == flow.flow_id)
        .order_by(ApprovalRequestRow.opened_at.desc())
        .limit(1)
    )
    return state == "Approved"


async def _begin(
    session: AsyncSession,
    flow: DiscoveryFlowRow,
    phase: Phase,
    *,
    hint: str | None,
    by: str,
    trigger: Trigger,
    keep_result: bool = False,
) -> None:
    """The next round number, from `phase` on; later results no longer count."""
    later = _ORDER[_ORDER.index(phase) + (1 if keep_result else 0) :]
    superseded = await session.execute(
        update(PhaseRun)
        .where(
            PhaseRun.tenant_id == flow.tenant_id,
            PhaseRun.flow_id == flow.flow_id,
            PhaseRun.phase.in_(later),
            PhaseRun.state == RunState.SUCCEEDED,
        )
        .values(state=RunState.SUPERSEDED)
        .returning(PhaseRun.phase)
    )
    flow.round += 1
    flow.phase = phase
    flow.answer_note = ""
    flow.round_info = {
        "fromPhase": str(phase),
        "hint": hint or "",
        "by": by,
        "trigger": str(trigger),
    }
    await session.flush()
    if Phase.ASSET_INVENTORY in set(superseded.scalars()):
        master = await session.get_one(MasterFlow, (flow.tenant_id, flow.flow_id))
        await rebuild_assets(session, flow.tenant_id, master.engagement)
