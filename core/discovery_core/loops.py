"""Loops that outlive what goes wrong in them.

A process serves all tenants, so one bad row, object or message must neither end it nor keep it from
the others: it is logged, counted and set aside. What is cancelled ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from prometheus_client import Counter

log = structlog.get_logger(__name__)

LOOP_ERRORS = Counter(
    "discoveryflow_loop_errors",
    "Faults that a background loop did not expect; it goes on without what was at fault.",
    ["loop"],
)
RETRY_SECONDS = 1.0


class set_aside:  # noqa: N801 - reads as a verb
    """Ends the block at an exception, which is counted and logged; `about` names its item.

    What is `known` goes on its way.
    """

    def __init__(
        self, loop: str, *, known: tuple[type[Exception], ...] = (), **about: object
    ) -> None:
        self._loop = loop
        self._known = known
        self._about = about

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception) or isinstance(error, self._known):
            return False
        LOOP_ERRORS.labels(loop=self._loop).inc()
        about = {"loop": self._loop, **self._about}
        log.error("set aside what was not expected", **about, exc_info=error)
        return True


async def keep_on(
    loop: str, run: Callable[[], Awaitable[None]], pause: float = RETRY_SECONDS
) -> None:
    """Runs what is to go on for ever, again after a pause wherever it ends."""
    LOOP_ERRORS.labels(loop=loop)
    while True:
        with set_aside(loop):
            await run()
        await asyncio.sleep(pause)
