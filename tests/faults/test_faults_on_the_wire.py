"""A sample of the faults on the wire, on a real control plane and a real PostgreSQL.

`python -m tests.faults.faults_on_the_wire` tries all of them. What is drawn follows FAULTS_SEED.
"""

from __future__ import annotations

import pytest

from tests.faults import faults_on_the_wire, seeds

LANES = 2
SAMPLE = 12


@pytest.mark.faults
async def test_flows_end_as_without_a_fault() -> None:
    report = await faults_on_the_wire.run(LANES, SAMPLE, seeds.seed())
    print(faults_on_the_wire.table(report))
    assert report.failures == []
    assert sum(row.runs for row in report.rows.values()) == SAMPLE
    assert all(row.strikes >= row.runs for row in report.rows.values())
