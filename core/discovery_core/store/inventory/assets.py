"""The merged inventory of an engagement: rebuilt from accepted rows and from what people decided.

The same accepted attempts and decisions give the same assets, whatever the order in which they
ended. A value is taken from the source that has precedence, then from the flow that was requested
last; a list is the one of that flow, from all its rows of the asset. A person's decision about a
field stands above both and is kept apart, so that it is applied again whenever the inventory is
rebuilt.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from ...errors import InvalidAnswerError, NotFoundError
from ..schema import Asset, AssetDecision, SourcePrecedence
from .identity import FIND_ALIASES, JOIN_CONFIDENCE, JOIN_REASON, SOURCE_ROWS

Choice = Literal["keep", "replace", "merge"]
CONFLICT_LIMIT = 1000
SOURCE_LIMIT = 200


@dataclass(frozen=True)
class Changes:
    """What a rebuild did to the inventory."""

    added: int = 0
    updated: int = 0
    removed: int = 0
    total: int = 0

    def __str__(self) -> str:
        return (
            f"Inventory: {self.total} assets, {self.added} added, {self.updated} updated, "
            f"{self.removed} removed."
        )


@dataclass(frozen=True)
class ConflictingValue:
    """One of the values that sources give a field, with the latest row that does."""

    value: Any
    flow: str
    row: int
    at: datetime


@dataclass(frozen=True)
class AssetSource:
    """A source row of an asset: what it says, in which words, and how those were read.

    `conversions` has `rule` and, for quantities, the `unit` in which the original was read.
    """

    flow: str
    row: int
    at: datetime
    identity: str
    asset_type: str
    class_rule: str | None
    identity_confidence: float | None
    keys: list[str]
    values: dict[str, Any]
    originals: dict[str, str]
    conversions: dict[str, dict[str, str]]
    unmapped: dict[str, str]
    problems: list[str]


@dataclass(frozen=True)
class Conflict:
    """A field of an asset that its sources do not agree on; `current` is what counts now."""

    identity: str
    name: str | None
    field: str
    current: Any
    values: list[ConflictingValue]
    choice: str | None = None
    decided_by: str | None = None


# The rows that count: of each flow of the engagement its latest accepted inventory.
_ACCEPTED = """
    accepted AS (
        SELECT DISTINCT ON (r.flow_id) r.id AS run_id, r.flow_id, m.name AS flow, r.finished_at,
               p.position, m.created_at
        FROM phase_runs r
        JOIN master_flows m ON m.tenant_id = r.tenant_id AND m.flow_id = r.flow_id
        LEFT JOIN source_precedence p ON p.tenant_id = r.tenant_id AND p.flow = m.name
             AND p.engagement = :engagement
        WHERE r.tenant_id = :tenant AND r.phase = 'asset_inventory' AND r.state = 'Succeeded'
          AND coalesce(m.engagement, '') = :engagement
        ORDER BY r.flow_id, r.round DESC
    )
"""
_SOURCES = f"{_ACCEPTED}, {SOURCE_ROWS}"
_ALIASES = text(f"WITH RECURSIVE {_ACCEPTED}, {FIND_ALIASES}")
_REBUILD = text(
    f"""
    WITH {_SOURCES}, merged AS (
        SELECT asset AS identity,
               (array_agg(name ORDER BY rank DESC) FILTER (WHERE name IS NOT NULL))[1] AS name,
               (array_agg(asset_type ORDER BY asset_type = 'unknown', rank DESC))[1] AS asset_type,
               (array_agg(class_rule ORDER BY asset_type = 'unknown', rank DESC))[1] AS class_rule,
               least(min(identity_confidence), {JOIN_CONFIDENCE}) AS identity_confidence,
               split_part(asset, ':', 1) || coalesce(
                   '; the same ' || {JOIN_REASON} || ' as '
                   || string_agg(DISTINCT own_identity, ', ' ORDER BY own_identity)
                      FILTER (WHERE own_identity <> asset), '') AS identity_reason,
               jsonb_agg(DISTINCT to_jsonb(flow_id)) AS sources
        FROM source_rows GROUP BY asset
    ), merged_fields AS (
        SELECT asset AS identity, jsonb_object_agg(f.key, f.value ORDER BY rank) AS fields
        FROM source_rows, jsonb_each(source_rows.fields) AS f
        WHERE f.value <> 'null'::jsonb
        GROUP BY asset
    ), joined_lists AS (
        SELECT asset AS identity, run_id, f.key, max(rank) AS rank,
               jsonb_agg(DISTINCT item) AS items
        FROM source_rows, jsonb_each(source_rows.fields) AS f, jsonb_array_elements(
            CASE jsonb_typeof(f.value) WHEN 'array' THEN f.value ELSE '[]' END) AS item
        GROUP BY asset, run_id, f.key
    ), merged_lists AS (
        SELECT identity, jsonb_object_agg(key, items ORDER BY rank) AS fields
        FROM joined_lists GROUP BY identity
    ), decided AS (
        SELECT coalesce(j.asset, d.identity) AS identity,
               jsonb_object_agg(d.field, d.value ORDER BY d.decided_at) AS fields
        FROM asset_decisions d LEFT JOIN joined j USING (identity)
        WHERE d.tenant_id = :tenant AND d.engagement = :engagement
        GROUP BY coalesce(j.asset, d.identity)
    ), wanted AS (
        SELECT identity, name, asset_type, class_rule, identity_confidence, identity_reason,
               sources,
               coalesce(merged_fields.fields, '{{}}') || coalesce(merged_lists.fields, '{{}}')
               || coalesce(decided.fields, '{{}}') AS fields
        FROM merged LEFT JOIN merged_fields USING (identity)
             LEFT JOIN merged_lists USING (identity) LEFT JOIN decided USING (identity)
    ), removed AS (
        DELETE FROM assets a WHERE a.tenant_id = :tenant AND a.engagement = :engagement
               AND NOT EXISTS (SELECT FROM wanted w WHERE w.identity = a.identity)
        RETURNING 1
    ), written AS (
        INSERT INTO assets AS a (tenant_id, engagement, identity, name, asset_type, class_rule,
                                 identity_confidence, identity_reason, fields, sources)
        SELECT :tenant, :engagement, identity, name, asset_type, class_rule, identity_confidence,
               identity_reason, fields, sources
        FROM wanted
        ON CONFLICT (tenant_id, engagement, identity) DO UPDATE
        SET name = excluded.name, asset_type = excluded.asset_type,
            class_rule = excluded.class_rule, identity_confidence = excluded.identity_confidence,
            identity_reason = excluded.identity_reason, fields = excluded.fields,
            sources = excluded.sources, updated_at = clock_timestamp()
        WHERE (a.name, a.asset_type, a.class_rule, a.identity_confidence, a.identity_reason,
               a.fields, a.sources) IS DISTINCT FROM
              (excluded.name, excluded.asset_type, excluded.class_rule,
               excluded.identity_confidence, excluded.identity_reason, excluded.fields,
               excluded.sources)
        RETURNING a.xmax = 0 AS added
    )
    SELECT (SELECT count(*) FROM written WHERE added),
           (SELECT count(*) FROM written WHERE NOT added),
           (SELECT count(*) FROM removed), (SELECT count(*) FROM wanted)
    """  # noqa: S608 - texts of ours
)
_CONFLICTS = text(
    f"""
    WITH {_SOURCES}, given AS (
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
_WHERE_FROM = text(
    f"""
    WITH {_ACCEPTED}, known AS (
        SELECT CAST(:identity AS text) AS identity
        UNION SELECT j.identity FROM asset_aliases j
        WHERE j.tenant_id = :tenant AND j.engagement = :engagement AND j.asset = :identity
    )
    SELECT a.flow, a.finished_at, r.row, r.identity, r.asset_type, r.class_rule,
           r.identity_confidence, r.keys, r.fields, r.originals, r.conversions, r.unmapped,
           r.problems
    FROM records r JOIN accepted a ON a.run_id = r.run_id
    WHERE r.tenant_id = :tenant AND (
        r.identity IN (SELECT k.identity FROM known k)
        OR (r.identity LIKE 'row:%' AND r.identity || ':' || a.flow_id = :identity))
    ORDER BY a.position NULLS LAST, a.created_at DESC, a.flow DESC, r.row DESC LIMIT :most
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
# the planner knows nothing of the sizes in between and would compare every row with every other
_NO_GUESSING = text("SET LOCAL enable_nestloop = off")
_GUESSING = text("SET LOCAL enable_nestloop = on")
_FORGET_ALIASES = text(
    "DELETE FROM asset_aliases WHERE tenant_id = :tenant AND engagement = :engagement"
)


def _key(tenant_id: UUID, engagement: str | None) -> dict[str, Any]:
    return {"tenant": tenant_id, "engagement": engagement or ""}


async def _lock(session: AsyncSession, tenant_id: UUID, engagement: str | None) -> None:
    """One rebuild at a time for each tenant and engagement, until the transaction ends."""
    await session.execute(text("SET LOCAL statement_timeout = '300s'"))
    await session.execute(
        text(
            "SELECT pg_advisory_xact_lock(hashtextextended(CAST(:tenant AS text) || '/' || "
            "CAST(:engagement AS text), 0))"
        ),
        {"tenant": str(tenant_id), "engagement": engagement or ""},
    )


async def rebuild_assets(session: AsyncSession, tenant_id: UUID, engagement: str | None) -> Changes:
    """Merges all accepted rows and decisions of an engagement; what is the same stays untouched."""
    await _lock(session, tenant_id, engagement)
    await session.execute(_NO_GUESSING)
    key = _key(tenant_id, engagement)
    await session.execute(_FORGET_ALIASES, key)
    await session.execute(_ALIASES, key)
    row = (await session.execute(_REBUILD, key)).one()
    await session.execute(_GUESSING)
    return Changes(*(int(count) for count in row))


async def conflicts(
    session: AsyncSession,
    tenant_id: UUID,
    engagement: str | None,
    *,
    identity: str | None = None,
    field: str | None = None,
) -> list[Conflict]:
    """Fields whose sources disagree, the undecided first; at most 1000.

    Lists do not conflict, since they are joined.
    """
    await session.execute(_NO_GUESSING)
    rows = await session.execute(
        _CONFLICTS,
        _key(tenant_id, engagement)
        | {"identity": identity, "field": field, "most": CONFLICT_LIMIT},
    )
    await session.execute(_GUESSING)
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


async def asset_sources(
    session: AsyncSession, tenant_id: UUID, engagement: str | None, identity: str
) -> list[AssetSource]:
    """The rows that an asset is made of, the one that counts most first; at most 200.

    Raises NotFoundError where there is no such asset.
    """
    rows = await session.execute(
        _WHERE_FROM,
        _key(tenant_id, engagement) | {"identity": identity, "most": SOURCE_LIMIT},
    )
    found = [
        AssetSource(
            flow=row.flow,
            row=row.row,
            at=row.finished_at,
            identity=row.identity,
            asset_type=row.asset_type,
            class_rule=row.class_rule,
            identity_confidence=row.identity_confidence,
            keys=row.keys,
            values=row.fields,
            originals=row.originals,
            conversions=row.conversions,
            unmapped=row.unmapped,
            problems=row.problems,
        )
        for row in rows
    ]
    if not found:
        raise NotFoundError(f"no asset {identity!r} in this engagement")
    return found


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

    Raises NotFoundError where the sources agree, InvalidAnswerError where values cannot be merged.
    """
    await _lock(session, tenant_id, engagement)
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
    await _lock(session, tenant_id, engagement)
    gone = await session.execute(
        _UNDO, _key(tenant_id, engagement) | {"identity": identity, "field": field}
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
    await _lock(session, tenant_id, engagement)
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


async def inventory_summary(session: AsyncSession, engagement: str | None) -> dict[str, Any]:
    """Number of assets of an engagement, in all and by type."""
    rows = await session.execute(
        select(Asset.asset_type, func.count())
        .where(Asset.engagement == (engagement or ""))
        .group_by(Asset.asset_type)
    )
    by_type = {kind: int(count) for kind, count in rows.tuples()}
    return {"assets": sum(by_type.values()), "by_type": by_type}
