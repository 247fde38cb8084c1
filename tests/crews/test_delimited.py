"""Delimited files: what is read is exactly what was written, what cannot be read is named."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from discovery_crews.readers.resubmit import resubmit

from tests.crews.files import read, real_file, rows_of


def write(folder: Path, content: str | bytes, name: str = "servers.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("content", "delimiter", "expected"),
    [
        ("a,b\n1,2\n", ",", [("1", "2")]),
        ("a;b\r\n1;2\r\n", ";", [("1", "2")]),
        ("a\tb\n1\t2", "\t", [("1", "2")]),
        ("a|b\r1|2\r", "|", [("1", "2")]),
        ('"a";"b"\n"x;y";"1,5"\n', ";", [("x;y", "1,5")]),
        ("a,b\n1,x;y\n2,z;w\n", ",", [("1", "x;y"), ("2", "z;w")]),
        ("sep=;\na;b\n1;2\n", ";", [("1", "2")]),
        ('a, b\n1, "x, y"\n', ",", [("1", "x, y")]),
        ('a,b\n"line\none","he said ""no"""\n', ",", [("line\none", 'he said "no"')]),
        ('a,b\n5" disk,x\n', ",", [('5" disk', "x")]),
        (
            "a,b\n007,12345678901234567890\n 1 ,N/A\n",
            ",",
            [("007", "12345678901234567890"), (" 1 ", "N/A")],
        ),
        ("a\nx\n\n\ny\n", ",", [("x",), ("y",)]),
        ("a,b\n1,\n", ",", [("1", None)]),
    ],
)
def test_dialects(
    tmp_path: Path, content: str, delimiter: str, expected: list[tuple[str | None, ...]]
) -> None:
    table = read(write(tmp_path, content))
    assert table.delimiter == delimiter
    assert [tuple(row[c] for c in table.columns) for row in rows_of(table)] == expected
    assert table.rows_rejected == 0


@pytest.mark.parametrize(
    ("codec", "mark", "label"),
    [
        ("utf-8", b"", "utf-8"),
        ("utf-8", b"\xef\xbb\xbf", "utf-8"),
        ("utf-16-le", b"\xff\xfe", "utf-16"),
        ("utf-16-be", b"\xfe\xff", "utf-16"),
        ("utf-16-le", b"", "utf-16-le"),
        ("utf-16-be", b"", "utf-16-be"),
        ("utf-32-le", b"\xff\xfe\x00\x00", "utf-32"),
        ("cp1252", b"", "cp1252"),
    ],
)
def test_encodings(tmp_path: Path, codec: str, mark: bytes, label: str) -> None:
    text = "Name;Straße\nMünchen-01;Königsallee 5 € Büro\nserver02;Façade naïve\n"
    table = read(write(tmp_path, mark + text.encode(codec)))
    assert table.columns == ["Name", "Straße"]
    assert rows_of(table)[0]["Straße"] == "Königsallee 5 € Büro"
    assert table.encoding == label
    assert bool(table.findings) == (label == "cp1252")


def test_single_bad_bytes_cost_only_their_row(tmp_path: Path) -> None:
    good = "".join(f"Zürich-{n},ok\n" for n in range(20)).encode()
    table = read(write(tmp_path, b"name,note\n" + good + b"Gen\xe8ve,bad\n" + good))
    assert (table.rows, table.rows_rejected) == (40, 1)
    with table.rejected.open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["row"], row["column"], row["problem"]) == ("22", "name", "bytes that are not UTF-8")
    assert "CSV UTF-8" in row["remedy"]


def test_ragged_rows_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    content = (
        "name,ip,owner\n"
        "a,10.0.0.1,x\n"
        "b,10.0.0.2\n"
        "c,10.0.0.3,y,surplus,more\n"
        "\n"
        "d,10.0.0.4,z,,\n"
        ",,\n"
        "e,10.0.0.5,w\n"
    )
    table = read(write(tmp_path, content))
    assert [(row["name"], row["__row"]) for row in rows_of(table)] == [("a", 2), ("d", 6), ("e", 8)]
    assert table.rows_rejected == 2
    with table.rejected.open(encoding="utf-8", newline="") as stream:
        short, long = csv.DictReader(stream)
    assert (short["row"], short["column"], short["raw_line"]) == ("3", "owner", "b,10.0.0.2")
    assert "too short" in short["problem"]
    assert "2 cells" in short["remedy"]
    assert (long["row"], long["column"], long["value"]) == ("4", "column_4", "surplus")
    assert any("2 blank rows" in finding for finding in table.findings)
    assert any("beyond the header" in finding for finding in table.findings)


@pytest.mark.parametrize(
    ("body", "names", "rejected"),
    [
        # an unclosed quote must not swallow the rows after it
        ('a,"open\nb,2\nc,3\n', ["b", "c"], 1),
        ('a,"open\nb,2\nc,"3"\nd,4\n', ["b", "c", "d"], 1),
        ('a,"x"y\nb,2\n', ["b"], 1),
        ('a,1\nb,"never closed', ["a"], 1),
        # a real cell of several lines in a row that is too long is one rejected row
        ('a,"two\nlines",surplus\nb,2\n', ["b"], 1),
    ],
)
def test_stray_quotes(tmp_path: Path, body: str, names: list[str], rejected: int) -> None:
    table = read(write(tmp_path, "name,value\n" + body))
    assert [row["name"] for row in rows_of(table)] == names
    assert table.rows_rejected == rejected


def test_many_quoted_newlines_survive_the_spool(tmp_path: Path) -> None:
    cells = [f'x\n"{n}",\r\n{"é" * (n % 7)}' for n in range(20_000)]
    path = tmp_path / "wide.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["n", "text"])
        writer.writerows((str(n), cell) for n, cell in enumerate(cells))
    table = read(path)
    assert [row["text"] for row in rows_of(table)] == cells


def test_headers_are_made_unique_and_said(tmp_path: Path) -> None:
    table = read(write(tmp_path, "Name,,name, Name ,__row,Name_2\n1,2,3,4,5,6\n"))
    assert table.columns == ["Name", "column_2", "name_3", "Name_4", "row", "Name_2"]
    assert rows_of(table)[0] == {
        "Name": "1", "column_2": "2", "name_3": "3", "Name_4": "4", "row": "5", "Name_2": "6",
        "__row": 2,
    }  # fmt: skip
    assert len(table.findings) == 4
    assert any("Column 2 has no header" in finding for finding in table.findings)


def test_rejected_cells_cannot_run_as_formulas(tmp_path: Path) -> None:
    table = read(write(tmp_path, "a,b\n1,2\n=cmd|' /C calc'!A0,x,@SUM(1)\n-5,1,-7\n"))
    with table.rejected.open(encoding="utf-8", newline="") as stream:
        first, second = csv.DictReader(stream)
    assert first["value"] == "'@SUM(1)"
    assert first["raw_line"].startswith("'=cmd")
    assert second["value"] == "-7"


def test_long_cells_are_rejected(tmp_path: Path) -> None:
    table = read(
        write(tmp_path, f'a,b\n1,{"x" * 60}\n2,ok\n3,"{"y" * 30}\n{"y" * 30}"\n'),
        limits={"max_cell_characters": 50},
    )
    assert [row["a"] for row in rows_of(table)] == ["2"]
    assert table.rejected_by_problem == {"cell is longer than 50 characters": 2}


def test_real_konveyor_dependency_rows_are_taken(tmp_path: Path) -> None:
    source = real_file("konveyor/template_application_import.csv")
    path = write(tmp_path, source.read_bytes())
    table = read(path)
    assert (table.rows, table.rows_rejected) == (5, 0)
    last = rows_of(table)[-1]
    assert (last["Application Name"], last["Dependency"], last["Tag 20"]) == (
        "Gateway",
        "Customers",
        None,
    )
    assert any("2 rows are shorter" in finding for finding in table.findings)


@pytest.mark.parametrize(
    ("name", "rows", "columns", "delimiter"),
    [
        ("konveyor/partially_valid_application_rows.csv", 3, 45, ","),
        ("ralph/warehouses_semicolon.csv", 3, 2, ";"),
        ("ralph/back_office_assets.csv", 2, 7, ","),
        ("aws-cmf/server-list.csv", 8, 18, ","),
        ("aws-cmf/test_valid.csv", 1, 10, ","),
        ("aws-cmf/0-intake-form.csv", 8, 16, ","),
    ],
)
def test_real_files(tmp_path: Path, name: str, rows: int, columns: int, delimiter: str) -> None:
    path = write(tmp_path, real_file(name).read_bytes(), Path(name).name)
    table = read(path)
    assert (table.rows, len(table.columns), table.delimiter) == (rows, columns, delimiter)
    assert table.rows_rejected == 0
    assert not table.columns[0].startswith("\ufeff")


@pytest.mark.parametrize(
    "content",
    [
        '"Name,""Owner, team"",IP"\n"web,""Ann, A"",10.0.0.1"\n"db,""Bob"",10.0.0.2"\n',
        '"Name;Owner, team;IP"\r\n"web;""Ann, A"";10.0.0.1"\r\n\r\n"db;Bob;10.0.0.2"\r\n',
        'Name,"Owner, team",IP\n"web,""Ann, A"",10.0.0.1"\n"db,Bob,10.0.0.2"\n',
        '"Name;Owner, team;IP";;\n"web;Ann, A;10.0.0.1";;\n"db;Bob;10.0.0.2";;',
        '"Name\tOwner, team\tIP"\n"web\tAnn, A\t10.0.0.1"\n"db\tBob\t10.0.0.2"\n',
    ],
    ids=["comma", "semicolon", "bare-header", "cells-behind", "tab"],
)
def test_lines_that_are_quoted_as_a_whole(tmp_path: Path, content: str) -> None:
    path = tmp_path / "twice.csv"
    path.write_text(content, newline="")
    table = read(path)
    assert table.columns == ["Name", "Owner, team", "IP"]
    assert [list(row.values())[:3] for row in rows_of(table)] == [
        ["web", "Ann, A", "10.0.0.1"],
        ["db", "Bob", "10.0.0.2"],
    ]
    assert [finding for finding in table.findings if "quoted as a whole" in finding]


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ('"Name"\n"Doe, Jane"\n"Roe, Jim"\n', ["Name"]),
        ('"Last, first"\n"Doe, Jane"\n"Roe, Jim"\n', ["Last, first"]),
        ('"Name","IP"\n"a","1"\n', ["Name", "IP"]),
        ('"Name"\n"a ""b"""\n"c"\n', ["Name"]),
    ],
)
def test_cells_in_quotes_are_no_wrapped_lines(
    tmp_path: Path, content: str, columns: list[str]
) -> None:
    path = tmp_path / "plain.csv"
    path.write_text(content)
    assert read(path).columns == columns


def test_bad_rows_of_wrapped_lines_can_be_corrected(tmp_path: Path) -> None:
    path = tmp_path / "twice.csv"
    path.write_text('"Name,Owner,""IP"""\n"web,Ann,1"\n"db,Bob"\n"app,Eve,3"\n')
    table = read(path)
    assert (table.rows, table.rows_rejected) == (2, 1)
    assert b"\r\n3,IP,,row is too short" in table.rejected.read_bytes()
    target = tmp_path / "again.csv"
    resubmit(path, table.rejected, target)
    assert target.read_text() == 'Name,Owner,"IP"\ndb,Bob\n'


TWO_ROWS = "Name,OS,Memory,,Disk,\n,,Total,Used,Total,Used\nweb,x,1,2,3,4\ndb,y,5,6,7,8\n"


@pytest.mark.parametrize(("above", "first"), [("", 3), ("Servers of May,,,,,\n", 4)])
def test_a_header_of_two_rows(tmp_path: Path, above: str, first: int) -> None:
    path = tmp_path / "two.csv"
    path.write_text(above + TWO_ROWS)
    table = read(path)
    assert table.columns == [
        "Name", "OS", "Memory / Total", "Memory / Used", "Disk / Total", "Disk / Used"
    ]  # fmt: skip
    assert [row["__row"] for row in rows_of(table)] == [first, first + 1]
    (told,) = [finding for finding in table.findings if "two rows" in finding]
    assert told.startswith(f"The header has two rows, {first - 2} and {first - 1}; ")
    assert told.endswith("as in 'Memory / Total'.")


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("Name,,OS,\nweb01,prod,Linux,10.0.0.1\ndb01,test,AIX,10.0.0.2\n", 2),
        ("Name,Note,\nweb01,,x\ndb01,y,\n", 2),
        ("Name,Role,Owner\n,app,Ann\nweb,db,Bob\n", 2),
        ("VM,DNS Name,Powerstate,\n,a,b,c\nd,e,f,g\n", 2),
    ],
)
def test_rows_with_gaps_are_no_second_header(tmp_path: Path, content: str, rows: int) -> None:
    path = tmp_path / "gaps.csv"
    path.write_text(content)
    assert read(path).rows == rows
