"""What the sources of an engagement disagree on, and what people decide about it.

Machines that share a key without being one for certain come first (`identities`), then fields.
A decision about a field, and whose values count first, stand above what sources say; each rebuilds
the inventory at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args
from uuid import UUID

from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from ...errors import InvalidAnswerError, NotFoundError
from ..schema import AssetDecision, SourcePrecedence
from . import identities
from .assets import (
    SOURCES,
    Changes,
    key_of,
    lock_inventory,
    rebuild_assets,
    without_loops,
)

FieldChoice = Literal["keep", "replace", "merge"]
Choice = FieldChoice | identities.SameOrNot
CONFLICT_LIMIT = 1000
# what stands for the field where the question is whether machines are the same
IDENTITY = "(identity)"


@dataclass(frozen=True)
class ConflictingValue:
    """One of the values that sources give a field, with the latest row that does."""

    value: Any
    flow: str
    row: int
    at: datetime


@dataclass(frozen=True)
class Conflict:
    """A field of an asset that its sources do not agree on; `current` is what counts now.

    Of the kind `identity`, it is a key (`identity`) that several machines share: `values` are
    their names, `current` the identities that they have now, and `question` is in words.
    """

    identity: str
    name: str | None
    field: str
    current: Any
    values: list[ConflictingValue]
    choice: str | None = None
    decided_by: str | None = None
    kind: Literal["field", "identity"] = "field"
    question: str | None = None


_CONFLICTS = text(
    f"""
    WITH {SOURCES}, given AS (
        SELECT asset AS identity, f.key AS field, f.value, max(rank) AS rank,
               (array_agg(flow ORDER BY rank DESC))[1] AS flow,
               (array_agg(row ORDER BY rank DESC))[1] AS row,
               (array_agg(finished_at ORDER BY rank DESC))[1] AS at
        FROM source_rows, jsonb_each(source_rows.fields) AS f
        WHERE jsonb_typeof(f.value) NOT IN ('null', 'array')
          AND (CAST(:identity AS text) IS NULL OR asset = :identity)
          AND (CAST(:field AS text) IS NULL OR f.key = :field)
        GROUP BY asset, f.key, f.value
    ), decisions AS (
        SELECT DISTINCT ON (1, 2) coalesce(j.asset, d.identity) AS identity, d.field, d.choice,
               d.decided_by
        FROM asset_decisions d LEFT JOIN joined j USING (identity)
        WHERE d.tenant_id = :tenant AND d.engagement = :engagement
        ORDER BY 1, 2, d.decided_at DESC
    ), several AS (
        SELECT identity, field, jsonb_agg(jsonb_build_object(
                   'value', value, 'flow', flow, 'row', row, 'at', at) ORDER BY rank) AS given
        FROM given GROUP BY identity, field HAVING count(*) > 1
    )
    SELECT s.identity, a.name, s.field, a.fields -> s.field AS current, s.given, d.choice,
           d.decided_by
    FROM several s
    JOIN assets a ON a.tenant_id = :tenant AND a.engagement = :engagement
         AND a.identity = s.identity
    LEFT JOIN decisions d ON d.identity = s.identity AND d.field = s.field
    ORDER BY d.choice IS NOT NULL, s.identity, s.field LIMIT :most
    """  # noqa: S608 - texts of ours
)
_UNDO = text(
    """
    DELETE FROM asset_decisions d
    WHERE d.tenant_id = :tenant AND d.engagement = :engagement AND d.field = :field
      AND (d.identity = :identity OR d.identity IN (
          SELECT j.identity FROM asset_aliases j
          WHERE j.tenant_id = :tenant AND j.engagement = :engagement AND j.asset = :identity))
    """
)


async def conflicts(
    session: AsyncSession,
    tenant_id: UUID,
    engagement: str | None,
    *,
    identity: str | None = None,
    field: str | None = None,
) -> list[Conflict]:
    """Keys that several machines share, then fields whose sources disagree; at most 1000.

    The undecided come first. Lists do not conflict, since they are joined.
    """
    found: list[Conflict] = []
    if field in (None, IDENTITY):
        shared = await identities.shared_keys(
            session, tenant_id, engagement, key=identity, limit=CONFLICT_LIMIT
        )
        found = [_of_key(entry) for entry in shared]
    if field != IDENTITY:
        found += await _of_fields(session, tenant_id, engagement, identity, field)
    return sorted(found, key=lambda entry: entry.choice is not None)[:CONFLICT_LIMIT]


def _of_key(entry: identities.SharedKey) -> Conflict:
    return Conflict(
        identity=entry.key,
        name=None,
        field=IDENTITY,
        current=[machine.identity for machine in entry.machines],
        values=[
            ConflictingValue(machine.label, machine.flow, machine.row, machine.at)
            for machine in entry.machines
        ],
        choice=entry.choice,
        decided_by=entry.decided_by,
        kind="identity",
        question=entry.question,
    )


async def _of_fields(
    session: AsyncSession,
    tenant_id: UUID,
    engagement: str | None,
    identity: str | None,
    field: str | None,
) -> list[Conflict]:
    async with without_loops(session):
        rows = await session.execute(
            _CONFLICTS,
            key_of(tenant_id, engagement)
            | {"identity": identity, "field": field, "most": CONFLICT_LIMIT},
        )
    return [
        Conflict(
            identity=row.identity,
            name=row.name,
            field=row.field,
            current=row.current,
            values=[
                ConflictingValue(
                    entry["value"], entry["flow"], entry["row"], datetime.fromisoformat(entry["at"])
                )
                for entry in row.given
            ],
            choice=row.choice,
            decided_by=row.decided_by,
        )
        for row in rows
    ]


async def decide_conflict(
    session: AsyncSession,
    tenant_id: UUID,
    engagement: str | None,
    *,
    identity: str,
    field: str,
    choice: Choice,
    decided_by: str,
) -> Changes:
    """Decides a field: keep the oldest value, replace it by the newest, or merge all texts.

    For `IDENTITY` it says of the key whether its machines are the same or different. Raises
    NotFoundError where the sources agree, InvalidAnswerError where the choice does not fit.
    """
    await lock_inventory(session, tenant_id, engagement)
    if field == IDENTITY:
        if choice not in get_args(identities.SameOrNot):
            raise InvalidAnswerError([f"{identity!r}: its machines are the same, or different"])
        await identities.decide_key(
            session, tenant_id, engagement, key=identity, choice=choice, decided_by=decided_by
        )
        return await rebuild_assets(session, tenant_id, engagement)
    if choice not in get_args(FieldChoice):
        raise InvalidAnswerError([f"{field!r}: a field's values are kept, replaced or merged"])
    found = await conflicts(session, tenant_id, engagement, identity=identity, field=field)
    if not found:
        raise NotFoundError(f"the sources agree on {field!r} of {identity!r}")
    value = _chosen(found[0], choice)
    values = {"choice": choice, "value": value, "decided_by": decided_by}
    statement = insert(AssetDecision).values(
        tenant_id=tenant_id, engagement=engagement or "", identity=identity, field=field, **values
    )
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["tenant_id", "engagement", "identity", "field"],
            set_=values | {"decided_at": func.clock_timestamp()},
        )
    )
    return await rebuild_assets(session, tenant_id, engagement)


def _chosen(conflict: Conflict, choice: Choice) -> Any:
    by_age = sorted(conflict.values, key=lambda entry: (entry.at, entry.row))
    if choice == "keep":
        return by_age[0].value
    if choice == "replace":
        return by_age[-1].value
    if not all(isinstance(entry.value, str) for entry in by_age):
        raise InvalidAnswerError([f"{conflict.field!r}: only texts can be merged; keep or replace"])
    return "; ".join(dict.fromkeys(entry.value for entry in by_age))


async def undo_decision(
    session: AsyncSession, tenant_id: UUID, engagement: str | None, *, identity: str, field: str
) -> Changes:
    """Takes a decision back. Raises NotFoundError where there is none."""
    await lock_inventory(session, tenant_id, engagement)
    if field == IDENTITY:
        await identities.undo_key(session, engagement, identity)
        return await rebuild_assets(session, tenant_id, engagement)
    gone = await session.execute(
        _UNDO, key_of(tenant_id, engagement) | {"identity": identity, "field": field}
    )
    if not getattr(gone, "rowcount", 0):
        raise NotFoundError(f"nothing is decided about {field!r} of {identity!r}")
    return await rebuild_assets(session, tenant_id, engagement)


async def set_precedence(
    session: AsyncSession, tenant_id: UUID, engagement: str | None, flows: list[str]
) -> Changes:
    """Says whose values count first, by the names of flows; flows that are not named come after.

    An empty list lets the latest flow count again.
    """
    await lock_inventory(session, tenant_id, engagement)
    await session.execute(
        delete(SourcePrecedence).where(SourcePrecedence.engagement == (engagement or ""))
    )
    if flows:
        await session.execute(
            insert(SourcePrecedence),
            [
                {
                    "tenant_id": tenant_id,
                    "engagement": engagement or "",
                    "flow": flow,
                    "position": position,
                }
                for position, flow in enumerate(dict.fromkeys(flows))
            ],
        )
    return await rebuild_assets(session, tenant_id, engagement)


async def precedence(session: AsyncSession, engagement: str | None) -> list[str]:
    """The names of flows in the order in which their values count."""
    found = await session.scalars(
        select(SourcePrecedence.flow)
        .where(SourcePrecedence.engagement == (engagement or ""))
        .order_by(SourcePrecedence.position)
    )
    return list(found)
