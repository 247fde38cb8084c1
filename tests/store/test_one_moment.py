"""What is read of a flow is of one moment, though it takes several questions."""

from __future__ import annotations

from uuid import UUID

import pytest
from discovery_core.phases import Phase
from discovery_core.snapshots import FlowSnapshot
from discovery_core.states import FlowState, RunState
from discovery_core.store import Database
from discovery_core.store.ledger import snapshot as made
from discovery_core.store.schema import DiscoveryFlowRow
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from tests.postgres import Stores
from tests.store.flows import Flow


@pytest.mark.parametrize("reader", ["api", "operator", "look"])
async def test_a_gate_that_opens_between_two_questions_is_not_half_seen(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    flow = Flow(stores)
    await flow.queue()
    while (await flow.load()).phase is not Phase.FIELD_MAPPING:
        await flow.run_phase()
    await flow.start()
    pod = await flow.claim()
    first_question = made._runs

    async def meanwhile(session: AsyncSession, row: DiscoveryFlowRow) -> object:
        monkeypatch.setattr(made, "_runs", first_question)
        await pod.do_phase()
        return await first_question(session, row)

    monkeypatch.setattr(made, "_runs", meanwhile)
    seen = await _read(stores, reader, flow.tenant_id, flow.flow_id)
    assert seen is not None
    assert seen.state is FlowState.RUNNING
    assert seen.request is None
    assert seen.run is not None
    assert seen.run.state is RunState.RUNNING

    after = await _read(stores, reader, flow.tenant_id, flow.flow_id)
    assert after is not None
    assert after.state is FlowState.AWAITING_APPROVAL
    assert after.request is not None


async def _read(stores: Stores, reader: str, tenant_id: UUID, flow_id: UUID) -> FlowSnapshot | None:
    if reader == "api":
        return await stores.api.flow(tenant_id, flow_id)
    if reader == "operator":
        return await stores.operator.load(flow_id)
    return (await stores.operator.look(flow_id, (10, 10))).flow


async def test_what_reads_cannot_write(stores: Stores) -> None:
    async def writing(session: AsyncSession) -> None:
        await session.execute(text("DELETE FROM ended_sessions"))

    with pytest.raises(DBAPIError, match="read-only transaction"):
        await stores.api.db.read(None, writing)
    await stores.api.db.run(None, writing)


@pytest.mark.parametrize("door", ["operator", "execution", "api"])
async def test_no_statement_is_compiled(stores: Stores, door: str) -> None:
    """PostgreSQL with LLVM took 15 s to compile a rebuild of ten rows, and 0.1 s to run it."""
    database: Database = getattr(stores, door).db
    async with database.engine.connect() as connection:
        assert await connection.scalar(text("SHOW jit")) == "off"
