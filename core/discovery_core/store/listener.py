"""One connection that listens for changed flows.

NOTIFY is a hint that may be lost with the connection, so the listener says after every
(re)connection that a rescan is due; it never gives up by itself. Every role of the database may
notify anything, so what names no flow is passed over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from uuid import UUID

import psycopg
import structlog
from sqlalchemy.engine import URL

from ..loops import set_aside
from .ledger.transition import CHANNEL

log = structlog.get_logger(__name__)


Skip = Callable[[UUID, int], bool]


def nothing(flow_id: UUID, backend_pid: int) -> bool:
    """Skips no notification."""
    del flow_id, backend_pid
    return False


def _named(notification: psycopg.Notify) -> UUID | None:
    """The flow that is notified; None where it is no flow's id."""
    with set_aside("listener", payload=notification.payload[:100], backend_pid=notification.pid):
        return UUID(notification.payload)
    return None


async def listen(url: URL, skip: Skip = nothing) -> AsyncIterator[UUID | None]:
    """Flow ids as they are notified; None after each (re)connection.

    `skip` is asked about each, with the process id of the connection that wrote.
    """
    conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
    delay = 0.2
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                conninfo,
                autocommit=True,
                connect_timeout=10,
                application_name="discoveryflow-listener",
                keepalives_idle=15,
                keepalives_interval=5,
                keepalives_count=3,
            ) as connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                delay = 0.2
                yield None
                async for notification in connection.notifies():
                    flow_id = _named(notification)
                    if flow_id is not None and not skip(flow_id, notification.pid):
                        yield flow_id
        except (psycopg.Error, OSError) as error:
            log.warning("listener reconnects", delay=delay, error=str(error))
        await asyncio.sleep(delay)
        delay = min(5.0, delay * 2)
