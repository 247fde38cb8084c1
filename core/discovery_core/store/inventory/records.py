"""Inventory rows: staged per attempt, visible when the attempt is accepted.

Rows go in as one JSON document per batch and are taken apart by Postgres: COPY is not possible
into a table with row-level security, and a batch of a thousand rows needs one round trip.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import delete, exists, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from ...states import RunState
from ...wire import InventoryRecord
from ..schema import LIVE_RUN_STATES, PhaseRun, Record


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


_KEPT = (*LIVE_RUN_STATES, RunState.SUCCEEDED)
_INSERT = text(
    """
    INSERT INTO records (tenant_id, run_id, row, identity, name, asset_type, class_rule,
                         identity_confidence, keys, fields, originals, conversions, unmapped,
                         problems)
    SELECT :tenant, :run, r.row, r.identity, r.name, r.asset_type, nullif(r.class_rule, ''),
           r.identity_confidence, r.keys, r.values, r.originals, r.conversions, r.unmapped,
           r.problems
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
        row bigint, identity text, name text, asset_type text, class_rule text,
        identity_confidence double precision, keys jsonb, "values" jsonb, originals jsonb,
        conversions jsonb, unmapped jsonb, problems jsonb)
    ON CONFLICT (tenant_id, run_id, row) DO NOTHING
    """.replace("r.values", 'r."values"')
)


async def insert_records(session: AsyncSession, batch: RecordBatch) -> None:
    """Stages a batch. A repeated batch changes nothing."""
    await session.execute(
        _INSERT, {"tenant": batch.tenant_id, "run": batch.run_id, "rows": batch.document()}
    )


async def drop_staged(session: AsyncSession) -> None:
    """Removes inventory rows of attempts that ended without being accepted."""
    kept = exists().where(
        PhaseRun.tenant_id == Record.tenant_id,
        PhaseRun.id == Record.run_id,
        PhaseRun.state.in_(_KEPT),
    )
    await session.execute(delete(Record).where(~kept))


async def drop_staged_by(session: AsyncSession, tenant_id: UUID, flow_id: UUID) -> None:
    """The same for one flow, without a look at any other's rows."""
    ended = select(PhaseRun.id).where(
        PhaseRun.tenant_id == tenant_id,
        PhaseRun.flow_id == flow_id,
        PhaseRun.state.not_in(_KEPT),
    )
    await session.execute(
        delete(Record).where(Record.tenant_id == tenant_id, Record.run_id.in_(ended))
    )
