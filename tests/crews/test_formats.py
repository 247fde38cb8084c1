"""Every format that the documentation lists is read; what is none of them says what to do."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_crews.readers import ReadTable

from tests.crews.files import read, rows_of, zip_of
from tests.crews.samples import (
    OBJECTS,
    ODS_TYPE,
    ROWS,
    SAMPLES,
    csv_of,
    ods,
    page,
    xls,
    xlsb,
    xml_spreadsheet,
)

KINDS = {
    "a.csv": "csv",
    "b.csv": "csv",
    "c.tsv": "csv",
    "d.csv": "csv",
    "e.json": "json",
    "f.json": "json",
    "g.ndjson": "ndjson",
    "h.xlsx": "xlsx",
    "i.zip": "zip",
    "j.csv.gz": "csv",
    "k.ods": "ods",
    "l.xlsb": "xlsb",
    "m.xls": "xls",
    "n.xls": "html",
    "o.xls": "xml",
}
CELLS = [list(map(str, row)) for row in ROWS[1:]]
FIELDS = [[str(entry["name"]), json.dumps(entry["ips"])] for entry in OBJECTS]


def taken(path: Path, content: bytes) -> ReadTable:
    path.write_bytes(content)
    return read(path)


def cells(table: ReadTable) -> list[list[str | None]]:
    return [list(row.values())[:-1] for row in rows_of(table)]


def refusal(path: Path, content: bytes) -> tuple[ErrorCode, str]:
    path.write_bytes(content)
    with pytest.raises(DiscoveryError) as caught:
        read(path)
    assert caught.value.message.startswith(path.name)
    return caught.value.code, caught.value.message


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("called", ["", "export"])
def test_the_content_decides(tmp_path: Path, name: str, called: str) -> None:
    table = taken(tmp_path / (called or name), SAMPLES[name])
    assert table.format == KINDS[name]
    if table.format in ("json", "ndjson"):
        assert [[row["name"], row["ips"]] for row in rows_of(table)] == FIELDS
    else:
        assert [row[:4] for row in cells(table)[: len(CELLS)]] == CELLS


@pytest.mark.parametrize("name", [name for name in SAMPLES if not name.endswith((".zip", ".gz"))])
def test_each_kind_in_an_archive(tmp_path: Path, name: str) -> None:
    table = taken(tmp_path / "all.zip", zip_of({f"may/{name}": SAMPLES[name]}))
    assert table.rows >= len(CELLS)


@pytest.mark.parametrize("name", ["e.json", "g.ndjson", "h.xlsx", "i.zip", "k.ods", "n.xls"])
def test_each_kind_may_be_packed(tmp_path: Path, name: str) -> None:
    table = taken(tmp_path / f"{name}.gz", gzip.compress(SAMPLES[name], mtime=0))
    assert (table.format, table.rows >= len(CELLS)) == (KINDS[name], True)
    assert not list(tmp_path.rglob("unpacked"))


def test_a_packed_file_that_expands_too_far(tmp_path: Path) -> None:
    code, says = refusal(tmp_path / "a.csv.gz", gzip.compress(bytes(30_000_000), mtime=0))
    assert code == ErrorCode.LIMIT_EXCEEDED
    assert "DISCOVERY_MAX_EXPANSION_RATIO" in says


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (xls(password=True), ErrorCode.ENCRYPTED_FILE, "password"),
        (zip_of({"mimetype": ODS_TYPE.replace(b"spreadsheet", b"text"), "content.xml": b"<x/>"}),
         ErrorCode.UNSUPPORTED_FORMAT, "no spreadsheet"),
        (zip_of({"mimetype": ODS_TYPE, "content.xml": b"<x"}), ErrorCode.UNREADABLE_FILE, "save"),
        (b"BZh91AY&SY\x00\x00", ErrorCode.UNSUPPORTED_FORMAT, "bzip2"),
        (bytes(257) + b"ustar\x0000" + bytes(255), ErrorCode.UNSUPPORTED_FORMAT, "tar archive"),
        (b"MIME-Version: 1.0\r\n", ErrorCode.UNSUPPORTED_FORMAT, "web archive"),
        (b"<?xml version='1.0'?><a/>", ErrorCode.UNSUPPORTED_FORMAT, "XML document"),
        (b"<assets>\n <asset><name>a</name></asset></assets>", ErrorCode.UNSUPPORTED_FORMAT,
         "XML document"),
        (b"<!-- of May --><assets/>", ErrorCode.UNSUPPORTED_FORMAT, "XML document"),
        (xml_spreadsheet()[:-30], ErrorCode.UNREADABLE_FILE, "save it as XLSX"),
        (xml_spreadsheet().replace(b"<Workbook", b'<!DOCTYPE x [<!ENTITY a "b">]><Workbook', 1),
         ErrorCode.UNREADABLE_FILE, "DOCTYPE"),
        (xml_spreadsheet().replace(b"<Row>", b'<Row ss:Index="1048577">', 1),
         ErrorCode.UNREADABLE_FILE, "no sheet reaches"),
        (page().replace(b"<table", b'<input type="password"><table'),
         ErrorCode.UNSUPPORTED_FORMAT, "login page"),
        (page([["a"]]), ErrorCode.UNSUPPORTED_FORMAT, "web page"),
        (page([["a"] * 60] * 200).replace(b"<td>", b"<td rowspan=2 colspan=1000>"),
         ErrorCode.LIMIT_EXCEEDED, "cells"),
    ],
    ids=["xls-password", "odt", "ods-broken", "bz2", "tar", "mht", "xml", "xml-bare", "xml-remark",
         "xml-cut", "doctype",
         "far-row", "login", "no-table", "spans"],
)  # fmt: skip
def test_refusals(tmp_path: Path, content: bytes, code: ErrorCode, says: str) -> None:
    found, message = refusal(tmp_path / "export.xls", content)
    assert found == code, message
    assert says in message


@pytest.mark.parametrize(
    "first", ["PK", "BZhost", "PAR1", "GIF8", "Rar!", "%PDF", "MZ", "{id}", "[Name]", "<Name>"]
)
def test_a_first_header_that_begins_like_another_format(tmp_path: Path, first: str) -> None:
    table = taken(tmp_path / "export", f"{first},Owner\nweb,Ann\ndb,Bob\n".encode())
    assert (table.format, cells(table)) == ("csv", [["web", "Ann"], ["db", "Bob"]])


@pytest.mark.parametrize("codec", ["utf-16", "utf-8-sig", "utf-32"])
@pytest.mark.parametrize("packed", [False, True])
def test_broken_json_in_other_encodings(tmp_path: Path, codec: str, packed: bool) -> None:
    content = '// of May\n[{"name": "a"}]'.encode(codec)
    code, says = refusal(tmp_path / "x", gzip.compress(content, mtime=0) if packed else content)
    assert code == ErrorCode.UNREADABLE_FILE
    assert "line 1, column 1" in says


def test_an_opendocument_sheet_whose_formats_reach_to_its_end(tmp_path: Path) -> None:
    after = (
        '<table:table-row table:number-rows-repeated="1048566"><table:table-cell '
        'table:style-name="x" table:number-columns-repeated="16384"/></table:table-row>'
    )
    assert cells(taken(tmp_path / "a.ods", ods(after=after))) == CELLS


def test_an_opendocument_sheet_that_repeats_a_value_to_its_end(tmp_path: Path) -> None:
    after = (
        '<table:table-row table:number-rows-repeated="1048566"><table:table-cell '
        'office:value-type="float" office:value="1" table:number-columns-repeated="16384"/>'
        "</table:table-row>"
    )
    code, says = refusal(tmp_path / "a.ods", ods(after=after))
    assert code == ErrorCode.LIMIT_EXCEEDED
    assert "save the sheet as CSV" in says


@pytest.mark.parametrize("make", [xls, xlsb])
def test_a_value_far_out_in_a_binary_workbook(tmp_path: Path, make: type) -> None:
    rows = [["Name", "IP"], *([[]] * 60_000), ["a", *[""] * 200, "b"]]
    table = tmp_path / "a"
    table.write_bytes(make(rows))
    with pytest.raises(DiscoveryError, match=r"row 60002, column 202, .* save the sheet as CSV"):
        read(table, limits={"max_workbook_cells": 1_000_000})


@pytest.mark.parametrize(
    "start", ["<!-- of May -->", "\n<div class='x'><p>Servers</p>", "<center>\n<h1>Servers</h1>"]
)
def test_a_page_may_begin_otherwise(tmp_path: Path, start: str) -> None:
    table = "<table><tr><td>a<td>b<tr><td>1<td>2</table>"
    assert cells(taken(tmp_path / "x.xls", f"{start}{table}".encode())) == [["1", "2"]]


def test_pages_as_tools_write_them(tmp_path: Path) -> None:
    """Open tags, references, spans, comments, a table for the layout, numbers behind the shown."""
    content = """<meta charset=utf-8><!-- <table><tr><td>no</td></tr></table> -->
    <TABLE><tr><td>Report of May<td><table id='x'>
    <thead><tr><th>Name <th>Memory&nbsp;MB</th><th class=a>IPs &amp; notes</thead>
    <tr><td rowspan=2>web<b>01</b><td x:num="16384">16.384<td>10.0.0.1<br>10.0.0.2 a < b
    <tr><td>4<td colspan="2">&lt;none&gt;</table></table>"""
    table = taken(tmp_path / "export.xls", content.encode())
    assert cells(table) == [["web01", "16384", "10.0.0.1\n10.0.0.2 a < b"], [None, "4", "<none>"]]
    assert table.columns == ["Name", "Memory MB", "IPs & notes"]
    assert [finding for finding in table.findings if "merged" in finding]


def test_what_an_xml_spreadsheet_says(tmp_path: Path) -> None:
    space = "urn:schemas-microsoft-com:office:spreadsheet"
    sheet = (
        '<ss:Row><ss:Cell><ss:Data ss:Type="String">Name</ss:Data><ss:Comment><ss:Data>x</ss:Data>'
        '</ss:Comment></ss:Cell><ss:Cell ss:Index="3"><ss:Data ss:Type="String">Since</ss:Data>'
        '</ss:Cell><ss:Cell><ss:Data>On</ss:Data></ss:Cell></ss:Row><ss:Row ss:Index="5"><ss:Cell>'
        '<ss:Data ss:Type="String">a &amp; <B>b</B></ss:Data></ss:Cell><ss:Cell ss:Index="3">'
        '<ss:Data ss:Type="DateTime">2024-02-01T00:00:00.000</ss:Data></ss:Cell><ss:Cell>'
        '<ss:Data ss:Type="Boolean">1</ss:Data></ss:Cell></ss:Row>'
    )
    hidden = (
        '<x:WorksheetOptions xmlns:x="urn:schemas-microsoft-com:office:excel"><x:Visible>'
        "SheetHidden</x:Visible></x:WorksheetOptions>"
    )
    content = (
        f'<ss:Workbook xmlns:ss="{space}"><ss:Worksheet ss:Name="S"><ss:Table>{sheet}</ss:Table>'
        f'</ss:Worksheet><ss:Worksheet ss:Name="old"><ss:Table>{sheet}</ss:Table>{hidden}'
        "</ss:Worksheet></ss:Workbook>"
    )
    table = taken(tmp_path / "export.xls", content.encode())
    assert rows_of(table) == [{"Name": "a & b", "Since": "2024-02-01", "On": "TRUE", "__row": 5}]
    assert "Not read: 'old' (hidden)." in table.findings


def test_text_that_is_asked_for_as_another_kind(tmp_path: Path) -> None:
    (tmp_path / "a.ods").write_bytes(ods())
    with pytest.raises(DiscoveryError, match=r"'csv' was asked for, but this is 'ods'"):
        read(tmp_path / "a.ods", "csv")
    (tmp_path / "a.csv").write_bytes(csv_of(","))
    with pytest.raises(DiscoveryError, match="no XLSX workbook"):
        read(tmp_path / "a.csv", "xlsx")
