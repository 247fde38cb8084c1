"""Connections, transactions and their scope.

Every transaction starts by telling Postgres for whom it acts: one tenant, or one cluster with
the leader's epoch. The settings are transaction-local, so that a pooled connection can never
carry them to the next borrower; without them, row-level security shows no row.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeVar, cast
from uuid import UUID

import structlog
from sqlalchemy import event, func, select, text
from sqlalchemy.engine import URL, Connection, ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from ..errors import SupersededError
from .schema import SCHEMA_REVISION

log = structlog.get_logger(__name__)
T = TypeVar("T")

_ATTEMPTS = 6
_RETRYABLE_STATES = {"25P03", "40001", "40P01", "55P03", "57P01", "57P02", "57P03", "53300"}
_NO_RIGHT = "42501"
# all questions of a read see the database as it was at the first of them
_OF_ONE_MOMENT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
# a leader that is frozen inside a transaction keeps its successor waiting for that long
_LEADER_IDLE = "5s"


@dataclass(frozen=True)
class TenantScope:
    """Acts for one tenant and sees only its rows."""

    tenant_id: UUID


@dataclass(frozen=True)
class ClusterScope:
    """Acts for all tenants of one cluster. With an epoch, only while that leader leads."""

    cluster_id: UUID
    epoch: int | None = None


Scope = TenantScope | ClusterScope | None


def database_url(url: str, password: str | None = None) -> URL:
    """`postgresql://…` as SQLAlchemy wants it for psycopg 3, with the password put in."""
    parsed = make_url(url).set(drivername="postgresql+psycopg")
    return parsed.set(password=password) if password else parsed


class Database:
    """A pool of connections of one role.

    `statement_timeout` is in seconds. Use `run` for work that is safe to repeat as a whole: it
    is tried again after serialization failures, deadlocks and lost connections, and because the
    answer to a COMMIT may have been lost, the function must re-read before it writes. `backends`
    are the server's process ids of its connections.
    """

    def __init__(
        self,
        url: str,
        password: str | None = None,
        *,
        application_name: str,
        pool_size: int = 5,
        statement_timeout: float = 30.0,
    ) -> None:
        self.url = database_url(url, password)
        # what is asked here is short, or long text over few rows: compiling it takes seconds
        options = (
            f"-c statement_timeout={int(statement_timeout * 1000)} "
            "-c lock_timeout=10000 -c idle_in_transaction_session_timeout=60000 -c timezone=UTC "
            "-c jit=off"
        )
        self.engine = create_async_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=30,
            pool_pre_ping=True,
            connect_args={
                "application_name": application_name,
                "options": options,
                "connect_timeout": 10,
                # a server that has vanished without a word is noticed in seconds, not in hours
                "keepalives_idle": 15,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": 30_000,
            },
        )
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self._readers = async_sessionmaker(
            self.engine.execution_options(**_OF_ONE_MOMENT), expire_on_commit=False
        )
        self.backends: set[int] = set()
        event.listen(self.engine.sync_engine, "connect", self._connected)
        event.listen(self.engine.sync_engine, "close", self._disconnected)
        event.listen(self.engine.sync_engine, "handle_error", _forget_the_powerless)

    def _connected(self, connection: Any, record: ConnectionPoolEntry) -> None:
        pid = connection.driver_connection.info.backend_pid
        record.info["backend_pid"] = pid
        self.backends.add(pid)

    def _disconnected(self, connection: Any, record: ConnectionPoolEntry) -> None:
        del connection
        self.backends.discard(record.info.get("backend_pid", 0))

    async def close(self) -> None:
        """Closes all connections."""
        await self.engine.dispose()

    @asynccontextmanager
    async def transaction(
        self, scope: Scope, *, reading: bool = False
    ) -> AsyncIterator[AsyncSession]:
        """One transaction in `scope`. Raises SupersededError when the epoch no longer leads."""
        async with (self._readers if reading else self._sessions).begin() as session:
            await _enter(session, scope)
            yield session

    async def run(self, scope: Scope, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Runs `work` in a transaction, again from the start where that can help."""
        return await self._again(scope, work, reading=False)

    async def read(self, scope: Scope, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Runs `work`, which writes nothing and sees one moment, whatever others commit."""
        return await self._again(scope, work, reading=True)

    async def _again(
        self, scope: Scope, work: Callable[[AsyncSession], Awaitable[T]], *, reading: bool
    ) -> T:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async with self.transaction(scope, reading=reading) as session:
                    return await work(session)
            except (OperationalError, InterfaceError, DBAPIError) as error:
                if attempt == _ATTEMPTS or not _can_retry(error):
                    raise
                delay = min(2.0, 0.05 * 2**attempt) * random.uniform(0.5, 1.0)  # noqa: S311
                log.warning("database retry", attempt=attempt, delay=delay, error=str(error.orig))
                await asyncio.sleep(delay)
        raise AssertionError("unreachable")

    async def ping(self) -> None:
        """Raises where the database does not answer."""
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def schema_is_current(self) -> bool:
        """Whether this code may work: its own schema, or a newer one that still serves it."""
        async with self.engine.connect() as connection:
            state = await connection.run_sync(SchemaState.of)
        return state.serves


class SchemaState(NamedTuple):
    """Alembic's revision of a database, None before the first migration, and what it serves.

    During an upgrade the schema is expanded first, and the pods of the old release go on. A schema
    that is newer than this code says which is the oldest code that it serves.
    """

    revision: str | None
    oldest_code: str | None = None

    @classmethod
    def of(cls, connection: Connection) -> SchemaState:
        """As the database says. `oldest_code` is asked for where it matters."""
        revision = _only(connection, "alembic_version", "version_num")
        if revision is None or revision <= SCHEMA_REVISION:
            return cls(revision)
        return cls(revision, _only(connection, "schema_support", "minimum_code_revision"))

    @property
    def is_newer(self) -> bool:
        """Whether it was made for later code than this."""
        return self.revision is not None and self.revision > SCHEMA_REVISION

    @property
    def serves(self) -> bool:
        """Whether this code may work with it."""
        if self.is_newer:
            return self.oldest_code is not None and self.oldest_code <= SCHEMA_REVISION
        return self.revision == SCHEMA_REVISION


def _only(connection: Connection, table: str, column: str) -> str | None:
    """The one value of a table that there may not be."""
    if connection.scalar(text("SELECT to_regclass(:table)"), {"table": table}) is None:
        return None
    value: str | None = connection.scalar(text(f"SELECT {column} FROM {table}"))  # noqa: S608 - ours
    return value


async def database_now(session: AsyncSession) -> datetime:
    """The database's wall clock, the only clock that deadlines are kept by."""
    return cast("datetime", await session.scalar(select(func.clock_timestamp())))


def _forget_the_powerless(context: ExceptionContext) -> None:
    """Has sessions begun anew that may do nothing, as those of a role that was dropped and made."""
    if getattr(context.original_exception, "sqlstate", None) == _NO_RIGHT:
        context.is_disconnect = True


def _can_retry(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        return isinstance(error, OperationalError | InterfaceError)
    return state in _RETRYABLE_STATES or state.startswith("08")


async def _enter(session: AsyncSession, scope: Scope) -> None:
    if isinstance(scope, TenantScope):
        await session.execute(
            text("SELECT set_config('discovery.tenant_id', :tenant, true)"),
            {"tenant": str(scope.tenant_id)},
        )
    elif isinstance(scope, ClusterScope):
        await session.execute(
            text("SELECT set_config('discovery.cluster_id', :cluster, true)"),
            {"cluster": str(scope.cluster_id)},
        )
        if scope.epoch is not None:
            await session.execute(
                text(f"SET LOCAL idle_in_transaction_session_timeout = '{_LEADER_IDLE}'")
            )
            held = await session.execute(
                text(
                    "SELECT 1 FROM leader WHERE cluster_id = :cluster AND epoch = :epoch "
                    "FOR KEY SHARE"
                ),
                {"cluster": scope.cluster_id, "epoch": scope.epoch},
            )
            if held.first() is None:
                raise SupersededError(f"leader epoch {scope.epoch} is over")
