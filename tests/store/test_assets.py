"""The merged inventory of an engagement, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from discovery_core.errors import ErrorCode, InvalidAnswerError, NotFoundError
from discovery_core.states import FlowState
from discovery_core.store.assets import Changes
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


def stamps(stores: Stores) -> list[Any]:
    """When each asset was last changed."""
    engine = create_engine(database_url(stores.urls.superuser))
    with engine.connect() as connection:
        found = list(connection.execute(text("SELECT updated_at FROM assets ORDER BY identity")))
    engine.dispose()
    return found


async def summary_of(flow: Flow, stores: Stores) -> str:
    """What the history says of the inventory phase."""
    history = await stores.api.history(flow.tenant_id, flow.flow_id)
    (event,) = [
        e for e in history if e.trigger == "PhaseSucceeded" and e.phase == "asset_inventory"
    ]
    return event.message


async def test_the_same_file_again_changes_nothing_and_a_newer_one_says_what(
    stores: Stores,
) -> None:
    tenant = uuid4()
    first, again, newer = (member(stores, tenant, name) for name in ("first", "again", "newer"))
    await to_inventory(first, {"hostname": "web1", "memory_gb": 8})
    assert "1 assets, 1 added, 0 updated" in await summary_of(first, stores)
    before = stamps(stores)
    await to_inventory(again, {"hostname": "web1", "memory_gb": 8})
    # only the list of the flows that know it has grown
    assert assets(stores) == [{"hostname": "web1", "memory_gb": 8}]
    await to_inventory(newer, {"hostname": "web1", "memory_gb": 16})
    assert "1 assets, 0 added, 1 updated, 0 removed" in await summary_of(newer, stores)
    assert stamps(stores) != before
    unchanged = stamps(stores)
    assert await stores.api.set_precedence(tenant, "dc-east", []) == Changes(total=1)
    assert stamps(stores) == unchanged


async def disagreeing(stores: Stores) -> UUID:
    """A tenant whose flows `cmdb` and `scan` disagree on memory and owner of web1."""
    tenant = uuid4()
    await to_inventory(
        member(stores, tenant, "cmdb"),
        {"hostname": "web1", "memory_gb": 8, "owner": "ann", "ip_address": ["10.0.0.1"]},
    )
    await to_inventory(
        member(stores, tenant, "scan"),
        {"hostname": "web1", "memory_gb": 16, "owner": "bo", "ip_address": ["10.0.0.2"]},
    )
    return tenant


async def test_conflicts_name_every_value_with_its_source(stores: Stores) -> None:
    tenant = await disagreeing(stores)
    found = await stores.api.conflicts(tenant, "dc-east")
    assert [(c.field, c.current, c.choice) for c in found] == [
        ("memory_gb", 16, None), ("owner", "bo", None),
    ]  # fmt: skip
    assert [(v.value, v.flow, v.row) for v in found[1].values] == [
        ("ann", "cmdb", 1), ("bo", "scan", 1),
    ]  # fmt: skip
    assert await stores.api.conflicts(tenant, "another") == []
    assert await stores.api.conflicts(uuid4(), "dc-east") == []


@pytest.mark.parametrize(
    ("choice", "value"), [("keep", "ann"), ("replace", "bo"), ("merge", "ann; bo")]
)
async def test_a_decision_counts_and_is_applied_again(
    stores: Stores, choice: Any, value: str
) -> None:
    tenant = await disagreeing(stores)
    await stores.api.decide_conflict(
        tenant, "dc-east", identity="hostname:web1", field="owner", choice=choice, decided_by="zoe"
    )
    assert assets(stores)[0]["owner"] == value
    await to_inventory(member(stores, tenant, "later"), {"hostname": "web1", "owner": "cy"})
    assert assets(stores)[0]["owner"] == value
    (decided,) = [c for c in await stores.api.conflicts(tenant, "dc-east") if c.choice]
    assert (decided.field, decided.choice, decided.decided_by) == ("owner", choice, "zoe")
    await stores.api.undo_decision(tenant, "dc-east", identity="hostname:web1", field="owner")
    assert assets(stores)[0]["owner"] == "cy"
    with pytest.raises(NotFoundError):
        await stores.api.undo_decision(tenant, "dc-east", identity="hostname:web1", field="owner")


async def test_numbers_cannot_be_merged_and_agreement_not_decided(stores: Stores) -> None:
    tenant = await disagreeing(stores)
    key: dict[str, Any] = {"identity": "hostname:web1", "decided_by": "zoe"}
    with pytest.raises(InvalidAnswerError, match="only texts can be merged"):
        await stores.api.decide_conflict(
            tenant, "dc-east", field="memory_gb", choice="merge", **key
        )
    with pytest.raises(NotFoundError, match="agree"):
        await stores.api.decide_conflict(tenant, "dc-east", field="hostname", choice="keep", **key)


async def test_a_source_can_have_precedence(stores: Stores) -> None:
    tenant = await disagreeing(stores)
    await stores.api.set_precedence(tenant, "dc-east", ["cmdb", "scan"])
    assert assets(stores) == [
        {"hostname": "web1", "memory_gb": 8, "owner": "ann", "ip_address": ["10.0.0.1"]}
    ]
    await to_inventory(member(stores, tenant, "later"), {"hostname": "web1", "owner": "cy"})
    assert assets(stores)[0]["owner"] == "ann"
    assert await stores.api.precedence(tenant, "dc-east") == ["cmdb", "scan"]
    await stores.api.set_precedence(tenant, "dc-east", [])
    assert (assets(stores)[0]["owner"], assets(stores)[0]["memory_gb"]) == ("cy", 16)


async def test_the_order_of_flows_with_precedence_does_not_matter(stores: Stores) -> None:
    """Two flows of one engagement give the same inventory whichever is accepted first."""
    made: list[list[dict[str, Any]]] = []
    for order in (("a", "b"), ("b", "a")):
        tenant = uuid4()
        content = {"a": {"hostname": "web1", "owner": "ann"}, "b": {"hostname": "web1", "os": "x"}}
        for name in order:
            await to_inventory(member(stores, tenant, name), content[name])
        await stores.api.set_precedence(tenant, "dc-east", ["a", "b"])
        made.append(
            [c for c in assets(stores) if c == {"hostname": "web1", "owner": "ann", "os": "x"}]
        )
    assert [len(found) for found in made] == [1, 2]
