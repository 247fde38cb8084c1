"""The merged inventory of an engagement: rebuilt from accepted rows and from what people decided.

The same accepted attempts and decisions give the same assets, whatever the order in which they
ended. A value is taken from the source that has precedence, then from the flow that was requested
last; a list is the one of that flow, from all its rows of the asset. A person's decision about a
field stands above both and is kept apart, so that it is applied again whenever the inventory is
rebuilt.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from ...errors import NotFoundError
from ..schema import Asset
from .identity import FIND_ALIASES, JOIN_CONFIDENCE, JOIN_REASON, SOURCE_ROWS

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


# The rows that count: of each flow of the engagement that nobody has deleted its latest accepted
# inventory.
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
          AND (m.deleted_at IS NULL OR m.retired_at IS NOT NULL)
        ORDER BY r.flow_id, r.round DESC
    )
"""
SOURCES = f"{_ACCEPTED}, {SOURCE_ROWS}"
_ALIASES = text(f"WITH RECURSIVE {_ACCEPTED}, {FIND_ALIASES}")
_REBUILD = text(
    f"""
    WITH {SOURCES}, merged AS (
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
    -- behind an identity that several assets share stands the flow's id
    WHERE r.tenant_id = :tenant AND r.identity IN (
        SELECT k.identity FROM known k
        UNION SELECT regexp_replace(k.identity, ':[0-9a-f-]{{36}}$', '') FROM known k) AND (
        r.identity || ':' || a.flow_id IN (SELECT k.identity FROM known k)
        OR (r.identity IN (SELECT k.identity FROM known k) AND NOT EXISTS (
            SELECT FROM asset_aliases o WHERE o.tenant_id = :tenant
               AND o.engagement = :engagement AND o.identity = r.identity || ':' || a.flow_id)))
    ORDER BY a.position NULLS LAST, a.created_at DESC, a.flow DESC, r.row DESC LIMIT :most
    """  # noqa: S608 - texts of ours
)
_DROP_OWN = text(
    """
    WITH page AS (
        SELECT identity, sources FROM assets
        WHERE tenant_id = :tenant AND engagement = :engagement AND identity > :after
        ORDER BY identity LIMIT :most
    ), gone AS (
        DELETE FROM assets a USING page p
        WHERE a.tenant_id = :tenant AND a.engagement = :engagement AND a.identity = p.identity
          AND p.sources <@ to_jsonb(CAST(:flows AS text[]))
    )
    SELECT max(identity) FROM page
    """
)
_FORGET_ALIASES = text(
    "DELETE FROM asset_aliases WHERE tenant_id = :tenant AND engagement = :engagement"
)


def key_of(tenant_id: UUID, engagement: str | None) -> dict[str, Any]:
    """An engagement's inventory, as the statements name it."""
    return {"tenant": tenant_id, "engagement": engagement or ""}


@asynccontextmanager
async def without_loops(session: AsyncSession) -> AsyncIterator[None]:
    """For statements in between whose sizes the planner knows nothing of.

    It would compare every row with every other.
    """
    await session.execute(text("SET LOCAL enable_nestloop = off"))
    yield
    await session.execute(text("SET LOCAL enable_nestloop = on"))


async def lock_inventory(session: AsyncSession, tenant_id: UUID, engagement: str | None) -> None:
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
    await lock_inventory(session, tenant_id, engagement)
    key = key_of(tenant_id, engagement)
    async with without_loops(session):
        await session.execute(_FORGET_ALIASES, key)
        await session.execute(_ALIASES, key)
        row = (await session.execute(_REBUILD, key)).one()
    return Changes(*(int(count) for count in row))


async def drop_own_assets(
    session: AsyncSession,
    tenant_id: UUID,
    engagement: str | None,
    flows: Sequence[UUID],
    *,
    after: str,
    limit: int,
) -> str | None:
    """Removes assets that only these flows know, of the next `limit` assets `after` an identity.

    So that a rebuild without those flows has little left to remove. Returns where to go on; None
    at the end.
    """
    found: str | None = await session.scalar(
        _DROP_OWN,
        key_of(tenant_id, engagement)
        | {"flows": [str(flow) for flow in flows], "after": after, "most": limit},
    )
    return found


async def asset_sources(
    session: AsyncSession, tenant_id: UUID, engagement: str | None, identity: str
) -> list[AssetSource]:
    """The rows that an asset is made of, the one that counts most first; at most 200.

    Raises NotFoundError where there is no such asset.
    """
    rows = await session.execute(
        _WHERE_FROM,
        key_of(tenant_id, engagement) | {"identity": identity, "most": SOURCE_LIMIT},
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


async def inventory_summary(session: AsyncSession, engagement: str | None) -> dict[str, Any]:
    """Number of assets of an engagement, in all and by type."""
    rows = await session.execute(
        select(Asset.asset_type, func.count())
        .where(Asset.engagement == (engagement or ""))
        .group_by(Asset.asset_type)
    )
    by_type = {kind: int(count) for kind, count in rows.tuples()}
    return {"assets": sum(by_type.values()), "by_type": by_type}
