"""No workbook may cost memory out of proportion: each is read in a process with little of it.

A parser that asks for too much ends its process, which no test could catch in its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from discovery_core.errors import DiscoveryError, ErrorCode

from tests.crews.files import read, rows_of, zip_of

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
HEADER = (
    '<row r="1"><c r="A1" t="inlineStr"><is><t>Server</t></is></c>'
    '<c r="B1" t="inlineStr"><is><t>OS</t></is></c></row>'
    '<row r="2"><c r="A2" t="inlineStr"><is><t>web01</t></is></c>'
    '<c r="B2" t="inlineStr"><is><t>Debian 12</t></is></c></row>'
)
SPACE = 3 << 30

READ = """
import sys
from pathlib import Path
from discovery_core.errors import DiscoveryError
from discovery_crews.readers import ReadRequest, read_source
from discovery_crews.settings import reader_limits

for source in map(Path, sys.argv[1:]):
    workdir = source.parent / f"{source.name}.work"
    workdir.mkdir()
    try:
        table = read_source(ReadRequest(source, workdir, source.name, reader_limits()))
    except DiscoveryError as error:
        print(source.name, error.code, flush=True)
    else:
        print(source.name, table.rows, flush=True)
"""


def relationships(*targets: tuple[str, str]) -> bytes:
    listed = "".join(
        f'<Relationship Id="r{number}" Type="{OFFICE}/{kind}" Target="{target}"/>'
        for number, (kind, target) in enumerate(targets, start=1)
    )
    return f'<Relationships xmlns="{PACKAGE}">{listed}</Relationships>'.encode()


def book(
    data: str = HEADER,
    *,
    sheet: str = "",
    place: str = "worksheets/sheet1.xml",
    shared: str = "",
    sheets: str = '<sheet name="S" sheetId="1" r:id="r1"/>',
    head: str = "",
    tail: str = "",
) -> bytes:
    """A workbook written by hand: `data` in its sheet, or `sheet` as the whole part."""
    whole = sheet or (
        f'<worksheet xmlns="{MAIN}">{head}<sheetData>{data}</sheetData>{tail}</worksheet>'
    )
    member = place.removeprefix("/") if place.startswith("/") else f"xl/{place}"
    parts = {
        "_rels/.rels": relationships(("officeDocument", "xl/workbook.xml")),
        "xl/workbook.xml": (
            f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><sheets>{sheets}</sheets></workbook>'
        ).encode(),
        "xl/_rels/workbook.xml.rels": relationships(
            ("worksheet", place), ("sharedStrings", "sharedStrings.xml")
        ),
        member: whole.encode(),
    }
    if shared:
        parts["xl/sharedStrings.xml"] = shared.encode()
    return zip_of(parts)


def row(cells: str) -> str:
    return HEADER + f"<row>{cells}</row>"


VALUE = "<v>1</v></c>"
FAR = {
    "plain": book(row(f'<c r="XFD1048576">{VALUE}')),
    "later": book(row(f'<c s="0" t="n" r="XFD1048576">{VALUE}')),
    "spaces": book(row(f'<c   \n r = "XFD1048576" >{VALUE}')),
    "quotes": book(row(f"<c r='XFD1048576'>{VALUE}")),
    "lower": book(row(f'<c r="xfd1048576">{VALUE}')),
    "elsewhere": book(row(f'<c r="XFD1048576">{VALUE}'), place="tables/data.xml"),
    "outside": book(row(f'<c r="XFD1048576">{VALUE}'), place="/other/data.xml"),
    "formula": book(row(f'<c r="XFD1048576"><f>1+1</f>{VALUE}')),
    "dimension": book(row(f'<c r="XFD1048576">{VALUE}'), head='<dimension ref="A1:B2"/>'),
    "by-row": book(HEADER + '<row r="1048576"><c/>' + "<c/>" * 16_000 + f"<c>{VALUE}</row>"),
    "prefix": book(
        sheet=f'<x:worksheet xmlns:x="{MAIN}"><x:sheetData><x:row><x:c r="A1"><x:v>1</x:v></x:c>'
        '<x:c r="XFD1048576"><x:v>1</x:v></x:c></x:row></x:sheetData></x:worksheet>'
    ),
}  # fmt: skip
SENSELESS = {
    "dollar": book(row(f'<c r="$XFD$1048576">{VALUE}')),
    "beyond": book(row(f'<c r="ZZZZZZ99999999">{VALUE}')),
    "wrapped": book(row(f'<c r="A4294967297">{VALUE}')),
    "row-zero": book(HEADER + f'<row r="0"><c>{VALUE}</row>'),
    "row-beyond": book(HEADER + f'<row r="4294967295"><c>{VALUE}</row>'),
    "nothing": book(row(f'<c r="">{VALUE}')),
    "doctype": book(sheet=f'<!DOCTYPE x [<!ENTITY a "b">]><worksheet xmlns="{MAIN}"/>'),
    "cut": book(sheet=f'<worksheet xmlns="{MAIN}"><sheetData>{HEADER}'),
    "other-code": book(
        sheet=f'<?xml version="1.0" encoding="UTF-16"?><worksheet>{chr(0)}</worksheet>'
    ),
    "many-names": book(sheets="".join(f'<sheet name="{n}" r:id="r1"/>' for n in range(9000))),
}
LONG = "x" * 2_000_000
COSTLY = {
    "text": book(
        HEADER + '<row><c t="s"><v>1</v></c></row>' * 20_000,
        shared=f'<sst xmlns="{MAIN}"><si/><si><t>a</t></si><si><t>{LONG}</t></si></sst>',
    ),
    "count": book(shared=f'<sst xmlns="{MAIN}" uniqueCount="90000000000"><si><t>a</t></si></sst>'),
    "cells": book(HEADER + f'<row><c r="A3">{VALUE}</row>' * 5_100_000),
    "merged": book(tail="<mergeCells>" + '<mergeCell ref="A1:B2"/>' * 5_100_000 + "</mergeCells>"),
    "texts": book(shared=f'<sst xmlns="{MAIN}">' + "<si><t/></si>" * 5_100_000 + "</sst>"),
}
TAKEN = {
    "formats-reach-far": book(row('<c r="XFD1048576" s="0"/><c r="B1048576"/>')),
    "dimension-lies": book(head='<dimension ref="A1:XFD1048576"/>'),
    "shared-formula": book(row(f'<c r="A3"><f t="shared" si="4000000000" ref="A3">1</f>{VALUE}')),
    "no-references": book(
        '<row><c t="inlineStr"><is><t>Server</t></is></c><c t="inlineStr"><is><t>OS</t></is></c>'
        '</row><row><c t="inlineStr"><is><t>web01</t></is></c><c t="inlineStr"><is><t>a</t></is>'
        "</c></row>"
    ),
}  # fmt: skip


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE))


def read_all(folder: Path, files: dict[str, bytes]) -> dict[str, str]:
    """What became of each: the code of the refusal, or the number of rows."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", READ, *(str(folder / name) for name in files)],
        env={
            "PYTHONPATH": ":".join(sys.path),
            "DISCOVERY_ENGINE_THREADS": "1",
            "DISCOVERY_MAX_EXPANSION_RATIO": "100000",
        },
        capture_output=True, text=True, check=False, preexec_fn=limited,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return dict(line.split() for line in done.stdout.splitlines())


def test_a_far_cell_is_refused_however_it_is_written(tmp_path: Path) -> None:
    assert read_all(tmp_path, FAR) == dict.fromkeys(FAR, str(ErrorCode.LIMIT_EXCEEDED))


def test_places_that_are_none_are_refused(tmp_path: Path) -> None:
    assert read_all(tmp_path, SENSELESS) == dict.fromkeys(SENSELESS, str(ErrorCode.UNREADABLE_FILE))


@pytest.mark.slow
def test_small_files_that_ask_for_much_are_refused(tmp_path: Path) -> None:
    assert read_all(tmp_path, COSTLY) == dict.fromkeys(COSTLY, str(ErrorCode.LIMIT_EXCEEDED))


def test_what_reaches_far_without_a_value_is_read(tmp_path: Path) -> None:
    rows = dict.fromkeys(TAKEN, "1") | {"shared-formula": "2"}
    assert read_all(tmp_path, TAKEN) == rows


def test_the_refusal_says_where_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    path.write_bytes(SENSELESS["dollar"])
    with pytest.raises(DiscoveryError, match=r"book.xlsx.*sheet1.xml.*'\$XFD\$1048576'.*save it"):
        read(path)
    path.write_bytes(FAR["later"])
    with pytest.raises(DiscoveryError, match=r"book.xlsx.*row 1048576, column 16384.*CSV"):
        read(path)
    assert {entry.name for entry in tmp_path.rglob("measured*")} == set()


def test_only_what_was_measured_reaches_the_parser(tmp_path: Path) -> None:
    """Behind the workbook's suffix no other format is tried, and no name is there twice."""
    for added in ({"content.xml": b"<x/>", "mimetype": b"x"}, {"xl/workbook.bin": b"\x83\x01"}):
        content = tmp_path / "book.ods"
        content.write_bytes(book())
        with zipfile.ZipFile(content, "a") as archive:
            for name, data in added.items():
                archive.writestr(name, data)
        assert [entry["Server"] for entry in rows_of(read(content))] == ["web01"]
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(content, "a") as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b"<x/>")
    with pytest.raises(DiscoveryError, match="two files of this name"):
        read(content)


def test_a_broken_binary_workbook_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "book.xlsb"
    path.write_bytes(zip_of({"xl/workbook.bin": b"\x83\x01", "[Content_Types].xml": b"<x/>"}))
    with pytest.raises(DiscoveryError, match=r"book.xlsb.*cannot be read.*save it again"):
        read(path)


@pytest.mark.parametrize(
    ("part", "old", "new", "says"),
    [
        ("xl/_rels/workbook.xml.rels", 'Id="r1"', 'Id="r9"', "cannot be read"),
        ("xl/_rels/workbook.xml.rels", '"worksheets/sheet1.xml"', '"../../etc/x"', "sheet 'S'"),
        ("xl/_rels/workbook.xml.rels", "<Relationships", "<Other", "cannot be read"),
        ("_rels/.rels", "<Relationships", "<Other", "cannot be read"),
        ("xl/workbook.xml", ' r:id="r1"', "", "cannot be read"),
        ("xl/worksheets/sheet1.xml", "<sheetData>", "<data>", "cannot be read"),
    ],
)  # fmt: skip
def test_broken_relationships_say_what_to_do(
    tmp_path: Path, part: str, old: str, new: str, says: str
) -> None:
    path = tmp_path / "book.xlsx"
    path.write_bytes(book())
    with zipfile.ZipFile(path) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    parts[part] = parts[part].decode().replace(old, new).encode()
    path.write_bytes(zip_of(parts))
    with pytest.raises(DiscoveryError, match=f"{says}.*save it again"):
        read(path)
    path.write_bytes(zip_of({name: data for name, data in parts.items() if name != part}))
    with pytest.raises(DiscoveryError, match=r"book\.xlsx"):
        read(path)


@pytest.mark.parametrize(("old", "new"), [("/", "\\"), ("xl/", "/xl/")])
def test_parts_named_otherwise(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "book.xlsx"
    with zipfile.ZipFile(path, "w") as target:
        path_of = tmp_path / "plain.xlsx"
        path_of.write_bytes(book())
        with zipfile.ZipFile(path_of) as source:
            for name in source.namelist():
                target.writestr(name.replace(old, new), source.read(name))
    assert [entry["OS"] for entry in rows_of(read(path))] == ["Debian 12"]


def test_shared_texts_keep_their_numbers(tmp_path: Path) -> None:
    """Rich, empty and phonetic ones are measured and read."""
    path = tmp_path / "book.xlsx"
    texts = ("<si/><si><t>Server</t></si><si><r><t>we</t></r><r><t>b01</t></r></si>"
             "<si><rPh><t>no</t></rPh></si><si><t>OS</t><rPh><t>no</t></rPh></si>")  # fmt: skip
    cells = "".join(
        f'<row><c t="s"><v>{first}</v></c><c t="s"><v>{second}</v></c></row>'
        for first, second in ((1, 4), (2, 1))
    )
    path.write_bytes(book(cells, shared=f'<sst xmlns="{MAIN}">{texts}</sst>'))
    table = read(path, limits={"max_expanded_bytes": 4000})
    assert json.dumps(rows_of(table)) == '[{"Server": "web01", "OS": "Server", "__row": 2}]'
