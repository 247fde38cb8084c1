"""A keyed work queue: one flow is never worked on twice at a time, and no hint is ever lost.

The same idea as client-go's workqueue. A key that is added while it is being processed is
processed again afterwards; adding it ten times before that costs one run. Timers and failures
belong to the key, so that a flow has at most one timer, the earliest.

What has just happened goes before what is only looked at again (timers, the sweep): with a
thousand flows under way, a result must not stand behind a thousand of those.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
# after so many that hurry comes one that does not, so that those are not forgotten
IN_A_ROW = 8


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
        self._later: deque[K] = deque()
        self._in_a_row = 0
        self._dirty: dict[K, bool] = {}
        self._processing: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._at_rest = asyncio.Event()
        self._at_rest.set()

    def __len__(self) -> int:
        """Keys that wait to be processed now; timers do not count."""
        return len(self._dirty)

    @property
    def timers(self) -> int:
        """Keys that will come back by themselves."""
        return len(self._timers)

    def has_timer(self, key: K) -> bool:
        """Whether the key will come back by itself."""
        return key in self._timers

    @property
    def failing(self) -> frozenset[K]:
        """Keys whose last processing has failed."""
        return frozenset(self._failures)

    def add(self, key: K, *, hurry: bool = True) -> None:
        """Have the key processed as soon as possible, once more if it is being processed.

        Without `hurry`, after those that do.
        """
        known = self._dirty.get(key)
        if known or known is hurry:
            return
        self._dirty[key] = hurry
        if key not in self._processing:
            self._push(key)

    def is_processing(self, key: K) -> bool:
        """Whether the key is being processed now."""
        return key in self._processing

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
        while (key := self._next()) is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                # the wake-up that this waiter got must not be lost with it
                if waiter.done() and not waiter.cancelled():
                    self._wake()
                raise
        self._dirty.pop(key)
        self._processing.add(key)
        self._at_rest.clear()
        return key

    def done(self, key: K) -> None:
        """Processing has ended; a key that was added meanwhile is ready again."""
        self._processing.discard(key)
        if not self._processing:
            self._at_rest.set()
        if key in self._dirty:
            self._push(key)

    async def rest(self) -> None:
        """Until every key that was taken has been given back."""
        await self._at_rest.wait()

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
        self.add(key, hurry=False)

    def _push(self, key: K) -> None:
        (self._ready if self._dirty[key] else self._later).append(key)
        self._wake()

    def _next(self) -> K | None:
        """The next key that waits. One that began to hurry stands in both rows, and counts once."""
        while self._ready or self._later:
            late = not self._ready or (bool(self._later) and self._in_a_row >= IN_A_ROW)
            key = (self._later if late else self._ready).popleft()
            if key in self._dirty and key not in self._processing:
                self._in_a_row = 0 if late else self._in_a_row + 1
                return key
        return None

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
