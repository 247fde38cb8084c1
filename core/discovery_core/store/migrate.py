"""Brings a database to the current schema: `python -m discovery_core.store.migrate upgrade`.

Besides, what an administrator does around a backup: `roles` before a restore, `restored` after
it, `adopt` to move into another cluster (docs/backup.md).

The roles come first, because tables, policies and grants name them. Where the connecting user
may not create roles, they have to exist already; the error then prints the SQL for a DBA.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn
from uuid import UUID

import structlog
from alembic import command
from alembic.config import Config
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import OperationalError, ProgrammingError

from ..logging import configure_logging
from .database import SchemaState, database_url
from .maintenance.recovery import AdoptionError, Target, adopt, mark_restored
from .schema import SCHEMA_REVISION

log = structlog.get_logger(__name__)

OWNER = "discovery_owner"
# a Job that was stopped has not succeeded: another pod goes on
EXIT_STOPPED = 128 + signal.SIGTERM
# held by whoever changes roles or schema; migrations/env.py holds it too
LOCK = 7203411905
LOCK_TRIES = 20
LOCK_NOT_AVAILABLE = "55P03"
LOGIN_ROLES = ("discovery_operator", "discovery_execution", "discovery_api")


class MigrationSettings(BaseSettings):
    """Environment of the migration Job. The three passwords are set on the login roles."""

    model_config = SettingsConfigDict(env_prefix="DISCOVERY_", extra="ignore")

    database_url: str = Field(description="postgresql:// address of a user who may create roles")
    database_password: str | None = None
    operator_password: str | None = None
    execution_password: str | None = None
    api_password: str | None = None
    database_wait_seconds: float = 300.0
    migrations: Path = Path("alembic.ini")

    @property
    def password(self) -> str | None:
        """Password of the connecting user, if it is not part of the address."""
        return self.database_password


def _wait(engine: Engine, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with engine.connect():
                return
        except OperationalError as error:
            if time.monotonic() > deadline:
                raise
            log.info("waiting for the database", error=str(error.orig).strip())
            time.sleep(2)


def _quoted(connection: Connection, value: str) -> str:
    quoted: str = connection.scalar(text("SELECT quote_literal(:v)"), {"v": value})
    return quoted


def create_roles(connection: Connection, passwords: dict[str, str | None]) -> None:
    """Creates the owner and the three login roles where they are missing.

    Raises ProgrammingError where a role is missing and the user may not create it.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    existing = set(
        connection.scalars(text("SELECT rolname FROM pg_roles WHERE rolname LIKE 'discovery%'"))
    )
    if OWNER not in existing:
        connection.execute(text(f"CREATE ROLE {OWNER} NOLOGIN"))
    for role in LOGIN_ROLES:
        if role not in existing:
            connection.execute(text(f"CREATE ROLE {role} LOGIN NOINHERIT"))
        password = passwords.get(role)
        if password:
            connection.execute(text(f"ALTER ROLE {role} PASSWORD {_quoted(connection, password)}"))
    connection.execute(text(f"GRANT {OWNER} TO CURRENT_USER"))
    connection.execute(text(f"GRANT USAGE, CREATE ON SCHEMA public TO {OWNER}"))


@contextmanager
def _engine(settings: MigrationSettings) -> Iterator[Engine]:
    """Connections of the user who migrates."""
    engine = create_engine(database_url(settings.database_url, settings.password))
    try:
        yield engine
    finally:
        engine.dispose()


def _roles(settings: MigrationSettings) -> None:
    passwords = dict(
        zip(
            LOGIN_ROLES,
            (settings.operator_password, settings.execution_password, settings.api_password),
            strict=True,
        )
    )
    try:
        with _engine(settings) as engine:
            _wait(engine, settings.database_wait_seconds)
            with engine.begin() as connection:
                create_roles(connection, passwords)
    except ProgrammingError as error:
        statements = [f"CREATE ROLE {OWNER} NOLOGIN;"]
        statements += [f"CREATE ROLE {role} LOGIN NOINHERIT PASSWORD '…';" for role in LOGIN_ROLES]
        statements += [
            f"GRANT {OWNER} TO <migration user>;",
            f"GRANT USAGE, CREATE ON SCHEMA public TO {OWNER};",
        ]
        raise SystemExit(
            f"the database roles cannot be set up: {str(error.orig).strip()}\n"
            "Have an administrator run:\n  " + "\n  ".join(statements)
        ) from error


def upgrade(settings: MigrationSettings, revision: str = "head") -> None:
    """Creates the roles and applies all migrations up to `revision`; a newer schema stays.

    After a rollback to this version the schema is newer. That is well where it still serves this
    code; else SystemExit says that only a newer version will do.

    A migration waits only seconds for a lock, because everybody else queues up behind it while it
    waits; it lets them pass and tries again.
    """
    _roles(settings)
    newer = _newer(settings)
    if newer is not None:
        log.warning("the schema is newer than this version, and stays", revision=newer)
        return
    _despite_locks(lambda: command.upgrade(Config(settings.migrations), revision))


def _newer(settings: MigrationSettings) -> str | None:
    """Revision of a schema that is newer than this code, and serves it; else None."""
    with _engine(settings) as engine, engine.connect() as connection:
        # the tables are the owner's, and the connecting user may not inherit its rights
        connection.execute(text(f"SET ROLE {OWNER}"))
        state = SchemaState.of(connection)
    if state.is_newer and not state.serves:
        raise SystemExit(
            f"the schema is of revision {state.revision}, which serves no version as old as this "
            f"one ({SCHEMA_REVISION}): install a newer version, or restore a backup"
        )
    return state.revision if state.is_newer else None


def _despite_locks(work: Callable[[], None]) -> None:
    for attempt in range(1, LOCK_TRIES + 1):
        try:
            work()
        except OperationalError as error:
            state = getattr(error.orig, "sqlstate", None)
            if state != LOCK_NOT_AVAILABLE or attempt == LOCK_TRIES:
                raise
            delay = min(10.0, 0.5 * attempt)
            log.warning("a table is in use; the migration tries again", attempt=attempt, in_s=delay)
            time.sleep(delay)
        else:
            return


def _restored(settings: MigrationSettings) -> None:
    upgrade(settings)
    with _engine(settings) as engine:
        for cluster, epoch in mark_restored(engine).items():
            log.info(
                "leadership of before the restore has ended", cluster=str(cluster), epoch=epoch
            )


def _adopt(settings: MigrationSettings, options: argparse.Namespace) -> int:
    try:
        with _engine(settings) as engine:
            adopted = adopt(
                engine,
                source=options.source,
                cluster=options.cluster,
                target=Target.read(options.namespaces, options.flows),
                actor=options.by,
                dry_run=options.dry_run,
            )
    except AdoptionError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    word = "would be adopted" if options.dry_run else "adopted"
    for title, names in (
        (f"namespaces {word}", adopted.namespaces),
        (f"flows {word}", adopted.flows),
        ("flows without a resource in the new cluster", adopted.without_resource),
        ("namespaces left with the old cluster", adopted.left),
    ):
        sys.stdout.write(f"{title}: {', '.join(names) or 'none'}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m discovery_core.store.migrate",
        description=__doc__,
        epilog="DISCOVERY_DATABASE_URL (and DISCOVERY_DATABASE_PASSWORD) say where the database is "
        "and who connects: a user who may create roles.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, says in (
        ("upgrade", "to the newest schema"),
        ("check", "tell whether models and migrations agree"),
        ("downgrade", "undo the last migration"),
        ("roles", "only create the roles: before a dump is restored into a new server"),
        ("restored", "after a restore: upgrade, and end the leaderships that the dump has"),
    ):
        actions.add_parser(name, help=says, description=says)
    moving = actions.add_parser(
        "adopt",
        help="move the flows of one cluster into another one",
        description="Gives tenants and flows the uids that namespaces and resources of the same "
        "names have in another cluster. No operator of either cluster may be at work.",
    )
    moving.add_argument(
        "--from", dest="source", type=UUID, required=True, help="UID of kube-system where they were"
    )
    moving.add_argument(
        "--to", dest="cluster", type=UUID, required=True, help="UID of kube-system where they are"
    )
    moving.add_argument(
        "--namespaces",
        type=Path,
        required=True,
        help="output of `kubectl get namespaces -o json` in the new cluster",
    )
    moving.add_argument(
        "--flows",
        type=Path,
        required=True,
        help="output of `kubectl get discoveryflows -A -o json` in the new cluster",
    )
    moving.add_argument("--by", required=True, help="who does this; kept in each flow's history")
    moving.add_argument("--dry-run", action="store_true", help="try it and take everything back")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point of the migration Job and of the administrator's commands."""
    parser = _parser()
    options = parser.parse_args(argv)
    if "DISCOVERY_DATABASE_URL" not in os.environ:
        parser.error("DISCOVERY_DATABASE_URL is not set; write postgresql://user@host:5432/db")
    settings = MigrationSettings()
    config = Config(settings.migrations)
    configure_logging("migration")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _act(options, settings, config)
    except KeyboardInterrupt:
        log.warning("stopped before the end; what was not committed is rolled back")
        return EXIT_STOPPED


def _interrupt(number: int, frame: object) -> NoReturn:
    """Ends a statement under way as Ctrl-C would; process 1 of a container has no default."""
    del number, frame
    raise KeyboardInterrupt


def _act(options: argparse.Namespace, settings: MigrationSettings, config: Config) -> int:
    if options.action == "adopt":
        return _adopt(settings, options)
    if options.action == "upgrade":
        upgrade(settings)
        log.info("the schema serves this version", revision=SCHEMA_REVISION)
    elif options.action == "check":
        command.check(config)
    elif options.action == "roles":
        _roles(settings)
        log.info("the roles are there")
    elif options.action == "restored":
        _restored(settings)
    else:
        command.downgrade(config, "-1")
    return 0


if __name__ == "__main__":
    sys.exit(main())
