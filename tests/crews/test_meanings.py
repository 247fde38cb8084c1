"""Words of seven languages mean what they say, wherever a rule asks."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from discovery_core.phases import Phase
from discovery_core.wire.results import CleansingResult
from discovery_crews.local_run import LocalRun
from discovery_crews.phases.migration_strategy.phase import run
from discovery_crews.tables.meanings import About, meaning

from tests.crews.test_strategy import _day, asset, context, strategies

__all__ = ["_day"]


def meant(word: str, about: About) -> str | None:
    row = duckdb.execute(f"SELECT {meaning('x', about)} FROM (SELECT ? AS x)", [word]).fetchone()
    assert row is not None
    found: str | None = row[0]
    return found


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("On", "on"), ("poweredOn", "on"), ("VM running", "on"), ("läuft", "on"), ("Aan", "on"),
        ("en cours d\u2019exécution", "on"), ("OFF", "off"), ("abgeschaltet", "off"),
        ("éteint", "off"), ("eteint", "off"), ("Spento", "off"), ("uitgeschakeld", "off"),
        ("apagado", "off"), ("desligado", "off"), ("PowerState/deallocated", "off"),
        ("power_off", "off"), ("suspended", "suspended"), ("Angehalten", "suspended"),
        ("sospeso", "suspended"), ("true", None), ("who knows", None),
    ],
)  # fmt: skip
def test_power(word: str, what: str | None) -> None:
    assert meant(word, "power") == what


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("hoch", "high"), ("High", "high"), ("1 - kritisch", "critical"), ("élevé", "high"),
        ("2 - High", "high"), ("Prio 1: hoch", "high"), ("1 (High)", "high"), ("baja", "low"),
        ("4 - not critical", "low"), ("gemiddeld", "medium"), ("P1", None), ("3", None),
        ("Gold", None),
    ],
)  # fmt: skip
def test_level(word: str, what: str | None) -> None:
    assert meant(word, "level") == what


def cleansed(tmp_path: Path, text: str) -> tuple[dict[str, set[str]], list[tuple[object, ...]]]:
    source = tmp_path / "list.csv"
    source.write_text(text, encoding="utf-8")
    local = LocalRun(source, tmp_path / "work")
    local.scratch.mkdir()
    outcome = local.run(Phase.DATA_CLEANSING)
    assert isinstance(outcome.result, CleansingResult)
    rules: dict[str, set[str]] = {}
    for applied in outcome.result.rules:
        rules.setdefault(applied.column, set()).add(applied.rule)
    records = outcome.artefacts["records"]
    return rules, duckdb.execute(f"SELECT * FROM '{records}' ORDER BY __row").fetchall()


def test_on_and_off_are_no_yes_and_no(tmp_path: Path) -> None:
    rules, rows = cleansed(
        tmp_path, "VM Name,Power State,Backup\nweb-01,On,Yes\nweb-02,Off,No\nweb-03,On,Yes\n"
    )
    assert [row[1:3] for row in rows] == [("On", "true"), ("Off", "false"), ("On", "true")]
    assert "normalise_boolean" not in rules.get("Power State", set())


def test_levels_of_criticality_get_one_spelling_and_keep_the_original(tmp_path: Path) -> None:
    text = "Server Name;Kritikalität;Status\nsrv-1;hoch;alta\nsrv-2;High;baja\nsrv-3;1 - kritisch;alta\nsrv-4;P9;alta\n"  # noqa: E501
    rules, rows = cleansed(tmp_path, text)
    assert "normalise_level" in rules["Kritikalität"]
    assert [row[1] for row in rows] == ["high", "high", "critical", "P9"]
    assert [row[-1] for row in rows] == ["hoch", "High", "1 - kritisch", "P9"]
    assert [row[2] for row in rows] == ["alta", "baja", "alta", "alta"]


@pytest.mark.parametrize("word", ["Off", "abgeschaltet", "éteint", "spento", "apagado"])
def test_what_is_off_is_retired_and_says_what_is_not_known(tmp_path: Path, word: str) -> None:
    found = strategies(run(context(tmp_path, [asset("a", power_state=word)])))
    assert found["a"]["strategy"] == "retire"
    assert found["a"]["reason"] == "Switched off; dependencies are not known."


def test_what_is_suspended_is_neither_on_nor_off(tmp_path: Path) -> None:
    found = strategies(
        run(context(tmp_path, [asset("a", power_state="suspended", os_name="RHEL 9")]))
    )
    assert found["a"]["strategy"] == "rehost"
