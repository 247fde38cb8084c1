"""Titles, repeated headers and sums: the same in text files and in workbooks."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from discovery_crews.readers import ReadTable
from discovery_crews.readers.layout import BodyRules, find_start, looks_like_names

from tests.crews.files import read, rows_of, workbook

HEADER = ["Name", "IP", "RAM GB"]
WEB = ["web01", "10.0.0.1", "4"]
DB = ["db01", "10.0.0.2", "8"]


def read_both(folder: Path, rows: list[list[str]]) -> list[ReadTable]:
    """The same rows as CSV, as semicolon-delimited text without padding, and as a workbook."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    (folder / "t.csv").write_text(text.getvalue(), newline="")
    bare = ["x" if not cells else ";".join(cells).rstrip(";") or "" for cells in rows]
    (folder / "t.txt").write_text("\n".join(bare) + "\n")
    return [
        read(folder / "t.csv"),
        read(folder / "t.txt"),
        read(workbook(folder / "t.xlsx", {"S": rows})),
    ]


@pytest.mark.parametrize(
    ("above", "header_row"),
    [
        ([["Inventory of May", "", ""]], 2),
        ([["# exported by a tool", "", ""], ["# 2024-05-01", "", ""]], 3),
        ([["Report", "", ""], ["", "", ""], ["Created", "2024-05-01", ""]], 4),
        ([["", "", ""]], 2),
        ([], 1),
    ],
)
def test_titles_are_skipped_and_rows_keep_their_numbers(
    tmp_path: Path, above: list[list[str]], header_row: int
) -> None:
    for table in read_both(tmp_path, [*above, HEADER, WEB, DB]):
        assert table.columns == HEADER
        assert [row["__row"] for row in rows_of(table)] == [header_row + 1, header_row + 2]
        said = [finding for finding in table.findings if "taken as a title" in finding]
        assert bool(said) == any(any(cells) for cells in above)
        for cells in above:
            assert not any(cells) or cells[0] in said[0]


def test_repeated_headers_are_left_out_and_counted(tmp_path: Path) -> None:
    for table in read_both(tmp_path, [HEADER, WEB, HEADER, DB, HEADER]):
        assert [row["Name"] for row in rows_of(table)] == ["web01", "db01"]
        assert table.rows_rejected == 0
        assert any("repeated in 2 rows" in finding for finding in table.findings)


@pytest.mark.parametrize(
    "total",
    [
        ["Total", "", "12"],
        ["", "Grand Total:", "12 GB"],
        ["Summe", "", "1.234,5"],
        ["Gesamt", "2", ""],
        ["somme", "", "12"],
    ],
)
def test_totals_go_to_the_rejected_file(tmp_path: Path, total: list[str]) -> None:
    tables = read_both(tmp_path, [HEADER, WEB, DB, total])
    # a row whose last cells are missing is too short for text without padding
    for table in tables if total[-1] else [tables[0], tables[2]]:
        assert [row["Name"] for row in rows_of(table)] == ["web01", "db01"]
        assert table.rejected_by_problem == {"looks like a total": 1}
        assert next(text for text in total if text) in table.rejected.read_text()


@pytest.mark.parametrize(
    "asset",
    [
        ["total", "10.0.0.9", ""],
        ["Total Control", "", "4"],
        ["sum-server", "", "4"],
        ["Total", "finance", "4"],
    ],
)
def test_assets_that_only_sound_like_a_total_stay(tmp_path: Path, asset: list[str]) -> None:
    table = read_both(tmp_path, [[*HEADER[:1], "Owner", "RAM"], WEB, asset])[0]
    assert (table.rows, table.rows_rejected) == (2, 0)


@pytest.mark.parametrize(
    ("rows", "header"),
    [
        ([["a", "b"], ["1", "2"]], 0),
        ([["name", "owner"], ["web", "bob", "prod"], ["db", "eve", "test"]], 1),
        ([["name", "owner"], ["web01", "bob", "prod"], ["db01", "eve", "test"]], 0),
        ([["10.0.0.1", "5"], ["10.0.0.2", "6"]], 0),
        ([["Title"], ["name"], ["web"]], 0),
        ([["Compute", "", "Disk", "", "", ""], list("abcdef"), list("123456")], 1),
        ([["Record Type 1", "Application Name", "x"], ["2", "a"], ["2", "b"], ["2", "c"]], 0),
        ([["", ""], ["name", "ip"]], 1),
    ],
)
def test_find_start(rows: list[list[str]], header: int) -> None:
    start = find_start(rows)
    assert start is not None
    assert start.header == header


def test_nothing_starts_nowhere() -> None:
    assert find_start([["", " "], []]) is None


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["Name", "IP Address", "Disk 1 size"], True),
        (["web01", "10.0.0.1", "4"], False),
        (["server_name", "r_type"], True),
        (["Prod", "Prod", "Prod"], False),
        (["a@b.example", "2024-01-01"], False),
        ([], False),
    ],
)
def test_looks_like_names(cells: list[str], names: bool) -> None:
    assert looks_like_names(cells) is names


def test_a_single_column_has_no_repeated_header() -> None:
    rules = BodyRules(["name"])
    assert not rules.is_repeated_header(["name"])
    assert not rules.is_total(["Total"])
