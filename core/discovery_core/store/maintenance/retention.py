"""How long data stays: what is due to go, and its removal in small, audited steps.

The rows are removed by functions of the database's owner, which check the leader's epoch, the age
and the flow's state themselves: no application role may delete history. A step is one short
transaction, so a purge that is broken off goes on where it was, under whichever leader.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from ...errors import IllegalTransitionError, NotFoundError
from ...states import is_ended
from ..database import ClusterScope
from ..inventory.assets import Changes, drop_own_assets, rebuild_assets
from ..operator import ENDED, OperatorStore
from ..schema import DiscoveryFlowRow, MasterFlow, Purge, Tenant
from .deleted import Deleted, Inventory, begin_purge, deleted_flows, release

T = TypeVar("T")
BATCH_ROWS = 5000
SHORTEST = timedelta(hours=1)


@dataclass(frozen=True)
class PurgeRecord:
    """The audit record of a purge. `flow_id` is None where a whole tenant went."""

    purge_id: UUID
    flow_id: UUID | None
    flow_name: str
    reason: str
    requested_by: str
    requested_at: datetime
    inventory: bool
    outcome: str
    problem: str
    finished_at: datetime | None
    removed: dict[str, int]
    summary: dict[str, Any]


class PurgeKey(NamedTuple):
    """A purge that is to be carried out."""

    tenant_id: UUID
    purge_id: UUID


class KnownTenant(NamedTuple):
    """A namespace that has data; `gone_since` is when it was first missed."""

    tenant_id: UUID
    namespace: str
    gone_since: datetime | None


class PurgedResource(NamedTuple):
    """A flow without data whose resource was still there when last seen."""

    flow_id: UUID
    namespace: str
    name: str


def _record(row: Purge) -> PurgeRecord:
    return PurgeRecord(
        purge_id=row.id,
        flow_id=row.flow_id,
        flow_name=row.flow_name,
        reason=row.reason,
        requested_by=row.requested_by,
        requested_at=row.requested_at,
        inventory=row.inventory,
        outcome=row.outcome,
        problem=row.problem,
        finished_at=row.finished_at,
        removed=dict(row.removed),
        summary=dict(row.summary),
    )


async def request_purge(
    session: AsyncSession, tenant_id: UUID, flow_id: UUID, *, by: str, inventory: bool
) -> PurgeRecord:
    """Writes down that a person wants a flow's data gone; the leading operator carries it out.

    Asked again while it is under way, it is the same purge. Raises NotFoundError, and
    IllegalTransitionError where the flow has not ended or has no data any more.
    """
    found = (
        await session.execute(
            select(DiscoveryFlowRow, MasterFlow.name)
            .join(MasterFlow, MasterFlow.flow_id == DiscoveryFlowRow.flow_id)
            .where(DiscoveryFlowRow.flow_id == flow_id)
        )
    ).one_or_none()
    if found is None:
        raise NotFoundError(f"no flow {flow_id}")
    flow, name = found
    if not is_ended(flow.state):
        raise IllegalTransitionError(f"the flow is {flow.state}; cancel it first")
    if flow.purged_at is not None:
        raise IllegalTransitionError("the flow's data was purged already")
    await session.execute(
        insert(Purge)
        .values(
            tenant_id=tenant_id,
            flow_id=flow_id,
            flow_name=name,
            requested_by=by,
            inventory=inventory,
        )
        .on_conflict_do_nothing()
    )
    row = await session.scalar(
        select(Purge).where(Purge.flow_id == flow_id, Purge.finished_at.is_(None))
    )
    if row is None:
        raise IllegalTransitionError("the flow's data was purged just now")
    return _record(row)


async def purges(session: AsyncSession, flow_id: UUID) -> list[PurgeRecord]:
    """The purges of a flow, the oldest first."""
    rows = await session.scalars(
        select(Purge).where(Purge.flow_id == flow_id).order_by(Purge.requested_at)
    )
    return [_record(row) for row in rows]


class RetentionStore:
    """What the leading operator needs to let data go. Every write is fenced by its epoch."""

    def __init__(self, operator: OperatorStore) -> None:
        self._operator = operator

    async def _run(self, work: Callable[[AsyncSession, int], Awaitable[T]]) -> T:
        epoch = -1 if self._operator.epoch is None else self._operator.epoch
        scope = ClusterScope(self._operator.cluster_id, epoch)
        return await self._operator.db.run(scope, lambda session: work(session, epoch))

    # -- namespaces ----------------------------------------------------------------------------

    async def tenants(self) -> list[KnownTenant]:
        """The namespaces that have data here."""

        async def work(session: AsyncSession, _: int) -> list[KnownTenant]:
            rows = await session.execute(
                select(Tenant.id, Tenant.namespace, Tenant.gone_since)
                .where(Tenant.purged_at.is_(None))
                .order_by(Tenant.id)
            )
            return [KnownTenant(*row) for row in rows.tuples()]

        return await self._run(work)

    async def mark_gone(self, tenant_id: UUID, *, gone: bool) -> None:
        """Remembers since when the namespace is missing, or that it is there."""

        async def work(session: AsyncSession, _: int) -> None:
            await session.execute(
                update(Tenant)
                .where(Tenant.id == tenant_id, Tenant.gone_since.is_(None) == gone)
                .values(gone_since=func.clock_timestamp() if gone else None)
            )

        await self._run(work)

    async def gone_tenants(self, keep: timedelta) -> list[KnownTenant]:
        """Namespaces that have been missing for longer than `keep`, by the database's clock."""

        async def work(session: AsyncSession, _: int) -> list[KnownTenant]:
            rows = await session.execute(
                select(Tenant.id, Tenant.namespace, Tenant.gone_since).where(
                    Tenant.purged_at.is_(None), Tenant.gone_since <= func.clock_timestamp() - keep
                )
            )
            return [KnownTenant(*row) for row in rows.tuples()]

        return await self._run(work)

    async def retire_tenant(self, tenant_id: UUID, keep: timedelta) -> bool:
        """Begins the purge of a namespace that is gone; False where it is not due."""

        async def work(session: AsyncSession, epoch: int) -> bool:
            made = await session.scalar(
                text("SELECT retire_tenant(:tenant, :epoch, :seconds)"),
                {"tenant": tenant_id, "epoch": epoch, "seconds": keep.total_seconds()},
            )
            return made is not None

        return await self._run(work)

    # -- flows ---------------------------------------------------------------------------------

    async def retire_flows(self, keep: timedelta | None, limit: int) -> int:
        """Begins the purge of flows whose time is over. Returns how many.

        Their own time (`spec.retention`) counts; where they have none, `keep` (None: for ever).
        """
        seconds = None if keep is None else keep.total_seconds()
        begun = 0
        for tenant_id, flow_id in await self._run(
            lambda session, _: _due_flows(session, seconds, limit)
        ):
            begun += await self._retire_flow(tenant_id, flow_id, seconds)
        return begun

    async def _retire_flow(self, tenant_id: UUID, flow_id: UUID, seconds: float | None) -> bool:
        async def work(session: AsyncSession, epoch: int) -> bool:
            made = await session.scalar(
                text("SELECT retire_flow(:tenant, :flow, :epoch, CAST(:seconds AS float8))"),
                {"tenant": tenant_id, "flow": flow_id, "epoch": epoch, "seconds": seconds},
            )
            return made is not None

        return await self._run(work)

    async def purged_resources(self, limit: int) -> list[PurgedResource]:
        """Flows whose retention is over and whose resource has not been seen to go."""

        async def work(session: AsyncSession, _: int) -> list[PurgedResource]:
            rows = await session.execute(
                select(MasterFlow.flow_id, Tenant.namespace, MasterFlow.name)
                .join(DiscoveryFlowRow, DiscoveryFlowRow.flow_id == MasterFlow.flow_id)
                .join(Tenant, Tenant.id == MasterFlow.tenant_id)
                .join(Purge, Purge.flow_id == MasterFlow.flow_id)
                .where(
                    DiscoveryFlowRow.purged_at.is_not(None),
                    MasterFlow.deleted_at.is_(None),
                    Purge.reason == "Retention",
                    Purge.outcome == "Done",
                )
                .limit(limit)
            )
            return [PurgedResource(*row) for row in rows.tuples()]

        return await self._run(work)

    async def mark_retired(self, flow_id: UUID) -> None:
        """Remembers that a flow's resource goes because its time is over, not by people's wish.

        Its rows stay in the inventory, as after every purge by age.
        """

        async def work(session: AsyncSession, _: int) -> None:
            await session.execute(
                update(MasterFlow)
                .where(MasterFlow.flow_id == flow_id, MasterFlow.deleted_at.is_(None))
                .values(retired_at=func.clock_timestamp())
            )

        await self._run(work)

    # -- what deleted flows leave behind -------------------------------------------------------

    async def deleted_flows(self, limit: int) -> list[Deleted]:
        """Deleted flows that something but their history is left of."""
        return await self._run(lambda session, _: deleted_flows(session, limit))

    async def drop_assets_batch(
        self, inventory: Inventory, flows: Sequence[UUID], after: str, rows: int = BATCH_ROWS
    ) -> str | None:
        """Looks at the next `rows` assets for some that only these flows know, see there."""
        return await self._run(
            lambda session, _: drop_own_assets(session, *inventory, flows, after=after, limit=rows)
        )

    async def rebuild_inventory(self, inventory: Inventory) -> Changes:
        """Derives an inventory anew, in a transaction that holds no flow's lock."""
        return await self._run(lambda session, _: rebuild_assets(session, *inventory))

    async def release_batch(self, flow: Deleted, rows: int = BATCH_ROWS) -> bool:
        """Removes up to `rows` rows of what a deleted flow has left. True when nothing is left."""
        return await self._run(
            lambda session, _: release(session, flow.inventory.tenant_id, flow.flow_id, rows)
        )

    # -- the removal ---------------------------------------------------------------------------

    async def begin_purge(self, key: PurgeKey) -> Deleted | None:
        """Before the first batch: the flow goes on no more, and which inventory loses its rows."""
        return await self._run(lambda session, _: begin_purge(session, *key))

    async def unfinished(self, limit: int) -> list[PurgeKey]:
        """Purges that are to be carried out, a flow's before its namespace's, the oldest first."""

        async def work(session: AsyncSession, _: int) -> list[PurgeKey]:
            rows = await session.execute(
                select(Purge.tenant_id, Purge.id)
                .where(Purge.finished_at.is_(None))
                .order_by(Purge.flow_id.is_(None), Purge.requested_at)
                .limit(limit)
            )
            return [PurgeKey(*row) for row in rows.tuples()]

        return await self._run(work)

    async def purge_batch(self, key: PurgeKey, rows: int = BATCH_ROWS) -> bool:
        """Removes up to `rows` rows of a purge. True when it is finished (or refused)."""

        async def work(session: AsyncSession, epoch: int) -> bool:
            finished = await session.scalar(
                text("SELECT purge_batch(:tenant, :purge, :epoch, :rows)"),
                {"tenant": key.tenant_id, "purge": key.purge_id, "epoch": epoch, "rows": rows},
            )
            return bool(finished)

        return await self._run(work)

    async def purge(self, purge_id: UUID) -> PurgeRecord:
        """The audit record. Raises NotFoundError."""

        async def work(session: AsyncSession, _: int) -> PurgeRecord:
            row = await session.scalar(select(Purge).where(Purge.id == purge_id))
            if row is None:
                raise NotFoundError(f"no purge {purge_id}")
            return _record(row)

        return await self._run(work)


async def _due_flows(
    session: AsyncSession, keep: float | None, limit: int
) -> list[tuple[UUID, UUID]]:
    """Tenant and flow of what ended longer ago than its own time, else than `keep` seconds.

    `keep` None: only those with a time of their own.
    """
    asked = select(Purge.flow_id).where(Purge.finished_at.is_(None), Purge.flow_id.is_not(None))
    own = DiscoveryFlowRow.retention_seconds
    due: list[tuple[UUID, UUID]] = []
    for applies, seconds in ((own.is_(None), keep), (own.is_not(None), own)):
        if seconds is None:
            continue
        rows = await session.execute(
            select(DiscoveryFlowRow.tenant_id, DiscoveryFlowRow.flow_id)
            .where(
                DiscoveryFlowRow.purged_at.is_(None),
                DiscoveryFlowRow.state.in_(ENDED),
                applies,
                # not clock_timestamp: what may change within a statement is not looked up
                DiscoveryFlowRow.state_since
                <= func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds),
                DiscoveryFlowRow.flow_id.not_in(asked),
            )
            .order_by(DiscoveryFlowRow.state_since)
            .limit(limit)
        )
        due += rows.tuples()
    return due[:limit]
