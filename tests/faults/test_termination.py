"""SIGTERM to what runs on a control plane of its own leaves no process behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.provision.processes import all_processes, children, command_line
from tests.faults.termination import EXIT_TERMINATED

PROGRAMS = {"etcd", "kube-apiserver", "postgres"}
PATIENCE = 240.0


def _alive(folder: Path, parent: int) -> dict[int, str]:
    """Programs below a process, and those whose command line names its folder, by pid."""
    lines = {pid: command_line(pid) for pid in all_processes()}
    mine = {*children(parent), *(pid for pid, line in lines.items() if str(folder) in line)}
    return {pid: Path(lines[pid].split()[0]).name for pid in mine if lines.get(pid)}


@pytest.fixture
def folder() -> Iterator[Path]:
    """One with a short name: the database has a socket in it."""
    with tempfile.TemporaryDirectory(prefix="ends-", dir="/tmp") as name:
        yield Path(name)


@pytest.mark.faults
async def test_what_is_terminated_leaves_no_process(folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.soak", "--minutes", "60"),
        env=os.environ | {"TMPDIR": str(folder)},
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            while not set((started := _alive(folder, process.pid)).values()) >= PROGRAMS:
                assert process.returncode is None
                await asyncio.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == EXIT_TERMINATED
        left = {pid: line for pid in started if (line := command_line(pid))}
        assert left | _alive(folder, process.pid) == {}
    finally:
        for pid in (process.pid, *_alive(folder, process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
