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
from .recent import remember


class Requests:
    """So many requests a second for each caller, and some more at once."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._rate = per_second
        self._burst = float(burst)
        # tokens left and when they were counted, by caller
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def count(self, caller: str) -> None:
        """Counts one request. Raises ProblemError 429 where there are too many."""
        wait = self.wait_of(caller)
        if wait:
            raise TooManyRequestsError(
                f"at most {self._rate:g} requests a second; try again in {wait:.1f} seconds", wait
            )

    def wait_of(self, caller: str) -> float:
        """Counts one request; where there are too many, not this one: seconds until the next."""
        if self._rate <= 0:
            return 0.0
        now = time.monotonic()
        left, since = self._buckets.get(caller, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        allowed = left >= 1
        remember(self._buckets, caller, (left - 1 if allowed else left, now))
        return 0.0 if allowed else (1 - left) / self._rate

    def give_back(self, caller: str) -> None:
        """One request does not count after all."""
        if caller in self._buckets:
            left, since = self._buckets[caller]
            self._buckets[caller] = (min(self._burst, left + 1), since)


class Failures:
    """Tokens that were not accepted, by the address that sent them; each counts once.

    So many at once, and then some each second: nobody of an address is locked out for long by
    others of it, and nobody asks Kubernetes about more. Whoever gets in costs nobody anything,
    because many people may come from one address; a program that goes on with a token that has
    expired is one failure, however often it asks, as long as it is remembered.
    """

    def __init__(self, most: int, per_second: float) -> None:
        self._attempts = Requests(per_second, most)
        # address and token, the longest unheard of first
        self._failed: OrderedDict[tuple[str, str], None] = OrderedDict()

    def count(self, address: str, what: str) -> bool:
        """Counts `what` as failed; True where it is counted already.

        Raises ProblemError 429 where too much has failed before.
        """
        failure = (address, what)
        if failure in self._failed:
            self._failed.move_to_end(failure)
            return True
        wait = self._attempts.wait_of(address)
        if wait:
            raise TooManyRequestsError(
                f"too many tokens from {address or 'your address'} were not accepted; "
                f"try again in {wait:.1f} seconds",
                wait,
                title="Too many attempts",
            )
        remember(self._failed, failure, None)
        return False

    def forgive(self, address: str, what: str) -> None:
        """Takes it back: it did not fail, or for no fault of its own."""
        if (address, what) in self._failed:
            del self._failed[address, what]
            self._attempts.give_back(address)


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
