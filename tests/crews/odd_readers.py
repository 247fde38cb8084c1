"""Readers that end as real ones may, for the process that reads; it finds them by their names."""

from __future__ import annotations

import mmap
import os
import resource
import signal

from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_crews.readers import ReadRequest, apart
from discovery_crews.readers.model import ReadTable
from discovery_crews.settings import MIB

LIMIT = 600 * MIB


def takes_all(given: ReadRequest, source_format: str) -> ReadTable:
    """A parser in Python that asks for more than there is."""
    del given, source_format
    held = []
    while True:
        held.append(bytearray(64 * MIB))


def aborts(given: ReadRequest, source_format: str) -> ReadTable:
    """A parser in another language, for which there is no memory."""
    os.abort()


def is_killed(given: ReadRequest, source_format: str) -> ReadTable:
    """The kernel, where the pod's memory has ended."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def asks_for_terabytes(given: ReadRequest, source_format: str) -> ReadTable:
    """As a workbook with one far cell did."""
    del given, source_format
    try:
        mmap.mmap(-1, 8 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        raise MemoryError from None
    raise AssertionError


def has_a_limit(given: ReadRequest, source_format: str) -> ReadTable:
    del given, source_format
    assert resource.getrlimit(resource.RLIMIT_DATA) == (LIMIT, LIMIT)
    raise DiscoveryError(ErrorCode.EMPTY_FILE, "it has")


def is_wrong(given: ReadRequest, source_format: str) -> ReadTable:
    del given, source_format
    raise ZeroDivisionError("a fault of our own")


class Working:
    """What the process runs with another reader in the place of the real one."""

    def __init__(self, way: str) -> None:
        self.way = way

    def __call__(self, *arguments: object) -> None:
        apart.__dict__["read_source"] = globals()[self.way]
        apart._work(*arguments)  # type: ignore[arg-type]
