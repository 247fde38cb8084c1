"""Leadership: one row in Postgres, renewed well before it expires on the database's clock.

Losing it is safe at any moment, because every write carries the epoch; this loop only makes sure
that a process that cannot renew stops trying to work, and that a new leader looks at everything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from discovery_core.logging import get_logger
from discovery_core.store import OperatorStore

from . import metrics
from .faults import DATABASE_FAULTS

log = get_logger(__name__)


class Leadership:
    """Acquires and renews. `leads` is set while this process may work."""

    def __init__(
        self, store: OperatorStore, *, holder: str, ttl: float, on_gain: Callable[[], None]
    ) -> None:
        self._store = store
        self._holder = holder
        self._ttl = ttl
        self._on_gain = on_gain
        self._valid_until = 0.0
        self.leads = asyncio.Event()

    async def run(self) -> None:
        """For ever: renew three times per `ttl`; stand by where another one leads."""
        while True:
            await self.step()
            await asyncio.sleep(self._ttl / 3)

    async def step(self) -> None:
        """One try to acquire or renew."""
        asked = time.monotonic()
        try:
            epoch = await asyncio.wait_for(
                self._store.acquire_leadership(self._holder, self._ttl), self._ttl / 2
            )
        except DATABASE_FAULTS as error:
            log.warning("leadership cannot be asked for", error=str(error) or type(error).__name__)
            if self.leads.is_set() and time.monotonic() >= self._valid_until:
                self._lose(f"it could not be renewed: {error}")
            return
        if epoch is None:
            self._lose("another operator leads")
            return
        self._valid_until = asked + self._ttl
        if not self.leads.is_set():
            log.info("leading", holder=self._holder, epoch=epoch)
            metrics.LEADER.set(1)
            self.leads.set()
            self._on_gain()

    async def release(self) -> None:
        """On shutdown: stop working and let the next one take over at once."""
        if not self.leads.is_set():
            return
        self._lose("shutting down")
        try:
            await asyncio.wait_for(self._store.release_leadership(self._holder), 5.0)
        except DATABASE_FAULTS as error:
            log.warning("leadership was not released, it will expire", error=str(error))

    def _lose(self, why: str) -> None:
        if self.leads.is_set():
            log.warning("no longer leading", reason=why)
        metrics.LEADER.set(0)
        self.leads.clear()
