"""Stop, go on, end and once more from the command line: said twice is done once."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from discovery_cli.common import Settings
from discovery_cli.main import app
from typer.testing import CliRunner


class FakeCluster:
    """One flow; a change of its spec begins another generation, a new rerun another round."""

    def __init__(self) -> None:
        self.flow: dict[str, Any] = {
            "metadata": {"name": "servers", "generation": 1},
            "spec": {},
            "status": {"state": "Running", "phase": "field_mapping", "round": 1},
        }

    def get(self, name: str) -> dict[str, Any]:
        assert name == "servers"
        return copy.deepcopy(self.flow)

    def set_spec(self, name: str, field: str, value: Any) -> None:
        assert name == "servers"
        if self.flow["spec"].get(field) != value:
            self.flow["spec"][field] = value
            self.flow["metadata"]["generation"] += 1
            self.flow["status"]["round"] += field == "rerun"

    def wait(self, name: str, done: Any, seconds: float) -> dict[str, Any] | None:
        assert seconds > 0
        flow = self.get(name)
        return flow if done(flow) else None


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    fake = FakeCluster()
    monkeypatch.setattr(Settings, "cluster", lambda _: fake)
    return fake


def run(*words: str) -> str:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    ("words", "state"),
    [
        (("suspend", "servers"), "Suspend"),
        (("resume", "servers"), "Run"),
        (("cancel", "servers", "--yes"), "Cancel"),
    ],
)
def test_a_state_that_is_asked_for_twice_changes_the_spec_once(
    cluster: FakeCluster, words: tuple[str, ...], state: str
) -> None:
    assert run(*words) == run(*words)
    assert cluster.flow["spec"] == {"state": state}
    assert cluster.flow["metadata"]["generation"] == 2


def test_a_retry_with_an_id_counts_once(cluster: FakeCluster) -> None:
    words = ("retry", "servers", "--from-phase", "data_cleansing", "--id", "monday")
    assert "round 2 begins with data_cleansing" in run(*words)
    assert "monday has been asked for already" in run(*words)
    assert cluster.flow["spec"]["rerun"] == {"id": "monday", "fromPhase": "data_cleansing"}
    assert cluster.flow["metadata"]["generation"] == 2


def test_retries_without_an_id_are_two(cluster: FakeCluster) -> None:
    run("retry", "servers")
    run("retry", "servers")
    assert cluster.flow["status"]["round"] == 3
    assert cluster.flow["spec"]["rerun"]["fromPhase"] == "field_mapping"
