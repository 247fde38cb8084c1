"""`python -m discovery_crews map`: files in, proposals out, errors with a way out."""

from __future__ import annotations

import json
from pathlib import Path

import openpyxl
import pytest
from discovery_crews.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    status = main(["map", *map(str, arguments)])
    return status, capsys.readouterr().out


@pytest.fixture
def servers(tmp_path: Path) -> Path:
    path = tmp_path / "servers.csv"
    path.write_text(
        "Server Name,IP Address,Memory (MB),Colour\nweb01,10.0.0.1,4096,red\n"
        "web02,10.0.0.2,8192,blue\n",
        encoding="utf-8",
    )
    return path


def test_json_has_every_column_in_order(servers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run(capsys, servers, "--json")
    rows = json.loads(out)
    assert status == 0
    assert [row["column"] for row in rows] == ["Server Name", "IP Address", "Memory (MB)", "Colour"]
    assert [row["target"] for row in rows] == ["hostname", "ip_address", "memory_gb", None]
    for row in rows:
        assert row["file"] == str(servers)
        assert 0 <= row["confidence"] <= 1
        assert len(row["candidates"]) <= 5
        assert all({"target", "score"} == set(entry) for entry in row["candidates"])


def test_several_files_follow_each_other(
    servers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.json"
    other.write_text('[{"os": "Debian 12", "vcpu": 4}]', encoding="utf-8")
    _, out = run(capsys, servers, other, "--json")
    rows = json.loads(out)
    assert [row["file"] for row in rows] == [str(servers)] * 4 + [str(other)] * 2
    assert [row["target"] for row in rows[4:]] == ["os_name", "cpu_cores"]


def test_a_table_for_people(servers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run(capsys, servers)
    assert status == 0
    assert "servers.csv: 3 of 4 columns have a target" in out
    assert "Memory (MB)" in out
    assert "memory_gb" in out


def test_a_header_alone_is_mapped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "header.csv"
    text.write_text("sep=;\nHostname;Operating System;Memory (GB)\n", encoding="utf-8")
    book = tmp_path / "header.xlsx"
    workbook = openpyxl.Workbook()
    assert workbook.active is not None
    workbook.active.append(["Hostname", "Operating System", "Memory (GB)"])
    workbook.save(book)
    for path in (text, book):
        status, out = run(capsys, path, "--json")
        rows = json.loads(out)
        assert status == 0
        assert [row["target"] for row in rows] == ["hostname", "os_name", "memory_gb"], path.name


def test_a_schema_of_ones_own(
    servers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = tmp_path / "schema.csv"
    schema.write_text("field,description\npaint,colour of the case\nip,address\n", encoding="utf-8")
    _, out = run(capsys, servers, "--target-schema", schema, "--json")
    assert [row["target"] for row in json.loads(out)] == [None, "ip", None, "paint"]


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    schema = tmp_path / "bad.csv"
    schema.write_text("nothing\nx\n")
    missing = tmp_path / "missing.csv"
    for arguments, code in (
        ([empty], "EmptyFile"),
        ([missing], "UnreadableFile"),
        ([empty, "--target-schema", schema], "InvalidTargetSchema"),
    ):
        status, out = run(capsys, *arguments, *flags)
        assert status == 2
        assert json.loads(out)["error"]["code"] == code
