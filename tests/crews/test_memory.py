"""Large files are read within the memory that the settings give, not in proportion to them."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROWS = 150_000
WORK = """
import re, sys
from pathlib import Path
from discovery_crews.phases.data_cleansing.apply import Step, apply_plan, candidate_effects
from discovery_crews.profile import profile_records
from discovery_crews.readers import ReadRequest, read_source
from discovery_crews.settings import reader_limits

source, workdir = Path(sys.argv[1]), Path(sys.argv[2])
table = read_source(ReadRequest(source, workdir, source.name, reader_limits()))
profile = profile_records(workdir, table.parquet, table.rows)
candidate_effects(workdir, table.parquet, profile)
apply_plan(workdir, table.parquet, [Step("env", "trim")], workdir / "clean.parquet")
# Not ru_maxrss: it begins with the size of the process that started this one.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(table.rows, int(peak[1]) // 1024)
"""


@pytest.mark.slow
def test_import_and_cleansing_of_many_rows(tmp_path: Path) -> None:
    source = tmp_path / "large.csv"
    with source.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["hostname", "uuid", "env", *(f"text {n}" for n in range(17))])
        for n in range(ROWS):
            row = [f"srv{n}.example.com", f"500b85c1-ef0d-37fb-6897-{n:012x}", " prod "]
            writer.writerow([*row, *(f"value {n * k}" for k in range(17))])
    settings = {"PYTHONPATH": os.pathsep.join(sys.path), "DISCOVERY_ENGINE_MEMORY": "200MB"}
    done = subprocess.run(
        [sys.executable, "-c", WORK, str(source), str(tmp_path)],
        env=os.environ | settings,
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    rows, mebibytes = map(int, done.stdout.split())
    assert rows == ROWS
    assert source.stat().st_size > 30_000_000
    assert mebibytes < 420
