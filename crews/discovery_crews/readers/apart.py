"""Reads an input in a process of its own, which may take only so much memory.

What parses files is not all written in Python: where memory ends, it ends the process, or the
kernel does. That must not be the attempt's process, which would say nothing and be tried again with
the same file. Here it is a refusal that names the file.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import threading
import traceback
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from discovery_core.errors import DiscoveryError, ErrorCode

from .model import ReadRequest, ReadTable, quiet
from .read import read_source

_MIB = 1024 * 1024
_MOST_OF_POD = 0.75
_POD_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class _Refused:
    """A DiscoveryError as it can be sent."""

    code: ErrorCode
    message: str


@dataclass(frozen=True)
class _Crashed:
    """Any other exception: what it says, where it was raised, and its number where it has one."""

    text: str
    trace: str
    number: int | None


class ReaderCrashedError(Exception):
    """The process that reads has failed in a way that says nothing about the input."""


def read_apart(request: ReadRequest, source_format: str = "auto") -> ReadTable:
    """As `read_source`, and refuses what takes too much memory.

    Raises DiscoveryError; ReaderCrashedError where the fault is not the input's.
    """
    limit = memory_limit(request.limits.max_reader_memory_bytes)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_work, args=(theirs, replace(request, progress=quiet), source_format, limit)
    )
    process.start()
    theirs.close()
    try:
        answer = _listen(ours, request)
        process.join()
    finally:
        process.kill()
        process.join()
        ours.close()
    if isinstance(answer, ReadTable):
        return answer
    if isinstance(answer, _Refused):
        raise DiscoveryError(answer.code, answer.message)
    if isinstance(answer, _Crashed):
        raise _crash(answer)
    if answer is MemoryError or (process.exitcode or 0) < 0:
        raise _too_much(request.name, limit)
    raise ReaderCrashedError(f"the reading process ended with {process.exitcode}")


def memory_limit(wanted: int, pod_limit: Path = _POD_LIMIT) -> int:
    """Bytes that the reading process may take: at most three quarters of what the pod has."""
    try:
        pod = int(pod_limit.read_text())
    except (OSError, ValueError):
        return wanted
    return min(wanted, int(pod * _MOST_OF_POD))


def _crash(answer: _Crashed) -> Exception:
    """The exception with what has happened in the other process; OSError stays what it is."""
    error: Exception
    if answer.number is None:
        error = ReaderCrashedError(answer.text)
    else:
        error = OSError(answer.number, os.strerror(answer.number))
    error.add_note(answer.trace)
    return error


def _too_much(name: str, limit: int) -> DiscoveryError:
    return DiscoveryError(
        ErrorCode.LIMIT_EXCEEDED,
        f"{name}: reading it takes more than {limit // _MIB} MiB of memory. Split the file, save "
        "the table as CSV, or raise DISCOVERY_MAX_READER_MEMORY_BYTES and the crew pod's memory.",
    )


def _listen(connection: Connection, request: ReadRequest) -> Any:
    """What the process says in the end, with its progress passed on; None where it says nothing."""
    while True:
        try:
            said = connection.recv()
        except (EOFError, OSError):
            return None
        if not isinstance(said, tuple):
            return said
        request.progress(*said)


def _work(connection: Connection, request: ReadRequest, source_format: str, limit: int) -> None:
    """The process: reads, and sends progress and then what came of it."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def progress(done: int | None, total: int | None, message: str) -> None:
        connection.send((done, total, message))

    answer: Any
    try:
        answer = read_source(replace(request, progress=progress), source_format)
    except DiscoveryError as error:
        answer = _Refused(error.code, error.message)
    except BaseException as error:  # noqa: BLE001 - told to the other process
        number = error.errno if isinstance(error, OSError) else None
        trace = "".join(traceback.format_exception(error))
        text = f"{type(error).__name__}: {error}"
        answer = MemoryError if out_of_memory(error) else _Crashed(text, trace, number)
    connection.send(answer)
    connection.close()
    sys.stderr.flush()
    # nothing is left to tidy up, and what the engine holds would only delay the end
    os._exit(0)


def out_of_memory(error: BaseException) -> bool:
    """Whether the limit is what has failed; engines say it in words of their own."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryException":
        return True
    # a thread needs a stack; Python and Rust (a panic) tell that none could be had
    said = str(error)
    return any(words in said for words in ("start new thread", "spawn thread", "memory allocation"))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
