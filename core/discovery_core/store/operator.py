"""The store as the operator uses it: all tenants of its own cluster, fenced by its epoch.

Each write is one short transaction that locks the flow, re-reads it and either makes one legal
step or finds it made already. That is what makes every action of the operator repeatable.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from datetime import datetime
from typing import NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from ..errors import ErrorCode
from ..phases import Phase
from ..resource import DiscoveryFlowSpec
from ..resource_gate import MappingEdit, Rerun
from ..snapshots import Capacity, FlowSnapshot
from ..states import FlowState, Trigger, is_ended
from . import attempts, blobs, breakers, flow_steps, gate, leadership, notifications, rounds
from .database import ClusterScope, Database
from .figures import Figures, TokenUse, read_figures, tokens_since, tokens_until
from .listener import listen
from .records import drop_staged
from .schema import DiscoveryFlowRow, MasterFlow, Tenant
from .snapshot import flow_now, flow_snapshot
from .transition import database_now

T = TypeVar("T")
ENDED = [str(state) for state in FlowState if is_ended(state)]
# named one by one, because "not ended" would have the database read every finished flow
OPEN = [str(state) for state in FlowState if not is_ended(state)]


class OpenFlow(NamedTuple):
    """A flow that the sweep has to look at.

    `due` is its earliest database timer; `version` tells whether it has changed since last time.
    """

    flow_id: UUID
    namespace: str
    name: str
    due: datetime | None = None
    version: int = 0


class Look(NamedTuple):
    """What one reconciliation starts from. `capacity` is given for a flow that is due to start."""

    now: datetime
    flow: FlowSnapshot | None
    capacity: Capacity | None


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
        return await self.db.run(ClusterScope(self.cluster_id), work)

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
            found = await flow_now(session, flow_id)
            if found is None:
                return Look(await database_now(session), None, None)
            now, flow = found
            if flow.state is not FlowState.QUEUED:
                return Look(now, flow, None)
            if flow.not_before is not None and flow.not_before > now:
                return Look(now, flow, None)
            return Look(now, flow, await attempts.capacity(session, flow, limits, passed_over))

        return await self._read(work)

    async def open_flows(self) -> list[OpenFlow]:
        """All flows that have not ended, for the sweep."""
        return await self._read(lambda session: _flows(session, ended=False))

    async def undeleted_ended_flows(self) -> list[OpenFlow]:
        """Ended flows whose resource was still there when last seen."""
        return await self._read(lambda session: _flows(session, ended=True))

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

    # -- the flow ------------------------------------------------------------------------------

    async def register(
        self,
        *,
        flow_id: UUID,
        tenant_id: UUID,
        namespace: str,
        name: str,
        spec: DiscoveryFlowSpec,
        generation: int,
        actor: str,
        created_at: datetime | None = None,
    ) -> FlowSnapshot:
        """Creates master flow, flow and first history row together, or finds them there.

        `created_at` is when the resource was created, by the cluster's clock.
        """
        return await self._write(
            lambda session: flow_steps.register(
                session,
                self.cluster_id,
                flow_id=flow_id,
                tenant_id=tenant_id,
                namespace=namespace,
                name=name,
                spec=spec,
                generation=generation,
                actor=actor,
                created_at=created_at,
            )
        )

    async def update_spec(self, flow_id: UUID, spec: DiscoveryFlowSpec, generation: int) -> None:
        """Stores a newer spec; llm, retries and timeouts apply from the next attempt on."""
        await self._write(
            lambda session: flow_steps.update_spec(session, flow_id, spec, generation)
        )

    async def admit(self, flow_id: UUID) -> None:
        """Pending → Queued: everything that the spec names is there."""
        await self._write(
            lambda session: flow_steps.step(session, flow_id, Trigger.ADMITTED, FlowState.PENDING)
        )

    async def reference_found(self, flow_id: UUID) -> None:
        """Waiting → Queued: what was missing has appeared."""
        await self._write(
            lambda session: flow_steps.step(
                session, flow_id, Trigger.REFERENCE_FOUND, FlowState.WAITING
            )
        )

    async def reference_missing(self, flow_id: UUID, missing: list[str]) -> None:
        """→ Waiting, or a changed list of what a Waiting flow waits for."""
        await self._write(lambda session: flow_steps.reference_missing(session, flow_id, missing))

    async def suspend(self, flow_id: UUID) -> None:
        """→ Suspended. The live attempt is superseded; an open request stays open."""
        await self._write(lambda session: flow_steps.suspend(session, flow_id))

    async def resume(self, flow_id: UUID) -> None:
        """Suspended → AwaitingApproval where a request is open, else → Queued.

        A request's deadline moves by the time that the flow was suspended.
        """
        await self._write(lambda session: flow_steps.resume(session, flow_id))

    async def cancel(self, flow_id: UUID, actor: str = flow_steps.ACTOR) -> None:
        """→ Cancelled, for good."""
        await self._write(lambda session: flow_steps.cancel(session, flow_id, actor))

    async def mark_deleted(self, flow_id: UUID) -> None:
        """The resource is gone: ends the flow and lets go of its artefacts. History stays."""
        await self._write(lambda session: flow_steps.mark_deleted(session, flow_id))

    # -- attempts ------------------------------------------------------------------------------

    async def start_attempt(
        self,
        flow_id: UUID,
        *,
        round: int,  # noqa: A002 - the field's own word
        phase: Phase,
        attempt: int,
        job_name: str,
        launch_timeout: float,
        limits: tuple[int, int] | None = None,
    ) -> UUID | None:
        """Queued → Running: commits the intent to run a Job. Returns the attempt's id.

        The same intent again returns the same id. None where `limits` (in all, per tenant) leave
        no slot; slots are handed out one at a time, so the caps hold.
        """
        return await self._write(
            lambda session: attempts.start(
                session,
                self.cluster_id,
                flow_id,
                round=round,
                phase=phase,
                attempt=attempt,
                job_name=job_name,
                launch_timeout=launch_timeout,
                limits=limits,
            )
        )

    async def mark_launched(self, run_id: UUID, flow_id: UUID, job_uid: str) -> None:
        """Records the Job's uid; only that Job's pod may claim the attempt."""
        await self._write(lambda session: attempts.mark_launched(session, flow_id, run_id, job_uid))

    async def fail_attempt(
        self,
        flow_id: UUID,
        run_id: UUID,
        *,
        code: ErrorCode,
        message: str,
        retry_delay: float | None,
        counted: bool = True,
    ) -> None:
        """Ends the current attempt: → Queued after `retry_delay` seconds, or → Failed with None.

        An attempt that has been dealt with already is left alone.
        """
        await self._write(
            lambda session: attempts.fail(
                session,
                flow_id,
                run_id,
                code=code,
                message=message,
                retry_delay=retry_delay,
                counted=counted,
            )
        )

    # -- the gate ------------------------------------------------------------------------------

    async def answer(
        self,
        flow_id: UUID,
        *,
        request_id: UUID,
        artefact_digest: str,
        decision: str,
        edits: list[MappingEdit],
        reason: str,
        decided_by: str,
        via: str,
        hint: str | None = None,
    ) -> None:
        """Decides the open request.

        Raises SupersededError for a late or stale answer, InvalidAnswerError for bad edits.
        """
        await self._write(
            lambda session: gate.answer(
                session,
                flow_id,
                request_id=request_id,
                artefact_digest=artefact_digest,
                decision=decision,
                edits=edits,
                reason=reason,
                decided_by=decided_by,
                via=via,
                hint=hint,
            )
        )

    async def approve_by_policy(self, flow_id: UUID, request_id: UUID) -> None:
        """Approves a request whose frozen policy is AutoApprove; recorded as the policy's."""
        await self._write(lambda session: gate.approve_by_policy(session, flow_id, request_id))

    async def rerun(self, flow_id: UUID, wanted: Rerun) -> None:
        """Begins the round that spec.rerun asks for, once per id."""
        await self._write(lambda session: rounds.rerun(session, flow_id, wanted))

    async def refuse_answer(
        self, flow_id: UUID, *, request_id: UUID, problems: list[str], decided_by: str
    ) -> UUID | None:
        """Closes the request whose answer was bad and opens a new one; returns its id."""
        return await self._write(
            lambda session: gate.refuse(
                session, flow_id, request_id=request_id, problems=problems, decided_by=decided_by
            )
        )

    async def note(self, flow_id: UUID, message: str) -> None:
        """Remembers why an answer was not taken, once per message."""
        await self._write(lambda session: gate.note(session, flow_id, message))

    async def expire_request(self, flow_id: UUID, request_id: UUID) -> None:
        """Applies the frozen policy's onTimeout where the deadline has really passed."""
        await self._write(lambda session: gate.expire(session, flow_id, request_id))

    # -- notifications -------------------------------------------------------------------------

    async def due_notifications(self, limit: int) -> list[notifications.Due]:
        """Messages to webhooks whose time has come, the oldest first."""
        return await self._read(lambda session: notifications.due(session, limit))

    async def settle_notification(
        self,
        message: notifications.Due,
        *,
        state: str,
        problem: str = "",
        retry_seconds: float | None = None,
    ) -> None:
        """Writes what became of a try; with `retry_seconds` it is tried again after that time."""
        await self._write(
            lambda session: notifications.settle(
                session, message, state=state, problem=problem, retry_seconds=retry_seconds
            )
        )

    # -- upkeep --------------------------------------------------------------------------------

    async def collect_garbage(self) -> int:
        """Removes artefacts and staged rows that nobody refers to. Returns how many artefacts."""

        async def work(session: AsyncSession) -> int:
            await drop_staged(session)
            return await blobs.collect(session)

        return await self._write(work)


async def _flows(session: AsyncSession, *, ended: bool) -> list[OpenFlow]:
    state = DiscoveryFlowRow.state
    rows = await session.execute(
        select(
            DiscoveryFlowRow.flow_id,
            Tenant.namespace,
            MasterFlow.name,
            DiscoveryFlowRow.not_before,
            DiscoveryFlowRow.version,
        )
        .join(MasterFlow, MasterFlow.flow_id == DiscoveryFlowRow.flow_id)
        .join(Tenant, Tenant.id == DiscoveryFlowRow.tenant_id)
        .where(
            MasterFlow.deleted_at.is_(None),
            state.in_(ENDED if ended else OPEN),
        )
        .order_by(DiscoveryFlowRow.state_since)
    )
    return [OpenFlow(*row) for row in rows.tuples()]
