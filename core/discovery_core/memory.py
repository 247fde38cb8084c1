"""Has the C library give memory back when it is free again.

By default glibc serves pieces of a megabyte from its heap as soon as one of that size has been
freed, and keeps a heap for each thread. After a burst of uploads a server then holds for ever what
it held at its peak, because something small lies at the end of each heap.
"""

from __future__ import annotations

import ctypes

# mallopt(3); a threshold that is set stays, otherwise it grows with what is freed
_ARENA_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD = -8, -3, -1
_ARENAS = 2
_BYTES = 128 * 1024


def give_memory_back() -> bool:
    """Call it first in a process. False where the C library is another one, and does as it does."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_ARENA_MAX, _ARENAS), (_MMAP_THRESHOLD, _BYTES), (_TRIM_THRESHOLD, _BYTES))
    return all(mallopt(*setting) for setting in settings)
