"""A stored cleansing plan gives the same records again, without anybody judging."""

from __future__ import annotations

from pathlib import Path

import pytest
from discovery_core.errors import DiscoveryError
from discovery_core.phases import Phase
from discovery_crews.local_run import LocalRun


def test_a_stored_plan_is_replayed_without_a_crew(tmp_path: Path) -> None:
    source = tmp_path / "servers.csv"
    source.write_text("name,env,ram\n a ,prod,16gb\nb,PROD,8 GB\nc,prod,N/A\n")
    (tmp_path / "first").mkdir()
    first = LocalRun(source, tmp_path / "first").run(Phase.DATA_CLEANSING)
    (tmp_path / "again").mkdir()
    plan = {"cleansingPlan": first.artefacts["plan"]}
    again = LocalRun(source, tmp_path / "again", given=plan).run(Phase.DATA_CLEANSING)
    assert again.result == first.result
    assert again.usage.planner == "replay"
    assert again.usage.tool_calls == []
    assert again.artefacts["records"].read_bytes() == first.artefacts["records"].read_bytes()


def test_a_plan_for_other_columns_is_refused(tmp_path: Path) -> None:
    source, plan = tmp_path / "servers.csv", tmp_path / "plan.json"
    source.write_text("name\na\n")
    plan.write_text('{"steps": [{"column": "env", "rule": "trim"}]}')
    (tmp_path / "run").mkdir()
    with pytest.raises(DiscoveryError, match="column 'env' is not in this source"):
        LocalRun(source, tmp_path / "run", given={"cleansingPlan": plan}).run(Phase.DATA_CLEANSING)
