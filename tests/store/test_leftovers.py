"""A run of the tests that is killed leaves a database server, which the next one removes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cluster import leftovers
from tests.cluster.provision.processes import runs

SERVER = """
import time
from tests.postgres import running_server
with running_server(in_memory=True) as url:
    print(url.query["host"], flush=True)
    time.sleep(600)
"""
ROOT = Path(__file__).resolve().parents[2]


def test_a_server_whose_tests_are_gone_is_ended_and_no_other() -> None:
    def start() -> tuple[subprocess.Popen[str], Path, int]:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SERVER],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        return process, folder, int((folder / "postmaster.pid").read_text().split()[0])

    used, folder_used, server_used = start()
    cut_off, folder, server = start()
    try:
        cut_off.kill()
        cut_off.wait()
        assert runs(server)
        assert str(folder) in leftovers.databases()
        assert not runs(server)
        assert not folder.exists()
        assert runs(server_used)
        assert folder_used.exists()
    finally:
        used.kill()
        used.wait()
        leftovers.databases()
    assert not folder_used.exists()
