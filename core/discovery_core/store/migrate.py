"""Brings a database to the current schema: `python -m discovery_core.store.migrate upgrade`.

The roles come first, because tables, policies and grants name them. Where the connecting user
may not create roles, they have to exist already; the error then prints the SQL for a DBA.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import OperationalError, ProgrammingError

from .database import database_url
from .schema import SCHEMA_REVISION

log = structlog.get_logger(__name__)

OWNER = "discovery_owner"
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


def _roles(settings: MigrationSettings) -> None:
    engine = create_engine(database_url(settings.database_url, settings.password))
    _wait(engine, settings.database_wait_seconds)
    passwords = dict(
        zip(
            LOGIN_ROLES,
            (settings.operator_password, settings.execution_password, settings.api_password),
            strict=True,
        )
    )
    try:
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
    finally:
        engine.dispose()


def upgrade(settings: MigrationSettings, revision: str = "head") -> None:
    """Creates the roles and applies all migrations up to `revision`."""
    _roles(settings)
    command.upgrade(Config(settings.migrations), revision)


def main(argv: list[str] | None = None) -> int:
    """Entry point of the migration Job."""
    parser = argparse.ArgumentParser(
        prog="python -m discovery_core.store.migrate", description=__doc__
    )
    parser.add_argument(
        "action",
        choices=("upgrade", "check", "downgrade"),
        help="upgrade: to the newest schema; check: tell whether models and migrations agree; "
        "downgrade: undo the last migration",
    )
    action = parser.parse_args(argv).action
    if "DISCOVERY_DATABASE_URL" not in os.environ:
        parser.error("DISCOVERY_DATABASE_URL is not set; write postgresql://user@host:5432/db")
    settings = MigrationSettings()
    config = Config(settings.migrations)
    if action == "upgrade":
        upgrade(settings)
        log.info("the schema is current", revision=SCHEMA_REVISION)
    elif action == "check":
        command.check(config)
    else:
        command.downgrade(config, "-1")
    return 0


if __name__ == "__main__":
    sys.exit(main())
