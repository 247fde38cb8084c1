"""Migrations: from empty, back by one, in step with the models and with the code's revision."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from discovery_core.store import Database
from discovery_core.store.migrate import create_roles, main
from discovery_core.store.schema import SCHEMA_REVISION, Base
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError

from tests.postgres import ROOT, _admin, _text

pytestmark = pytest.mark.slow
# as a transaction that writes has the table that the newest migration refers to
IN_USE = "LOCK TABLE tenants IN ROW EXCLUSIVE MODE"


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


def test_an_inventory_keeps_what_the_retention_had_removed_before_the_upgrade(empty: URL) -> None:
    """A flow that people have deleted leaves the inventory, one whose time was over does not."""
    command.upgrade(_config(), "0009")
    cluster, tenant, aged, deleted = (uuid4() for _ in range(4))
    engine = create_engine(empty)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO clusters (id) VALUES (:c)"), {"c": cluster})
        connection.execute(
            text("INSERT INTO tenants (id, cluster_id, namespace) VALUES (:t, :c, 'a')"),
            {"t": tenant, "c": cluster},
        )
        for flow in (aged, deleted):
            connection.execute(
                text(
                    "INSERT INTO master_flows (tenant_id, flow_id, name, deleted_at) "
                    "VALUES (:t, :f, 'servers', '2026-01-02')"
                ),
                {"t": tenant, "f": flow},
            )
        connection.execute(
            text(
                "INSERT INTO purges (tenant_id, flow_id, reason, requested_by, outcome, "
                "finished_at) VALUES (:t, :f, 'Retention', 'operator', 'Done', now())"
            ),
            {"t": tenant, "f": aged},
        )
    command.upgrade(_config(), "head")
    with engine.begin() as connection:
        kept = connection.scalars(
            text("SELECT flow_id FROM master_flows WHERE retired_at = deleted_at")
        ).all()
    engine.dispose()
    assert kept == [aged]


# -- releases --------------------------------------------------------------------------------------


def _released() -> dict[str, str]:
    lines = (ROOT / "tests" / "store" / "released-migrations.txt").read_text().splitlines()
    pairs = (line.split() for line in lines if line and not line.startswith("#"))
    return {name: digest for digest, name in pairs}


def test_released_migrations_are_as_they_were_released() -> None:
    folder, released = ROOT / "migrations" / "versions", _released()
    assert len(released) >= 5
    found = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in released
        if (folder / name).exists()
    }
    assert found == released
    # what is not released yet comes after all that is
    unreleased = {path.name for path in folder.glob("*.py")} - released.keys()
    assert all(name > max(released) for name in unreleased)


@pytest.mark.parametrize(
    ("revision", "oldest", "serves"),
    [
        ("9999", SCHEMA_REVISION, True),
        ("9999", "0001", True),
        ("9999", "9998", False),
        ("9999", None, False),
        ("0001", "0001", False),
    ],
)
async def test_a_newer_schema_serves_this_code_only_where_it_says_so(
    empty: URL, revision: str, oldest: str | None, serves: bool
) -> None:
    command.upgrade(_config(), "head")
    engine = create_engine(empty)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": revision})
        if oldest is None:
            connection.execute(text("DROP TABLE schema_support"))
        else:
            connection.execute(
                text("UPDATE schema_support SET minimum_code_revision = :v"), {"v": oldest}
            )
    engine.dispose()
    url = make_url(_text(empty)).set(username="discovery_operator", password=None)
    database = Database(_text(url), application_name="test")
    assert await database.schema_is_current() is serves
    await database.close()


@pytest.mark.parametrize("serves", [True, False])
def test_a_newer_schema_stays_and_one_that_serves_no_longer_is_told(
    empty: URL, serves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a rollback: Alembic would end with a traceback about a revision it cannot locate."""
    monkeypatch.chdir(ROOT)
    assert main(["upgrade"]) == 0
    engine = create_engine(empty)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        oldest = SCHEMA_REVISION if serves else "9998"
        connection.execute(
            text("UPDATE schema_support SET minimum_code_revision = :v"), {"v": oldest}
        )
    if serves:
        assert main(["upgrade"]) == 0
    else:
        with pytest.raises(SystemExit, match="install a newer version, or restore"):
            main(["upgrade"])
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"
    engine.dispose()


def test_roles_are_made_by_one_runner_at_a_time(empty: URL) -> None:
    """Two that set a role's password at once would fail with "tuple concurrently updated"."""
    engine = create_engine(empty)
    with engine.connect() as first, engine.connect() as second:
        create_roles(first, {"discovery_api": "one"})
        second.execute(text("SET lock_timeout = '100ms'"))
        with pytest.raises(OperationalError, match="lock timeout"):
            create_roles(second, {"discovery_api": "two"})
        first.commit()
        second.rollback()
        create_roles(second, {"discovery_api": "two"})
        second.commit()
    engine.dispose()


def test_a_migration_lets_others_pass_and_tries_again(
    empty: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that the newest migration changes is in use when it comes, and free later."""
    newest = ScriptDirectory.from_config(_config()).get_revision("head").down_revision
    command.upgrade(_config(), str(newest))
    waits: list[float] = []
    engine = create_engine(empty)
    connection = engine.connect()
    connection.execute(text(IN_USE))

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        connection.rollback()

    monkeypatch.setattr("discovery_core.store.migrate.time.sleep", sleep)
    monkeypatch.chdir(ROOT)
    assert main(["upgrade"]) == 0
    assert waits == [0.5]
    command.check(_config())
    connection.close()
    engine.dispose()


def test_a_migration_does_not_wait_for_ever(empty: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discovery_core.store.migrate.LOCK_TRIES", 1)
    newest = ScriptDirectory.from_config(_config()).get_revision("head").down_revision
    command.upgrade(_config(), str(newest))
    engine = create_engine(empty)
    monkeypatch.chdir(ROOT)
    with engine.connect() as connection:
        connection.execute(text(IN_USE))
        with pytest.raises(OperationalError, match="lock timeout"):
            main(["upgrade"])
    engine.dispose()


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)


# where the revision stands, and where it stood
SCHEMA = ("core/discovery_core/store/schema/__init__.py", "core/discovery_core/store/schema.py")


def _previous_code() -> str | None:
    """The last commit whose code was written for an older schema; None without history."""
    newer = "HEAD"
    for commit in _git("log", "--format=%H", "--", *SCHEMA).stdout.decode().split():
        source = "".join(_git("show", f"{commit}:{place}").stdout.decode() for place in SCHEMA)
        if f'SCHEMA_REVISION = "{SCHEMA_REVISION}"' not in source:
            # not the last change of that file, but the last commit before the schema moved on
            before = f"{newer}^" if newer != "HEAD" else newer
            return _git("rev-parse", "--verify", before).stdout.decode().strip() or None
        newer = commit
    return None


PARTS = ("core", "operator", "api", "crews", "cli")
# what an old pod does all day; the rest of the old tests would only say the same again
OLD_TESTS = ("test_flow_life.py", "test_gate.py")


def test_the_code_before_the_newest_migration_works_with_the_new_schema(
    tmp_path: Path, postgres: URL
) -> None:
    """Its own tests of the store, from the history, over a database as this tree migrates it."""
    commit = _previous_code()
    if commit is None:
        pytest.skip("this checkout has no history")
    archive = _git("archive", commit, *PARTS, "tests", "pyproject.toml", "alembic.ini")
    assert archive.returncode == 0, archive.stderr
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(tmp_path, filter="data")
    shutil.copytree(ROOT / "migrations", tmp_path / "migrations")
    schema = "".join(p.read_text() for place in SCHEMA if (p := tmp_path / place).is_file())
    assert 'SCHEMA_REVISION = "' in schema
    assert f'SCHEMA_REVISION = "{SCHEMA_REVISION}"' not in schema
    files = [tmp_path / "tests" / "store" / name for name in OLD_TESTS]
    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *map(str, files)],
        cwd=tmp_path,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith(("DISCOVERY_", "PYTEST_"))},
            "PYTHONPATH": ":".join(str(tmp_path / part) for part in ("", *PARTS)),
            "DISCOVERY_TEST_DATABASE_URL": _text(postgres),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout[-6000:] + outcome.stderr[-2000:]
    passed = re.search(r"(\d+) passed", outcome.stdout)
    assert passed is not None
    assert int(passed.group(1)) >= 20
