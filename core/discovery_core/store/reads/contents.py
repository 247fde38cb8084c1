"""What people read of a flow beside its state: results, artefacts, assets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from ...errors import NotFoundError
from ...states import RunState
from ..schema import Artefact, Asset, DiscoveryFlowRow, FlowArtefact, FlowEventRow, PhaseRun

# names that the store gives for itself
_INTERNAL = ("upload/", "approved/", "engagement/")
# as it came, with every credential that the import leaves out: for crews only
_RAW = "source"


@dataclass(frozen=True)
class StoredArtefact:
    """An artefact of an accepted result. `size` in bytes."""

    artefact_id: UUID
    phase: str
    round: int
    attempt: int
    name: str
    digest: str
    size: int
    media_type: str


@dataclass(frozen=True)
class AssetRow:
    """One asset of the merged inventory."""

    identity: str
    name: str | None
    asset_type: str
    class_rule: str | None
    identity_confidence: float | None
    identity_reason: str | None
    fields: dict[str, Any]
    sources: list[str]
    updated_at: datetime


@dataclass(frozen=True)
class FlowState:
    """Where a flow stands, in few words, for lists and live updates."""

    flow_id: UUID
    state: str
    phase: str
    round: int
    version: int
    updated_at: datetime


async def results(session: AsyncSession, flow_id: UUID) -> dict[str, dict[str, Any]]:
    """The accepted result of each phase that has one."""
    runs = await session.scalars(
        select(PhaseRun)
        .where(PhaseRun.flow_id == flow_id, PhaseRun.state == RunState.SUCCEEDED)
        .order_by(PhaseRun.round)
    )
    return {run.phase: run.result or {} for run in runs}


async def artefacts(session: AsyncSession, flow_id: UUID) -> list[StoredArtefact]:
    """Artefacts of the accepted results, in the order of the phases' completion.

    The source itself is none of them: people have it, or are not meant to.
    """
    rows = await session.execute(
        select(FlowArtefact.name, PhaseRun, Artefact)
        .join(
            PhaseRun,
            (PhaseRun.tenant_id == FlowArtefact.tenant_id) & (PhaseRun.id == FlowArtefact.run_id),
        )
        .join(
            Artefact,
            (Artefact.tenant_id == FlowArtefact.tenant_id)
            & (Artefact.digest == FlowArtefact.digest),
        )
        .where(
            FlowArtefact.flow_id == flow_id,
            PhaseRun.state == RunState.SUCCEEDED,
            FlowArtefact.name != _RAW,
            ~or_(*(FlowArtefact.name.startswith(prefix) for prefix in _INTERNAL)),
        )
        .order_by(PhaseRun.finished_at, FlowArtefact.name)
    )
    return [
        StoredArtefact(
            artefact_id=artefact.id,
            phase=run.phase,
            round=run.round,
            attempt=run.attempt,
            name=name,
            digest=artefact.digest or "",
            size=artefact.size,
            media_type=artefact.media_type,
        )
        for name, run, artefact in rows.tuples()
    ]


async def artefact(session: AsyncSession, flow_id: UUID, phase: str, name: str) -> StoredArtefact:
    """One artefact by phase and name. Raises NotFoundError that names those that there are."""
    known = await artefacts(session, flow_id)
    for entry in known:
        if (entry.phase, entry.name) == (phase, name):
            return entry
    there = ", ".join(f"{entry.phase}/{entry.name}" for entry in known) or "none yet"
    raise NotFoundError(f"no artefact {phase}/{name}; there are: {there}")


async def assets(
    session: AsyncSession,
    engagement: str | None,
    *,
    search: str = "",
    asset_type: str = "",
    after: str = "",
    limit: int = 100,
) -> list[AssetRow]:
    """Assets of an engagement in the order of their identity, beginning after `after`."""
    query = select(Asset).where(Asset.engagement == (engagement or ""), Asset.identity > after)
    if asset_type:
        query = query.where(Asset.asset_type == asset_type)
    if search:
        wanted = f"%{_escaped(search)}%"
        query = query.where(
            Asset.identity.ilike(wanted, escape="\\") | Asset.name.ilike(wanted, escape="\\")
        )
    rows = await session.scalars(query.order_by(Asset.identity).limit(limit))
    return [
        AssetRow(
            identity=row.identity,
            name=row.name,
            asset_type=row.asset_type,
            class_rule=row.class_rule,
            identity_confidence=row.identity_confidence,
            identity_reason=row.identity_reason,
            fields=row.fields,
            sources=[str(source) for source in row.sources],
            updated_at=row.updated_at,
        )
        for row in rows
    ]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


async def states(session: AsyncSession, flow_ids: Sequence[UUID]) -> list[FlowState]:
    """Where these flows stand."""
    rows = await session.scalars(
        select(DiscoveryFlowRow).where(DiscoveryFlowRow.flow_id.in_(flow_ids))
    )
    return [
        FlowState(row.flow_id, row.state, row.phase, row.round, row.version, row.updated_at)
        for row in rows
    ]


async def last_sequence(session: AsyncSession, flow_id: UUID) -> int:
    """The number of the flow's latest history entry."""
    found = await session.scalar(
        select(func.max(FlowEventRow.sequence)).where(FlowEventRow.flow_id == flow_id)
    )
    return int(found or 0)
