"""A wall clock that jumps within one process: SIGUSR1 sets it an hour fast, SIGUSR2 an hour slow.

Only the wall clock moves, as when somebody sets a node's clock; the monotonic clock goes on. The
database, the API server and the crews keep theirs.
"""

from __future__ import annotations

import signal
import sys
import time
from datetime import UTC, datetime, timedelta, tzinfo
from types import FrameType
from typing import Any

STEP = timedelta(hours=1)
FAST, SLOW = signal.SIGUSR1, signal.SIGUSR2

_time, _time_ns = time.time, time.time_ns
_ahead = timedelta()


class _Kind(type):
    """What was a datetime before still is one."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, datetime)


class _Stepped(datetime, metaclass=_Kind):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        return datetime.now(tz) + _ahead

    @classmethod
    def utcnow(cls) -> Any:
        return datetime.now(UTC).replace(tzinfo=None) + _ahead


def install() -> None:
    """Has this process read the stepped clock: `time.time` and every module's `datetime`."""
    time.time = lambda: _time() + _ahead.total_seconds()
    time.time_ns = lambda: _time_ns() + int(_ahead.total_seconds()) * 10**9
    here = sys.modules[__name__]
    for module in list(sys.modules.values()):
        if module is not here and getattr(module, "__dict__", {}).get("datetime") is datetime:
            module.datetime = _Stepped  # type: ignore[attr-defined]
    signal.signal(FAST, _step)
    signal.signal(SLOW, _step)


def _step(number: int, frame: FrameType | None) -> None:
    global _ahead  # noqa: PLW0603 - a process has one clock
    del frame
    _ahead = STEP if number == FAST else -STEP
