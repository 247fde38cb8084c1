"""A sample of what `python -m tests.crews.fuzz` spoils, as many as a commit may wait for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crews.fuzz import run
from tests.crews.samples import SAMPLES
from tests.faults import seeds

FILES = 60


@pytest.mark.slow
def test_spoilt_files_are_read_or_refused(tmp_path: Path) -> None:
    seed = seeds.seed()
    outcomes, failed = run(seed, SAMPLES, first=0, cases=FILES, minutes=None, keep=tmp_path)
    traces = [path.read_text() for path in sorted(tmp_path.glob("*.txt"))]
    assert not failed, f"FAULTS_SEED={seed}\n" + "\n".join(traces)
    assert outcomes.total() == FILES
    assert outcomes["read"] > FILES // 10
