"""What probes are told of a database that refuses, hangs, is full, or is of another version."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from uuid import uuid4

import psycopg
import pytest
from discovery_core.store import Database, monitoring
from discovery_core.store.monitoring import (
    CONNECTIONS,
    DATABASE_UP,
    SCHEMA_CURRENT,
    DatabaseMonitor,
)
from prometheus_client import Gauge
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError

from tests.postgres import DatabaseUrls


def value(gauge: Gauge, **labels: str) -> float:
    return float((gauge.labels(**labels) if labels else gauge)._value.get())


@pytest.fixture
async def database(database_urls: DatabaseUrls) -> AsyncIterator[Database]:
    db = Database(database_urls.operator, application_name="test", pool_size=2)
    yield db
    await db.close()


@pytest.fixture
async def silent() -> AsyncIterator[tuple[Database, list[asyncio.StreamWriter]]]:
    """A server that takes connections and never says a word."""
    accepted: list[asyncio.StreamWriter] = []

    async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    db = Database(f"postgresql://nobody@127.0.0.1:{port}/none", application_name="test")
    yield db, accepted
    for writer in accepted:
        writer.close()
    server.close()
    await asyncio.sleep(0.1)
    await db.close()


async def test_a_database_that_can_be_worked_with(database: Database) -> None:
    monitor = DatabaseMonitor(database)
    assert await monitor.measure() is None
    assert (value(DATABASE_UP), value(SCHEMA_CURRENT)) == (1, 1)
    assert value(CONNECTIONS, use="limit") == 2
    assert value(CONNECTIONS, use="in_use") == 0


async def test_a_schema_of_another_version_is_told_apart_from_no_answer(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("discovery_core.store.database.SCHEMA_REVISION", "9999")
    told = await DatabaseMonitor(database).problem()
    assert told is not None
    assert "schema is not current" in told
    assert (value(DATABASE_UP), value(SCHEMA_CURRENT)) == (1, 0)


async def test_a_database_that_was_emptied_is_told_with_the_way_out(
    database_urls: DatabaseUrls,
) -> None:
    url = database_urls.operator.replace("discovery_operator", "discovery_unknown")
    database = Database(url, application_name="test")
    told = await DatabaseMonitor(database).problem()
    await database.close()
    assert told is not None
    assert "refuses this process" in told
    assert "--from=cronjob/RELEASE-migration" in told
    assert "discovery_unknown" not in told, "strangers may read /readyz"


async def test_sessions_of_a_role_that_was_made_anew_are_begun_anew(
    database_urls: DatabaseUrls,
) -> None:
    """They live on without a right, and a pool would hand them out for ever."""
    role, owner = f"once_{uuid4().hex[:8]}", make_url(database_urls.superuser)
    admin = await psycopg.AsyncConnection.connect(database_urls.superuser, autocommit=True)
    given = f"CREATE ROLE {role} LOGIN; GRANT SELECT ON alembic_version, schema_support TO {role}"
    await admin.execute(given.encode())
    database = Database(
        owner.set(username=role).render_as_string(hide_password=False), application_name="test"
    )
    try:
        assert await database.schema_is_current()
        await admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}; {given}".encode())
        with pytest.raises(ProgrammingError, match="permission denied"):
            await database.schema_is_current()
        assert await database.schema_is_current()
    finally:
        await database.close()
        await admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
        await admin.close()


async def test_a_database_that_is_not_there_is_told_apart_from_an_empty_one(
    database_urls: DatabaseUrls,
) -> None:
    url = make_url(database_urls.operator).set(database="misspelt")
    database = Database(url.render_as_string(hide_password=False), application_name="test")
    told = await DatabaseMonitor(database).problem()
    await database.close()
    assert told is not None
    assert "no database of the name" in told


async def test_a_database_that_hangs_is_told_in_time_by_one_check(
    silent: tuple[Database, list[asyncio.StreamWriter]], monkeypatch: pytest.MonkeyPatch
) -> None:
    db, accepted = silent
    monkeypatch.setattr(monitoring, "TIMEOUT_SECONDS", 0.5)
    monitor = DatabaseMonitor(db)
    DATABASE_UP.set(1)
    began = time.monotonic()
    told = await asyncio.gather(*(monitor.problem(0.5) for _ in range(50)))
    assert time.monotonic() - began < 5
    assert all(text and "has not answered" in text for text in told)
    assert value(DATABASE_UP) == 0
    assert len(accepted) == 1, "fifty probes hold one connection"
    monitor.close()


async def test_a_slow_answer_does_not_count_as_none_before_its_time(
    silent: tuple[Database, list[asyncio.StreamWriter]],
) -> None:
    monitor = DatabaseMonitor(silent[0])
    DATABASE_UP.set(1)
    assert "has not answered" in (await monitor.measure() or "")
    assert value(DATABASE_UP) == 1
    monitor.close()


async def test_a_full_pool_is_not_a_database_that_is_away(database: Database) -> None:
    monitor = DatabaseMonitor(database)
    assert await monitor.problem() is None
    async with database.engine.connect(), database.engine.connect():
        assert await monitor.problem(0.3) == "all 2 connections to the database are in use"
        await monitor.measure()
        assert value(CONNECTIONS, use="in_use") == 2
        assert value(DATABASE_UP) == 1
    assert await monitor.problem() is None
