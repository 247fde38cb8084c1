"""Has those looked at who may start, when a slot may be free: the database says who that is.

Nobody in the queue has a timer or is looked at meanwhile, so ten thousand of them cost nothing.
Only a hint: each look asks again whether it is the flow's turn.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

from discovery_core.logging import get_logger
from discovery_core.loops import set_aside
from discovery_core.store import OperatorStore

from .faults import FAULTS
from .queue import KeyedQueue

log = get_logger(__name__)


class Dispatcher:
    """Knows which flows have a slot, and looks for the next ones when one gives it up."""

    def __init__(
        self,
        store: OperatorStore,
        queue: KeyedQueue[UUID],
        *,
        limits: tuple[int, int],
        poll_seconds: float,
    ) -> None:
        self._store = store
        self._queue = queue
        self._limits = limits
        self._poll_seconds = poll_seconds
        self._taken: set[UUID] = set()
        self._wake = asyncio.Event()

    @property
    def taken(self) -> int:
        """Flows that have a slot, as far as this process has seen."""
        return len(self._taken)

    def took(self, flow: UUID) -> None:
        """The flow has a slot."""
        self._taken.add(flow)

    def gave_up(self, flow: UUID) -> None:
        """The flow has no slot; where it had one, others may start."""
        if flow in self._taken:
            self._taken.discard(flow)
            self._wake.set()

    async def run(self, leads: asyncio.Event) -> None:
        """Looks when a slot was given up, and from time to time, for ever."""
        while True:
            await leads.wait()
            try:
                async with asyncio.timeout(self._poll_seconds):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            if leads.is_set():
                await self.dispatch()

    async def dispatch(self) -> None:
        """Puts those into the work queue who may start now."""
        with set_aside("dispatcher"):
            try:
                found = await self._store.startable(self._limits, self._queue.failing)
            except FAULTS as error:
                log.warning("the queue cannot be asked", error=str(error))
                return
            for flow in found:
                self._queue.add(flow)
