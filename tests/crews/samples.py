"""A small sound file of each kind that is read, made on the spot."""

from __future__ import annotations

import gzip
import json
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from tests.crews.files import workbook, zip_of

Rows = Sequence[Sequence[object]]
ROWS: Rows = [
    ("Name", "IP", "Memory GB", "OS"),
    *((f"web{n}", f"10.0.0.{n}", n, "x") for n in range(9)),
]
OBJECTS = [{"name": f"web{n}", "ram": {"gb": n + 0.5}, "ips": ["10.0.0.1"]} for n in range(9)]
_OFFICE = "urn:oasis:names:tc:opendocument:xmlns"
ODS_TYPE = b"application/vnd.oasis.opendocument.spreadsheet"


def csv_of(delimiter: str) -> bytes:
    """The rows as delimited text."""
    return "\r\n".join(delimiter.join(map(str, row)) for row in ROWS).encode()


def xlsx() -> bytes:
    """A workbook with two sheets."""
    with tempfile.TemporaryDirectory() as folder:
        return workbook(Path(folder) / "a.xlsx", {"S": ROWS, "T": ROWS[:3]}).read_bytes()


def ods(rows: Rows = ROWS, *, after: str = "") -> bytes:
    """An OpenDocument spreadsheet; `after` is markup below the rows."""
    lines = "".join(
        "<table:table-row>" + "".join(map(_ods_cell, row)) + "</table:table-row>" for row in rows
    )
    content = (
        f'<office:document-content xmlns:office="{_OFFICE}:office:1.0" '
        f'xmlns:table="{_OFFICE}:table:1.0" xmlns:text="{_OFFICE}:text:1.0"><office:body>'
        f'<office:spreadsheet><table:table table:name="S">{lines}{after}</table:table>'
        "</office:spreadsheet></office:body></office:document-content>"
    )
    manifest = (
        f'<manifest:manifest xmlns:manifest="{_OFFICE}:manifest:1.0"><manifest:file-entry '
        f'manifest:full-path="/" manifest:media-type="{ODS_TYPE.decode()}"/></manifest:manifest>'
    )
    return zip_of(
        {
            "mimetype": ODS_TYPE,
            "META-INF/manifest.xml": manifest.encode(),
            "content.xml": content.encode(),
        }
    )


def _ods_cell(value: object) -> str:
    if isinstance(value, int):
        return f'<table:table-cell office:value-type="float" office:value="{value}"/>'
    text = f"<text:p>{escape(str(value))}</text:p>"
    return f'<table:table-cell office:value-type="string">{text}</table:table-cell>'


def xls(rows: Rows = ROWS, *, password: bool = False) -> bytes:
    """A workbook of Excel 97 ([MS-XLS]) in its container ([MS-CFB]), with the least it needs."""
    begin = struct.pack("<HHIIHH", 0x0600, 0x0005, 0, 0, 0, 0)[:16]
    sheet = _biff(0x0809, struct.pack("<HHHHII", 0x0600, 0x0010, 0, 0, 0, 0))
    for at, row in enumerate(rows):
        for column, value in enumerate(row):
            place = struct.pack("<HHH", at, column, 0)
            if isinstance(value, int):
                sheet += _biff(0x0203, place + struct.pack("<d", value))
            else:
                text = str(value).encode("utf-16-le")
                sheet += _biff(0x0204, place + struct.pack("<HB", len(text) // 2, 1) + text)
    sheet += _biff(0x000A, b"")
    secret = _biff(0x002F, struct.pack("<H", 1) + bytes(52)) if password else b""
    start = _biff(0x0809, begin) + secret
    name = struct.pack("<BB", 1, 0) + b"S"
    offset = len(start) + 4 + 6 + len(name) + 4
    start += _biff(0x0085, struct.pack("<IBB", offset, 0, 0) + name) + _biff(0x000A, b"")
    return _container("Workbook", start + sheet)


def _biff(kind: int, data: bytes) -> bytes:
    return struct.pack("<HH", kind, len(data)) + data


def _container(name: str, stream: bytes) -> bytes:
    """One stream in sectors of 512 bytes: the table of sectors, the folder, then the stream."""
    stream = stream.ljust(max(4096, -(-len(stream) // 512) * 512), b"\0")
    count = len(stream) // 512
    end = 0xFFFFFFFE
    chain = [0xFFFFFFFD, end, *range(3, 2 + count), end]
    table = struct.pack(f"<{len(chain)}I", *chain).ljust(512, b"\xff")
    assert len(table) == 512
    folder = _entry("Root Entry", 5, 1, end, 0) + _entry(name, 2, 0xFFFFFFFF, 2, len(stream))
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16)
    head += struct.pack("<HHHHH6x", 0x3E, 3, 0xFFFE, 9, 6)
    head += struct.pack("<IIIIIIIIII", 0, 1, 1, 0, 4096, end, 0, end, 0, 0)
    return head.ljust(512, b"\xff") + table + folder.ljust(512, b"\0") + stream


def _entry(name: str, kind: int, child: int, start: int, size: int) -> bytes:
    text = name.encode("utf-16-le")
    none = 0xFFFFFFFF
    entry = text.ljust(64, b"\0") + struct.pack(
        "<HBBIII", len(text) + 2, kind, 1, none, none, child
    )
    return entry.ljust(116, b"\0") + struct.pack("<IQ", start, size)


def xlsb(rows: Rows = ROWS) -> bytes:
    """A binary workbook ([MS-XLSB]), with the least it needs."""
    sheet = _brt(129) + _brt(148, struct.pack("<IIII", 0, len(rows) - 1, 0, 9)) + _brt(145)
    for at, row in enumerate(rows):
        sheet += _brt(0, struct.pack("<I", at) + bytes(13))
        for column, value in enumerate(row):
            place = struct.pack("<II", column, 0)
            if isinstance(value, int):
                sheet += _brt(5, place + struct.pack("<d", value))
            else:
                sheet += _brt(6, place + _wide(str(value)))
    sheet += _brt(146) + _brt(130)
    listed = _brt(156, struct.pack("<II", 0, 1) + _wide("r1") + _wide("S"))
    book = _brt(131) + _brt(143) + listed + _brt(144) + _brt(132)
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    links = (
        f'<Relationships xmlns="{package}"><Relationship Id="r1" Type="{office}/worksheet" '
        'Target="worksheets/sheet1.bin"/></Relationships>'
    )
    return zip_of(
        {
            "[Content_Types].xml": b"<Types/>",
            "xl/_rels/workbook.bin.rels": links.encode(),
            "xl/workbook.bin": book,
            "xl/worksheets/sheet1.bin": sheet,
        }
    )


def _brt(kind: int, data: bytes = b"") -> bytes:
    number = bytes([kind]) if kind < 128 else bytes([kind & 127 | 128, kind >> 7])
    size = len(data)
    return number + bytes([size & 127 | 128, size >> 7]) + data


def _wide(text: str) -> bytes:
    return struct.pack("<I", len(text)) + text.encode("utf-16-le")


def page(rows: Rows = ROWS) -> bytes:
    """A page with a table, as tools call it .xls."""
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>\n"
        for row in rows
    )
    head = '<head><meta charset="utf-8"><style>td { color: red }</style></head>'
    return f"<html>{head}<body><table border=1>{lines}</table></body></html>".encode()


def xml_spreadsheet(rows: Rows = ROWS) -> bytes:
    """An XML Spreadsheet 2003."""
    lines = "".join(
        "<Row>"
        + "".join(
            f'<Cell><Data ss:Type="{"Number" if isinstance(cell, int) else "String"}">'
            f"{escape(str(cell))}</Data></Cell>"
            for cell in row
        )
        + "</Row>"
        for row in rows
    )
    space = "urn:schemas-microsoft-com:office:spreadsheet"
    return (
        '<?xml version="1.0"?>\n<?mso-application progid="Excel.Sheet"?>\n'
        f'<Workbook xmlns="{space}" xmlns:ss="{space}"><Worksheet ss:Name="S"><Table>{lines}'
        "</Table></Worksheet></Workbook>"
    ).encode()


# by the name under which such a file comes
SAMPLES = {
    "a.csv": csv_of(","),
    "b.csv": csv_of(";"),
    "c.tsv": csv_of("\t"),
    "d.csv": csv_of(",").decode().encode("utf-16"),
    "e.json": json.dumps(OBJECTS).encode(),
    "f.json": json.dumps({"assets": OBJECTS}, indent=1).encode(),
    "g.ndjson": "\n".join(map(json.dumps, OBJECTS)).encode(),
    "h.xlsx": xlsx(),
    "i.zip": zip_of({"a.csv": csv_of(","), "b.json": json.dumps(OBJECTS).encode()}),
    "j.csv.gz": gzip.compress(csv_of(","), mtime=0),
    "k.ods": ods(),
    "l.xlsb": xlsb(),
    "m.xls": xls(),
    "n.xls": page(),
    "o.xls": xml_spreadsheet(),
}
