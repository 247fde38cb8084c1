"""An engagement's merged inventory as a stream, for crews that plan with all of it.

Everything is read in one transaction that sees one moment, so that a rebuild meanwhile neither
doubles nor loses an asset; rows come through a cursor, so that it does not matter how many there
are. The same inventory gives the same bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from ..database import Database, TenantScope
from .assets import SOURCES, key_of, without_loops

_AT_ONCE = 1000
_GZIP = 31  # zlib's window bits for a gzip stream, whose header then has no time
_ASSETS = text(
    f"""
    DECLARE merged_assets NO SCROLL CURSOR FOR
    WITH {SOURCES}, told AS (
        SELECT asset AS identity, jsonb_agg(unmapped ORDER BY rank) AS unmapped,
               coalesce(jsonb_agg(row ORDER BY row) FILTER (WHERE flow_id = :flow), '[]') AS rows
        FROM source_rows GROUP BY asset
    )
    SELECT jsonb_build_object(
        'identity', a.identity, 'name', a.name, 'asset_type', a.asset_type,
        'class_rule', a.class_rule, 'identity_confidence', a.identity_confidence,
        'rows', coalesce(t.rows, '[]'), 'fields', a.fields, 'unmapped',
        CASE WHEN jsonb_array_length(t.unmapped) = 1 THEN t.unmapped -> 0 ELSE coalesce((
            SELECT jsonb_object_agg(u.key, u.value ORDER BY o.n)
            FROM jsonb_array_elements(t.unmapped) WITH ORDINALITY AS o(source, n),
                 jsonb_each(o.source) AS u), '{{}}') END)::text
    FROM assets a LEFT JOIN told t ON t.identity = a.identity
    WHERE a.tenant_id = :tenant AND a.engagement = :engagement
    ORDER BY a.identity COLLATE "C"
    """  # noqa: S608 - texts of ours
)
_NEXT = text(f"FETCH {_AT_ONCE} FROM merged_assets")


async def merged_inventory(
    db: Database, tenant_id: UUID, engagement: str, flow_id: UUID
) -> AsyncGenerator[bytes]:
    """All assets of a tenant's engagement as gzipped NDJSON, in pieces, by identity.

    An object has identity, name, asset_type, class_rule, identity_confidence, `fields` (as merged
    and decided), `unmapped` (columns without a field, of all sources; the one that counts most
    wins) and `rows` (source rows of the flow `flow_id`).
    """
    packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    async with (
        db.transaction(TenantScope(tenant_id), reading=True) as session,
        aclosing(_lines(session, tenant_id, engagement, flow_id)) as lines,
    ):
        async for part in lines:
            if packed := packer.compress(part):
                yield packed
    yield packer.flush()


async def _lines(
    session: AsyncSession, tenant_id: UUID, engagement: str, flow_id: UUID
) -> AsyncGenerator[bytes]:
    await session.execute(text("SET LOCAL statement_timeout = '300s'"))
    key = key_of(tenant_id, engagement) | {"flow": flow_id}
    async with without_loops(session):
        await session.execute(_ASSETS, key)
        # by hand: rows that the driver's own cursor has handed out stay in memory until its end
        while rows := (await session.scalars(_NEXT)).all():
            yield "".join(f"{row}\n" for row in rows).encode()
