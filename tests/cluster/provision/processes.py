"""Long-running processes with pid files, so that only what was started here is ever stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

# for the kernel to take back what a killed process had
KILL_SECONDS = 5.0


def command_line(pid: int) -> str:
    """The arguments of a process, or "" where there is none (any more)."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def runs(pid: int) -> bool:
    """Whether a process is there and holds what it has opened.

    One that ends loses its command line first and its sockets a little later, so that whoever is
    started in between finds its port in use.
    """
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return False
    return state not in "ZX"


def children(pid: int) -> list[int]:
    """All descendants of a process, nearest first."""
    found: list[int] = []
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return found
    for task in tasks:
        try:
            direct = [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
        for child in direct:
            found += [child, *children(child)]
    return found


def all_processes() -> list[int]:
    """Every pid of this machine."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def stop_pids(pids: list[int], *, first: signal.Signals, wait: float) -> None:
    """Signals processes by pid and kills those that are still there after `wait` seconds."""
    pids = [pid for pid in pids if runs(pid)]
    for pid in pids:
        _signal(pid, first)
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline and any(runs(pid) for pid in pids):
        time.sleep(0.1)
    left = [pid for pid in pids if runs(pid)]
    for pid in left:
        _signal(pid, signal.SIGKILL)
    deadline = time.monotonic() + KILL_SECONDS
    while time.monotonic() < deadline and any(runs(pid) for pid in left):
        time.sleep(0.02)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


class Processes:
    """Named processes of one cluster. A pid counts only while its command line names `mark`."""

    def __init__(self, folder: Path, mark: str) -> None:
        self.folder = folder
        self.mark = mark

    def pid(self, name: str) -> int | None:
        """The pid of a running process, or None. A recycled pid is not mistaken for it."""
        try:
            pid = int((self.folder / f"{name}.pid").read_text())
        except (OSError, ValueError):
            return None
        line = command_line(pid)
        return pid if self.mark in line else None

    def start(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        """Starts a process unless it runs already; its output goes to NAME.log."""
        if self.pid(name) is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=os.environ | environment,
                cwd="/",
            )
        (self.folder / f"{name}.pid").write_text(str(process.pid))
        # while the kernel swaps the program in, the command line reads as empty
        deadline = time.monotonic() + 2
        while process.poll() is None and time.monotonic() < deadline:
            if self.mark in command_line(process.pid):
                break
            time.sleep(0.01)

    def missing(self, names: Sequence[str]) -> list[str]:
        """Which of these do not run."""
        return [name for name in names if self.pid(name) is None]

    def last_words(self, name: str, lines: int = 5) -> str:
        """The end of a process's log."""
        try:
            text = (self.folder / f"{name}.log").read_text(errors="replace")
        except OSError:
            return ""
        return "".join(f"\n  {name}: {line[:300]}" for line in text.splitlines()[-lines:])

    def stop(self, name: str, wait: float = 10.0) -> None:
        """Ends a process and forgets it."""
        pid = self.pid(name)
        if pid is not None:
            stop_pids([pid], first=signal.SIGTERM, wait=wait)
        (self.folder / f"{name}.pid").unlink(missing_ok=True)
