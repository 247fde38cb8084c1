"""The engine's connection: bounded, closed to the outside, and silent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from discovery_crews.tables.engine import connect, identifier, literal

LONG_QUERY = """
import sys
from pathlib import Path
from discovery_crews.tables.engine import connect
with connect(Path(sys.argv[1])) as connection:
    query = "SELECT sum(hash(a.range + b.range)) FROM range(30000) a, range(20000) b"
    connection.execute(query).fetchall()
"""


def test_settings_cannot_be_loosened(tmp_path: Path) -> None:
    with connect(tmp_path) as connection:
        for statement in ("SET memory_limit = '100GB'", "INSTALL httpfs", "LOAD httpfs"):
            with pytest.raises(duckdb.Error):
                connection.execute(statement)
        (limit,) = connection.execute("SELECT current_setting('memory_limit')").fetchall()[0]
        assert limit == "488.2 MiB"


def test_it_draws_no_progress(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LONG_QUERY, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "")


def test_quoting(tmp_path: Path) -> None:
    name, text = 'a"; DROP TABLE x; --', "it's; 'quoted'"
    with connect(tmp_path) as connection:
        row = connection.execute(f"SELECT {literal(text)} AS {identifier(name)}")
        assert row.description[0][0] == name
        assert row.fetchall() == [(text,)]
