"""Workbooks and JSON: the right table is found, and texts survive as they were."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import openpyxl
import pytest

from tests.crews.files import read, real_file, rows_of, workbook


def test_cells_of_a_workbook(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "book.xlsx",
        {
            "Servers": [
                ("Name", "Serial", "Cores", "Load", "Built", "Seen", "On"),
                (
                    "web01",
                    "000123456789012345678",
                    4,
                    0.5,
                    dt.datetime(2024, 1, 2),  # noqa: DTZ001 - cells have no zone
                    dt.datetime(2024, 1, 2, 3, 4, 5),  # noqa: DTZ001 - cells have no zone
                    True,
                ),
                (None, None, None, None, None, None, None),
                ("web02", 123456789012, 2.0, None, None, None, False),
            ]
        },
    )
    table = read(path)
    first, second = rows_of(table)
    assert first == {
        "Name": "web01", "Serial": "000123456789012345678", "Cores": "4", "Load": "0.5",
        "Built": "2024-01-02", "Seen": "2024-01-02 03:04:05", "On": "TRUE", "__row": 2,
    }  # fmt: skip
    assert (second["Serial"], second["Cores"], second["Load"]) == ("123456789012", "2", None)
    assert second["__row"] == 4
    assert table.findings == ["1 blank rows were left out."]


def test_remarks_below_the_table_are_no_assets(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "book.xlsx",
        {
            "Servers": [
                ("Name", "Cores", "Disk"),
                ("Exported server of the old team", None, None),
                ("web01", 4, 100),
                ("mail", None, None),
                (None, None, None),
                ("Generated 2024-01-02 by ann", None, None),
                (None, "* sizes as ordered", None),
            ]
        },
    )
    table = read(path)
    # before an asset a remark is taken for one; a short name below is an asset
    assert [row["Name"] for row in rows_of(table)] == [
        "Exported server of the old team", "web01", "mail",
    ]  # fmt: skip
    assert table.rejected_by_problem == {"looks like a note below the table": 2}
    rejected = table.rejected.read_text(encoding="utf-8")
    assert "Generated 2024-01-02 by ann" in rejected
    assert "7" in rejected


def test_the_largest_sheet_is_read_and_the_others_are_named(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "book.xlsx",
        {"Cover": [("Report",)], "Data": [("a", "b"), (1, 2), (3, 4)], "Empty": []},
    )
    table = read(path)
    assert (table.sheet, table.rows, table.format) == ("Data", 2, "xlsx")
    assert "Not read: 'Cover' (1 rows, no table)." in table.findings


def test_title_rows_blank_headers_and_empty_columns(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "book.xlsx",
        {"S": [("Inventory of May",), (), ("Name", None, None, "IP"), ("a", None, "x", "1.2.3.4")]},
    )
    table = read(path)
    assert table.columns == ["Name", "column_2", "IP"]
    assert rows_of(table)[0]["__row"] == 4
    assert any("taken as a title" in finding for finding in table.findings)


def test_rvtools_main_sheet(tmp_path: Path) -> None:
    table = read(real_file_copy(tmp_path, "kubev2v-rvtools/example1.xlsx"))
    assert (table.format, table.sheet, table.rows) == ("rvtools", "vInfo", 9)
    assert len([name for name in table.columns if not name.startswith("v")]) == 78
    first = rows_of(table)[0]
    assert (first["VM"], first["vDisk.Capacity MiB sum"]) == ("vm-1", "103424")
    # in this anonymised export the hosts of vHost are not those of vInfo
    assert any("'vHost' (7 rows" in finding for finding in table.findings)
    assert rows_of(table)[0]["Memory"] == "2224"


def real_file_copy(folder: Path, name: str) -> Path:
    target = folder / Path(name).name
    target.write_bytes(real_file(name).read_bytes())
    return target


def test_json_keeps_texts_and_flattens(tmp_path: Path) -> None:
    path = tmp_path / "assets.json"
    path.write_text(
        '{"meta": {"n": 2}, "result": {"assets": ['
        '{"name": "a", "serial": "007", "big": 12345678901234567890, "ram": {"gb": 1.10},'
        ' "ips": ["10.0.0.1", "10.0.0.2"], "on": true, "none": null},'
        '{"name": "b", "Name": "B", "ram": {}, "ips": []}, 7]}}'
    )
    table = read(path)
    assert table.columns == ["name", "serial", "big", "ram.gb", "ips", "on", "none", "Name_2"]
    first, second = rows_of(table)
    assert first == {
        "name": "a", "serial": "007", "big": "12345678901234567890", "ram.gb": "1.10",
        "ips": '["10.0.0.1", "10.0.0.2"]', "on": "true", "none": None, "Name_2": None, "__row": 1,
    }  # fmt: skip
    assert (second["name"], second["Name_2"], second["ips"]) == ("b", "B", None)
    assert table.rows_rejected == 1
    assert "not an object but a number" in table.rejected.read_text()
    assert any("'result.assets'" in finding for finding in table.findings)


def test_ndjson_rejects_only_the_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "assets.jsonl"
    path.write_text('{"a": "1"}\n{"a": "2"}\n{"a": \n\n[1]\n{"a": "3"}\n')
    table = read(path)
    assert table.format == "ndjson"
    assert [(row["a"], row["__row"]) for row in rows_of(table)] == [("1", 1), ("2", 2), ("3", 6)]
    assert table.rows_rejected == 2


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16"])
def test_json_encodings(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "assets.json"
    path.write_text(json.dumps([{"name": "Zürich"}], ensure_ascii=False), encoding=codec)
    assert rows_of(read(path))[0]["name"] == "Zürich"


def test_real_dynamodb_export(tmp_path: Path) -> None:
    table = read(real_file_copy(tmp_path, "aws-cmf/servers.json"))
    assert table.rows == 3
    assert "server_name" in table.columns
    assert rows_of(table)[0]["add_vols_size"] == '["16", "32"]'


@pytest.mark.parametrize("suffix", ["json", "ndjson"])
def test_a_field_without_any_value_is_a_column(tmp_path: Path, suffix: str) -> None:
    """One that is null in some rows and an object in others is that object's columns."""
    rows = ['{"name": "a", "owner": null, "os": null}', '{"name": "b", "tags": [], "os": {"v": 1}}']
    path = tmp_path / f"assets.{suffix}"
    path.write_text("\n".join(rows) if suffix == "ndjson" else f"[{','.join(rows)}]")
    table = read(path)
    assert table.columns == ["name", "owner", "tags", "os.v"]
    assert [row["owner"] for row in rows_of(table)] == [None, None]


def merged_workbook(path: Path, rows: list[list[object]], merged: list[str]) -> Path:
    """A workbook with one sheet of these rows and merged ranges."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in rows:
        sheet.append(row)
    for cells in merged:
        sheet.merge_cells(cells)
    book.save(path)
    return path


GROUPS: list[list[object]] = [
    ["Name", "OS", "Speicher", None, "Platte", None],
    [None, None, "gesamt", "belegt", "gesamt", "belegt"],
    ["web01", "Debian 12", 16, 8, 100, 50],
    ["db01", "Debian 11", 64, 32, 500, 400],
]
JOINED = [
    "Name", "OS", "Speicher / gesamt", "Speicher / belegt", "Platte / gesamt", "Platte / belegt"
]  # fmt: skip


@pytest.mark.parametrize(
    ("above", "merged", "left"),
    [
        (0, ["A1:A2", "B1:B2", "C1:D1", "E1:F1"], 0),
        (0, ["A1:A2", "B1:B2", "C1:D1", "E1:F1", "B3:B4"], 1),
        (0, ["C1:D1", "E1:F1"], 0),
        (0, [], 0),
        (2, ["A1:F1", "A3:A4", "B3:B4", "C3:D3", "E3:F3"], 0),
    ],
)
def test_a_header_merged_across_and_down(
    tmp_path: Path, above: int, merged: list[str], left: int
) -> None:
    titles: list[list[object]] = [["Server im Mai"], ["Stand 5/26"]]
    rows = titles[:above] + GROUPS
    table = read(merged_workbook(tmp_path / "two.xlsx", rows, merged))
    assert table.columns == JOINED
    found = rows_of(table)
    assert [row["Name"] for row in found] == ["web01", "db01"]
    assert [row["__row"] for row in found] == [above + 3, above + 4]
    assert len([finding for finding in table.findings if "has two rows" in finding]) == 1
    assert len([finding for finding in table.findings if "are merged" in finding]) == left


def test_a_cell_merged_over_two_columns_is_no_group(tmp_path: Path) -> None:
    rows: list[list[object]] = [["Name", "IP", None], ["web", "10.0.0.1", "10.0.0.2"]]
    table = read(merged_workbook(tmp_path / "one.xlsx", rows, ["B1:C1"]))
    assert (table.columns, table.rows) == (["Name", "IP", "column_3"], 1)
