"""The store as the operator uses it: all tenants of its own cluster, fenced by its epoch.

Each write is one short transaction that locks the flow, re-reads it and either makes one legal
step or finds it made already. That is what makes every action of the operator repeatable.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar
from uuid import UUID, uuid4

from sqlalchemy import delete, exists, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from ..errors import ErrorCode
from ..phases import FIRST_PHASE, Phase
from ..resource import DiscoveryFlowSpec, MappingEdit
from ..snapshots import Capacity, FlowSnapshot
from ..states import FlowState, Occurrence, RunState, Trigger, is_ended
from . import blobs, gate, leadership
from .database import ClusterScope, Database
from .listener import listen
from .schema import (
    LIVE_RUN_STATES,
    Cluster,
    DiscoveryFlowRow,
    FlowArtefact,
    MasterFlow,
    PhaseRun,
    Record,
    Tenant,
)
from .snapshot import flow_snapshot
from .transition import (
    append_event,
    database_now,
    end_live_run,
    live_run,
    lock_flow,
    open_request,
    transition,
)

T = TypeVar("T")
ACTOR = "operator"
ENDED = [str(state) for state in FlowState if is_ended(state)]


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
    """

    def __init__(self, db: Database, cluster_id: UUID) -> None:
        self.db = db
        self.cluster_id = cluster_id
        self.epoch: int | None = None

    # -- scope ---------------------------------------------------------------------------------

    async def _read(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        return await self.db.run(ClusterScope(self.cluster_id), work)

    async def _write(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        epoch = -1 if self.epoch is None else self.epoch
        return await self.db.run(ClusterScope(self.cluster_id, epoch), work)

    # -- leadership ----------------------------------------------------------------------------

    async def register_cluster(self) -> None:
        """Makes this cluster known to the database."""

        async def work(session: AsyncSession) -> None:
            await session.execute(
                insert(Cluster).values(id=self.cluster_id).on_conflict_do_nothing()
            )

        await self._read(work)

    async def acquire_leadership(self, holder: str, ttl: float) -> int | None:
        """Takes or renews leadership for `ttl` seconds; None while another holder has it."""
        self.epoch = await self._read(
            lambda session: leadership.acquire(session, self.cluster_id, holder, ttl)
        )
        return self.epoch

    async def release_leadership(self, holder: str) -> None:
        """Gives leadership up at once."""
        self.epoch = None
        await self._read(lambda session: leadership.release(session, self.cluster_id, holder))

    # -- reads ---------------------------------------------------------------------------------

    async def now(self) -> datetime:
        """The database's clock."""
        return await self._read(database_now)

    async def load(self, flow_id: UUID) -> FlowSnapshot | None:
        """The flow, its current attempt and its open request."""
        return await self._read(lambda session: flow_snapshot(session, flow_id))

    async def look(self, flow_id: UUID, limits: tuple[int, int]) -> Look:
        """Clock, flow and, where it is due in the queue, the free slots, in one transaction."""

        async def work(session: AsyncSession) -> Look:
            now = await database_now(session)
            flow = await flow_snapshot(session, flow_id)
            if flow is None or flow.state is not FlowState.QUEUED:
                return Look(now, flow, None)
            if flow.not_before is not None and flow.not_before > now:
                return Look(now, flow, None)
            return Look(now, flow, await _capacity(session, flow, limits))

        return await self._read(work)

    async def open_flows(self) -> list[OpenFlow]:
        """All flows that have not ended, for the sweep."""
        return await self._read(lambda session: _flows(session, ended=False))

    async def undeleted_ended_flows(self) -> list[OpenFlow]:
        """Ended flows whose resource was still there when last seen."""
        return await self._read(lambda session: _flows(session, ended=True))

    async def state_counts(self) -> dict[str, int]:
        """Flows by state, for metrics."""

        async def work(session: AsyncSession) -> dict[str, int]:
            rows = await session.execute(
                select(DiscoveryFlowRow.state, func.count()).group_by(DiscoveryFlowRow.state)
            )
            return {state: int(count) for state, count in rows.tuples()}

        return await self._read(work)

    def listen(self) -> AsyncIterator[UUID | None]:
        """Ids of flows that changed; None after each (re)connection, which means: rescan."""
        return listen(self.db.url)

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
    ) -> FlowSnapshot:
        """Creates master flow, flow and first history row together, or finds them there."""

        async def work(session: AsyncSession) -> FlowSnapshot:
            existing = await flow_snapshot(session, flow_id)
            if existing is not None:
                return existing
            await session.execute(
                insert(Tenant)
                .values(id=tenant_id, cluster_id=self.cluster_id, namespace=namespace)
                .on_conflict_do_nothing()
            )
            session.add(
                MasterFlow(
                    tenant_id=tenant_id,
                    flow_id=flow_id,
                    name=name,
                    engagement=spec.engagement,
                    requested_by=spec.requested_by,
                )
            )
            await session.flush()
            flow = DiscoveryFlowRow(
                tenant_id=tenant_id,
                flow_id=flow_id,
                spec=_stored_spec(spec),
                generation=generation,
                phase=FIRST_PHASE,
                state=FlowState.PENDING,
                reason=Trigger.CREATED,
                round=1,
                version=0,
                event_sequence=0,
                last_fence=0,
            )
            session.add(flow)
            await session.flush()
            await append_event(session, flow, Trigger.CREATED, actor=actor, from_state=None)
            created = await flow_snapshot(session, flow_id)
            assert created is not None  # noqa: S101 - written two lines above
            return created

        return await self._write(work)

    async def update_spec(self, flow_id: UUID, spec: DiscoveryFlowSpec, generation: int) -> None:
        """Stores a newer spec; llm, retries and timeouts apply from the next attempt on."""

        async def work(session: AsyncSession) -> None:
            flow = await lock_flow(session, flow_id)
            if flow.generation >= generation:
                return
            flow.generation = generation
            stored = _stored_spec(spec)
            changed = sorted(
                k for k in stored.keys() | flow.spec.keys() if stored.get(k) != flow.spec.get(k)
            )
            flow.spec = stored
            await append_event(
                session,
                flow,
                Occurrence.SPEC_CHANGED,
                actor=ACTOR,
                from_state=flow.state,
                details={"generation": generation, "changed": changed},
            )

        await self._write(work)

    async def admit(self, flow_id: UUID) -> None:
        """Pending → Queued: everything that the spec names is there."""
        await self._step(flow_id, Trigger.ADMITTED, only_from=(FlowState.PENDING,))

    async def reference_found(self, flow_id: UUID) -> None:
        """Waiting → Queued: what was missing has appeared."""
        await self._step(flow_id, Trigger.REFERENCE_FOUND, only_from=(FlowState.WAITING,))

    async def reference_missing(self, flow_id: UUID, missing: list[str]) -> None:
        """→ Waiting, or a changed list of what a Waiting flow waits for."""

        async def work(session: AsyncSession) -> None:
            flow = await lock_flow(session, flow_id)
            message = "missing: " + "; ".join(missing)
            if flow.state == FlowState.WAITING:
                if flow.missing == missing:
                    return
                flow.missing, flow.message = missing, message
                await append_event(
                    session,
                    flow,
                    Occurrence.REFERENCES_CHANGED,
                    actor=ACTOR,
                    from_state=flow.state,
                    message=message,
                )
                return
            await transition(session, flow, Trigger.REFERENCE_MISSING, actor=ACTOR, message=message)
            flow.missing = missing

        await self._write(work)

    async def suspend(self, flow_id: UUID) -> None:
        """→ Suspended. The live attempt is superseded; an open request stays open."""

        async def work(session: AsyncSession) -> None:
            flow = await lock_flow(session, flow_id)
            if flow.state == FlowState.SUSPENDED or is_ended(flow.state):
                return
            await end_live_run(session, flow, RunState.SUPERSEDED, "the flow was suspended")
            flow.resume_state = flow.state
            await transition(session, flow, Trigger.SUSPENDED, actor=ACTOR)

        await self._write(work)

    async def resume(self, flow_id: UUID) -> None:
        """Suspended → AwaitingApproval where a request is open, else → Queued.

        A request's deadline moves by the time that the flow was suspended.
        """

        async def work(session: AsyncSession) -> None:
            flow = await lock_flow(session, flow_id)
            if flow.state != FlowState.SUSPENDED:
                return
            request = await open_request(session, flow)
            if request is None:
                await transition(session, flow, Trigger.RESUMED, actor=ACTOR)
                return
            request.expires_at += await database_now(session) - flow.state_since
            await transition(session, flow, Trigger.APPROVAL_REQUESTED, actor=ACTOR)

        await self._write(work)

    async def cancel(self, flow_id: UUID, actor: str = ACTOR) -> None:
        """→ Cancelled, for good."""

        async def work(session: AsyncSession) -> None:
            flow = await lock_flow(session, flow_id)
            if not is_ended(flow.state):
                await gate.close_everything(session, flow, "the flow was cancelled")
                await transition(session, flow, Trigger.CANCELLED, actor=actor)

        await self._write(work)

    async def mark_deleted(self, flow_id: UUID) -> None:
        """The resource is gone: ends the flow and lets go of its artefacts. History stays."""

        async def work(session: AsyncSession) -> None:
            flow = await lock_flow(session, flow_id)
            master = await session.get_one(MasterFlow, (flow.tenant_id, flow.flow_id))
            if master.deleted_at is not None:
                return
            master.deleted_at = await database_now(session)
            if is_ended(flow.state):
                await append_event(
                    session, flow, Trigger.DELETED, actor=ACTOR, from_state=flow.state
                )
            else:
                await gate.close_everything(session, flow, "the resource was deleted")
                await transition(
                    session, flow, Trigger.DELETED, actor=ACTOR, message="the resource was deleted"
                )
            await session.execute(delete(FlowArtefact).where(FlowArtefact.flow_id == flow.flow_id))
            await _drop_staged(session)
            await blobs.collect(session)

        await self._write(work)

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

        async def work(session: AsyncSession) -> UUID | None:
            await session.execute(
                text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 1))"),
                {"key": str(self.cluster_id)},
            )
            flow = await lock_flow(session, flow_id)
            known = await session.scalar(
                select(PhaseRun).where(
                    PhaseRun.flow_id == flow_id,
                    PhaseRun.round == round,
                    PhaseRun.phase == phase,
                    PhaseRun.attempt == attempt,
                )
            )
            if known is not None:
                return known.id
            if limits is not None:
                running, mine = await _live_counts(session, flow.tenant_id)
                if running >= limits[0] or mine >= limits[1]:
                    return None
            run = PhaseRun(
                tenant_id=flow.tenant_id,
                id=uuid4(),
                flow_id=flow_id,
                round=round,
                phase=phase,
                attempt=attempt,
                state=RunState.CREATED,
                job_name=job_name,
                deadline=await database_now(session) + timedelta(seconds=launch_timeout),
            )
            session.add(run)
            await session.flush()
            await transition(
                session,
                flow,
                Trigger.ATTEMPT_STARTED,
                actor=ACTOR,
                phase=phase,
                attempt=attempt,
                details={"job": job_name},
            )
            return run.id

        return await self._write(work)

    async def mark_launched(self, run_id: UUID, flow_id: UUID, job_uid: str) -> None:
        """Records the Job's uid; only that Job's pod may claim the attempt."""

        async def work(session: AsyncSession) -> None:
            await lock_flow(session, flow_id)
            run = await session.scalar(select(PhaseRun).where(PhaseRun.id == run_id))
            if run is not None and run.state == RunState.CREATED:
                run.state = RunState.LAUNCHED
                run.job_uid = job_uid
                run.launched_at = await database_now(session)

        await self._write(work)

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

        async def work(session: AsyncSession) -> None:
            flow = await lock_flow(session, flow_id)
            run = await session.scalar(select(PhaseRun).where(PhaseRun.id == run_id))
            if run is None or flow.state not in (FlowState.RUNNING, FlowState.WAITING):
                return
            latest = await live_run(session, flow)
            if run.state not in (*LIVE_RUN_STATES, RunState.FAILED) or (
                latest is not None and latest.id != run_id
            ):
                return
            if run.state != RunState.FAILED:
                run.state = RunState.FAILED
                run.finished_at = await database_now(session)
            run.counted = counted
            run.error_code, run.error_message = code, message
            await session.flush()
            final = retry_delay is None
            await transition(
                session,
                flow,
                Trigger.ATTEMPTS_EXHAUSTED if final else Trigger.ATTEMPT_FAILED,
                actor=ACTOR,
                message=message,
                phase=run.phase,
                attempt=run.attempt,
                details={"code": code, "retryDelaySeconds": retry_delay},
            )
            if retry_delay is not None:
                now = await database_now(session)
                flow.not_before = now + timedelta(seconds=retry_delay)

        await self._write(work)

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
            )
        )

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

    # -- upkeep --------------------------------------------------------------------------------

    async def collect_garbage(self) -> int:
        """Removes artefacts and staged rows that nobody refers to. Returns how many artefacts."""

        async def work(session: AsyncSession) -> int:
            await _drop_staged(session)
            return await blobs.collect(session)

        return await self._write(work)

    async def _step(
        self, flow_id: UUID, trigger: Trigger, *, only_from: tuple[FlowState, ...]
    ) -> None:
        async def work(session: AsyncSession) -> None:
            flow = await lock_flow(session, flow_id)
            if flow.state in only_from:
                await transition(session, flow, trigger, actor=ACTOR)

        await self._write(work)


def _stored_spec(spec: DiscoveryFlowSpec) -> dict[str, object]:
    """The spec without the answer, which is an event and not configuration."""
    return spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"approval"})


async def _live_counts(session: AsyncSession, tenant_id: UUID) -> tuple[int, int]:
    row = (
        await session.execute(
            select(func.count(), func.count().filter(PhaseRun.tenant_id == tenant_id)).where(
                PhaseRun.state.in_(LIVE_RUN_STATES)
            )
        )
    ).one()
    return int(row[0]), int(row[1])


async def _capacity(session: AsyncSession, flow: FlowSnapshot, limits: tuple[int, int]) -> Capacity:
    running, mine = await _live_counts(session, flow.tenant_id)
    ahead = await session.scalar(
        select(func.count())
        .select_from(DiscoveryFlowRow)
        .where(
            DiscoveryFlowRow.state == FlowState.QUEUED,
            DiscoveryFlowRow.flow_id != flow.flow_id,
            DiscoveryFlowRow.state_since < flow.state_since,
            (DiscoveryFlowRow.not_before.is_(None))
            | (DiscoveryFlowRow.not_before <= func.clock_timestamp()),
            ~_tenant_is_full(limits[1]),
        )
    )
    return Capacity(running, mine, *limits, ahead=int(ahead or 0))


def _tenant_is_full(limit: int):  # type: ignore[no-untyped-def]  # noqa: ANN202 - a SQL clause
    live = (
        select(func.count())
        .select_from(PhaseRun)
        .where(
            PhaseRun.tenant_id == DiscoveryFlowRow.tenant_id,
            PhaseRun.state.in_(LIVE_RUN_STATES),
        )
        .scalar_subquery()
    )
    return live >= limit


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
            state.in_(ENDED) if ended else state.not_in(ENDED),
        )
        .order_by(DiscoveryFlowRow.state_since)
    )
    return [OpenFlow(*row) for row in rows.tuples()]


async def _drop_staged(session: AsyncSession) -> None:
    """Removes inventory rows of attempts that ended without being accepted."""
    kept = exists().where(
        PhaseRun.tenant_id == Record.tenant_id,
        PhaseRun.id == Record.run_id,
        PhaseRun.state.in_((*LIVE_RUN_STATES, RunState.SUCCEEDED)),
    )
    await session.execute(delete(Record).where(~kept))
