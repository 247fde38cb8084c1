"""What is erased is gone: from every table, from the inventory, and in short transactions."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from discovery_core import actions as act
from discovery_core.errors import StoreError
from discovery_core.resource import DiscoveryFlowSpec
from discovery_core.resource_gate import Rerun
from discovery_core.states import FlowState
from discovery_core.store import ClusterScope
from discovery_core.store.artefacts import blobs
from discovery_core.store.database import database_url
from discovery_core.store.inventory.assets import rebuild_assets
from discovery_core.store.maintenance import retention as maintenance
from discovery_core.store.schema import TENANT_TABLES, Base
from discovery_operator.retention import Retention
from discovery_operator.settings import OperatorSettings
from pydantic import ValidationError

from tests.postgres import Stores
from tests.store.flows import SPEC, Flow, inventory_rows
from tests.store.test_retention import (
    DAY,
    KEPT,
    Desk,
    desk,
    finished,
    gone_for,
    left_behind,
    names,
)

__all__ = ["desk", "left_behind"]
EAST: dict[str, Any] = {**SPEC, "engagement": "dc-east"}
MARK = "mark-of-the-tenant"


async def second_source(stores: Stores, first: Flow, **fields: Any) -> Flow:
    """Another finished flow of the same engagement, with rows of its own."""
    other = Flow(stores, spec=first.spec, tenant_id=first.tenant_id, name="other", **fields)
    await other.to_gate()
    await other.answer()
    await other.run_phase(inventory_rows(2, "db"))
    await other.finish()
    return other


# -- deleted flows ---------------------------------------------------------------------------------


async def test_s06_deleting_a_flow_takes_its_rows_out_of_the_inventory(
    stores: Stores, desk: Desk
) -> None:
    """Also where nobody imports anything afterwards."""
    first = await finished(stores, spec=EAST)
    await second_source(stores, first)
    assert len(await names(stores, first, "dc-east")) == 5
    await stores.operator.apply(first.flow_id, act.MarkDeleted())
    await desk.retention().round()
    assert await names(stores, first, "dc-east") == ["hostname:db1", "hostname:db2"]
    left = await desk.sql(
        "SELECT 1 FROM records JOIN phase_runs r ON r.id = run_id WHERE r.flow_id = %s",
        first.flow_id,
    )
    assert left == []
    assert await desk.sql("SELECT 1 FROM flow_artefacts WHERE flow_id = %s", first.flow_id) == []
    # its history stays until its time is over
    assert len(await stores.api.history(first.tenant_id, first.flow_id)) > 10
    assert await desk.store.deleted_flows(10) == []


async def test_s06_a_flow_that_goes_by_age_stays_in_the_inventory(
    stores: Stores, desk: Desk
) -> None:
    """The retention deletes its resource, and the operator hears of that as of any deletion."""
    uid = desk.cluster.apply("migration", "servers", EAST)
    flow = await finished(stores, flow_id=uid, spec=EAST)
    assets = await names(stores, flow, "dc-east")
    await desk.age(flow, "2 days")
    retention = desk.retention(finished_flows=DAY, delete_resources=True)
    await retention.round()
    assert desk.cluster.flows == {}
    await stores.operator.apply(flow.flow_id, act.MarkDeleted())
    await retention.round()
    assert await desk.store.deleted_flows(10) == []
    other = await second_source(stores, flow)
    assert await names(stores, other, "dc-east") == ["hostname:db1", "hostname:db2", *assets]


async def test_s06_an_inventory_that_cannot_be_derived_anew_keeps_the_rows(
    stores: Stores, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = await finished(stores, spec=EAST)
    elsewhere = await finished(stores)
    for one in (flow, elsewhere):
        await stores.operator.apply(one.flow_id, act.MarkDeleted())
    genuine = rebuild_assets

    async def fails(session: Any, tenant_id: UUID, engagement: str | None) -> Any:
        if engagement:
            raise StoreError("out of disk space")
        return await genuine(session, tenant_id, engagement)

    monkeypatch.setattr(maintenance, "rebuild_assets", fails)
    await desk.retention().round()
    assert "records" in await desk.tables(flow.tenant_id)
    assert await names(stores, elsewhere) == []
    # what only it knew is out of sight already
    assert await names(stores, flow, "dc-east") == []
    monkeypatch.undo()
    await desk.retention().round()
    assert await names(stores, flow, "dc-east") == []


async def test_s06_deleting_a_flow_removes_nothing_in_its_own_transaction(
    stores: Stores, desk: Desk
) -> None:
    """What takes long must neither hold the flow's lock nor be undone with it."""
    flow = await finished(stores)
    before = await desk.tables(flow.tenant_id)
    await stores.operator.apply(flow.flow_id, act.MarkDeleted())
    after = await desk.tables(flow.tenant_id)
    assert after == before | {"flow_events": before["flow_events"] + 1} | (
        {"notifications": after["notifications"]} if "notifications" in after else {}
    )
    (left,) = await desk.store.deleted_flows(10)
    steps = 1
    while not await desk.store.release_batch(left, rows=2):
        # whatever ends the work here, this much is done
        steps += 1
    assert steps > 3


# -- every table -----------------------------------------------------------------------------------


def choice(table: sa.Table, column: str) -> str | None:
    """The first value that a CHECK of the column lists."""
    for constraint in table.constraints:
        if isinstance(constraint, sa.CheckConstraint):
            found = re.match(rf"{column} IN \('([^']*)'", str(constraint.sqltext))
            if found:
                return found[1]
    return None


def sample(table: sa.Table, column: sa.Column[Any]) -> Any:
    """Some value of the column's type."""
    kinds: dict[type, Any] = {
        bool: True, int: 1, float: 0.5, str: MARK, bytes: MARK.encode(), UUID: uuid4(),
        datetime: datetime.now(UTC), dict: {"a": MARK},
    }  # fmt: skip
    listed = choice(table, column.name)
    return listed if listed is not None else kinds[column.type.python_type]


def fill(connection: sa.Connection, tenant_id: UUID) -> list[str]:
    """A row of the tenant in each table that has none yet. Returns the tables that needed one."""
    filled = []
    for table in Base.metadata.sorted_tables:
        if "tenant_id" not in table.columns or table.name == "purges":
            continue
        mine = table.c.tenant_id == tenant_id
        if connection.scalar(sa.select(sa.func.count()).where(mine)):
            continue
        row = {"tenant_id": tenant_id}
        for foreign in table.foreign_key_constraints:
            if foreign.referred_table.name != "tenants":
                theirs = foreign.referred_table
                of_theirs = connection.execute(
                    sa.select(theirs).where(theirs.c.tenant_id == tenant_id).limit(1)
                ).one()
                for key in foreign.elements:
                    row[key.parent.name] = of_theirs._mapping[key.column.name]
        for column in table.columns:
            if column.name not in row and (not column.nullable or column.primary_key):
                row[column.name] = sample(table, column)
        connection.execute(sa.insert(table).values(row))
        filled.append(table.name)
    return filled


async def remains(desk: Desk, *marks: str) -> dict[str, set[str]]:
    """Tables of the whole database, whoever they belong to, in which one of the texts occurs."""
    tables = await desk.sql(
        "SELECT relname FROM pg_class WHERE relkind = 'r' "
        "AND relnamespace = 'public'::regnamespace ORDER BY 1"
    )
    found: dict[str, set[str]] = {}
    for (table,) in tables:
        for mark in marks:
            statement = f"SELECT 1 FROM {table} t WHERE position(%s in t::text) > 0 LIMIT 1"
            if await desk.sql(statement, mark):
                found.setdefault(mark, set()).add(str(table))
    return found


async def test_s06_after_a_namespace_is_erased_no_table_knows_it_but_the_audits(
    stores: Stores, desk: Desk, left_behind: Flow
) -> None:
    tenant = left_behind.tenant_id
    engine = sa.create_engine(database_url(stores.urls.superuser))
    with engine.begin() as connection:
        fill(connection, tenant)
    engine.dispose()
    assert set(await desk.tables(tenant)) == set(TENANT_TABLES) - {"purges"}
    marks = (str(tenant), str(left_behind.flow_id), "dc-east", "web1", "hunter2", MARK)
    before = await remains(desk, *marks)
    assert len(before[str(tenant)]) >= len(TENANT_TABLES)
    await gone_for(desk, left_behind, "31 days")
    await desk.retention(deleted_namespaces=timedelta(days=30)).round()
    assert await desk.tables(tenant) == {"purges": 1}
    assert await remains(desk, *marks) == {str(tenant): {"purges", "tenants"}}


async def test_s06_after_a_flow_is_erased_no_table_knows_it_but_the_register_and_the_audits(
    stores: Stores, desk: Desk
) -> None:
    flow = await finished(stores)
    other = await finished(stores)
    kept = await desk.tables(other.tenant_id)
    await desk.ask(flow, inventory=True)
    await desk.retention().round()
    left = await desk.tables(flow.tenant_id)
    assert set(left) == {"master_flows", "discovery_flows", "mapping_memory", "purges"} < KEPT
    assert (await remains(desk, str(flow.flow_id)))[str(flow.flow_id)] == {
        "master_flows", "discovery_flows", "mapping_memory", "purges",
    }  # fmt: skip
    assert await desk.tables(other.tenant_id) == kept


# -- how long --------------------------------------------------------------------------------------


async def own_time(stores: Stores, retention: str, name: str, **fields: Any) -> Flow:
    return await finished(stores, spec={**SPEC, "retention": retention}, name=name, **fields)


async def purged(*flows: Flow) -> list[bool]:
    """Which of them have no data any more."""
    return [(await flow.load()).purged for flow in flows]


async def test_s06_a_flows_own_time_counts_instead_of_the_installations(
    stores: Stores, desk: Desk
) -> None:
    short = await own_time(stores, "24h", "short")
    long = await own_time(stores, "300d", "long")
    plain = await finished(stores)
    for flow in (short, long, plain):
        await desk.age(flow, "2 days")
    await desk.retention().round()
    assert await purged(short, long, plain) == [True, False, False]
    assert (await desk.record(short)).reason == "Retention"
    for flow in (long, plain):
        await desk.age(flow, "91 days")
    await desk.retention(finished_flows=timedelta(days=90)).round()
    assert await purged(long, plain) == [False, True]
    await desk.age(long, "301 days")
    await desk.retention().round()
    assert await purged(long) == [True]


async def test_s06_no_time_is_over_before_an_export_was_possible(
    stores: Stores, desk: Desk
) -> None:
    """A flow has to have ended, and that an hour ago."""
    asks = Flow(stores, spec={**SPEC, "retention": "1h"}, name="asks")
    await asks.to_gate()
    ended = await own_time(stores, "1h", "ended")
    await desk.age(asks, "9 days")
    await desk.age(ended, "59 minutes")
    await desk.retention(finished_flows=timedelta(seconds=1)).round()
    assert await purged(asks, ended) == [False, False]
    # nor by a time that was written past the resource's rules
    await desk.sql("UPDATE discovery_flows SET retention_seconds = 1")
    await desk.retention().round()
    assert await purged(asks, ended) == [False, False]
    await desk.age(ended, "61 minutes")
    await desk.retention().round()
    assert await purged(asks, ended) == [False, True]


@pytest.mark.parametrize("text", ["0d", "30m", "1", "1h30m", "-1d", "100000d", ""])
def test_s06_a_flow_names_whole_hours_or_days(text: str) -> None:
    with pytest.raises(ValidationError):
        DiscoveryFlowSpec.model_validate({**SPEC, "retention": text})


async def test_s06_a_flows_time_can_be_changed_later(stores: Stores, desk: Desk) -> None:
    flow = await own_time(stores, "300d", "servers")
    await desk.age(flow, "2 days")
    for generation, retention, gone in ((2, None, False), (3, "24h", True)):
        changed = {**SPEC, **({"retention": retention} if retention else {})}
        spec = DiscoveryFlowSpec.model_validate(changed)
        await stores.operator.apply(flow.flow_id, act.UpdateSpec(spec, generation))
        await desk.retention().round()
        assert await purged(flow) == [gone]


async def test_s06_a_deleted_namespaces_data_goes_at_once_where_that_is_set(
    stores: Stores, desk: Desk, left_behind: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("DATABASE_URL", "postgresql://x@y/z"), ("CREW_IMAGE", "x"), ("EXECUTION_URL", "https://x"),
        ("RETENTION_DELETED_NAMESPACES", "0"),
    ):  # fmt: skip
        monkeypatch.setenv(f"DISCOVERY_{name}", value)
    assert OperatorSettings().kept() == (None, timedelta(0))
    retention: Retention = desk.retention(deleted_namespaces=timedelta(0))
    await retention.round()
    assert await desk.tables(left_behind.tenant_id) == {"purges": 1}
    ((outcome, by),) = await desk.sql("SELECT outcome, requested_by FROM purges")
    assert (outcome, by) == ("Done", "operator")
    monkeypatch.setenv("DISCOVERY_RETENTION_FINISHED_FLOWS", "0")
    with pytest.raises(ValidationError):
        OperatorSettings()


# -- in short transactions -------------------------------------------------------------------------

COUNTED = """
CREATE TABLE removals (at xid8, what text, rows bigint);
CREATE FUNCTION count_removals() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO removals
    SELECT pg_current_xact_id(), TG_TABLE_NAME, count(*) FROM gone HAVING count(*) > 0;
    RETURN NULL;
END $$;
GRANT USAGE ON SCHEMA public TO PUBLIC;
"""
COUNT = """
CREATE TRIGGER counted AFTER DELETE ON {0} REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION count_removals()
"""


async def largest(desk: Desk) -> tuple[int, int]:
    """Rows that the largest transaction has removed, and how many transactions removed any."""
    ((most, transactions),) = await desk.sql(
        "SELECT max(rows), count(*) FROM (SELECT sum(rows) AS rows FROM removals GROUP BY at) x"
    )
    return int(most), int(transactions)


@pytest.mark.parametrize("how", ["namespace", "command", "deletion", "garbage"])
async def test_s06_no_transaction_removes_more_than_a_batch(
    stores: Stores, desk: Desk, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that go with others (ON DELETE CASCADE) are counted as well."""
    batch = 50
    monkeypatch.setattr(maintenance.RetentionStore.purge_batch, "__defaults__", (batch,))
    monkeypatch.setattr(maintenance.RetentionStore.release_batch, "__defaults__", (batch,))
    monkeypatch.setattr(maintenance.RetentionStore.drop_assets_batch, "__defaults__", (batch,))
    monkeypatch.setattr("discovery_core.store.operator.STAGED_AT_ONCE", batch)
    monkeypatch.setattr(blobs, "_ARTEFACTS_AT_ONCE", 5)
    monkeypatch.setattr(blobs, "_PIECES_AT_ONCE", batch - 5)
    flow = Flow(stores)
    await flow.to_gate()
    await flow.answer()
    await flow.run_phase(inventory_rows(400))
    await flow.finish()
    await desk.sql(
        "INSERT INTO artefact_chunks (tenant_id, artefact_id, sequence, data) "
        "SELECT tenant_id, id, n, 'x' FROM artefacts, generate_series(2, 40) AS n"
    )
    await desk.sql(COUNTED.replace("%", "%%"))
    for table in TENANT_TABLES:
        await desk.sql(COUNT.format(table))
    retention = desk.retention(deleted_namespaces=timedelta(0))
    if how == "namespace":
        await gone_for(desk, flow, "1 second")
    else:
        desk.cluster.namespaces["migration"] = flow.tenant_id
    if how == "command":
        await desk.ask(flow, inventory=True)
    elif how == "deletion":
        await stores.operator.apply(flow.flow_id, act.MarkDeleted())
    elif how == "garbage":
        await desk.sql("UPDATE phase_runs SET state = 'Superseded'")
        await desk.sql("DELETE FROM flow_artefacts")
        await desk.sql("DELETE FROM removals")
        await stores.operator.collect_garbage()
    await retention.round()
    most, transactions = await largest(desk)
    assert most <= batch + 10
    assert transactions >= 8
    ((rows,),) = await desk.sql("SELECT count(*) FROM records")
    ((pieces,),) = await desk.sql("SELECT count(*) FROM artefact_chunks")
    assert (rows, pieces) == (0, 0)


async def test_s06_an_artefact_of_which_some_is_gone_cannot_be_found(
    stores: Stores, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who stores the same bytes meanwhile gets them whole."""
    monkeypatch.setattr(blobs, "_PIECES_AT_ONCE", 1)
    flow = await finished(stores)
    await stores.operator.apply(flow.flow_id, act.MarkDeleted())
    await desk.sql("DELETE FROM flow_artefacts")
    scope = ClusterScope(stores.operator.cluster_id, stores.operator.epoch)
    async with stores.operator.db.transaction(scope) as session:
        step = await blobs.collect(session)
    assert step.pieces == 1
    ((hidden, whole),) = await desk.sql(
        "SELECT count(*) FILTER (WHERE digest IS NULL), count(*) FILTER (WHERE digest IS NOT NULL) "
        "FROM artefacts"
    )
    assert hidden >= 1
    assert whole == 0
    again = Flow(stores, tenant_id=flow.tenant_id, name="again")
    await again.queue()
    await again.run_phase()
    assert (await again.load()).state is FlowState.QUEUED
    await stores.operator.collect_garbage()
    assert await desk.sql("SELECT 1 FROM artefacts WHERE digest IS NULL") == []


async def test_s06_a_flow_whose_purge_has_begun_begins_no_new_round(
    stores: Stores, desk: Desk
) -> None:
    """Else a purge that stops at it would leave half of a flow."""
    flow = await finished(stores)
    await desk.ask(flow)
    (key,) = await desk.store.unfinished(10)
    assert await desk.store.begin_purge(key) is None
    assert await desk.store.purge_batch(key, rows=2) is False
    wanted = Rerun.model_validate({"id": "again", "fromPhase": "data_import"})
    await stores.operator.apply(flow.flow_id, act.StartRound(wanted))
    assert (await flow.load()).state is FlowState.SUCCEEDED
    await desk.retention().round()
    assert (await desk.record(flow)).outcome == "Done"
