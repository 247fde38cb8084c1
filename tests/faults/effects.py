"""Numbers every write that an operator makes outside itself, and fails at a chosen one.

A write is named by what it is for and by its occurrence ("commit start_attempt #2", "POST jobs
data_import/1 #1"), so that a learning run's list can be replayed against another run. The three
ways to fail are: killed before the write, killed after it, and the write made but its answer lost.
Besides, the process may stop itself (SIGSTOP) at the write, until somebody has it go on late: what
it then still tries to write, and what comes of that, is recorded too.
"""

from __future__ import annotations

import contextvars
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import aiohttp
import psycopg
from discovery_core.errors import SupersededError
from discovery_core.store import OperatorStore
from discovery_operator.kube import Cluster, KubernetesError
from discovery_operator.manifests.names import ATTEMPT_LABEL, PHASE_LABEL

Mode = Literal["before", "after", "ambiguous", "paused at", "paused before", "paused after"]
MODES: tuple[Mode, ...] = ("before", "after", "ambiguous")
# "paused at": the write is decided upon, and its transaction has not begun
PAUSES: tuple[Mode, ...] = ("paused at", "paused before", "paused after")

_writing: contextvars.ContextVar[tuple[str, int] | None] = contextvars.ContextVar(
    "writing", default=None
)


@dataclass(frozen=True)
class Fault:
    """Fail at the write of that name in that way."""

    write: str
    mode: Mode


class Effects:
    """Names writes in the order they come and writes them to `record`, one JSON object a line."""

    def __init__(self, record: Path, fault: Fault | None) -> None:
        self._file = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._fault = fault
        self._counts: Counter[str] = Counter()
        self._begun: Counter[str] = Counter()
        self.woken = False

    async def carry_out(
        self, what: str, write: Callable[[], Awaitable[Any]], lose: Callable[[], Awaitable[None]]
    ) -> Any:
        """Makes a write, or fails at it. `lose` raises what a lost answer looks like."""
        self._counts[what] += 1
        name = f"{what} #{self._counts[what]}"
        mode = self._mode(name)
        self._note(write=name, fault=mode)
        if mode == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        if mode == "paused before":
            self._pause(name)
        answer = await write()
        if mode == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        if mode == "paused after":
            self._pause(name)
        if mode == "ambiguous":
            await lose()
        return answer

    def begin(self, what: str) -> None:
        """A write is in hand, and nothing has been sent yet."""
        self._begun[what] += 1
        name = f"{what} #{self._begun[what]}"
        if self._mode(name) == "paused at":
            self._note(write=name, fault="paused at")
            self._pause(name)

    def late(self, what: str, result: str, epoch: int | None = None) -> None:
        """Records what came of a write of a process that was woken late, and in whose name."""
        if self.woken:
            self._note(late=what, result=result, epoch=epoch)

    def _mode(self, name: str) -> Mode | None:
        fault = self._fault
        return fault.mode if fault is not None and fault.write == name else None

    def _pause(self, name: str) -> None:
        self._note(paused=name)
        os.kill(os.getpid(), signal.SIGSTOP)
        self.woken = True

    def _note(self, **line: str | int | None) -> None:
        os.write(self._file, (json.dumps(line) + "\n").encode())


def install(effects: Effects) -> None:
    """Puts the shim between this process and the two libraries that write."""
    _around_kubernetes(effects)
    _around_commits(effects)


def _around_kubernetes(effects: Effects) -> None:
    send = Cluster._send

    async def shimmed(
        self: Cluster, method: str, path: str, body: dict[str, Any], **options: Any
    ) -> Any:
        async def lose() -> None:
            raise aiohttp.ServerDisconnectedError

        async def tried() -> Any:
            try:
                answer = await send(self, method, path, body, **options)
            except KubernetesError as error:
                effects.late(what, str(error.status))
                raise
            effects.late(what, "made")
            return answer

        what = f"{method} {_about(path, body)}"
        effects.begin(what)
        return await effects.carry_out(what, tried, lose)

    Cluster._send = shimmed  # type: ignore[method-assign]


def _about(path: str, body: dict[str, Any]) -> str:
    parts = path.split("/")
    labels = (body.get("metadata") or {}).get("labels") or {}
    if PHASE_LABEL in labels:
        return f"jobs {labels[PHASE_LABEL]}/{labels[ATTEMPT_LABEL]}"
    if parts[-1] == "status":
        status = body.get("status") or {}
        return f"status {status.get('state', '')}/{status.get('phase', '')}"
    if "preconditions" in body:
        return "jobs"
    return parts[-1]


def _purpose(caller: FrameType) -> str:
    """What a write is for: the store's method, or the move that it makes."""
    if caller.f_code.co_name != "apply":
        return caller.f_code.co_name
    move = type(caller.f_locals["action"]).__name__
    return re.sub(r"(?<!^)(?=[A-Z])", "_", move).lower()


def _around_commits(effects: Effects) -> None:
    write = OperatorStore._write
    commit = psycopg.AsyncConnection.commit

    async def named(self: OperatorStore, work: Any) -> Any:
        purpose = f"commit {_purpose(sys._getframe(1))}"
        effects.begin(purpose)
        epoch = -1 if self.epoch is None else self.epoch
        token = _writing.set((purpose, epoch))
        try:
            return await write(self, work)
        except SupersededError as error:
            if "leader epoch" in str(error):
                effects.late(purpose, "refused", epoch)
            raise
        finally:
            _writing.reset(token)

    async def shimmed(self: psycopg.AsyncConnection[Any]) -> None:
        writing = _writing.get()
        if writing is None:
            await commit(self)
            return
        purpose, epoch = writing

        async def tried() -> None:
            was_late = effects.woken  # one that was under way at the pause ended before it
            await commit(self)
            if was_late:
                effects.late(purpose, "made", epoch)

        async def lose() -> None:
            await self.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")

        await effects.carry_out(purpose, tried, lose)

    OperatorStore._write = named  # type: ignore[method-assign]
    psycopg.AsyncConnection.commit = shimmed  # type: ignore[method-assign]
