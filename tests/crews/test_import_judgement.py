"""Observations are computed, agents grade them, and neither can invent the other's part."""

from __future__ import annotations

from pathlib import Path

import pytest
from discovery_crews.data_import.judgement import check, findings, recommend
from discovery_crews.data_import.observations import Observation, observe, quality_score
from discovery_crews.profile import profile_records

from tests.crews.files import read


def observations(folder: Path, content: str) -> list[Observation]:
    path = folder / "servers.csv"
    path.write_text(content, encoding="utf-8")
    table = read(path)
    return observe(table, profile_records(folder, table.parquet, table.rows))


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
        ("name,memory\na,-1\nb,2\n", "negative_numbers", "memory", "-1"),
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


def test_clean_tables_give_no_warning(tmp_path: Path) -> None:
    content = "hostname,ip,env\nweb01,10.0.0.1,prod\nweb02,10.0.0.2,test\n"
    assert observations(tmp_path, content) == []


def test_grades_of_agents_replace_those_of_rules(tmp_path: Path) -> None:
    found = observations(tmp_path, "name,env\na,N/A\nb,prod\n")
    (entry,) = [entry for entry in found if entry.kind == "placeholders"]
    by_rules = findings(found, [check("quality", found, recommend("quality", found))])
    assert by_rules[0].startswith("[info] env: 1 of 2")
    answer = {
        "grades": [{"id": entry.id, "severity": "serious", "comment": "Ask the owner."}],
        "summary": "x",
    }
    by_agent = findings(found, [check("quality", found, answer)])
    assert by_agent[0].startswith("[serious] env: 1 of 2")
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


def test_quality_score(tmp_path: Path) -> None:
    path = tmp_path / "servers.csv"
    path.write_text("name,ip,empty\na,10.0.0.1,\nb,N/A,\nc\nd,,\n")
    table = read(path)
    profile = profile_records(tmp_path, table.parquet, table.rows)
    # 3 of 4 rows were taken; of the 6 cells in used columns 4 say something
    assert quality_score(table, profile) == pytest.approx(0.75 * 4 / 6, abs=1e-4)
