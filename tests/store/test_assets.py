"""The merged inventory of an engagement, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from discovery_core import actions as act
from discovery_core.errors import ErrorCode, InvalidAnswerError, NotFoundError
from discovery_core.states import FlowState
from discovery_core.store.database import database_url
from discovery_core.store.inventory.assets import Changes
from discovery_core.store.inventory.conflicts import IDENTITY
from discovery_core.wire.results import InventoryRecord
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
    await stores.operator.apply(
        flow.flow_id,
        act.FailAttempt(run, code=ErrorCode.INVALID_RESULT, message="no", retry_delay=None),
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


def known(row: int, identity: str, *keys: str, **fields: Any) -> InventoryRecord:
    """A row that is known by keys."""
    return InventoryRecord(
        row=row,
        identity=identity,
        name=identity.split(":")[1],
        asset_type=fields.pop("asset_type", "server"),
        keys=list(keys),
        identity_confidence=0.95,
        values=fields,
    )


async def inventory(stores: Stores, **sources: list[InventoryRecord]) -> dict[str, Any]:
    """Assets of an engagement by identity, made of one flow for each source, in their order."""
    tenant = uuid4()
    for name, records in sources.items():
        flow = member(stores, tenant, name)
        flow.created_at = datetime(2026, 1, 1, tzinfo=UTC)
        await flow.to_gate()
        await flow.answer()
        await flow.run_phase(_each(records))
    listed = await stores.api.list_assets(tenant, "dc-east")
    return {asset.identity: asset for asset in listed}


async def _each(records: list[InventoryRecord]) -> AsyncIterator[InventoryRecord]:
    for record in records:
        yield record


CMDB = [
    known(1, "serial_number:s1", "serial_number:s1", "fqdn:web01.corp", "name:web01", owner="ann"),
    known(2, "asset_id:ci2", "asset_id:ci2", "name:db01", "name_and_ip:db01 10.0.0.2", owner="bo"),
    known(3, "hostname:app", "name:app", owner="cy"),
    known(4, "row:4", memory_gb=1),
]
SCAN = [
    known(1, "fqdn:web01.corp", "fqdn:web01.corp", "name:web01", memory_gb=8),
    known(2, "asset_id:vm-9", "asset_id:vm-9", "name:db01", "name_and_ip:db01 10.0.0.2",
          memory_gb=16),
    # two machines of a name in one source: which of them is meant is not clear
    known(3, "serial_number:x1", "serial_number:x1", "name:app", memory_gb=1),
    known(4, "serial_number:x2", "serial_number:x2", "name:app", memory_gb=2),
]  # fmt: skip


async def test_sources_that_know_an_asset_by_other_keys_are_joined(stores: Stores) -> None:
    made = await inventory(stores, cmdb=CMDB, scan=SCAN)
    assert made["serial_number:s1"].fields == {"owner": "ann", "memory_gb": 8}
    assert made["serial_number:s1"].identity_confidence == 0.9
    assert made["serial_number:s1"].identity_reason == (
        "serial_number; the same fqdn as fqdn:web01.corp"
    )
    assert made["asset_id:ci2"].fields == {"owner": "bo", "memory_gb": 16}
    assert made["asset_id:ci2"].identity_confidence == 0.8
    assert made["hostname:app"].fields == {"owner": "cy"}
    assert made["serial_number:x1"].identity_confidence == 0.95
    # nobody else's row 4
    assert [key for key in made if key.startswith("row:4:")]
    assert len(made) == 6


async def test_the_order_in_which_flows_end_does_not_matter(stores: Stores) -> None:
    other = [record.model_copy(update={"values": record.values | {"memory_gb": 3}})
             for record in CMDB]  # fmt: skip
    one = await inventory(stores, cmdb=other, scan=SCAN)
    two = await inventory(stores, scan=SCAN, cmdb=other)

    def content(made: dict[str, Any]) -> list[Any]:
        # the identity of a row that nothing tells apart ends in its flow's id
        return sorted(
            (":".join(asset.identity.split(":")[:2]), str(asset.fields), asset.identity_reason)
            for asset in made.values()
        )

    assert content(one) == content(two)
    assert one["serial_number:s1"].fields["memory_gb"] == 8


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # another serial number
        (known(1, "serial_number:a", "serial_number:a", "fqdn:web.corp"),
         known(1, "serial_number:b", "serial_number:b", "fqdn:web.corp")),
        # another domain
        (known(1, "fqdn:web.a", "fqdn:web.a", "name:web"),
         known(1, "fqdn:web.b", "fqdn:web.b", "name:web")),
        # another class
        (known(1, "hostname:core1", "name:core1"),
         known(1, "serial_number:c", "serial_number:c", "name:core1", asset_type="network")),
        # an address of two assets that have names
        (known(1, "hostname:a", "name:a", "ip_address:10.0.0.1"),
         known(1, "hostname:b", "name:b", "ip_address:10.0.0.1")),
    ],
)  # fmt: skip
async def test_what_speaks_against_it_keeps_assets_apart(
    stores: Stores, first: InventoryRecord, second: InventoryRecord
) -> None:
    made = await inventory(stores, cmdb=[first], scan=[second])
    assert set(made) == {first.identity, second.identity}


async def test_an_address_finds_the_one_asset_that_has_it(stores: Stores) -> None:
    named = known(1, "hostname:a", "name:a", "ip_address:10.0.0.1", owner="ann")
    scanned = known(1, "ip_address:10.0.0.1", "ip_address:10.0.0.1", os_name="RHEL 9")
    made = await inventory(stores, cmdb=[named], scan=[scanned])
    assert made["hostname:a"].fields == {"owner": "ann", "os_name": "RHEL 9"}
    assert made["hostname:a"].identity_confidence == 0.5


async def test_a_chain_of_keys_does_not_join_what_a_serial_number_parts(stores: Stores) -> None:
    made = await inventory(
        stores,
        a=[known(1, "serial_number:a", "serial_number:a", "fqdn:web.corp")],
        b=[known(1, "fqdn:web.corp", "fqdn:web.corp", "name_and_ip:web 10.0.0.1")],
        c=[known(1, "serial_number:c", "serial_number:c", "name_and_ip:web 10.0.0.1")],
    )
    assert set(made) == {"serial_number:a", "fqdn:web.corp", "serial_number:c"}


async def test_a_decision_follows_the_asset_that_it_is_about(stores: Stores) -> None:
    tenant = uuid4()
    for name, record in (
        ("scan", known(1, "fqdn:web.corp", "fqdn:web.corp", owner="ann")),
        ("list", known(1, "fqdn:web.corp", "fqdn:web.corp", owner="bo")),
    ):
        flow = member(stores, tenant, name)
        await flow.to_gate()
        await flow.answer()
        await flow.run_phase(_each([record]))
    await stores.api.decide_conflict(
        tenant, "dc-east", identity="fqdn:web.corp", field="owner", choice="keep", decided_by="zoe"
    )
    flow = member(stores, tenant, "cmdb")
    await flow.to_gate()
    await flow.answer()
    cmdb = known(1, "serial_number:s", "serial_number:s", "fqdn:web.corp", owner="cy")
    await flow.run_phase(_each([cmdb]))
    (asset,) = await stores.api.list_assets(tenant, "dc-east")
    assert (asset.identity, asset.fields["owner"]) == ("serial_number:s", "ann")
    (conflict,) = await stores.api.conflicts(tenant, "dc-east")
    assert (conflict.identity, conflict.choice) == ("serial_number:s", "keep")
    await stores.api.undo_decision(tenant, "dc-east", identity="serial_number:s", field="owner")
    (asset,) = await stores.api.list_assets(tenant, "dc-east")
    assert asset.fields["owner"] == "cy"


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


def vm(row: int, identity: str, name: str, *keys: str, **fields: Any) -> InventoryRecord:
    """A row of the virtual machine whose UUID is u."""
    made = known(row, identity, "asset_id:u", f"name:{name}", *keys, asset_name=name, **fields)
    return made.model_copy(update={"name": name})


ORIGINAL = vm(1, "asset_id:u", "erp", "address:10.0.0.1", "vm:vc-a/vm-1", memory_gb=32)
COPY = vm(1, "asset_id:u", "erp-copy", "address:10.9.0.1", "vm:vc-b/vm-7", memory_gb=16)
APART = {"asset_id:u erp": 32, "asset_id:u erp-copy": 16}


async def engaged(stores: Stores, tenant: UUID, **sources: list[InventoryRecord]) -> None:
    """One flow of the engagement for each source, in their order."""
    for name, records in sources.items():
        flow = member(stores, tenant, name)
        flow.created_at = datetime(2026, 1, 1, tzinfo=UTC)
        await flow.to_gate()
        await flow.answer()
        await flow.run_phase(_each(records))


async def memories(stores: Stores, tenant: UUID) -> dict[str, Any]:
    """Memory of each asset, by identity."""
    listed = await stores.api.list_assets(tenant, "dc-east")
    return {asset.identity: asset.fields.get("memory_gb") for asset in listed}


async def same(stores: Stores, tenant: UUID, choice: Any, key: str = "asset_id:u") -> Changes:
    """A person says whether the machines of a key are the same."""
    return await stores.api.decide_conflict(
        tenant, "dc-east", identity=key, field=IDENTITY, choice=choice, decided_by="zoe"
    )


@pytest.mark.parametrize("first", ["original", "copy"])
async def test_a_copy_of_another_source_stays_apart_and_is_asked_about(
    stores: Stores, first: str
) -> None:
    tenant = uuid4()
    sources = {"original": [ORIGINAL], "copy": [COPY]}
    order = sorted(sources, key=lambda name: name != first)
    await engaged(stores, tenant, **{name: sources[name] for name in order})
    assert await memories(stores, tenant) == APART
    (conflict,) = await stores.api.conflicts(tenant, "dc-east")
    assert (conflict.kind, conflict.identity, conflict.choice) == ("identity", "asset_id:u", None)
    assert conflict.question == "same VM UUID or asset id, different machines: a copy?"
    assert [(v.value, v.flow, v.row) for v in conflict.values] == [
        ("erp", "original", 1), ("erp-copy", "copy", 1),
    ]  # fmt: skip
    for identity, flow in (("asset_id:u erp", "original"), ("asset_id:u erp-copy", "copy")):
        assert [s.flow for s in await stores.api.asset_sources(tenant, "dc-east", identity)] == [
            flow
        ]


async def test_a_person_says_that_they_are_the_same_and_takes_it_back(stores: Stores) -> None:
    tenant = uuid4()
    await engaged(stores, tenant, original=[ORIGINAL], copy=[COPY])
    await same(stores, tenant, "same")
    assert await memories(stores, tenant) == {"asset_id:u": 32}
    (asset,) = await stores.api.list_assets(tenant, "dc-east")
    assert asset.identity_confidence == 0.95
    await engaged(stores, tenant, z_later=[COPY.model_copy(update={"values": {"memory_gb": 8}})])
    assert await memories(stores, tenant) == {"asset_id:u": 8}
    decided = [c for c in await stores.api.conflicts(tenant, "dc-east") if c.kind != "field"]
    assert [(c.choice, c.decided_by) for c in decided] == [("same", "zoe")]
    await stores.api.undo_decision(tenant, "dc-east", identity="asset_id:u", field=IDENTITY)
    assert await memories(stores, tenant) == APART | {"asset_id:u erp-copy": 8}
    with pytest.raises(NotFoundError):
        await stores.api.undo_decision(tenant, "dc-east", identity="asset_id:u", field=IDENTITY)


async def test_different_machines_are_not_asked_about_again_until_another_comes(
    stores: Stores,
) -> None:
    tenant = uuid4()
    await engaged(stores, tenant, original=[ORIGINAL], copy=[COPY])
    await same(stores, tenant, "different")
    assert await memories(stores, tenant) == APART
    (conflict,) = await stores.api.conflicts(tenant, "dc-east")
    assert (conflict.choice, conflict.decided_by) == ("different", "zoe")
    # a key that would bring them together does not
    bridge = known(1, "asset_id:u", "asset_id:u", "address:10.0.0.1", "address:10.9.0.1")
    await engaged(stores, tenant, bridge=[bridge])
    assert {"asset_id:u erp", "asset_id:u erp-copy"} <= set(await memories(stores, tenant))
    third = vm(1, "asset_id:u", "erp-test", "address:10.8.0.1", memory_gb=1)
    await engaged(stores, tenant, third=[third])
    asked = [c for c in await stores.api.conflicts(tenant, "dc-east") if c.kind == "identity"]
    assert [c.choice for c in asked] == [None]


async def test_two_of_three_can_be_the_same(stores: Stores) -> None:
    tenant = uuid4()
    await engaged(stores, tenant, original=[ORIGINAL], copy=[COPY])
    await same(stores, tenant, "same")
    third = vm(1, "asset_id:u", "erp-test", "address:10.8.0.1", memory_gb=1)
    await engaged(stores, tenant, third=[third])
    await same(stores, tenant, "different")
    assert len(await memories(stores, tenant)) == 2
    (asked,) = [c for c in await stores.api.conflicts(tenant, "dc-east") if c.kind == "identity"]
    assert asked.choice == "different"


async def test_copies_of_one_file_are_joined_by_a_person_too(stores: Stores) -> None:
    tenant = uuid4()
    copy = COPY.model_copy(update={"identity": "asset_id:u erp-copy", "row": 2})
    one = ORIGINAL.model_copy(update={"identity": "asset_id:u erp"})
    await engaged(stores, tenant, both=[one, copy])
    assert await memories(stores, tenant) == APART
    await same(stores, tenant, "same")
    assert len(await memories(stores, tenant)) == 1
    # another source that knows the original alone finds it
    await stores.api.undo_decision(tenant, "dc-east", identity="asset_id:u", field=IDENTITY)
    await engaged(stores, tenant, scan=[vm(1, "asset_id:u", "erp", owner="ann")])
    assert await memories(stores, tenant) == {"asset_id:u": 32, "asset_id:u erp-copy": 16}


@pytest.mark.parametrize(
    ("other", "joins"),
    [
        # another name, but an address, a domain name or the virtual machine is the same
        (vm(1, "asset_id:u", "ERP prod", "address:10.0.0.1"), True),
        (vm(1, "asset_id:u", "erp prod", "vm:vc-a/vm-1"), True),
        (vm(1, "asset_id:u", "erp prod", "also:erp"), True),
        # nothing is known that could contradict
        (known(1, "asset_id:u", "asset_id:u"), True),
        (vm(1, "asset_id:u", "erp"), True),
        # a virtual machine that was registered anew in its vCenter
        (vm(1, "asset_id:u", "erp", "vm:vc-a/vm-9"), True),
        (vm(1, "asset_id:u", "erp", "vm:vc-b/vm-9"), False),
        (vm(1, "asset_id:u", "other"), False),
        (vm(1, "asset_id:u", "other", "vm:vc-b/vm-1"), False),
    ],
)  # fmt: skip
async def test_a_shared_uuid_joins_where_nothing_contradicts(
    stores: Stores, other: InventoryRecord, joins: bool
) -> None:
    tenant = uuid4()
    await engaged(stores, tenant, a=[ORIGINAL], b=[other])
    assert len(await memories(stores, tenant)) == (1 if joins else 2)


async def test_choices_fit_what_is_asked(stores: Stores) -> None:
    tenant = uuid4()
    await engaged(stores, tenant, original=[ORIGINAL], copy=[COPY])
    with pytest.raises(InvalidAnswerError, match="the same, or different"):
        await same(stores, tenant, "keep")
    with pytest.raises(InvalidAnswerError, match="kept, replaced or merged"):
        await stores.api.decide_conflict(
            tenant, "dc-east", identity="x", field="owner", choice="same", decided_by="zoe"
        )
    with pytest.raises(NotFoundError, match="no two machines"):
        await same(stores, tenant, "same", key="asset_id:v")
