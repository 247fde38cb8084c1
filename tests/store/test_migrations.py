"""Migrations: from empty, back by one, in step with the models and with the code's revision."""

from __future__ import annotations

import os
from collections.abc import Iterator
from uuid import uuid4

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from discovery_core.store import Database
from discovery_core.store.migrate import create_roles
from discovery_core.store.schema import SCHEMA_REVISION, Base
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import URL

from tests.postgres import ROOT, _admin, _text


@pytest.fixture
def empty(postgres: URL, template: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[URL]:
    """A database without anything in it."""
    name = f"empty_{uuid4().hex[:12]}"
    _admin(postgres, f"CREATE DATABASE {name}")
    url = postgres.set(database=name)
    monkeypatch.setitem(os.environ, "DISCOVERY_DATABASE_URL", _text(url))
    engine = create_engine(url)
    with engine.begin() as connection:
        create_roles(connection, {})
    engine.dispose()
    yield url
    _admin(postgres, f"DROP DATABASE {name} WITH (FORCE)")


def _config() -> Config:
    return Config(ROOT / "alembic.ini")


def _tables(url: URL) -> set[str]:
    engine = create_engine(url)
    names = set(inspect(engine).get_table_names())
    engine.dispose()
    return names - {"alembic_version"}


def test_up_check_down_and_up_again(empty: URL) -> None:
    command.upgrade(_config(), "head")
    assert _tables(empty) == set(Base.metadata.tables)
    command.check(_config())
    command.downgrade(_config(), "-1")
    command.upgrade(_config(), "head")
    assert _tables(empty) == set(Base.metadata.tables)


def test_the_code_knows_the_newest_revision() -> None:
    assert ScriptDirectory.from_config(_config()).get_current_head() == SCHEMA_REVISION


async def test_an_older_schema_is_noticed(empty: URL) -> None:
    database = Database(_text(empty), application_name="test")
    assert await database.schema_is_current() is False
    command.upgrade(_config(), "head")
    assert await database.schema_is_current() is True
    engine = create_engine(empty)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    engine.dispose()
    assert await database.schema_is_current() is False
    await database.close()


def test_objects_belong_to_the_owner_role(empty: URL) -> None:
    command.upgrade(_config(), "head")
    engine = create_engine(empty)
    with engine.connect() as connection:
        owners = connection.scalars(
            text("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
        ).all()
    engine.dispose()
    assert owners == ["discovery_owner"]
