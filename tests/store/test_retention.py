"""Data that goes when its time is over, on a real database: what goes, what stays, who may."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from discovery_core import actions as act
from discovery_core.errors import IllegalTransitionError, NotFoundError, SupersededError
from discovery_core.resource_gate import Rerun
from discovery_core.states import FlowState
from discovery_core.store import OperatorStore
from discovery_core.store.maintenance.retention import PurgeKey, PurgeRecord, RetentionStore
from discovery_core.store.schema import TENANT_TABLES
from discovery_operator.kube import KubernetesError
from discovery_operator.retention import Retention, WrongClusterError
from sqlalchemy.exc import DBAPIError, ProgrammingError

from tests.postgres import Stores
from tests.store.fake_cluster import FakeCluster
from tests.store.flows import SPEC, Flow

DAY = timedelta(days=1)
# what a purged flow leaves: the register, and the rows that the inventory is made of
KEPT = {
    "master_flows", "discovery_flows", "phase_runs", "records", "assets", "mapping_memory",
    "purges",
}  # fmt: skip


class Desk:
    """A retention over a cluster in memory, and a look into the database as its superuser."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.cluster = FakeCluster()
        self.cluster.namespaces = {"kube-system": stores.cluster_id}
        self.store = RetentionStore(stores.operator)
        self.purged: list[UUID] = []

    def retention(self, **changes: Any) -> Retention:
        """The loop; nothing goes by age unless a test says so."""
        leads = asyncio.Event()
        leads.set()
        api: Any = self.cluster
        given: dict[str, Any] = {
            "purged": self.purged.append,
            "finished_flows": None, "deleted_namespaces": None, "delete_resources": False,
        }  # fmt: skip
        return Retention(self.stores.operator, api, leads=leads, poll=0.01, **(given | changes))

    async def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """A statement past all rules."""
        connection = await psycopg.AsyncConnection.connect(self.stores.urls.superuser)
        async with connection:
            cursor = await connection.execute(statement, values)
            return await cursor.fetchall() if cursor.description else []

    async def age(self, flow: Flow, interval: str) -> None:
        """Makes the flow have ended that long ago."""
        await self.sql(
            "UPDATE discovery_flows SET state_since = now() - %s::interval WHERE flow_id = %s",
            interval,
            flow.flow_id,
        )

    async def tables(self, tenant_id: UUID) -> dict[str, int]:
        """Rows of a tenant by table, without empty ones and without claims of finished uploads."""
        await self.sql("DELETE FROM flow_artefacts WHERE name LIKE 'upload/%%' AND %s", True)
        counts = {}
        for table in TENANT_TABLES:
            ((count,),) = await self.sql(
                f"SELECT count(*) FROM {table} WHERE tenant_id = %s", tenant_id
            )
            if count:
                counts[table] = int(count)
        return counts

    async def record(self, flow: Flow) -> PurgeRecord:
        """The one purge of a flow."""
        (found,) = await self.stores.api.purges(flow.tenant_id, flow.flow_id)
        return found

    async def ask(self, flow: Flow, *, inventory: bool = False) -> PurgeRecord:
        """A person wants the flow's data gone."""
        return await self.stores.api.request_purge(
            flow.tenant_id, flow.flow_id, by="ann", inventory=inventory
        )


@pytest.fixture
def desk(stores: Stores) -> Desk:
    return Desk(stores)


async def finished(stores: Stores, **fields: Any) -> Flow:
    """A flow that has gone through all phases."""
    flow = Flow(stores, **fields)
    await flow.to_gate()
    await flow.answer()
    assert (await flow.finish()).state is FlowState.SUCCEEDED
    return flow


async def names(stores: Stores, flow: Flow, engagement: str | None = None) -> list[str]:
    found = await stores.api.list_assets(flow.tenant_id, engagement)
    return [asset.identity for asset in found]


async def test_a_finished_flow_goes_when_its_time_is_over(stores: Stores, desk: Desk) -> None:
    flow = await finished(stores)
    young = await finished(stores, tenant_id=flow.tenant_id, name="young")
    open_flow = Flow(stores, name="open")
    await open_flow.to_gate()
    for one in (flow, open_flow):
        await desk.age(one, "2 days")
    assets = await names(stores, flow)
    retention = desk.retention(finished_flows=DAY)
    await retention.round()

    record = await desk.record(flow)
    assert (record.outcome, record.reason, record.requested_by) == ("Done", "Retention", "operator")
    assert record.removed["flow_events"] > 10
    assert record.removed["approval_requests"] == 1
    assert record.summary["decisions"][0]["by"] == "ann"
    assert record.summary["sourceDigest"].startswith("sha256:")
    assert record.summary["recordsKept"] == 3
    assert await stores.api.purges(young.tenant_id, young.flow_id) == []
    assert await stores.api.purges(open_flow.tenant_id, open_flow.flow_id) == []
    assert (await open_flow.load()).request is not None
    assert len(await stores.api.history(young.tenant_id, young.flow_id)) > 10
    assert await names(stores, flow) == assets
    assert desk.purged == [flow.flow_id]
    await retention.round()
    assert len(await stores.api.purges(flow.tenant_id, flow.flow_id)) == 1


async def test_nothing_of_the_flow_stays_but_what_the_inventory_is_made_of(
    stores: Stores, desk: Desk
) -> None:
    flow = await finished(stores)
    before = await desk.tables(flow.tenant_id)
    assert {"artefacts", "artefact_chunks", "flow_events", "field_mappings"} <= set(before)
    await desk.ask(flow)
    await desk.retention().round()
    left = await desk.tables(flow.tenant_id)
    assert set(left) <= KEPT, left
    assert (left["phase_runs"], left["records"], left["assets"]) == (1, 3, 3)
    snapshot = await flow.load()
    assert snapshot.purged
    assert snapshot.message == "the data of this flow was purged by ann"
    assert await stores.api.history(flow.tenant_id, flow.flow_id) == []
    assert await stores.api.artefacts(flow.tenant_id, flow.flow_id) == []


async def test_the_inventory_goes_too_only_where_that_is_asked_for(
    stores: Stores, desk: Desk
) -> None:
    spec: dict[str, Any] = {**SPEC, "engagement": "dc-east"}
    first = await finished(stores, spec=spec)
    other = Flow(stores, spec=spec, tenant_id=first.tenant_id, name="other")
    await other.to_gate()
    await other.answer()
    from tests.store.flows import inventory_rows

    await other.run_phase(inventory_rows(2, "db"))
    await other.finish()
    assert len(await names(stores, first, "dc-east")) == 5
    await desk.ask(first, inventory=True)
    await desk.retention().round()
    assert await names(stores, first, "dc-east") == ["hostname:db1", "hostname:db2"]
    assert (await desk.record(first)).removed["records"] == 3
    assert await desk.sql("SELECT 1 FROM phase_runs WHERE flow_id = %s", first.flow_id) == []


async def test_a_purge_goes_in_small_steps_and_goes_on_after_a_stop(
    stores: Stores, desk: Desk
) -> None:
    flow = await finished(stores)
    await desk.ask(flow)
    (key,) = await desk.store.unfinished(10)
    steps = 1
    while not await desk.store.purge_batch(key, rows=2):
        steps += 1
        if steps == 3:
            # another leader takes over in the middle of it
            epoch = stores.epoch
            await stores.operator.release_leadership("test")
            assert await stores.operator.acquire_leadership("next", ttl=600) == epoch + 1
    record = await desk.record(flow)
    assert steps > 5
    assert record.outcome == "Done"
    assert sum(record.removed.values()) >= 2 * (steps - 1)
    assert await desk.store.purge_batch(key) is True


async def test_only_the_leader_of_the_flows_own_cluster_removes(stores: Stores, desk: Desk) -> None:
    flow = await finished(stores)
    await desk.ask(flow)
    (key,) = await desk.store.unfinished(10)
    other = OperatorStore(stores.operator.db, uuid4())
    await other.acquire_leadership("other", ttl=60)
    with pytest.raises(ProgrammingError, match="no tenant of this cluster"):
        await RetentionStore(other).purge_batch(key)
    assert await RetentionStore(other).unfinished(10) == []
    stale = OperatorStore(stores.operator.db, stores.cluster_id)
    stale.epoch = 7
    with pytest.raises(SupersededError):
        await RetentionStore(stale).purge_batch(key)
    assert (await desk.record(flow)).removed == {}
    assert "flow_events" in await desk.tables(flow.tenant_id)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT purge_batch('{tenant}', '{purge}', 99, 1000)",
        "SELECT retire_flow('{tenant}', '{flow}', 99, 0)",
        "SELECT remove_rows(p, NULL, ARRAY['flow_events: true'], 9) FROM purges p",
        "SELECT enter_retention('{tenant}', 1)",
        "DELETE FROM flow_events",
        "DELETE FROM purges",
        "UPDATE purges SET removed = '{{}}'",
        "INSERT INTO purges (tenant_id, flow_id, requested_by) VALUES ('{tenant}', '{flow}', 'x')",
        "UPDATE tenants SET purged_at = now()",
    ],
)
async def test_the_operators_role_cannot_delete_history_at_will(
    stores: Stores, desk: Desk, statement: str
) -> None:
    flow = await finished(stores)
    asked = await desk.ask(flow)
    filled = statement.format(tenant=flow.tenant_id, flow=flow.flow_id, purge=asked.purge_id)
    connection = await psycopg.AsyncConnection.connect(stores.urls.operator)
    async with connection:
        await connection.execute(
            "SELECT set_config('discovery.cluster_id', %s, false)", [str(stores.cluster_id)]
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute(filled)


async def test_however_short_a_time_is_asked_for_an_hour_is_kept(
    stores: Stores, desk: Desk
) -> None:
    flow = await finished(stores)
    await desk.age(flow, "59 minutes")
    assert await desk.store.retire_flows(timedelta(seconds=1), 10) == 0
    await desk.age(flow, "61 minutes")
    assert await desk.store.retire_flows(timedelta(seconds=1), 10) == 1


async def test_a_person_may_ask_for_ended_flows_only_and_once(stores: Stores, desk: Desk) -> None:
    flow = Flow(stores)
    await flow.to_gate()
    with pytest.raises(IllegalTransitionError, match="AwaitingApproval; cancel it first"):
        await desk.ask(flow)
    with pytest.raises(NotFoundError):
        await stores.api.request_purge(flow.tenant_id, uuid4(), by="ann", inventory=False)
    with pytest.raises(NotFoundError):
        await stores.api.request_purge(uuid4(), flow.flow_id, by="ann", inventory=False)
    await stores.operator.apply(flow.flow_id, act.Cancel())
    first = await desk.ask(flow)
    assert (await desk.ask(flow)).purge_id == first.purge_id
    await desk.retention().round()
    with pytest.raises(IllegalTransitionError, match="purged already"):
        await desk.ask(flow)


@pytest.mark.parametrize("inventory", [False, True])
@pytest.mark.parametrize("running", [False, True])
async def test_a_flow_that_has_gone_on_since_is_not_purged(
    stores: Stores, desk: Desk, inventory: bool, running: bool
) -> None:
    flow = await finished(stores)
    await desk.ask(flow, inventory=inventory)
    wanted = Rerun.model_validate({"id": "again", "fromPhase": "asset_inventory"})
    await stores.operator.apply(flow.flow_id, act.StartRound(wanted))
    if not running:
        await flow.finish()
    before, assets = await desk.tables(flow.tenant_id), await names(stores, flow)
    assert bool(assets) is not running
    await desk.retention().round()
    assert await names(stores, flow) == assets
    record = await desk.record(flow)
    assert record.outcome == "Refused"
    assert record.problem == (
        "the flow has not ended: it is Queued" if running else "the flow has gone on since"
    )
    assert await desk.tables(flow.tenant_id) == before
    assert not (await flow.load()).purged


async def test_a_purged_flow_begins_no_new_round(stores: Stores, desk: Desk) -> None:
    flow = await finished(stores)
    await desk.ask(flow)
    await desk.retention().round()
    # from its beginning, which needs no earlier results
    wanted = Rerun.model_validate({"id": "again", "fromPhase": "data_import"})
    await stores.operator.apply(flow.flow_id, act.StartRound(wanted))
    assert (await flow.load()).state is FlowState.SUCCEEDED
    # and its resource is not taken for a new flow
    assert (await flow.register()).purged


async def test_resources_are_deleted_only_where_that_is_asked_for(
    stores: Stores, desk: Desk
) -> None:
    uid = desk.cluster.apply("migration", "servers", SPEC)
    flow = await finished(stores, flow_id=uid)
    await desk.age(flow, "2 days")
    await desk.retention(finished_flows=DAY).round()
    assert (await flow.load()).purged
    assert ("migration", "servers") in desk.cluster.flows
    # somebody has made another of the same name meanwhile
    old = desk.cluster.flows["migration", "servers"]
    desk.cluster.apply("migration", "servers", SPEC)
    deleting = desk.retention(finished_flows=DAY, delete_resources=True)
    await deleting.round()
    assert ("migration", "servers") in desk.cluster.flows
    desk.cluster.flows["migration", "servers"] = old
    await deleting.round()
    assert desk.cluster.flows == {}


# -- namespaces ------------------------------------------------------------------------------------


@pytest.fixture
async def left_behind(stores: Stores, desk: Desk) -> Flow:
    """A flow of a namespace that has been deleted, everything of it in the database."""
    spec = {**SPEC, "engagement": "dc-east"}
    flow = await finished(stores, spec=spec)
    for statement in (
        """INSERT INTO asset_decisions (tenant_id, engagement, identity, field, choice, value,
           decided_by) VALUES (%s, 'dc-east', 'x', 'owner', 'keep', '1', 'ann')""",
        """INSERT INTO asset_aliases (tenant_id, engagement, identity, asset, strength)
           VALUES (%s, 'dc-east', 'name:x', 'fqdn:x.y', 2)""",
        """INSERT INTO identity_decisions (tenant_id, engagement, key, machines, choice, decided_by)
           VALUES (%s, 'dc-east', 'x', '[]', 'same', 'ann')""",
        """INSERT INTO uploads (tenant_id, id, name, uploaded_by, expires_at)
           VALUES (%s, gen_random_uuid(), 'x.csv', 'ann', now() + '1 day')""",
    ):
        await desk.sql(statement, flow.tenant_id)
    await stores.api.set_precedence(flow.tenant_id, "dc-east", [flow.name])
    return flow


async def gone_for(desk: Desk, flow: Flow, interval: str) -> None:
    """Makes the namespace have been missed that long."""
    await desk.sql(
        "UPDATE tenants SET gone_since = now() - %s::interval WHERE id = %s",
        interval,
        flow.tenant_id,
    )


async def test_a_deleted_namespaces_data_is_kept_and_then_goes(
    stores: Stores, desk: Desk, left_behind: Flow
) -> None:
    flow = left_behind
    # the same name again, and that is another tenant
    new = await finished(stores, spec={**SPEC, "engagement": "dc-east"})
    desk.cluster.namespaces["migration"] = new.tenant_id
    retention = desk.retention(deleted_namespaces=timedelta(days=30))
    await retention.round()
    ((since,),) = await desk.sql("SELECT gone_since FROM tenants WHERE id = %s", flow.tenant_id)
    assert since is not None
    await gone_for(desk, flow, "29 days")
    await retention.round()
    assert set(await desk.tables(flow.tenant_id)) - KEPT
    await gone_for(desk, flow, "31 days")
    kept = await desk.tables(new.tenant_id)
    await retention.round()
    assert await desk.tables(flow.tenant_id) == {"purges": 1}
    assert await desk.tables(new.tenant_id) == kept
    ((reason, outcome, summary, removed),) = await desk.sql(
        "SELECT reason, outcome, summary, removed FROM purges WHERE tenant_id = %s", flow.tenant_id
    )
    assert (reason, outcome, summary["namespace"]) == ("NamespaceDeleted", "Done", "migration")
    assert removed["master_flows"] == summary["flows"] == 1
    assert removed["assets"] == 3
    ((gone,),) = await desk.sql("SELECT purged_at FROM tenants WHERE id = %s", flow.tenant_id)
    assert gone is not None
    await retention.round()
    assert await desk.tables(flow.tenant_id) == {"purges": 1}


async def test_a_look_that_fails_is_not_an_absence(desk: Desk, left_behind: Flow) -> None:
    away = KubernetesError(503, "ServiceUnavailable", "etcd has no leader")
    for method in ("list_namespaces", "namespace_uid"):
        desk.cluster.refuse[method] = [away]
        with pytest.raises(KubernetesError):
            await desk.retention().look_for_namespaces()
        ((since,),) = await desk.sql(
            "SELECT gone_since FROM tenants WHERE id = %s", left_behind.tenant_id
        )
        assert since is None
    await gone_for(desk, left_behind, "31 days")
    desk.cluster.refuse["namespace_uid"] = [away]
    with pytest.raises(KubernetesError):
        await desk.retention(deleted_namespaces=DAY).round()
    assert "records" in await desk.tables(left_behind.tenant_id)


async def test_another_clusters_list_is_not_believed(desk: Desk, left_behind: Flow) -> None:
    desk.cluster.namespaces["kube-system"] = uuid4()
    with pytest.raises(WrongClusterError):
        await desk.retention().look_for_namespaces()
    ((since,),) = await desk.sql(
        "SELECT gone_since FROM tenants WHERE id = %s", left_behind.tenant_id
    )
    assert since is None


async def test_a_namespace_that_is_there_after_all_keeps_its_data(
    desk: Desk, left_behind: Flow
) -> None:
    flow = left_behind
    await gone_for(desk, flow, "31 days")
    desk.cluster.namespaces["migration"] = flow.tenant_id
    # the list is not looked at again so soon: the look by name before the purge counts
    retention = desk.retention(deleted_namespaces=DAY)
    await retention._retire_namespaces()
    ((since,),) = await desk.sql("SELECT gone_since FROM tenants WHERE id = %s", flow.tenant_id)
    assert since is None
    assert await desk.sql("SELECT 1 FROM purges") == []


async def test_a_namespace_whose_flow_is_still_open_waits(stores: Stores, desk: Desk) -> None:
    flow = Flow(stores)
    await flow.to_gate()
    await gone_for(desk, flow, "31 days")
    assert await desk.store.retire_tenant(flow.tenant_id, DAY) is False
    await stores.operator.apply(flow.flow_id, act.MarkDeleted())
    assert await desk.store.retire_tenant(flow.tenant_id, DAY) is True
    # begun, and the namespace turns up: nothing goes
    await desk.store.mark_gone(flow.tenant_id, gone=False)
    (key,) = await desk.store.unfinished(10)
    assert await desk.store.purge_batch(key) is True
    ((outcome, problem),) = await desk.sql("SELECT outcome, problem FROM purges")
    assert (outcome, problem) == ("Refused", "the namespace is there again")
    assert "flow_events" in await desk.tables(flow.tenant_id)


async def test_every_write_of_the_retention_is_fenced(stores: Stores, left_behind: Flow) -> None:
    stale = OperatorStore(stores.operator.db, stores.cluster_id)
    stale.epoch = 7
    store = RetentionStore(stale)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: store.mark_gone(left_behind.tenant_id, gone=True),
        lambda: store.retire_tenant(left_behind.tenant_id, DAY),
        lambda: store.retire_flows(DAY, 1),
        lambda: store.purge_batch(PurgeKey(left_behind.tenant_id, uuid4())),
        stale.collect_garbage,
    ]
    for call in calls:
        with pytest.raises(SupersededError):
            await call()


async def test_the_functions_ask_for_the_epoch_themselves(stores: Stores, desk: Desk) -> None:
    """Also in a transaction that did not enter with one."""
    flow = await finished(stores)
    await desk.age(flow, "2 days")
    from discovery_core.store import ClusterScope
    from sqlalchemy import text

    with pytest.raises(DBAPIError, match="leader epoch 9 is over"):
        async with stores.operator.db.transaction(ClusterScope(stores.cluster_id)) as session:
            await session.execute(
                text("SELECT retire_flow(:tenant, :flow, 9, 86400)"),
                {"tenant": flow.tenant_id, "flow": flow.flow_id},
            )
