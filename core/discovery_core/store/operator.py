"""The store as the operator uses it: all tenants of its own cluster, fenced by its epoch.

Each write is one short transaction that locks the flow, re-reads it and either makes one legal
step or finds it made already. That is what makes every action of the operator repeatable.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from typing import NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from ..actions import Move, Register, StartAttempt
from ..snapshots import Capacity, FlowSnapshot
from ..states import FlowState, is_ended
from . import leadership
from .artefacts import blobs
from .database import ClusterScope, Database, database_now
from .inventory.records import drop_staged
from .ledger import outbox
from .ledger.snapshot import flow_now, flow_snapshot
from .listener import listen
from .moves import attempts, breakers, queue, steps
from .moves.apply import apply
from .reads.figures import Figures, TokenUse, read_figures, tokens_since, tokens_until
from .schema import ApprovalRequestRow, DiscoveryFlowRow, MasterFlow

T = TypeVar("T")


class Garbage(NamedTuple):
    """How many artefacts a collection has removed, and whether there may be more to remove."""

    artefacts: int
    left: bool


STAGED_AT_ONCE = 5000
ENDED = [str(state) for state in FlowState if is_ended(state)]
# named one by one, because "not ended" would have the database read every finished flow
OPEN = [str(state) for state in FlowState if not is_ended(state)]


class Version(NamedTuple):
    """A flow, and the version of its row, which tells whether it has changed since last time."""

    flow_id: UUID
    version: int


class Look(NamedTuple):
    """What one reconciliation starts from. `capacity` is given for a flow that is due to start.

    `admitted` is how many flows of the tenant are open beyond Pending and Waiting, given for one
    that is Pending or Waiting itself.
    """

    now: datetime
    flow: FlowSnapshot | None
    capacity: Capacity | None
    admitted: int = 0


class OperatorStore:
    """State as the operator of one cluster reads and changes it.

    `epoch` is set by `acquire_leadership`; without it every write raises SupersededError.
    Leadership has connections of its own where `leadership_db` is given: it must not wait for one
    that a slow write has.
    """

    def __init__(
        self, db: Database, cluster_id: UUID, leadership_db: Database | None = None
    ) -> None:
        self.db = db
        self._leadership_db = leadership_db or db
        self.cluster_id = cluster_id
        self.epoch: int | None = None

    # -- scope ---------------------------------------------------------------------------------

    async def _read(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        return await self.db.read(ClusterScope(self.cluster_id), work)

    async def _write(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        epoch = -1 if self.epoch is None else self.epoch
        return await self.db.run(ClusterScope(self.cluster_id, epoch), work)

    # -- leadership ----------------------------------------------------------------------------

    async def acquire_leadership(self, holder: str, ttl: float) -> int | None:
        """Takes or renews leadership for `ttl` seconds; None while another holder has it."""
        self.epoch = await self._leadership_db.run(
            ClusterScope(self.cluster_id),
            lambda session: leadership.acquire(session, self.cluster_id, holder, ttl),
        )
        return self.epoch

    async def release_leadership(self, holder: str) -> None:
        """Gives leadership up at once."""
        self.epoch = None
        await self._leadership_db.run(
            ClusterScope(self.cluster_id),
            lambda session: leadership.release(session, self.cluster_id, holder),
        )

    # -- reads ---------------------------------------------------------------------------------

    async def now(self) -> datetime:
        """The database's clock."""
        return await self._read(database_now)

    async def load(self, flow_id: UUID) -> FlowSnapshot | None:
        """The flow, its current attempt and its open request."""
        return await self._read(lambda session: flow_snapshot(session, flow_id))

    async def look(
        self, flow_id: UUID, limits: tuple[int, int], passed_over: Collection[UUID] = ()
    ) -> Look:
        """Clock, flow and, where it is due in the queue, the free slots, in one transaction.

        Other flows that are `passed_over` have no turn before it.
        """

        async def work(session: AsyncSession) -> Look:
            row = await flow_now(session, flow_id)
            if row is None:
                return Look(await database_now(session), None, None)
            now, flow = row
            if flow.state in (FlowState.PENDING, FlowState.WAITING):
                return Look(now, flow, None, await attempts.admitted(session, flow.tenant_id))
            if flow.state is not FlowState.QUEUED:
                return Look(now, flow, None)
            if flow.not_before is not None and flow.not_before > now:
                return Look(now, flow, None)
            found = await queue.capacity(session, flow.tenant_id, flow_id, limits, passed_over)
            return Look(now, flow, found)

        return await self._read(work)

    async def startable(
        self, limits: tuple[int, int], passed_over: Collection[UUID] = ()
    ) -> list[UUID]:
        """Flows of the queue that may start now, see `queue.startable`."""
        return await self._read(lambda session: queue.startable(session, limits, passed_over))

    async def open_flows(self) -> list[Version]:
        """All flows that have not ended."""
        return await self._read(lambda session: _flows(session, DiscoveryFlowRow.state.in_(OPEN)))

    async def undeleted_ended_flows(self) -> list[Version]:
        """Ended flows whose resource was still there when last seen."""
        return await self._read(lambda session: _flows(session, DiscoveryFlowRow.state.in_(ENDED)))

    async def changed_flows(self, seconds: float) -> list[Version]:
        """Flows that have changed within so many seconds, by the database's clock."""
        # not clock_timestamp(), which changes from row to row, so that no index would do
        since = func.now() - timedelta(seconds=seconds)
        return await self._read(
            lambda session: _flows(session, DiscoveryFlowRow.updated_at >= since)
        )

    async def requests_expiring(self, seconds: float) -> list[UUID]:
        """Flows whose open request expires within so many seconds, or has expired."""
        return await self._read(lambda session: _expiring(session, seconds))

    async def figures(self) -> Figures:
        """Counts and ages of what is open, for metrics."""
        return await self._read(read_figures)

    async def tokens_until(self, until: datetime) -> tuple[int, int]:
        """Prompt and completion tokens of all attempts that had ended by then."""
        return await self._read(lambda session: tokens_until(session, until))

    async def tokens_since(self, since: datetime) -> list[TokenUse]:
        """Token use of each attempt that ended after that moment."""
        return await self._read(lambda session: tokens_since(session, since))

    async def breaker_counts(self) -> dict[tuple[str, str], int]:
        """Circuit breakers by endpoint and state, for metrics."""
        return await self._read(breakers.breaker_counts)

    def listen(self, looked_after: Callable[[UUID], bool]) -> AsyncIterator[UUID | None]:
        """Ids of flows that changed; None after each (re)connection, which means: rescan.

        What this process wrote itself is left out where `looked_after` says that whoever wrote it
        will look at the flow again anyway.
        """
        return listen(
            self.db.url, lambda flow_id, pid: pid in self.db.backends and looked_after(flow_id)
        )

    # -- moves ---------------------------------------------------------------------------------

    async def apply(self, flow_id: UUID, action: Move) -> None:
        """Makes one move of a flow, see `moves.apply`."""
        await self._write(lambda session: apply(session, flow_id, action))

    async def register(
        self,
        action: Register,
        *,
        flow_id: UUID,
        tenant_id: UUID,
        namespace: str,
        name: str,
        created_at: datetime | None = None,
    ) -> FlowSnapshot:
        """Creates master flow, flow and first history row together, or finds them there.

        `created_at` is when the resource was created, by the cluster's clock.
        """
        return await self._write(
            lambda session: steps.register(
                session,
                self.cluster_id,
                action,
                flow_id=flow_id,
                tenant_id=tenant_id,
                namespace=namespace,
                name=name,
                created_at=created_at,
            )
        )

    async def start_attempt(
        self, flow_id: UUID, wanted: StartAttempt, limits: tuple[int, int] | None = None
    ) -> UUID | None:
        """Queued → Running, see `attempts.start`."""
        return await self._write(
            lambda session: attempts.start(session, self.cluster_id, flow_id, wanted, limits)
        )

    async def mark_launched(self, run_id: UUID, flow_id: UUID, job_uid: str) -> None:
        """Records the Job's uid; only that Job's pod may claim the attempt."""
        await self._write(lambda session: attempts.mark_launched(session, flow_id, run_id, job_uid))

    # -- notifications -------------------------------------------------------------------------

    async def due_notifications(self, limit: int) -> list[outbox.Due]:
        """Messages to webhooks whose time has come, the oldest first."""
        return await self._read(lambda session: outbox.due(session, limit))

    async def settle_notification(
        self,
        message: outbox.Due,
        *,
        state: str,
        problem: str = "",
        retry_seconds: float | None = None,
    ) -> None:
        """Writes what became of a try; with `retry_seconds` it is tried again after that time."""
        await self._write(
            lambda session: outbox.settle(
                session, message, state=state, problem=problem, retry_seconds=retry_seconds
            )
        )

    # -- upkeep --------------------------------------------------------------------------------

    async def collect_garbage(
        self, tenant_id: UUID | None = None, steps: int | None = None
    ) -> Garbage:
        """Removes staged rows and artefacts that nobody refers to; of one tenant: artefacts only.

        In so many steps at most, each a short transaction: what is broken off has been done so far.
        """
        removed = 0
        for _ in count() if steps is None else range(steps):
            step = await self._write(partial(_collect, tenant_id=tenant_id))
            if step is None:
                return Garbage(removed, left=False)
            removed += step
        return Garbage(removed, left=True)


async def _collect(session: AsyncSession, tenant_id: UUID | None) -> int | None:
    """One step of the collection; how many artefacts it has removed, None where nothing is left."""
    if tenant_id is None and await drop_staged(session, STAGED_AT_ONCE):
        return 0
    step = await blobs.collect(session, tenant_id)
    return step.artefacts if any(step) else None


async def _flows(session: AsyncSession, chosen: ColumnElement[bool]) -> list[Version]:
    rows = await session.execute(
        select(DiscoveryFlowRow.flow_id, DiscoveryFlowRow.version)
        .join(MasterFlow, MasterFlow.flow_id == DiscoveryFlowRow.flow_id)
        .where(MasterFlow.deleted_at.is_(None), chosen)
        .order_by(DiscoveryFlowRow.state_since)
    )
    return [Version(*row) for row in rows.tuples()]


async def _expiring(session: AsyncSession, seconds: float) -> list[UUID]:
    until = func.now() + timedelta(seconds=seconds)
    found = await session.scalars(
        select(ApprovalRequestRow.flow_id).where(
            ApprovalRequestRow.state == "Open", ApprovalRequestRow.expires_at <= until
        )
    )
    return list(found)
