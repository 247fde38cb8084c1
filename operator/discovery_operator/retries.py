"""Whether and when a failed attempt is tried again. Pure, with a jitter that is a function too."""

from __future__ import annotations

import hashlib
from uuid import UUID

from discovery_core.durations import parse_duration
from discovery_core.errors import ErrorCode, is_retryable
from discovery_core.resource import Retries

_JITTER = 0.25
_MAX_DOUBLINGS = 30


def retry_delay(
    retries: Retries,
    code: ErrorCode | str,
    *,
    failures: int,
    run_id: UUID,
    counted: bool = True,
    at_least: float | None = None,
) -> float | None:
    """Seconds until the next attempt, or None where there is to be none.

    `failures` are the failures so far that count, this one included (for a failure that does
    not count: the attempts so far). The delay doubles from `initialDelay` up to `maxDelay` and
    is shortened by up to a quarter, so that flows that failed together do not return together.
    `at_least` is what was asked for, `maxDelay` or not: it is only ever made longer.
    """
    if counted and (not is_retryable(code) or failures >= retries.max_attempts):
        return None
    initial, longest = parse_duration(retries.initial_delay), parse_duration(retries.max_delay)
    doubled = initial * 2.0 ** min(max(failures - 1, 0), _MAX_DOUBLINGS)
    fraction = _fraction(run_id)
    delay = min(longest, doubled) * (1.0 - _JITTER * fraction)
    return float(max(delay, (at_least or 0.0) * (1.0 + _JITTER * fraction)))


def _fraction(run_id: UUID) -> float:
    """A number in [0, 1) that only depends on the attempt."""
    return int.from_bytes(hashlib.sha256(run_id.bytes).digest()[:4], "big") / 2**32
