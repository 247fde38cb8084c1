"""Observations are computed, agents grade them, and neither can invent the other's part."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from discovery_crews.phases.data_import.anomalies import find_anomalies
from discovery_crews.phases.data_import.judgement import check, findings, recommend
from discovery_crews.phases.data_import.observations import Observation, observe
from discovery_crews.phases.data_import.quality import WEIGHTS, assess
from discovery_crews.profile import profile_records

from tests.crews.files import read

TODAY = date(2026, 1, 1)


def observations(folder: Path, content: str) -> list[Observation]:
    path = folder / "servers.csv"
    path.write_text(content, encoding="utf-8")
    table = read(path)
    profile = profile_records(folder, table.parquet, table.rows)
    anomalies = find_anomalies(folder, table.parquet, profile, TODAY)
    return observe(table, profile, anomalies.found)


@pytest.mark.parametrize(
    ("content", "kind", "column", "says"),
    [
        ("colour,size\nred,1\n", "no_identifier", None, "tells assets apart"),
        ("hostname\na1\n", "single_column", "hostname", "delimiter"),
        ("name,Memory MB,Memory GB\na,1024,1\n", "variants", "Memory MB", "Memory GB"),
        ("name,ip\na,10.0.0.1\nb\n", "rejected_rows", None, "1 of 2 rows"),
        ("name,note\na,\n", "empty_columns", None, "note"),
        ("name,env\na,N/A\nb,prod\n", "placeholders", "env", "1 of 2"),
        ("name,serial\na,\nb,\nc,S1\n", "sparse_identifier", "serial", "2 of 3"),
        ("hostname,x\nWindows Server 2019,1\nRed Hat 8,2\n", "values_do_not_fit_name",
         "hostname", "operating systems"),
        ("name,address\na,10.0.0.1\nb,10.0.0.2\nc,floor 3\n", "mixed_values", "address", "1 of 3"),
        ("name,serial\na,S1\nb,S1\n", "repeated_identifier", "serial", "1 values repeat"),
        ("name,memory\na,-1\nb,2\n", "impossible_value", "memory", "'-1' in row 2"),
        ("name,cpus\na,4\nb,0\nc,2.5\n", "impossible_value", "cpus", "2 values"),
        ("name,cpus\na,9000\nb,4\n", "impossible_value", "cpus", "'9000' in row 2"),
        ("name,Memory (GB)\na,90000\nb,16\n", "impossible_value", "Memory (GB)", "65536 GB"),
        ("name,CPU usage %\na,140\nb,20\n", "impossible_value", "CPU usage %", "'140'"),
        ("name,Storage GB,Used GB\na,10,20\nb,30,20\n", "used_exceeds_total", "Used GB",
         "'20' in row 2"),
        ("name,cpus\n" + "".join(f"s{n},{n + 2}\n" for n in range(20)) + "x,900\n", "outliers",
         "cpus", "1 of 21 numbers"),
        ("name,created\na,2031-01-01\nb,2020-01-01\n", "future_date", "created", "2031-01-01"),
        ("name,ip\na,10.0.0.1\nb,10.0.0.1\n", "conflicting_addresses", "ip", "rows 2, 3"),
        ("hostname,serial\na,N/A\nb,N/A\nA ,S1\n", "repeated_identifier", "hostname",
         "'a' is there 2 times"),
        ("name,ip\na,10.0.0.1;10.0.0.2\n", "no such thing", None, ""),
        (f"name,note\na,{'x' * 300}\n", "long_values", "note", "300 characters"),
    ],
)  # fmt: skip
def test_kinds(tmp_path: Path, content: str, kind: str, column: str | None, says: str) -> None:
    found = [entry for entry in observations(tmp_path, content) if entry.kind == kind]
    if kind == "no such thing":
        assert not found
        return
    (entry,) = found
    assert entry.column == column
    assert says in entry.fact


@pytest.mark.parametrize(
    "header",
    ["Servidor", "Nom de la machine", "Rechner", "Inventarnummer", "Numéro de série", "Nombre",
     "N° de série", "Maquina virtual", "Hostname", "VM"],
)  # fmt: skip
def test_what_the_mapping_takes_for_a_name_identifies(tmp_path: Path, header: str) -> None:
    rows = "".join(f"srvlyo{n:02},prod\n" for n in range(9))
    assert observations(tmp_path, f"{header},env\n{rows}") == []


@pytest.mark.parametrize("header", ["Idle", "Version", "Identity provider", "Vmotion"])
def test_words_that_only_begin_so_do_not_identify(tmp_path: Path, header: str) -> None:
    rows = "".join(f"{n % 2},prod\n" for n in range(9))
    kinds = {entry.kind for entry in observations(tmp_path, f"{header},env\n{rows}")}
    assert "no_identifier" in kinds


def test_clean_tables_give_no_warning(tmp_path: Path) -> None:
    content = "hostname,ip,env\nweb01,10.0.0.1,prod\nweb02,10.0.0.2,test\n"
    assert observations(tmp_path, content) == []


def test_grades_of_agents_replace_those_of_rules(tmp_path: Path) -> None:
    found = observations(tmp_path, "name,env\na,N/A\nb,prod\n")
    (entry,) = [entry for entry in found if entry.kind == "placeholders"]
    by_rules = findings(found, [check("quality", found, recommend("quality", found))])
    assert by_rules[0].startswith("[info] env: 1 of 2")
    answer = {
        "grades": [{"id": entry.id, "severity": "error", "comment": "Ask the owner."}],
        "summary": "x",
    }
    by_agent = findings(found, [check("quality", found, answer)])
    assert by_agent[0].startswith("[error] env: 1 of 2")
    assert by_agent[0].endswith("Ask the owner.")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"grades": [{"id": "q99", "severity": "info"}], "summary": ""}, "no such observation"),
        ({"grades": [{"id": "q1", "severity": "awful"}], "summary": ""}, "severity"),
        ([], "dictionary"),
    ],
)
def test_answers_outside_the_list_are_refused(tmp_path: Path, answer: object, says: str) -> None:
    found = observations(tmp_path, "name,env\na,N/A\nb,prod\n")
    with pytest.raises(ValueError, match=says):
        check("quality", found, answer)


def test_quality_score_is_the_weighted_sum_of_its_explained_parts(tmp_path: Path) -> None:
    path = tmp_path / "servers.csv"
    path.write_text("name,ip,cpus,empty\na,10.0.0.1,4,\nb,N/A,-2,\nc\na,x,4,\nd,10.0.0.4,2,\n")
    table = read(path)
    profile = profile_records(tmp_path, table.parquet, table.rows)
    score, parts = assess(table, profile, find_anomalies(tmp_path, table.parquet, profile, TODAY))
    found = {part.name: part for part in parts}
    # 4 of 5 rows were taken; of the 12 cells in used columns 11 say something; one number of
    # processors is negative; of 3 addresses and 4 numbers one is neither; one name is there twice
    assert {name: part.score for name, part in found.items()} == {
        "acceptance": 0.8,
        "completeness": pytest.approx(11 / 12, abs=1e-4),
        "validity": 0.75,
        "consistency": pytest.approx(6 / 7, abs=1e-4),
        "uniqueness": 0.75,
    }
    assert "1 of 4 rows" in found["validity"].explanation
    assert score == pytest.approx(
        sum(WEIGHTS[n] * part.score for n, part in found.items()), abs=1e-3
    )
    assert sum(WEIGHTS.values()) == pytest.approx(1)
