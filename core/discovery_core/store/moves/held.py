"""Which attempt a crew pod holds, and which artefacts it may therefore name.

Every call of a pod comes through here: a pod whose attempt has ended, or was taken over, finds no
row and is told "superseded".
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from ...errors import DiscoveryError, ErrorCode, SupersededError
from ...states import RunState
from ..schema import Artefact, DiscoveryFlowRow, FlowArtefact, PhaseRun


def holds(pod_uid: str, fence: int) -> ColumnElement[bool]:
    """The attempt that this pod holds under this fence, whether it still runs or not."""
    return and_(PhaseRun.pod_uid == pod_uid, PhaseRun.fence == fence)


def superseded() -> SupersededError:
    """What a pod is told that holds no attempt any more."""
    return SupersededError("this pod does not hold a running attempt under this fence")


async def held_run(
    session: AsyncSession, pod_uid: str, fence: int, *, ended: bool = False
) -> PhaseRun:
    """The attempt that this pod holds under this fence, live unless `ended` is allowed."""
    query = select(PhaseRun).where(holds(pod_uid, fence))
    if not ended:
        query = query.where(PhaseRun.state == RunState.RUNNING)
    run = await session.scalar(query)
    if run is None:
        raise superseded()
    return run


def of_flow(flow_id: UUID, digest: str) -> Select[tuple[Artefact]]:
    """An artefact that the flow refers to: by an attempt, or as the uploaded source of its spec."""
    referred = exists().where(
        FlowArtefact.tenant_id == Artefact.tenant_id,
        FlowArtefact.digest == Artefact.digest,
        FlowArtefact.flow_id == flow_id,
    )
    named = exists().where(
        DiscoveryFlowRow.flow_id == flow_id,
        DiscoveryFlowRow.spec["source"]["artefact"]["digest"].as_string() == digest,
    )
    return select(Artefact).where(Artefact.digest == digest, referred | named)


async def require_artefact(session: AsyncSession, flow_id: UUID, digest: str) -> None:
    """Keeps it until the transaction ends. Who names another flow's bytes must not get at them."""
    found = await session.scalar(
        of_flow(flow_id, digest).with_for_update(read=True, key_share=True, of=Artefact)
    )
    if found is None:
        raise DiscoveryError(
            ErrorCode.INVALID_RESULT,
            f"artefact {digest} was not uploaded for this flow; upload it first",
        )
