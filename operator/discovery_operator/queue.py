"""A keyed work queue: one flow is never worked on twice at a time, and no hint is ever lost.

The same idea as client-go's workqueue. A key that is added while it is being processed is
processed again afterwards; adding it ten times before that costs one run. Timers and failures
belong to the key, so that a flow has at most one timer, the earliest.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class KeyedQueue(Generic[K]):
    """Keys to process. Delays are seconds on the event loop's monotonic clock."""

    def __init__(
        self,
        *,
        first_backoff: float = 0.2,
        longest_backoff: float = 60.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._first_backoff = first_backoff
        self._longest_backoff = longest_backoff
        self._jitter = jitter
        self._ready: deque[K] = deque()
        self._dirty: set[K] = set()
        self._processing: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        """Keys that wait to be processed now; timers do not count."""
        return len(self._dirty)

    @property
    def timers(self) -> int:
        """Keys that will come back by themselves."""
        return len(self._timers)

    def add(self, key: K) -> None:
        """Have the key processed as soon as possible, once more if it is being processed."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._processing:
            self._push(key)

    def add_after(self, key: K, delay: float) -> None:
        """Have the key processed after `delay`, unless an earlier timer is set already."""
        loop = asyncio.get_running_loop()
        when = loop.time() + max(0.0, delay)
        known = self._timers.get(key)
        if known is not None:
            if known.when() <= when:
                return
            known.cancel()
        self._timers[key] = loop.call_at(when, self._fire, key)

    def set_timer(self, key: K, delay: float | None) -> None:
        """Replace the key's timer: `delay` from now, or none."""
        known = self._timers.pop(key, None)
        if known is not None:
            known.cancel()
        if delay is not None:
            self.add_after(key, delay)

    async def get(self) -> K:
        """The next key; it has to be given back with `done`."""
        while not self._ready:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                # the wake-up that this waiter got must not be lost with it
                if waiter.done() and not waiter.cancelled():
                    self._wake()
                raise
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._processing.add(key)
        return key

    def done(self, key: K) -> None:
        """Processing has ended; a key that was added meanwhile is ready again."""
        self._processing.discard(key)
        if key in self._dirty:
            self._push(key)

    def failed(self, key: K) -> float:
        """Have the key processed again after its backoff, which is returned."""
        failures = self._failures.get(key, 0) + 1
        self._failures[key] = failures
        delay = min(self._longest_backoff, self._first_backoff * 2.0 ** min(failures - 1, 20))
        delay *= 0.5 + 0.5 * self._jitter()
        self.add_after(key, delay)
        return delay

    def succeeded(self, key: K) -> None:
        """Forget the key's failures."""
        self._failures.pop(key, None)

    def close(self) -> None:
        """Cancel all timers."""
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()

    def _fire(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _push(self, key: K) -> None:
        self._ready.append(key)
        self._wake()

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
