"""Inventory rows: staged per attempt, visible when the attempt is accepted.

Rows go in as one JSON document per batch, in the words that they came in, and are taken apart by
Postgres: COPY is not possible into a table with row-level security, and a batch of a thousand rows
needs one round trip.
"""

from __future__ import annotations

import re
from uuid import UUID

from sqlalchemy import exists, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from ...states import RunState
from ..schema import LIVE_RUN_STATES, PhaseRun, Record

# a NUL, but not the text of one: before that stands an odd number of backslashes
_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


class RecordBatch:
    """Rows on their way to the database, each an `InventoryRecord` as JSON."""

    def __init__(self, tenant_id: UUID, run_id: UUID) -> None:
        self.tenant_id = tenant_id
        self.run_id = run_id
        self._rows: list[bytes] = []

    def add(self, record: bytes) -> None:
        """Appends one row."""
        self._rows.append(record)

    def clear(self) -> None:
        """Forgets the rows."""
        self._rows.clear()

    def __len__(self) -> int:
        return len(self._rows)

    def document(self) -> str:
        """A JSON array of all rows. NUL, which Postgres cannot store, becomes U+FFFD."""
        return _NUL.sub(rb"\1\\ufffd", b"[" + b",".join(self._rows) + b"]").decode()


_KEPT = (*LIVE_RUN_STATES, RunState.SUCCEEDED)
_INSERT = text(
    """
    INSERT INTO records (tenant_id, run_id, row, identity, name, asset_type, class_rule,
                         identity_confidence, keys, fields, originals, conversions, unmapped,
                         problems)
    SELECT :tenant, :run, r.row, r.identity, r.name, r."assetType", nullif(r."classRule", ''),
           r."identityConfidence", coalesce(r.keys, '[]'), r."values",
           coalesce(r.originals, '{}'), coalesce(r.conversions, '{}'),
           coalesce(r.unmapped, '{}'), coalesce(r.problems, '[]')
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
        row bigint, identity text, name text, "assetType" text, "classRule" text,
        "identityConfidence" double precision, keys jsonb, "values" jsonb, originals jsonb,
        conversions jsonb, unmapped jsonb, problems jsonb)
    ON CONFLICT (tenant_id, run_id, row) DO NOTHING
    """
)

_DROP = text(
    """
    WITH gone AS (
        DELETE FROM records WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM records
            WHERE tenant_id = :tenant AND run_id = ANY (CAST(:runs AS uuid[])) LIMIT :most))
        RETURNING 1
    )
    SELECT count(*) FROM gone
    """
)


async def insert_records(session: AsyncSession, batch: RecordBatch) -> None:
    """Stages a batch. A repeated batch changes nothing."""
    await session.execute(
        _INSERT, {"tenant": batch.tenant_id, "run": batch.run_id, "rows": batch.document()}
    )


async def drop_staged(session: AsyncSession, limit: int) -> int:
    """Removes up to `limit` rows of an attempt that ended without being accepted.

    Returns how many; 0 where there are no such rows any more.
    """
    rows = exists().where(Record.tenant_id == PhaseRun.tenant_id, Record.run_id == PhaseRun.id)
    found = await session.execute(
        select(PhaseRun.tenant_id, PhaseRun.id).where(PhaseRun.state.not_in(_KEPT), rows).limit(1)
    )
    run = found.tuples().one_or_none()
    return 0 if run is None else await drop_rows(session, run[0], [run[1]], limit)


async def drop_rows_of(
    session: AsyncSession, tenant_id: UUID, flow_id: UUID, limit: int, *, accepted: bool
) -> int:
    """Removes up to `limit` rows of a flow's ended attempts, the `accepted` ones only if so said.

    Returns how many.
    """
    kept = LIVE_RUN_STATES if accepted else _KEPT
    runs = await session.scalars(
        select(PhaseRun.id).where(
            PhaseRun.tenant_id == tenant_id,
            PhaseRun.flow_id == flow_id,
            PhaseRun.state.not_in(kept),
        )
    )
    return await drop_rows(session, tenant_id, list(runs), limit)


async def drop_rows(session: AsyncSession, tenant_id: UUID, runs: list[UUID], limit: int) -> int:
    """Removes up to `limit` rows of these attempts. Returns how many."""
    gone = await session.execute(_DROP, {"tenant": tenant_id, "runs": runs, "most": limit})
    return int(gone.scalar_one())
