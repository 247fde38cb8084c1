"""What happens when an attempt's result is accepted: the flow moves on in the same transaction."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from ...errors import DiscoveryError, ErrorCode
from ...phases import Phase, next_phase, phase_spec
from ...states import RunState, Trigger
from ...wire.protocol import Complete
from ...wire.results import MappingResult
from ..artefacts import blobs
from ..database import database_now
from ..inventory.assets import rebuild_assets
from ..ledger.requests import open_approval_request
from ..ledger.transition import transition
from ..schema import DiscoveryFlowRow, MasterFlow, PhaseRun

ACTOR = "crew"


async def accept_result(
    session: AsyncSession,
    flow: DiscoveryFlowRow,
    run: PhaseRun,
    message: Complete,
    *,
    node: str,
) -> None:
    """Takes the result of a locked flow's running attempt and moves the flow to what is next."""
    result = message.result
    if result.kind != run.phase:
        raise DiscoveryError(
            ErrorCode.INVALID_RESULT, f"a result of {result.kind} cannot complete {run.phase}"
        )
    run.state = RunState.SUCCEEDED
    run.finished_at = await database_now(session)
    run.result = result.model_dump(mode="json", by_alias=True, exclude={"mappings", "fields"})
    run.usage = message.usage.model_dump(mode="json", by_alias=True)
    await session.flush()
    for name, digest in message.artefacts.items():
        await blobs.refer(
            session,
            tenant_id=run.tenant_id,
            flow_id=run.flow_id,
            run_id=run.id,
            name=name,
            digest=digest,
        )
    await _advance(session, flow, run, message, {"pod": run.pod_name, "node": node})


async def _advance(
    session: AsyncSession,
    flow: DiscoveryFlowRow,
    run: PhaseRun,
    message: Complete,
    source: dict[str, str | None],
) -> None:
    summary = f"{message.result.summary} {message.usage.note}".strip()
    if phase_spec(run.phase).gated and isinstance(message.result, MappingResult):
        request = await open_approval_request(session, flow, run, message.result)
        await transition(
            session,
            flow,
            Trigger.APPROVAL_REQUESTED,
            actor=ACTOR,
            message=f"{len(message.result.mappings)} field mappings wait for approval",
            attempt=run.attempt,
            details=source
            | {"requestId": str(request.id), "artefactDigest": request.artefact_digest},
        )
        return
    if run.phase == Phase.ASSET_INVENTORY:
        master = await session.get_one(MasterFlow, (flow.tenant_id, flow.flow_id))
        changes = await rebuild_assets(session, flow.tenant_id, master.engagement)
        summary = f"{summary} {changes}".strip()
    following = next_phase(run.phase)
    if following is None:
        await transition(
            session,
            flow,
            Trigger.FLOW_SUCCEEDED,
            actor=ACTOR,
            message=summary,
            attempt=run.attempt,
            details=dict(source),
        )
        return
    flow.phase = following
    await transition(
        session,
        flow,
        Trigger.PHASE_SUCCEEDED,
        actor=ACTOR,
        message=summary,
        phase=run.phase,
        attempt=run.attempt,
        details=dict(source),
    )
