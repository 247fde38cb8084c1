"""How much one caller may have: so many requests a second, failures and things at a time.

Counted per process and forgotten for whoever has not been heard of for the longest, because
strangers can be as many as they like. Not here: who a request is counted for (`callers.py`).
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from .problems import TooManyRequestsError

_MOST_CALLERS = 10_000
FAILURE_SECONDS = 300.0


class Requests:
    """So many requests a second for each caller, and some more at once."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._rate = per_second
        self._burst = float(burst)
        # tokens left and when they were counted, by caller
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def count(self, caller: str) -> None:
        """Counts one request. Raises ProblemError 429 where there are too many."""
        if self._rate <= 0:
            return
        now = time.monotonic()
        left, since = self._buckets.pop(caller, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        allowed = left >= 1
        self._buckets[caller] = (left - 1 if allowed else left, now)
        if len(self._buckets) > _MOST_CALLERS:
            self._buckets.popitem(last=False)
        if not allowed:
            wait = (1 - left) / self._rate
            raise TooManyRequestsError(
                f"at most {self._rate:g} requests a second; try again in {wait:.1f} seconds", wait
            )


class Failures:
    """Tokens that were not accepted, by the address that sent them; each counts once.

    Whoever gets in costs nobody anything, because many people may come from one address; a program
    that goes on with a token that has expired is one failure, however often it asks.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # by address: what has failed there and when, the oldest first
        self._failed: OrderedDict[str, OrderedDict[str, float]] = OrderedDict()

    def count(self, address: str, what: str) -> bool:
        """Counts `what` as failed; True where it is counted already.

        Raises ProblemError 429 where too much has failed before.
        """
        now = time.monotonic()
        failed = self._failed.setdefault(address, OrderedDict())
        while failed and next(iter(failed.values())) < now - FAILURE_SECONDS:
            failed.popitem(last=False)
        if what in failed:
            return True
        if len(failed) >= self._most:
            wait = int(next(iter(failed.values())) + FAILURE_SECONDS - now) + 1
            raise TooManyRequestsError(
                f"{self._most} tokens from {address or 'your address'} were not accepted in the "
                f"last {FAILURE_SECONDS / 60:g} minutes; try again in {wait} seconds",
                wait,
                title="Too many attempts",
            )
        failed[what] = now
        self._failed.move_to_end(address)
        if len(self._failed) > _MOST_CALLERS:
            self._failed.popitem(last=False)
        return False

    def forgive(self, address: str, what: str) -> None:
        """Takes it back: it did not fail, or for no fault of its own."""
        self._failed.get(address, OrderedDict()).pop(what, None)


class AtATime:
    """So many of one kind at a time for each holder. `words` say what, and where it is set."""

    def __init__(self, most: int, words: str) -> None:
        self._most = most
        self._words = words
        self._held: Counter[str] = Counter()

    def require(self, holder: str) -> None:
        """Raises ProblemError 429 where the holder has as many as it may."""
        if self._held[holder] >= self._most:
            raise TooManyRequestsError(f"at most {self._most} {self._words}", 5.0)

    @contextmanager
    def one(self, holder: str) -> Iterator[None]:
        """Holds one until the block ends. Raises ProblemError 429."""
        self.require(holder)
        self._held[holder] += 1
        try:
            yield
        finally:
            self._held[holder] -= 1
            if not self._held[holder]:
                del self._held[holder]
