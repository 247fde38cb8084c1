"""Durations as people write them in the resource ("72h", "1h30m", "500ms"), as seconds."""

from __future__ import annotations

import re

_PART = re.compile(r"(\d+)(h|ms|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

DURATION_PATTERN = r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?([0-9]{1,6}ms)?$"
# whole days or hours; an hour is the shortest time that anything is kept
RETENTION_PATTERN = r"^[1-9][0-9]{0,4}(d|h)$"


def parse_duration(text: str) -> float:
    """Seconds of a duration such as "1h30m". Raises ValueError for anything else."""
    if not text or not re.fullmatch(DURATION_PATTERN, text):
        raise ValueError(f"{text!r} is not a duration; write for example 30s, 15m, 72h or 1h30m")
    return sum(int(amount) * _SECONDS[unit] for amount, unit in _PART.findall(text))


def parse_retention(text: str) -> float | None:
    """Seconds of a time to keep data, also in days ("30d"); None for "", which is for ever.

    Raises ValueError, also for less than an hour: that is never what was meant.
    """
    if not text:
        return None
    days = re.fullmatch(r"([0-9]{1,5})d", text)
    seconds = int(days.group(1)) * 86400.0 if days else parse_duration(text)
    if seconds < 3600:
        raise ValueError(f"{text!r} is too short a time to keep data; it is at least 1h")
    return seconds
