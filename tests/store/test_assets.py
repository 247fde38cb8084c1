"""The merged inventory of an engagement, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

from discovery_core.errors import ErrorCode
from discovery_core.states import FlowState
from discovery_core.store.database import database_url
from discovery_core.wire import InventoryRecord
from sqlalchemy import create_engine, text

from tests.postgres import Stores
from tests.store.flows import SPEC, Flow


async def rows(*values: dict[str, Any]) -> AsyncIterator[InventoryRecord]:
    """Rows that all describe the asset web1."""
    for number, fields in enumerate(values, start=1):
        yield InventoryRecord(
            row=number, identity="hostname:web1", name="web1", asset_type="server", values=fields
        )


async def to_inventory(flow: Flow, *values: dict[str, Any]) -> None:
    """Runs a flow until its inventory is accepted."""
    await flow.to_gate()
    await flow.answer()
    await flow.run_phase(rows(*values))


def assets(stores: Stores) -> list[dict[str, Any]]:
    """All fields of all assets, whoever owns them."""
    engine = create_engine(database_url(stores.urls.superuser))
    with engine.connect() as connection:
        found = connection.execute(text("SELECT fields FROM assets ORDER BY tenant_id, identity"))
        result = [dict(row.fields) for row in found]
    engine.dispose()
    return result


def member(stores: Stores, tenant: object, name: str) -> Flow:
    """A flow of the engagement dc-east."""
    return Flow(stores, spec=SPEC | {"engagement": "dc-east"}, tenant_id=tenant, name=name)  # type: ignore[arg-type]


async def test_the_inventory_counts_before_the_phases_that_plan_with_it(stores: Stores) -> None:
    flow = Flow(stores)
    await to_inventory(flow, {"hostname": "web1"})
    assert (await flow.load()).state is FlowState.QUEUED
    assert assets(stores) == [{"hostname": "web1"}]
    run = await flow.start()
    await flow.claim()
    await stores.operator.fail_attempt(
        flow.flow_id, run, code=ErrorCode.INVALID_RESULT, message="no", retry_delay=None
    )
    assert (await flow.load()).state is FlowState.FAILED
    assert assets(stores) == [{"hostname": "web1"}]


async def test_rows_of_one_asset_join_their_lists(stores: Stores) -> None:
    flow = Flow(stores)
    await to_inventory(
        flow,
        {"ip_address": ["10.0.0.2"], "memory_gb": 8},
        {"ip_address": ["10.0.0.1", "10.0.0.2"], "memory_gb": 16},
        {"ip_address": []},
    )
    assert assets(stores) == [{"ip_address": ["10.0.0.1", "10.0.0.2"], "memory_gb": 16}]


async def test_a_later_flow_of_the_engagement_has_the_last_word(stores: Stores) -> None:
    tenant = uuid4()
    await to_inventory(
        member(stores, tenant, "old"), {"ip_address": ["10.0.0.1"], "owner": "ann", "memory_gb": 8}
    )
    await to_inventory(member(stores, tenant, "new"), {"ip_address": ["10.0.0.9"], "memory_gb": 16})
    assert assets(stores) == [{"ip_address": ["10.0.0.9"], "owner": "ann", "memory_gb": 16}]
