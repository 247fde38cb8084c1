"""Whether the database can be worked with, for probes and metrics of every process.

One check at a time, with a time limit of its own: a probe has to be answered in words while a
connection hangs, and a hundred probes must not hold a hundred connections.
"""

from __future__ import annotations

import asyncio
import re
import time

import structlog
from prometheus_client import Gauge
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from .database import Database

log = structlog.get_logger(__name__)

DATABASE_UP = Gauge(
    "discoveryflow_database_up", "1 where the database answered when the metrics were read."
)
SCHEMA_CURRENT = Gauge(
    "discoveryflow_database_schema_current",
    "0 where the database answers with another schema than this version's, else 1.",
)
CONNECTIONS = Gauge(
    "discoveryflow_database_connections",
    "Connections of this process's pool: in use, idle, and the most there may be (limit).",
    ["use"],
)
_MIGRATE = (
    "the migration has to run. The release's CronJob does it at its next time; at once by "
    "`kubectl -n NS create job migrate-now --from=cronjob/RELEASE-migration`"
)
NOT_CURRENT = f"the database schema is not current: {_MIGRATE}"
# what a server says to a role that the migration makes, in a database that has not seen it
_NOT_MIGRATED = ("password authentication failed", "does not exist", "permission denied")
_NO_DATABASE = re.compile(r'database "[^"]*" does not exist')
# shorter than a probe's own timeout, so that the reason is told
TIMEOUT_SECONDS = 4.0
# whoever asks again sooner is told the same: a probe needs no login, and must cost no query
FRESH_SECONDS = 1.0
# metrics are told anyway; a check that takes longer shows at the next scrape
MEASURE_SECONDS = 0.5


def explained(error: Exception) -> str:
    """Says why the database cannot be worked with, and the way out; nothing that names a server."""
    if _NO_DATABASE.search(str(error)):
        return "the server has no database of the name in the address: make it, or mend the address"
    if any(words in str(error) for words in _NOT_MIGRATED):
        return f"the database refuses this process: if it is new or was emptied, {_MIGRATE}"
    return f"the database does not answer: {type(error).__name__}"


class DatabaseMonitor:
    """Asks the database, for /readyz and /metrics."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._check: asyncio.Task[str | None] | None = None
        self._began = 0.0

    async def problem(self, seconds: float = TIMEOUT_SECONDS) -> str | None:
        """Why the database cannot be worked with, or None. Known after at most `seconds`."""
        check = self._check
        if check is None or check.done():
            self._began = time.monotonic()
            check = self._check = asyncio.create_task(self._ask(), name="database-check")
        await asyncio.wait({check}, timeout=seconds)
        if check.done():
            return check.result()
        in_use, _, limit = self._connections()
        if in_use >= limit:
            return f"all {limit} connections to the database are in use"
        waited = time.monotonic() - self._began
        if waited >= TIMEOUT_SECONDS:
            DATABASE_UP.set(0)
        return f"the database has not answered for {waited:.0f} seconds"

    async def recent(self) -> str | None:
        """As `problem`, but what a check of the last second has found is not asked again."""
        check = self._check
        if check and check.done() and time.monotonic() - self._began < FRESH_SECONDS:
            return check.result()
        return await self.problem()

    async def measure(self) -> str | None:
        """Brings the gauges up to date; returns what `problem` finds in a moment."""
        problem = await self.problem(MEASURE_SECONDS)
        for use, number in zip(("in_use", "idle", "limit"), self._connections(), strict=True):
            CONNECTIONS.labels(use=use).set(number)
        return problem

    def close(self) -> None:
        """Gives up a check that still hangs."""
        if self._check is not None:
            self._check.cancel()

    def _connections(self) -> tuple[int, int, int]:
        """In use, idle, and the most there may be."""
        pool = self._db.engine.pool
        assert isinstance(pool, QueuePool)  # noqa: S101 - `Database` makes no other
        return pool.checkedout(), pool.checkedin(), pool.size()

    async def _ask(self) -> str | None:
        try:
            current = await self._db.schema_is_current()
        except (SQLAlchemyError, OSError) as error:
            # a pool without a free connection says nothing about the database
            if not isinstance(error, PoolTimeoutError):
                DATABASE_UP.set(0)
            problem = explained(error)
            log.warning(problem, error=str(error).splitlines()[:1])
            return f"{problem}; see the log"
        DATABASE_UP.set(1)
        SCHEMA_CURRENT.set(current)
        if current:
            return None
        return NOT_CURRENT
