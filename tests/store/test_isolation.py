"""Row-level security: without the right tenant there is no row, whichever the role."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import pytest
from discovery_core import actions as act
from discovery_core.errors import NotFoundError
from discovery_core.store import OperatorStore
from discovery_core.store.database import database_url
from discovery_core.store.maintenance.retention import RetentionStore
from discovery_core.store.schema import TENANT_TABLES
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import ProgrammingError

from tests.postgres import ROLES, DatabaseUrls, Stores
from tests.store.flows import Flow


@pytest.fixture
async def filled(stores: Stores) -> Flow:
    """A tenant with a row in every tenant table."""
    flow = Flow(stores)
    await flow.to_gate()
    await flow.answer()
    await flow.run_phase()
    engine = create_engine(database_url(stores.urls.superuser))
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO asset_decisions (tenant_id, engagement, identity, field, choice, "
                "value, decided_by) VALUES (:tenant, '', 'x', 'owner', 'keep', '1', 'ann')"
            ),
            {"tenant": flow.tenant_id},
        )
        connection.execute(
            text(
                "INSERT INTO asset_aliases (tenant_id, engagement, identity, asset, strength) "
                "VALUES (:tenant, 'other', 'name:x', 'fqdn:x.y', 2)"
            ),
            {"tenant": flow.tenant_id},
        )
        connection.execute(
            text(
                "INSERT INTO identity_decisions (tenant_id, engagement, key, machines, choice, "
                "decided_by) VALUES (:tenant, '', 'x', '[]', 'same', 'ann')"
            ),
            {"tenant": flow.tenant_id},
        )
        connection.execute(
            text(
                "INSERT INTO uploads (tenant_id, id, name, uploaded_by, expires_at) VALUES "
                "(:tenant, gen_random_uuid(), 'x.csv', 'ann', now())"
            ),
            {"tenant": flow.tenant_id},
        )
        connection.execute(
            text(
                "INSERT INTO circuit_breakers (tenant_id, endpoint) VALUES (:tenant, 'https://x')"
            ),
            {"tenant": flow.tenant_id},
        )
        connection.execute(
            text(
                "INSERT INTO purges (tenant_id, flow_id, requested_by) "
                "VALUES (:tenant, :flow, 'ann')"
            ),
            {"tenant": flow.tenant_id, "flow": flow.flow_id},
        )
    engine.dispose()
    await stores.api.set_precedence(flow.tenant_id, None, [flow.name])
    return flow


def _connection(urls: DatabaseUrls, role: str) -> Iterator[Connection]:
    engine = create_engine(database_url(getattr(urls, role)))
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def _rows(connection: Connection, table: str) -> int | None:
    """Visible rows, or None where the role may not even ask."""
    try:
        with connection.begin_nested():
            return int(connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)
    except ProgrammingError as error:
        assert "permission denied" in str(error)
        return None


def _scope(connection: Connection, *, tenant: object = "", cluster: object = "") -> None:
    for name, value in (("tenant_id", tenant), ("cluster_id", cluster)):
        connection.execute(
            text("SELECT set_config(:name, :value, true)"),
            {"name": f"discovery.{name}", "value": str(value)},
        )


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("scope", ["none", "foreign"])
async def test_a_missing_or_foreign_tenant_shows_no_row(
    stores: Stores, filled: Flow, role: str, scope: str
) -> None:
    for connection in _connection(stores.urls, role):
        if scope == "foreign":
            _scope(connection, tenant=uuid4(), cluster=uuid4())
        for table in (*TENANT_TABLES, "tenants"):
            assert _rows(connection, table) in (0, None), table


@pytest.mark.parametrize("role", ROLES)
async def test_the_right_scope_shows_the_rows(stores: Stores, filled: Flow, role: str) -> None:
    """The counterpart, without which the test above would prove nothing."""
    seen = 0
    for connection in _connection(stores.urls, role):
        if role == "operator":
            _scope(connection, cluster=stores.cluster_id)
        else:
            _scope(connection, tenant=filled.tenant_id)
        for table in (*TENANT_TABLES, "tenants"):
            rows = _rows(connection, table)
            assert rows != 0, table
            seen += rows or 0
    assert seen > 20


async def test_removing_row_level_security_shows_foreign_rows(stores: Stores, filled: Flow) -> None:
    """What the guard is worth: take it away, and the api role sees everything."""
    engine = create_engine(database_url(stores.urls.superuser))
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE assets DISABLE ROW LEVEL SECURITY"))
    engine.dispose()
    for connection in _connection(stores.urls, "api"):
        assert _rows(connection, "assets") == 3


async def test_every_tenant_table_forces_row_level_security(stores: Stores) -> None:
    for connection in _connection(stores.urls, "superuser"):
        unforced = connection.scalars(
            text(
                "SELECT relname FROM pg_class WHERE relname = ANY(:tables) "
                "AND NOT (relrowsecurity AND relforcerowsecurity)"
            ),
            {"tables": [*TENANT_TABLES, "tenants"]},
        ).all()
        assert unforced == []


@pytest.mark.parametrize("role", ["operator", "execution", "api"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE flow_events SET actor = 'nobody'",
        "DELETE FROM flow_events",
        "TRUNCATE flow_events",
    ],
)
async def test_history_cannot_be_altered(
    stores: Stores, filled: Flow, role: str, statement: str
) -> None:
    for connection in _connection(stores.urls, role):
        _scope(connection, tenant=filled.tenant_id, cluster=stores.cluster_id)
        with pytest.raises(ProgrammingError, match="permission denied"):
            connection.execute(text(statement))


# what people decide or upload is written by the user API; the inventory is derived from it
DECIDED = {"assets", "asset_aliases", "asset_decisions", "identity_decisions", "source_precedence"}
DECIDED |= {"uploads", "artefacts", "artefact_chunks"}


@pytest.mark.parametrize("table", sorted(set(TENANT_TABLES) - DECIDED))
async def test_the_api_role_only_reads(stores: Stores, filled: Flow, table: str) -> None:
    for connection in _connection(stores.urls, "api"):
        _scope(connection, tenant=filled.tenant_id)
        with pytest.raises(ProgrammingError, match="permission denied"):
            connection.execute(text(f"DELETE FROM {table}"))


async def test_a_row_for_another_tenant_cannot_be_written(stores: Stores, filled: Flow) -> None:
    for connection in _connection(stores.urls, "execution"):
        _scope(connection, tenant=filled.tenant_id)
        with pytest.raises(ProgrammingError, match="row-level security"):
            connection.execute(
                text(
                    "INSERT INTO artefacts (tenant_id, id, media_type) "
                    "VALUES (gen_random_uuid(), gen_random_uuid(), 'text/plain')"
                )
            )


async def test_a_pooled_connection_does_not_carry_the_tenant_on(
    stores: Stores, filled: Flow
) -> None:
    """The same connection, borrowed for a tenant and then for none."""
    await stores.api.flow(filled.tenant_id, filled.flow_id)
    async with stores.api.db.transaction(None) as session:
        assert await session.scalar(text("SELECT count(*) FROM discovery_flows")) == 0


async def test_locate_tells_whose_a_flow_is_and_nothing_else(stores: Stores, filled: Flow) -> None:
    found = await stores.api.locate(filled.flow_id)
    assert found is not None
    assert (found.tenant_id, found.cluster_id, found.name) == (
        filled.tenant_id,
        stores.cluster_id,
        "servers",
    )
    assert await stores.api.locate(uuid4()) is None
    with pytest.raises(NotFoundError):
        await stores.api.flow(uuid4(), filled.flow_id)
    for connection in _connection(stores.urls, "api"):
        connection.execute(
            text("SELECT set_config('discovery.located_flow', :flow, true)"),
            {"flow": str(filled.flow_id)},
        )
        assert _rows(connection, "master_flows") == 0


async def test_two_clusters_on_one_database_do_not_see_each_other(
    stores: Stores, filled: Flow
) -> None:
    """Every table, with namespaces and flows of the same names on both sides."""
    other = OperatorStore(stores.operator.db, uuid4())
    assert await other.acquire_leadership("test", ttl=60)
    twin = Flow(replace(stores, operator=other), name=filled.name)
    await twin.to_gate()
    for connection in _connection(stores.urls, "operator"):
        _scope(connection, cluster=other.cluster_id)
        for table in TENANT_TABLES:
            seen = set(connection.scalars(text(f"SELECT DISTINCT tenant_id FROM {table}")))
            assert seen <= {twin.tenant_id}, table
        assert set(connection.scalars(text("SELECT id FROM tenants"))) == {twin.tenant_id}
        assert set(connection.scalars(text("SELECT cluster_id FROM leader"))) == {other.cluster_id}
    assert [flow.flow_id for flow in await other.open_flows()] == [twin.flow_id]
    assert [flow.flow_id for flow in await stores.operator.open_flows()] == [filled.flow_id]
    assert await other.load(filled.flow_id) is None
    assert sum((await other.figures()).flows.values()) == 1


async def test_two_clusters_on_one_database_do_not_change_each_others_rows(
    stores: Stores, filled: Flow
) -> None:
    """By the store, by statements past it on every table that the role may write, by purges."""
    other = OperatorStore(stores.operator.db, uuid4())
    assert await other.acquire_leadership("other", ttl=60)
    with pytest.raises(NotFoundError):
        await other.apply(filled.flow_id, act.Cancel())
    await other.collect_garbage()
    written = 0
    for connection in _connection(stores.urls, "operator"):
        _scope(connection, cluster=other.cluster_id)
        for table in TENANT_TABLES:
            for statement in (
                f"DELETE FROM {table}",
                f"UPDATE {table} SET tenant_id = tenant_id",
            ):
                try:
                    with connection.begin_nested():
                        assert connection.execute(text(statement)).rowcount == 0, table
                    written += 1
                except ProgrammingError as error:
                    assert "permission denied" in str(error)
        taken = connection.execute(text("UPDATE leader SET holder = 'thief', epoch = epoch + 1"))
        assert taken.rowcount == 1
        connection.rollback()
    assert written > 15
    store = RetentionStore(other)
    assert (await store.tenants(), await store.unfinished(10)) == ([], [])
    await store.mark_gone(filled.tenant_id, gone=True)
    assert [tenant.gone_since for tenant in await RetentionStore(stores.operator).tenants()] == [
        None
    ]


async def test_leaders_of_two_clusters_are_independent(stores: Stores) -> None:
    own, other = stores.epoch, OperatorStore(stores.operator.db, uuid4())
    first = await other.acquire_leadership("test", ttl=60)
    assert first is not None
    await other.release_leadership("test")
    assert await other.acquire_leadership("next", ttl=60) == first + 1
    flow = Flow(stores)
    await flow.queue()
    assert (await flow.load()).state == "Queued"
    assert await stores.operator.acquire_leadership("test", ttl=60) == own
