"""What a deleted flow leaves behind: its rows leave the inventory, its data goes, history stays.

That costs what there is, so none of it happens in the transaction that ends the flow: the register
remembers what is still to be done, and the leading operator does it in short steps. The inventory
is derived anew first, so that it never shows a flow of which some rows are gone already.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from ...phases import Phase
from ...states import RunState, is_ended
from ..artefacts import blobs
from ..inventory.records import drop_rows_of
from ..ledger.transition import lock_flow
from ..schema import MasterFlow, PhaseRun, Purge


class Inventory(NamedTuple):
    """The inventory of an engagement; without one, that of the namespace's other flows."""

    tenant_id: UUID
    engagement: str | None


class Deleted(NamedTuple):
    """A flow whose data is to go. `counts`: its rows were part of the inventory."""

    inventory: Inventory
    flow_id: UUID
    counts: bool


_ACCEPTED = (PhaseRun.phase == Phase.ASSET_INVENTORY, PhaseRun.state == RunState.SUCCEEDED)


async def deleted_flows(session: AsyncSession, limit: int) -> list[Deleted]:
    """Deleted flows that something is left of, the first one first."""
    accepted = exists().where(
        PhaseRun.tenant_id == MasterFlow.tenant_id,
        PhaseRun.flow_id == MasterFlow.flow_id,
        *_ACCEPTED,
    )
    rows = await session.execute(
        select(
            MasterFlow.tenant_id,
            MasterFlow.engagement,
            MasterFlow.flow_id,
            accepted,
            MasterFlow.retired_at,
        )
        .where(MasterFlow.deleted_at.is_not(None), MasterFlow.released_at.is_(None))
        .order_by(MasterFlow.deleted_at)
        .limit(limit)
    )
    return [
        Deleted(Inventory(tenant_id, engagement), flow_id, has and retired_at is None)
        for tenant_id, engagement, flow_id, has, retired_at in rows.tuples()
    ]


async def release(session: AsyncSession, tenant_id: UUID, flow_id: UUID, limit: int) -> bool:
    """Removes up to `limit` rows of a deleted flow, then its claims on files. True: all are gone.

    The rows that the inventory keeps of a flow whose time was over (`retired_at`) stay.
    """
    of_flow = (MasterFlow.tenant_id == tenant_id, MasterFlow.flow_id == flow_id)
    retired_at = await session.scalar(select(MasterFlow.retired_at).where(*of_flow))
    if await drop_rows_of(session, tenant_id, flow_id, limit, accepted=retired_at is None):
        return False
    if await blobs.let_go(session, tenant_id, flow_id, limit):
        return False
    await session.execute(
        update(MasterFlow)
        .where(*of_flow, MasterFlow.deleted_at.is_not(None))
        .values(released_at=func.clock_timestamp())
    )
    return True


async def begin_purge(session: AsyncSession, tenant_id: UUID, purge_id: UUID) -> Deleted | None:
    """From here on nothing more happens to the flow that is to be purged.

    Returns the flow where its rows are to leave the inventory; None also where it has gone on,
    which the purge itself will find and say.
    """
    found = (
        await session.execute(
            select(Purge.flow_id, Purge.inventory, Purge.requested_at).where(
                Purge.tenant_id == tenant_id, Purge.id == purge_id, Purge.finished_at.is_(None)
            )
        )
    ).one_or_none()
    if found is None or found.flow_id is None:
        return None
    flow = await lock_flow(session, found.flow_id)
    gone_on = not is_ended(flow.state) or flow.state_since > found.requested_at
    if gone_on or flow.purged_at is not None:
        return None
    flow.purging = True
    if not found.inventory:
        return None
    await session.execute(
        update(PhaseRun)
        .where(PhaseRun.tenant_id == tenant_id, PhaseRun.flow_id == flow.flow_id, *_ACCEPTED)
        .values(state=RunState.SUPERSEDED)
    )
    master = await session.get_one(MasterFlow, (tenant_id, flow.flow_id))
    return Deleted(Inventory(tenant_id, master.engagement), flow.flow_id, counts=True)
