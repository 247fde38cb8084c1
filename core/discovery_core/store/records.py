"""Inventory rows: staged per attempt, merged into assets when the attempt is accepted.

Rows go in as one JSON document per batch and are taken apart by Postgres: COPY is not possible
into a table with row-level security, and a batch of a thousand rows needs one round trip.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import delete, exists, text
from sqlalchemy.ext.asyncio import AsyncSession

from ..states import RunState
from ..wire import InventoryRecord
from .schema import LIVE_RUN_STATES, PhaseRun, Record


class RecordBatch:
    """Rows on their way to the database, as JSON."""

    def __init__(self, tenant_id: UUID, run_id: UUID) -> None:
        self.tenant_id = tenant_id
        self.run_id = run_id
        self._rows: list[str] = []

    def add(self, record: InventoryRecord) -> None:
        """Appends one row."""
        self._rows.append(record.model_dump_json())

    def clear(self) -> None:
        """Forgets the rows."""
        self._rows.clear()

    def __len__(self) -> int:
        return len(self._rows)

    def document(self) -> str:
        """A JSON array of all rows. NUL, which Postgres cannot store, becomes U+FFFD."""
        return ("[" + ",".join(self._rows) + "]").replace("\\u0000", "\\ufffd")


_INSERT = text(
    """
    INSERT INTO records (tenant_id, run_id, row, identity, name, asset_type,
                         fields, originals, unmapped, problems)
    SELECT :tenant, :run, r.row, r.identity, r.name, r.asset_type,
           r.values, r.originals, r.unmapped, r.problems
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
        row bigint, identity text, name text, asset_type text,
        "values" jsonb, originals jsonb, unmapped jsonb, problems jsonb)
    ON CONFLICT (tenant_id, run_id, row) DO NOTHING
    """.replace("r.values", 'r."values"')
)


async def insert_records(session: AsyncSession, batch: RecordBatch) -> None:
    """Stages a batch. A repeated batch changes nothing."""
    await session.execute(
        _INSERT, {"tenant": batch.tenant_id, "run": batch.run_id, "rows": batch.document()}
    )


_REBUILD = text(
    """
    WITH accepted AS (
        SELECT DISTINCT ON (r.flow_id) r.id AS run_id, r.flow_id, r.finished_at
        FROM phase_runs r
        JOIN master_flows m ON m.tenant_id = r.tenant_id AND m.flow_id = r.flow_id
        WHERE r.tenant_id = :tenant AND r.phase = 'asset_inventory' AND r.state = 'Succeeded'
          AND coalesce(m.engagement, '') = :engagement
        ORDER BY r.flow_id, r.round DESC
    ), source_rows AS (
        SELECT a.flow_id, a.finished_at, r.*
        FROM records r JOIN accepted a ON a.run_id = r.run_id
        WHERE r.tenant_id = :tenant
    ), merged AS (
        SELECT identity,
               (array_agg(name ORDER BY finished_at DESC, run_id, row DESC)
                FILTER (WHERE name IS NOT NULL))[1] AS name,
               (array_agg(asset_type ORDER BY asset_type = 'unknown', finished_at DESC, run_id,
                          row DESC))[1] AS asset_type,
               jsonb_agg(DISTINCT to_jsonb(flow_id)) AS sources
        FROM source_rows GROUP BY identity
    ), merged_fields AS (
        SELECT identity,
               jsonb_object_agg(f.key, f.value ORDER BY finished_at, run_id, row) AS fields
        FROM source_rows, jsonb_each(source_rows.fields) AS f
        WHERE f.value <> 'null'::jsonb
        GROUP BY identity
    ), joined_lists AS (
        SELECT identity, finished_at, run_id, f.key, jsonb_agg(DISTINCT item) AS items
        FROM source_rows, jsonb_each(source_rows.fields) AS f, jsonb_array_elements(
            CASE jsonb_typeof(f.value) WHEN 'array' THEN f.value ELSE '[]' END) AS item
        GROUP BY identity, finished_at, run_id, f.key
    ), merged_lists AS (
        SELECT identity, jsonb_object_agg(key, items ORDER BY finished_at, run_id) AS fields
        FROM joined_lists GROUP BY identity
    )
    INSERT INTO assets (tenant_id, engagement, identity, name, asset_type, fields, sources)
    SELECT :tenant, :engagement, identity, name, asset_type,
           coalesce(merged_fields.fields, '{}') || coalesce(merged_lists.fields, '{}'), sources
    FROM merged LEFT JOIN merged_fields USING (identity) LEFT JOIN merged_lists USING (identity)
    """
)


async def rebuild_assets(session: AsyncSession, tenant_id: UUID, engagement: str | None) -> int:
    """Merges all accepted rows of an engagement anew; per field the latest value counts.

    A list counts as the latest flow has it in all its rows of the asset together.

    The same accepted attempts give the same assets, whatever the order of the calls. One lock
    per tenant and engagement serialises rebuilds. Returns the number of assets.
    """
    key = {"tenant": tenant_id, "engagement": engagement or ""}
    await session.execute(text("SET LOCAL statement_timeout = '300s'"))
    await session.execute(
        text(
            "SELECT pg_advisory_xact_lock(hashtextextended(CAST(:tenant AS text) || '/' || "
            "CAST(:engagement AS text), 0))"
        ),
        {"tenant": str(tenant_id), "engagement": engagement or ""},
    )
    await session.execute(
        text("DELETE FROM assets WHERE tenant_id = :tenant AND engagement = :engagement"), key
    )
    inserted = await session.execute(_REBUILD, key)
    return int(getattr(inserted, "rowcount", 0))


async def drop_staged(session: AsyncSession) -> None:
    """Removes inventory rows of attempts that ended without being accepted."""
    kept = exists().where(
        PhaseRun.tenant_id == Record.tenant_id,
        PhaseRun.id == Record.run_id,
        PhaseRun.state.in_((*LIVE_RUN_STATES, RunState.SUCCEEDED)),
    )
    await session.execute(delete(Record).where(~kept))
