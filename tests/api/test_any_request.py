"""Whatever a client sends, the API answers in words: no request of the document ends in a 5xx."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from tests.postgres import DatabaseUrls
from tests.ui.desk import open_desk

pytestmark = pytest.mark.slow

EXAMPLES = "15"


def test_no_request_is_a_server_error(database_urls: DatabaseUrls, tmp_path: Path) -> None:
    with open_desk(database_urls, requests_per_second=0) as desk:
        flow = desk.flow()
        desk.kubernetes.namespaces = {"migration": str(uuid4())}
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run"),
                f"{desk.address}/api/v1/openapi.json",
                "--header=Authorization: Bearer token-ann",
                "--checks=not_a_server_error",
                f"--max-examples={EXAMPLES}",
                "--phases=coverage,fuzzing",
                # streams have no end
                "--exclude-path-regex=/events$|/ws$",
                "--request-timeout=20",
                "--seed=1",
                "--no-color",
            ],
            capture_output=True,
            text=True,
            # it keeps a folder of its own where it runs
            cwd=tmp_path,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert "generated" in done.stdout, done.stdout[-2000:]
        assert str(desk.do(flow.load()).state)
