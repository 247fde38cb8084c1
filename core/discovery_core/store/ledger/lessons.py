"""Lessons: how a tenant's people mapped a header last, proposed again with the next file."""

from __future__ import annotations

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from ...errors import NotFoundError
from ...wire.protocol import ApprovedMapping
from ...wire.results import FieldMapping
from ..database import database_now
from ..schema import DiscoveryFlowRow, MappingMemory

HISTORY_LIMIT = 5000


async def remember(
    session: AsyncSession, flow: DiscoveryFlowRow, final: list[FieldMapping], decided_by: str
) -> None:
    """Keeps the decision as a lesson for this tenant's next file."""
    lessons = {" ".join(mapping.column.lower().split()): mapping for mapping in final}
    if not lessons:
        return
    now = await database_now(session)
    statement = insert(MappingMemory).values(
        [
            {
                "tenant_id": flow.tenant_id,
                "header": header,
                "target": mapping.target,
                "transform": mapping.transform,
                "approved_by": decided_by,
                "approved_at": now,
                "flow_id": flow.flow_id,
            }
            for header, mapping in sorted(lessons.items())
        ]
    )
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["tenant_id", "header"],
            set_={
                name: getattr(statement.excluded, name)
                for name in ("target", "transform", "approved_by", "approved_at", "flow_id")
            }
            | {"removed_at": None, "removed_by": None},
        )
    )


async def mapping_history(session: AsyncSession) -> list[ApprovedMapping]:
    """The latest lessons of the tenant in scope, without those that were taken back."""
    rows = await session.scalars(
        select(MappingMemory)
        .where(MappingMemory.removed_at.is_(None))
        .order_by(MappingMemory.approved_at.desc(), MappingMemory.header)
        .limit(HISTORY_LIMIT)
    )
    return [
        ApprovedMapping(
            header=row.header,
            target=row.target,
            transform=row.transform,
            approved_by=row.approved_by,
            approved_at=row.approved_at,
        )
        for row in rows
    ]


async def remove_lesson(session: AsyncSession, header: str, removed_by: str) -> None:
    """Takes a lesson of the tenant in scope back. Raises NotFoundError where there is none."""
    removed = await session.execute(
        update(MappingMemory)
        .where(MappingMemory.header == header, MappingMemory.removed_at.is_(None))
        .values(removed_at=func.clock_timestamp(), removed_by=removed_by)
    )
    if not getattr(removed, "rowcount", 0):
        raise NotFoundError(f"no lesson for the header {header!r}")
