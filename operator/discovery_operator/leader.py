"""Leadership: one row in Postgres, renewed well before it expires on the database's clock.

Losing it is safe at any moment, because every write carries the epoch; this loop only makes sure
that a process that cannot renew stops trying to work, and that a new leader looks at everything.

For the same reason a leader whose renewal is late works on for another `ttl`: its writes count as
long as nobody else has taken over. On a busy machine that happens, and to look at everything each
time would make it busier.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from discovery_core.logging import get_logger
from discovery_core.loops import set_aside
from discovery_core.store import OperatorStore

from . import metrics
from .faults import DATABASE_FAULTS

log = get_logger(__name__)

STANDBY_SECONDS = 1.0
AGAIN_SECONDS = 0.2


class Leadership:
    """Acquires and renews. `leads` is set while this process may work."""

    def __init__(
        self, store: OperatorStore, *, holder: str, ttl: float, on_gain: Callable[[], None]
    ) -> None:
        self._store = store
        self._holder = holder
        self._ttl = ttl
        self._on_gain = on_gain
        self._works_until = 0.0
        self._epoch = 0
        self._retired = False
        self.leads = asyncio.Event()

    async def run(self) -> None:
        """For ever: renew three times per `ttl`; where another one leads, ask each second."""
        while True:
            answered = await self.step()
            pause = self._ttl / 3
            if self.leads.is_set():
                await asyncio.sleep(pause if answered else AGAIN_SECONDS)
            else:
                await asyncio.sleep(min(pause, STANDBY_SECONDS))

    async def step(self) -> bool:
        """One try to acquire or renew. Returns whether the database has answered."""
        if self._retired:
            return True
        asked = time.monotonic()
        answered, epoch = await self._ask()
        if not answered:
            if self.leads.is_set() and time.monotonic() >= self._works_until:
                self._lose("it could not be renewed")
            return False
        if epoch is None:
            self._lose("another operator leads")
            return True
        self._works_until = asked + 2 * self._ttl
        self._leads_with(epoch)
        return True

    async def _ask(self) -> tuple[bool, int | None]:
        """Whether the database has answered, and the epoch where this process leads."""
        with set_aside("leadership"):
            try:
                async with asyncio.timeout(self._ttl):
                    return True, await self._store.acquire_leadership(self._holder, self._ttl)
            except DATABASE_FAULTS as error:
                said = str(error) or type(error).__name__
                log.warning("leadership cannot be asked for", error=said)
        return False, None

    def _leads_with(self, epoch: int) -> None:
        before, self._epoch = self._epoch, epoch
        metrics.LEADER.set(1)
        metrics.LEADER_EPOCH.set(epoch)
        # each takeover raises the epoch by one, this process's own too; in a database that was
        # emptied or restored it is another one
        if self.leads.is_set() and before <= epoch <= before + 1:
            return
        log.info("leading", holder=self._holder, epoch=epoch)
        metrics.LEADER_TAKEOVERS.inc()
        self.leads.set()
        self._on_gain()

    def retire(self) -> None:
        """On shutdown: begin nothing new. What is under way may still be written."""
        if self.leads.is_set():
            self._retired = True
            self._lose("shutting down")

    async def release(self) -> None:
        """After `retire`: let the next one take over at once."""
        if not self._retired:
            return
        try:
            async with asyncio.timeout(5):
                await self._store.release_leadership(self._holder)
        except DATABASE_FAULTS as error:
            log.warning("leadership was not released, it will expire", error=str(error))

    def _lose(self, why: str) -> None:
        if self.leads.is_set():
            log.warning("no longer leading", reason=why)
        metrics.LEADER.set(0)
        metrics.LEADER_EPOCH.set(0)
        metrics.FROM_DATABASE.drop()
        self.leads.clear()
