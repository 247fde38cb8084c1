"""A model that judges otherwise, over HTTP, changes what it judged and nothing else.

The sources hold cells that give orders; a model that does not follow them sees its own judgement,
and only that, in the result.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import duckdb
import pytest
from discovery_core.phases import Phase
from discovery_core.wire.protocol import LLMSettings
from discovery_core.wire.results import CleansingResult, ImportResult, InventoryRecord
from discovery_crews.phases.dependency_analysis import phase as dependency_phase
from discovery_crews.phases.migration_strategy import phase as strategy_phase

from tests.crews import test_dependencies as dependencies
from tests.crews import test_strategy as strategy
from tests.crews.test_phases_by_llm import Flow, settings
from tests.stubs.llm_server import serve

Scripted = Callable[..., LLMSettings]


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    """Settings of a model that submits just what is given, by tool."""
    servers: list[ThreadingHTTPServer] = []

    def start(**answers: dict[str, Any]) -> LLMSettings:
        server = serve("127.0.0.1", 0, "script", answers)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return settings(server)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _until(folder: Path, phase: Phase, llm: LLMSettings) -> tuple[Flow, Any]:
    """A flow whose phases before `phase` are built in and whose `phase` is the model's."""
    flow = Flow(folder)
    for earlier in (Phase.DATA_IMPORT, Phase.DATA_CLEANSING, Phase.FIELD_MAPPING):
        if earlier == phase:
            break
        flow.run(earlier, LLMSettings())
    return flow, flow.run(phase, llm)


def test_import_grades_one_observation_otherwise(tmp_path: Path, scripted: Scripted) -> None:
    _, usual = _until(tmp_path / "a", Phase.DATA_IMPORT, LLMSettings())
    comment = "These are lab machines."
    llm = scripted(
        submit_quality_judgement={"grades": [{"id": "q1", "severity": "info", "comment": comment}]}
    )
    _, judged = _until(tmp_path / "b", Phase.DATA_IMPORT, llm)
    before, after = usual.result, judged.result
    assert isinstance(before, ImportResult)
    assert isinstance(after, ImportResult)
    gone, new = (
        set(before.findings) - set(after.findings),
        set(after.findings) - set(before.findings),
    )
    assert len(gone) == len(new) == 1
    (said,) = new
    assert said.startswith("[info]")
    assert said.endswith(comment)
    assert (before.quality, before.columns, before.rows_imported) == (
        after.quality, after.columns, after.rows_imported,
    )  # fmt: skip
    assert usual.artefacts["records"].read_bytes() == judged.artefacts["records"].read_bytes()


def test_cleansing_applies_just_the_rule_that_was_chosen(
    tmp_path: Path, scripted: Scripted
) -> None:
    step = {"column": "Server Name", "rule": "trim", "reason": "only that"}
    llm = scripted(submit_cleansing_plan={"steps": [step]})
    _, judged = _until(tmp_path / "b", Phase.DATA_CLEANSING, llm)
    assert isinstance(judged.result, CleansingResult)
    assert [(r.column, r.rule) for r in judged.result.rules] == [("Server Name", "trim")]
    with duckdb.connect() as connection:
        table = connection.execute(
            f"SELECT * FROM read_parquet('{judged.artefacts['records']}') ORDER BY __row"
        )
        names = [column[0] for column in table.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in table.fetchall()]
    assert rows[0]["Server Name"] == "web01"
    # what the rules would have taken for missing stands as it was
    assert rows[1]["Note"] == "N/A"


def _inventory(outcome: Any) -> dict[int, InventoryRecord]:
    lines = outcome.records.read_text(encoding="utf-8").splitlines()
    return {r.row: r for r in map(InventoryRecord.model_validate_json, lines)}


def test_inventory_reads_one_column_in_another_unit(tmp_path: Path, scripted: Scripted) -> None:
    _, usual = _until(tmp_path / "a", Phase.ASSET_INVENTORY, LLMSettings())
    choice = {"column": "Memory size", "unit": "KB", "reason": "a phone"}
    llm = scripted(submit_inventory_plan={"units": [choice]})
    _, judged = _until(tmp_path / "b", Phase.ASSET_INVENTORY, llm)
    before, after = _inventory(usual), _inventory(judged)
    assert set(before) == set(after)
    for row, record in before.items():
        other = after[row]
        same = {"memory_gb"}
        assert {k: v for k, v in record.values.items() if k not in same} == {
            k: v for k, v in other.values.items() if k not in same
        }
        assert (record.identity, record.originals) == (other.identity, other.originals)
    assert before[2].values["memory_gb"] == 4
    assert after[2].values["memory_gb"] == pytest.approx(4 / 1024, abs=1e-6)
    assert after[2].conversions["memory_gb"] == {"unit": "KB", "rule": "unit_judged"}
    # this one says its unit itself
    assert before[4].values["memory_gb"] == after[4].values["memory_gb"] == 8


def test_dependencies_resolve_one_name(tmp_path: Path, scripted: Scripted) -> None:
    def edges(folder: Path, llm: LLMSettings) -> dict[tuple[str, str, str], dict[str, Any]]:
        context = dependencies.context(folder, dependencies.SERVERS, llm=llm)
        found = dependencies.edges_of(dependency_phase.run(context))
        return {(e["from_identity"], e["kind"], e["to_text"]): e for e in found}

    before = edges(tmp_path / "a", LLMSettings())
    choice = {"end": "a1", "asset": "h:db1b", "reason": "same site"}
    after = edges(tmp_path / "b", scripted(submit_dependency_plan={"ends": [choice]}))
    assert set(before) == set(after)
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {("h:web1", "depends_on", "db1")}
    assert after[("h:web1", "depends_on", "db1")]["to_identity"] == "h:db1b"
    # the cell that gives orders is an end that nobody knows
    assert after[("h:web1", "depends_on", dependencies.ORDER)]["to_identity"] is None


def test_strategy_changes_one_group(tmp_path: Path, scripted: Scripted) -> None:
    def strategies(folder: Path, llm: LLMSettings) -> dict[str, dict[str, Any]]:
        context = dataclasses.replace(strategy.context(folder, strategy.FLEET), llm=llm)
        return strategy.strategies(strategy_phase.run(context))

    before = strategies(tmp_path / "a", LLMSettings())
    choice = {"group": "g1", "strategy": "refactor", "reason": "being rewritten"}
    after = strategies(tmp_path / "b", scripted(submit_strategy_plan={"choices": [choice]}))
    assert {key for key in before if before[key] != after[key]} == {"a", "b"}
    for key in ("a", "b"):
        assert after[key]["strategy"] == "refactor"
        fixed = set(before[key]) - {"strategy", "confidence", "reason", "rule"}
        assert all(before[key][name] == after[key][name] for name in fixed)
    # nobody is retired because a name says so
    assert "retire" not in {row["strategy"] for row in after.values()}
