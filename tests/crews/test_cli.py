"""The command line as a process: one JSON document on standard output, an exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.crews.files import real_file

pytestmark = pytest.mark.slow


def cli(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "discovery_crews", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def answer_of(process: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(process.stdout)
    return answer


def test_data_import(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = cli("run", "data_import", real_file("ralph/back_office_assets.csv"), "--output", out)
    assert process.returncode == 0, process.stderr
    answer = answer_of(process)
    assert (answer["rows_imported"], answer["rows_rejected"]) == (2, 0)
    assert answer["columns"][:3] == ["id", "sn", "model"]
    assert answer["artefacts"]["records"] == "records.parquet"
    with duckdb.connect() as connection:
        rows = connection.execute(f"SELECT id, sn FROM '{out / 'records.parquet'}'").fetchall()
    assert rows == [("112122", "bo_asset_sn"), ("212312", "bo_asset_sn2")]
    assert {path.name for path in out.iterdir()} == {
        "records.parquet", "profile.json", "rejected.csv", "preview.json",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "code"),
    [("", "EmptyFile"), ("%PDF-1.4", "UnsupportedFormat"), ("a,b\n", "NoRows"), (None,
     "UnreadableFile")],
)  # fmt: skip
def test_refusals(tmp_path: Path, content: str | None, code: str) -> None:
    path = tmp_path / "servers.csv"
    if content is not None:
        path.write_text(content)
    process = cli("run", "data_import", path, "--output", tmp_path / "out")
    assert process.returncode == 2
    error = answer_of(process)["error"]
    assert error["code"] == code
    assert "servers.csv" in error["message"]
    assert not (tmp_path / "out").exists()


def test_limits_come_from_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "servers.csv"
    path.write_text("name\na\nb\nc\n")
    process = cli("run", "data_import", path, DISCOVERY_MAX_ROWS="2")
    assert process.returncode == 2
    assert answer_of(process)["error"]["code"] == "LimitExceeded"


def test_usage_errors_and_help() -> None:
    wrong = cli("run", "no_such_phase", "x.csv")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "data_import" in wrong.stderr
    for arguments in (["--help"], ["run", "--help"]):
        shown = cli(*arguments)
        assert shown.returncode == 0
        assert "exit status" in shown.stdout


def test_a_later_phase_runs_those_before_it(tmp_path: Path) -> None:
    source = tmp_path / "servers.csv"
    source.write_text("name,ip\n a ,10.0.0.1\na,10.0.0.1\n")
    mappings = tmp_path / "mappings.json"
    mappings.write_text(
        json.dumps(
            [
                {"column": "name", "target": "hostname", "confidence": 1, "reason": "x"},
                {"column": "ip", "target": "ip_address", "confidence": 1, "reason": "x"},
            ]
        )
    )
    out = tmp_path / "out"
    whole = cli("run", "asset_inventory", source, "--mappings", mappings, "--output", out)
    assert whole.returncode == 0, whole.stderr
    answer = answer_of(whole)
    assert (answer["records"], answer["assets"], answer["by_type"]) == (2, 1, {"server": 1})
    lines = (out / "inventory.ndjson").read_text().splitlines()
    assert json.loads(lines[0])["originals"]["hostname"] == " a "


def test_records_of_an_earlier_phase_are_taken_up(tmp_path: Path) -> None:
    records, foreign = tmp_path / "records.parquet", tmp_path / "foreign.parquet"
    duckdb.execute(f"COPY (SELECT ' a ' AS name, 2 AS __row) TO '{records}' (FORMAT parquet)")
    duckdb.execute(f"COPY (SELECT 1 AS a) TO '{foreign}' (FORMAT parquet)")
    taken = cli("run", "data_cleansing", records)
    assert taken.returncode == 0, taken.stderr
    assert [rule["rule"] for rule in answer_of(taken)["rules"]] == ["trim"]
    refused = cli("run", "data_cleansing", foreign)
    assert refused.returncode == 2
    assert "__row" in answer_of(refused)["error"]["message"]
    assert "data_import" in answer_of(cli("run", "data_import", records))["error"]["message"]
