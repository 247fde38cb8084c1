"""What crew pods may change: their own attempt, while they hold its fence.

Every call names the pod (its uid comes from a reviewed token) and the fence that `claim`
returned (`moves.held`); that is the whole defence against zombies, so no call does without it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from ..errors import (
    ErrorCode,
    NotFoundError,
    NotLaunchedError,
    SupersededError,
)
from ..states import FlowState, Occurrence, RunState, Trigger
from ..wire.model import ArtefactReference
from ..wire.protocol import (
    Claim,
    Complete,
    Fail,
    Heartbeat,
    HeartbeatAnswer,
    PinInputs,
    PinnedInputs,
)
from .artefacts import blobs
from .artefacts.quota import require_room
from .artefacts.streams import read_chunks, write_chunks
from .database import Database, TenantScope, database_now
from .inventory.records import RecordBatch, insert_records
from .ledger.snapshot import RETRY_AFTER, phase_seconds
from .ledger.transition import append_event, lock_flow, transition
from .moves.accept import accept_result
from .moves.breakers import BreakerRules, report_failure, report_success
from .moves.claim import choose_planner, claim_of
from .moves.engagement import EngagementReads
from .moves.held import held_run, holds, of_flow, require_artefact, superseded
from .schema import (
    LIVE_RUN_STATES,
    Artefact,
    DiscoveryFlowRow,
    PhaseRun,
    Record,
)

STAGE_BATCH = 1000


class ExecutionStore:
    """The store as the execution API uses it. Every method acts for one tenant."""

    def __init__(self, db: Database, breaker: BreakerRules | None = None) -> None:
        self.db = db
        self.breaker = breaker or BreakerRules()
        self.engagement = EngagementReads(db)

    async def claim(
        self,
        *,
        tenant_id: UUID,
        job_name: str,
        job_uid: str,
        flow_id: UUID,
        pod_uid: str,
        pod_name: str,
    ) -> Claim:
        """Binds an attempt to the pod and starts its clock; again for the same pod, the same.

        Raises NotFoundError where the Job is nobody's, NotLaunchedError where its uid is not
        recorded yet, SupersededError where the attempt has ended or another pod has it.
        """

        async def work(session: AsyncSession) -> Claim:
            flow = await lock_flow(session, flow_id)
            run = await session.scalar(
                select(PhaseRun).where(PhaseRun.flow_id == flow_id, PhaseRun.job_name == job_name)
            )
            if run is None:
                raise NotFoundError(f"Job {job_name} belongs to no attempt of this flow")
            if run.state not in LIVE_RUN_STATES:
                raise SupersededError(f"attempt {run.attempt} of {run.phase} has ended")
            if run.job_uid is None:
                raise NotLaunchedError(f"Job {job_name} is not recorded yet")
            if run.job_uid != job_uid:
                raise SupersededError(f"Job {job_name} was replaced")
            if run.pod_uid not in (None, pod_uid):
                raise SupersededError(f"pod {run.pod_name} has claimed this attempt")
            if run.state == RunState.LAUNCHED:
                await self._bind(session, flow, run, pod_uid=pod_uid, pod_name=pod_name)
            return await claim_of(session, flow, run)

        return await self.db.run(TenantScope(tenant_id), work)

    @staticmethod
    async def _bind(
        session: AsyncSession,
        flow: DiscoveryFlowRow,
        run: PhaseRun,
        *,
        pod_uid: str,
        pod_name: str,
    ) -> None:
        now = await database_now(session)
        flow.last_fence += 1
        run.fence = flow.last_fence
        run.state = RunState.RUNNING
        run.pod_uid, run.pod_name = pod_uid, pod_name
        run.claimed_at = run.heartbeat_at = now
        run.deadline = now + phase_seconds(flow)
        await choose_planner(session, flow, run)
        if flow.state == FlowState.WAITING:
            await transition(session, flow, Trigger.CLAIMED, actor="execution", attempt=run.attempt)
        await session.flush()

    async def heartbeat(self, *, tenant_id: UUID, pod_uid: str, beat: Heartbeat) -> HeartbeatAnswer:
        """Records that the attempt lives. Raises SupersededError."""

        async def work(session: AsyncSession) -> HeartbeatAnswer:
            deadline = await session.scalar(
                update(PhaseRun)
                .where(holds(pod_uid, beat.fence), PhaseRun.state == RunState.RUNNING)
                .values(
                    heartbeat_at=func.clock_timestamp(),
                    progress_done=beat.done,
                    progress_total=beat.total,
                    progress_message=beat.message[:500],
                )
                .returning(PhaseRun.deadline)
                .execution_options(synchronize_session=False)
            )
            if deadline is None:
                raise superseded()
            return HeartbeatAnswer(deadline=deadline)

        return await self.db.run(TenantScope(tenant_id), work)

    async def pin_inputs(self, *, tenant_id: UUID, pod_uid: str, pin: PinInputs) -> PinnedInputs:
        """Fixes the bytes that every later attempt reads; the first to pin wins."""

        async def work(session: AsyncSession) -> PinnedInputs:
            run = await held_run(session, pod_uid, pin.fence)
            flow = await lock_flow(session, run.flow_id)
            if flow.source_digest is None:
                for name, digest in (("source", pin.source), ("targetSchema", pin.target_schema)):
                    if digest is not None:
                        await require_artefact(session, flow.flow_id, digest)
                        await blobs.refer(
                            session,
                            tenant_id=tenant_id,
                            flow_id=flow.flow_id,
                            run_id=run.id,
                            name=name,
                            digest=digest,
                        )
                flow.source_digest = pin.source
                flow.target_schema_digest = pin.target_schema
            return PinnedInputs(source=flow.source_digest, target_schema=flow.target_schema_digest)

        return await self.db.run(TenantScope(tenant_id), work)

    async def store_artefact(
        self,
        *,
        tenant_id: UUID,
        pod_uid: str,
        fence: int,
        media_type: str,
        stream: AsyncIterator[bytes],
        max_bytes: int,
        tenant_bytes: int | None = None,
        declared: int = 1,
    ) -> ArtefactReference:
        """Stores a stream. No transaction stays open while bytes travel.

        `declared` bytes have to have room from the beginning. Raises SupersededError, and
        DiscoveryError: LIMIT_EXCEEDED beyond `max_bytes`, QUOTA_EXCEEDED where the tenant's
        artefacts would have more than `tenant_bytes`.
        """
        scope = TenantScope(tenant_id)
        artefact_id = uuid4()

        async def begin(session: AsyncSession) -> None:
            run = await held_run(session, pod_uid, fence)
            await require_room(session, tenant_id, tenant_bytes, declared)
            if await session.get(Artefact, (tenant_id, artefact_id)) is None:
                session.add(
                    Artefact(
                        tenant_id=tenant_id,
                        id=artefact_id,
                        media_type=media_type,
                        uploaded_by=run.id,
                    )
                )

        await self.db.run(scope, begin)
        digest, size = await write_chunks(
            self.db, scope, artefact_id, stream, max_bytes, tenant_bytes
        )

        async def finish(session: AsyncSession) -> ArtefactReference:
            run = await held_run(session, pod_uid, fence)
            if await session.get(Artefact, (tenant_id, artefact_id)) is not None:
                await blobs.seal(
                    session, tenant_id=tenant_id, artefact_id=artefact_id, digest=digest, size=size
                )
            await blobs.refer(
                session,
                tenant_id=tenant_id,
                flow_id=run.flow_id,
                run_id=run.id,
                name=blobs.UPLOAD_PREFIX + digest,
                digest=digest,
            )
            return ArtefactReference(digest=digest, size=size, media_type=media_type)

        return await self.db.run(scope, finish)

    async def read_artefact(
        self, *, tenant_id: UUID, pod_uid: str, fence: int, digest: str
    ) -> AsyncIterator[bytes]:
        """The bytes of an artefact of this attempt's flow, in pieces of up to 1 MiB.

        Raises SupersededError and NotFoundError before the first piece.
        """
        scope = TenantScope(tenant_id)

        async def find(session: AsyncSession) -> tuple[UUID, int]:
            run = await held_run(session, pod_uid, fence)
            artefact = await session.scalar(of_flow(run.flow_id, digest))
            if artefact is None:
                raise NotFoundError(f"this flow has no artefact {digest}")
            return artefact.id, artefact.size

        artefact_id, size = await self.db.run(scope, find)
        async for piece in read_chunks(self.db, scope, artefact_id, size):
            yield piece

    async def stage_records(
        self,
        *,
        tenant_id: UUID,
        pod_uid: str,
        fence: int,
        records: AsyncIterator[bytes],
    ) -> int:
        """Stages inventory rows outside the flow's lock; they count once the result is accepted.

        Each is an InventoryRecord as JSON, checked by the caller. Replaces what this attempt staged
        before. Returns how many. Raises SupersededError.
        """
        scope = TenantScope(tenant_id)

        async def clear(session: AsyncSession) -> UUID:
            run = await held_run(session, pod_uid, fence)
            await session.execute(delete(Record).where(Record.run_id == run.id))
            return run.id

        run_id = await self.db.run(scope, clear)
        total = 0
        batch = RecordBatch(tenant_id, run_id)

        async def flush(session: AsyncSession) -> None:
            await held_run(session, pod_uid, fence)
            await insert_records(session, batch)

        async for record in records:
            batch.add(record)
            if len(batch) >= STAGE_BATCH:
                await self.db.run(scope, flush)
                total += len(batch)
                batch.clear()
        if len(batch):
            await self.db.run(scope, flush)
            total += len(batch)
        return total

    async def complete(
        self, *, tenant_id: UUID, pod_uid: str, message: Complete, node: str = ""
    ) -> None:
        """Accepts the attempt's result and moves the flow on, in one transaction.

        The history says which pod handed it in, and on which `node` that was.
        The same message again is accepted silently. Raises SupersededError, and DiscoveryError
        (INVALID_RESULT) for a result of another phase or one whose artefacts are not there.
        """

        async def work(session: AsyncSession) -> None:
            run = await held_run(session, pod_uid, message.fence, ended=True)
            flow = await lock_flow(session, run.flow_id)
            await session.refresh(run)
            if run.state == RunState.SUCCEEDED:
                return
            if run.state != RunState.RUNNING:
                raise SupersededError(f"attempt {run.attempt} of {run.phase} has ended")
            for digest in message.artefacts.values():
                await require_artefact(session, flow.flow_id, digest)
            await accept_result(session, flow, run, message, node=node)
            await report_success(session, flow, run)

        await self.db.run(TenantScope(tenant_id), work)

    async def fail(self, *, tenant_id: UUID, pod_uid: str, message: Fail) -> None:
        """Records the attempt's failure; whether to try again is the operator's decision.

        The same message again is accepted silently. Raises SupersededError.
        """

        async def work(session: AsyncSession) -> None:
            run = await held_run(session, pod_uid, message.fence, ended=True)
            flow = await lock_flow(session, run.flow_id)
            await session.refresh(run)
            if run.state == RunState.FAILED:
                return
            if run.state != RunState.RUNNING:
                raise SupersededError(f"attempt {run.attempt} of {run.phase} has ended")
            run.state = RunState.FAILED
            run.error_code, run.error_message = message.code, message.message
            run.finished_at = await database_now(session)
            run.usage = message.usage.model_dump(mode="json", by_alias=True)
            if message.retry_after_seconds is not None:
                run.usage |= {RETRY_AFTER: message.retry_after_seconds}
            # a budget is a limit, not a failure: the flow waits for it to be raised
            run.counted = message.code != ErrorCode.LLM_BUDGET
            await append_event(
                session,
                flow,
                Occurrence.ATTEMPT_ENDED,
                actor="crew",
                from_state=flow.state,
                message=message.message,
                phase=run.phase,
                attempt=run.attempt,
                details={"code": message.code},
            )
            await report_failure(session, flow, run, self.breaker)

        await self.db.run(TenantScope(tenant_id), work)
