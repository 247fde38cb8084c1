"""Live updates: one database listener per process, and whoever waits for a flow is woken.

NOTIFY is a hint. What a client is sent is read from the database, after the last entry that it
has seen, so that a lost hint or a lost connection costs time and never an entry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from discovery_core.loops import keep_on
from discovery_core.store import ApiStore

from .metrics import LISTENERS


class Subscription:
    """What one client waits for: one flow, or all of them (`flow_id` None)."""

    def __init__(self, flow_id: UUID | None) -> None:
        self.flow_id = flow_id
        self._changed: set[UUID] = set()
        self._rescan = False
        self._event = asyncio.Event()
        self.closed = False

    def close(self) -> None:
        """The process is about to end: the client is to reconnect to another one."""
        self.closed = True
        self._event.set()

    def wake(self, flow_id: UUID | None) -> None:
        """Something may have changed; None: anything."""
        if flow_id is None:
            self._rescan = True
        elif self.flow_id in (None, flow_id):
            self._changed.add(flow_id)
        else:
            return
        self._event.set()

    async def wait(self, seconds: float) -> tuple[set[UUID], bool]:
        """Flows that changed, and whether anything may have; both empty after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return set(), False
        changed, rescan = self._changed, self._rescan
        self._changed, self._rescan = set(), False
        self._event.clear()
        return changed, rescan


class Live:
    """Hands notifications on to the clients of this process."""

    def __init__(self, store: ApiStore) -> None:
        self._store = store
        self._subscriptions: set[Subscription] = set()
        self._closed = False

    async def run(self) -> None:
        """Listens for ever."""
        await keep_on("live", self._listen)

    async def _listen(self) -> None:
        async for flow_id in self._store.listen():
            for subscription in self._subscriptions:
                subscription.wake(flow_id)

    def close(self) -> None:
        """Ends all streams, so that the process can end without breaking them off."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.close()

    @contextmanager
    def subscribed(self, flow_id: UUID | None) -> Iterator[Subscription]:
        """Wakes the subscription until the block ends."""
        subscription = Subscription(flow_id)
        if self._closed:
            subscription.close()
        self._subscriptions.add(subscription)
        try:
            with LISTENERS.labels(about="all" if flow_id is None else "flow").track_inprogress():
                yield subscription
        finally:
            self._subscriptions.discard(subscription)
