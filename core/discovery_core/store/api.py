"""The store as the user API uses it: one tenant at a time, after authorisation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from ..errors import NotFoundError
from ..snapshots import AttemptRecord, FlowEvent, FlowSnapshot
from ..wire import ApprovedMapping, FieldMapping
from . import assets
from .approvals import mapping_history, proposals, remove_lesson
from .database import Database, TenantScope
from .schema import ApprovalRequestRow, PhaseRun
from .snapshot import flow_snapshot, history

T = TypeVar("T")
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Location:
    """Whose a flow is; found before it is known whether the caller may see it."""

    tenant_id: UUID
    cluster_id: UUID
    namespace: str
    name: str


@dataclass(frozen=True)
class RequestRow:
    """An approval request and its outcome."""

    request_id: UUID
    flow_id: UUID
    artefact_digest: str
    state: str
    decided_by: str | None
    decided_at: datetime | None
    reason: str
    problems: list[str]


class ApiStore:
    """Reads for people. Nothing here changes a flow: decisions go through the resource."""

    def __init__(self, db: Database) -> None:
        self.db = db

    async def _in(self, tenant_id: UUID, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        return await self.db.run(TenantScope(tenant_id), work)

    async def locate(self, flow_id: UUID) -> Location | None:
        """Tenant, cluster, namespace and name of a flow, or None. Authorise before using more."""

        async def work(session: AsyncSession) -> Location | None:
            row = (
                await session.execute(
                    text("SELECT * FROM locate_flow(CAST(:flow AS uuid))"), {"flow": flow_id}
                )
            ).one_or_none()
            return None if row is None else Location(*row)

        return await self.db.run(None, work)

    async def flow(self, tenant_id: UUID, flow_id: UUID) -> FlowSnapshot:
        """The flow. Raises NotFoundError."""
        snapshot = await self._in(tenant_id, lambda session: flow_snapshot(session, flow_id))
        if snapshot is None:
            raise NotFoundError(f"no flow {flow_id}")
        return snapshot

    async def mappings(self, tenant_id: UUID, request_id: UUID) -> list[FieldMapping]:
        """The proposed mappings of a request, in the order of the columns."""
        return await self._in(tenant_id, lambda session: proposals(session, request_id))

    async def request(self, tenant_id: UUID, request_id: UUID) -> RequestRow:
        """A request, open or decided. Raises NotFoundError."""

        async def work(session: AsyncSession) -> RequestRow:
            row = await session.scalar(
                select(ApprovalRequestRow).where(ApprovalRequestRow.id == request_id)
            )
            if row is None:
                raise NotFoundError(f"no approval request {request_id}")
            return RequestRow(
                request_id=row.id,
                flow_id=row.flow_id,
                artefact_digest=row.artefact_digest,
                state=row.state,
                decided_by=row.decided_by,
                decided_at=row.decided_at,
                reason=row.reason,
                problems=list(row.problems),
            )

        return await self._in(tenant_id, work)

    async def wait_for_decision(
        self,
        tenant_id: UUID,
        request_id: UUID,
        timeout: float,  # noqa: ASYNC109
    ) -> RequestRow:
        """The request as soon as it is decided, or as it is after `timeout` seconds."""
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            row = await self.request(tenant_id, request_id)
            if row.state != "Open" or asyncio.get_running_loop().time() >= deadline:
                return row
            await asyncio.sleep(POLL_SECONDS)

    async def attempts(self, tenant_id: UUID, flow_id: UUID) -> list[AttemptRecord]:
        """All attempts of a flow, the oldest first."""

        async def work(session: AsyncSession) -> list[AttemptRecord]:
            runs = await session.scalars(
                select(PhaseRun)
                .where(PhaseRun.flow_id == flow_id)
                .order_by(PhaseRun.created_at, PhaseRun.id)
            )
            return [
                AttemptRecord(
                    round=run.round,
                    phase=run.phase,
                    attempt=run.attempt,
                    state=run.state,
                    claimed_at=run.claimed_at,
                    finished_at=run.finished_at,
                    error_code=run.error_code,
                    error_message=run.error_message,
                    usage=run.usage,
                )
                for run in runs
            ]

        return await self._in(tenant_id, work)

    async def lessons(self, tenant_id: UUID) -> list[ApprovedMapping]:
        """What this tenant's people decided for headers, the latest first."""
        return await self._in(tenant_id, mapping_history)

    async def remove_lesson(self, tenant_id: UUID, header: str, removed_by: str) -> None:
        """Takes a lesson back. Raises NotFoundError."""
        await self._in(tenant_id, lambda session: remove_lesson(session, header, removed_by))

    async def history(self, tenant_id: UUID, flow_id: UUID) -> list[FlowEvent]:
        """The flow's history, oldest first."""
        return await self._in(tenant_id, lambda session: history(session, flow_id))

    async def inventory_summary(self, tenant_id: UUID, engagement: str | None) -> dict[str, Any]:
        """Number of assets of an engagement, in all and by type."""
        return await self._in(
            tenant_id, lambda session: assets.inventory_summary(session, engagement)
        )

    async def conflicts(self, tenant_id: UUID, engagement: str | None) -> list[assets.Conflict]:
        """Fields of the engagement's assets that sources disagree on, the undecided first."""
        return await self._in(
            tenant_id, lambda session: assets.conflicts(session, tenant_id, engagement)
        )

    async def decide_conflict(
        self,
        tenant_id: UUID,
        engagement: str | None,
        *,
        identity: str,
        field: str,
        choice: assets.Choice,
        decided_by: str,
    ) -> assets.Changes:
        """Decides a field. Raises NotFoundError and InvalidAnswerError."""
        return await self._in(
            tenant_id,
            lambda session: assets.decide_conflict(
                session,
                tenant_id,
                engagement,
                identity=identity,
                field=field,
                choice=choice,
                decided_by=decided_by,
            ),
        )

    async def undo_decision(
        self, tenant_id: UUID, engagement: str | None, *, identity: str, field: str
    ) -> assets.Changes:
        """Takes a decision back. Raises NotFoundError."""
        return await self._in(
            tenant_id,
            lambda session: assets.undo_decision(
                session, tenant_id, engagement, identity=identity, field=field
            ),
        )

    async def precedence(self, tenant_id: UUID, engagement: str | None) -> list[str]:
        """Names of flows in the order in which their values count."""
        return await self._in(tenant_id, lambda session: assets.precedence(session, engagement))

    async def set_precedence(
        self, tenant_id: UUID, engagement: str | None, flows: list[str]
    ) -> assets.Changes:
        """Says whose values count first."""
        return await self._in(
            tenant_id,
            lambda session: assets.set_precedence(session, tenant_id, engagement, flows),
        )
