"""What is remembered of callers: the latest so many, because there can be any number of them."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

MOST = 10_000
K = TypeVar("K")
V = TypeVar("V")


def remember(known: OrderedDict[K, V], key: K, value: V) -> None:
    """Puts it last, and drops what has not been heard of for the longest."""
    known[key] = value
    known.move_to_end(key)
    while len(known) > MOST:
        known.popitem(last=False)
