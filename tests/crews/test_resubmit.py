"""Rejected rows can be corrected and imported again; nothing of them is lost on the way."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from discovery_core.errors import DiscoveryError
from discovery_crews.readers.credentials import MASK, WITHHELD
from discovery_crews.readers.resubmit import resubmit
from discovery_crews.readers.table import spreadsheet_safe, spreadsheet_text

from tests.crews.files import read, rows_of, workbook


def correct(rejected: Path, corrections: dict[str, str]) -> Path:
    """What a person does in a spreadsheet: change `raw_line` of some rows."""
    with rejected.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    target = rejected.with_name("corrected.csv")
    with target.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow(row | {"raw_line": corrections.get(row["row"], row["raw_line"])})
    return target


@pytest.mark.parametrize("codec", ["utf-8", "cp1252", "utf-16"])
@pytest.mark.parametrize("above", ["", "Export of May;;\n", "sep=;\n"])
def test_round_trip_of_text(tmp_path: Path, codec: str, above: str) -> None:
    source = tmp_path / "servers.csv"
    source.write_text(
        above + "Name;Größe;Note\nweb;1;a\nshort;2\nlong;3;b;c\n=cmd;4;x;y\n'=q;5\nopen;6;\"z\n",
        encoding=codec,
        newline="",
    )
    table = read(source)
    assert (table.rows, table.rows_rejected) == (1, 5)
    row = 2 + bool(above) + 1
    fixes = {
        str(row): "short;2;-",
        str(row + 1): 'long;3;"b;c"',
        # the apostrophe that protects from formulas may stay
        str(row + 2): "'=cmd;4;xy",
        str(row + 3): "''=q;5;",
        str(row + 4): 'open;6;"z"',
    }
    again = tmp_path / "again.csv"
    done = resubmit(source, correct(table.rejected, fixes), again)
    assert (done.written, done.left) == (5, [])
    second = read(again)
    assert second.columns == table.columns
    assert second.rows_rejected == 0
    assert [(r["Name"], r["Größe"], r["Note"]) for r in rows_of(second)] == [
        ("short", "2", "-"),
        ("long", "3", "b;c"),
        ("=cmd", "4", "xy"),
        ("'=q", "5", None),
        ("open", "6", "z"),
    ]


def test_rows_that_are_not_corrected_are_rejected_again(tmp_path: Path) -> None:
    source = tmp_path / "servers.csv"
    source.write_text("Name,IP\nweb,1\nshort\nlong,2,3\n")
    table = read(source)
    again = tmp_path / "again.csv"
    resubmit(source, correct(table.rejected, {"3": "short,5"}), again)
    second = read(again)
    assert ([row["Name"] for row in rows_of(second)], second.rows_rejected) == (["short"], 1)


def test_withheld_and_emptied_rows_are_named(tmp_path: Path) -> None:
    source = tmp_path / "servers.csv"
    source.write_text('Name,pwd,IP\nweb,x,1\nopen,"x,2\n"half,x,2\nTotal,,3\n')
    table = read(source, limits={"max_cell_characters": 50})
    again = tmp_path / "again.csv"
    done = resubmit(source, correct(table.rejected, {"5": " "}), again)
    assert (done.written, done.left) == (0, [3, 4, 5])


def test_rows_with_credentials_are_corrected_without_them(tmp_path: Path) -> None:
    source = tmp_path / "servers.csv"
    source.write_text(
        f"Name,IP,pwd,OS\nweb,1,hunter2,a\n{'y' * 99},2,hunter2,b\nlong,3,hunt,er2,c\n"
        "short,hunter2,d\n"
    )
    table = read(source, limits={"max_cell_characters": 50})
    rejected = table.rejected.read_text()
    assert "hunt" not in rejected
    assert f'"long,3,{MASK},{MASK},{MASK}"' in rejected
    assert f'"short,{MASK},{MASK}"' in rejected
    fixes = {"3": f"y,2,{MASK},b", "4": f"long,3,{MASK},c", "5": f"short,4,{MASK},d"}
    again = tmp_path / "again.csv"
    done = resubmit(source, correct(table.rejected, fixes), again)
    assert (done.written, done.left) == (3, [])
    second = read(again)
    assert second.columns == ["Name", "IP", "OS"]
    assert [(row["Name"], row["IP"], row["OS"]) for row in rows_of(second)] == [
        ("y", "2", "b"), ("long", "3", "c"), ("short", "4", "d"),
    ]  # fmt: skip


def test_json_with_credentials_is_corrected_without_them(tmp_path: Path) -> None:
    source = tmp_path / "assets.ndjson"
    bad = {"name": "x" * 99, "n": 1, "api": {"key": "hunter2"}, "logins": [{"pwd": "hunter3"}]}
    source.write_text(
        '{"name": "web"}\n{"name": "db"}\n' + json.dumps(bad) + '\n{"a": {"api": {"key": "hunter4"'
    )
    table = read(source, limits={"max_cell_characters": 50})
    assert "hunter" not in table.rejected.read_text()
    with table.rejected.open(encoding="utf-8", newline="") as stream:
        whole, torn = csv.DictReader(stream)
    shown = bad | {"api": {"key": MASK}, "logins": [{"pwd": MASK}]}
    assert (json.loads(whole["raw_line"]), torn["raw_line"]) == (shown, WITHHELD)
    again = tmp_path / "again.ndjson"
    fix = {"3": whole["raw_line"].replace("x" * 99, "mail")}
    assert resubmit(source, correct(table.rejected, fix), again).left == [4]
    with again.open("a") as stream:
        stream.write('{"name": "db"}\n')
    assert [row["name"] for row in rows_of(read(again))] == ["mail", "db"]


def test_round_trip_of_json_lines(tmp_path: Path) -> None:
    source = tmp_path / "assets.json"
    source.write_text('{"a": "1"}\n{"a": "2"}\n{"a": \n[3]\n')
    table = read(source)
    again = tmp_path / "again.json"
    fixes = {"3": '{"a": "3"}', "4": '{"a": "4"}'}
    resubmit(source, correct(table.rejected, fixes), again)
    assert [row["a"] for row in rows_of(read(again))] == ["3", "4"]
    assert json.loads(again.read_text().splitlines()[0]) == {"a": "3"}


def test_rows_of_a_workbook_under_its_header(tmp_path: Path) -> None:
    rows = [("Name", "IP"), ("web", "1"), ("x" * 99, 'say "hi"\tthere')]
    book = workbook(tmp_path / "a.xlsx", {"S": rows})
    table = read(book, limits={"max_cell_characters": 50})
    with pytest.raises(DiscoveryError) as caught:
        resubmit(book, table.rejected, tmp_path / "again.csv")
    assert "Copy the header" in caught.value.message
    with table.rejected.open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    again = tmp_path / "again.csv"
    again.write_text("Name\tIP\n" + row["raw_line"].replace("x" * 99, "short") + "\n")
    assert rows_of(read(again))[0] == {"Name": "short", "IP": 'say "hi"\tthere', "__row": 2}


@pytest.mark.parametrize(
    "text", ["", "a", "=1+1", "'=1", "''=1", "'a", "-5", "-x", "'-5", "@x", "'"]
)
def test_protection_from_formulas_can_be_undone(text: str) -> None:
    assert spreadsheet_text(spreadsheet_safe(text)) == text
    assert not spreadsheet_safe(text).startswith(("=", "@", "-x"))


def test_command(tmp_path: Path) -> None:
    source = tmp_path / "servers.csv"
    source.write_text('Name,pwd\nweb,x\nopen,"x\n')
    table = read(source)
    command = [sys.executable, "-m", "discovery_crews.readers.resubmit"]
    arguments = [str(source), str(table.rejected), str(tmp_path / "again.csv")]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
    assert "1 rows were left out (row 3)" in done.stdout
    again = [*command, str(source), *arguments[:2]]
    wrong = subprocess.run(again, check=False, capture_output=True, text=True)
    assert (wrong.returncode, "not a file of rejected rows" in wrong.stderr) == (1, True)
    assert subprocess.run(command, check=False, capture_output=True).returncode == 2
