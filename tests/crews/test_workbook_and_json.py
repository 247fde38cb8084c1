"""Workbooks and JSON: the right table is found, and texts survive as they were."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

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
    assert table.columns == ["name", "serial", "big", "ram.gb", "ips", "on", "Name_2"]
    first, second = rows_of(table)
    assert first == {
        "name": "a", "serial": "007", "big": "12345678901234567890", "ram.gb": "1.10",
        "ips": '["10.0.0.1", "10.0.0.2"]', "on": "true", "Name_2": None, "__row": 1,
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
