"""Files that cannot be read: a code, the file's name and a remedy, never a traceback."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import openpyxl
import pytest
from discovery_core.errors import DiscoveryError, ErrorCode

from tests.crews.files import read, rows_of, workbook, zip_of

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504)
BOMB = zip_of({"xl/workbook.xml": b"", "xl/worksheets/sheet1.xml": bytes(30_000_000)})


def refused(
    path: Path, source_format: str = "auto", *, limits: dict[str, int] | None = None
) -> DiscoveryError:
    with pytest.raises(DiscoveryError) as caught:
        read(path, source_format, limits=limits)
    assert path.name in caught.value.message
    assert not caught.value.retryable
    return caught.value


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (b"", ErrorCode.EMPTY_FILE, "empty"),
        (b" \r\n\t\n", ErrorCode.EMPTY_FILE, "empty"),
        (b"\xef\xbb\xbf", ErrorCode.EMPTY_FILE, "empty"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", ErrorCode.UNSUPPORTED_FORMAT, "PNG image"),
        (b"%PDF-1.7\n", ErrorCode.UNSUPPORTED_FORMAT, "PDF document"),
        (gzip.compress(b"", mtime=0), ErrorCode.EMPTY_FILE, "holds nothing"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0)[:-9], ErrorCode.UNREADABLE_FILE, "cut off"),
        (
            gzip.compress(gzip.compress(b"a,b", mtime=0), mtime=0),
            ErrorCode.UNSUPPORTED_FORMAT,
            "in the",
        ),
        (b"<!doctype HTML><html>", ErrorCode.UNSUPPORTED_FORMAT, "login page"),
        (OLE + "EncryptedPackage".encode("utf-16-le"), ErrorCode.ENCRYPTED_FILE, "password"),
        (OLE + b"WordDocument", ErrorCode.UNSUPPORTED_FORMAT, "XLSX"),
        (OLE + "Workbook\0".encode("utf-16-le"), ErrorCode.UNREADABLE_FILE, "save it again"),
        (b"a,b\n1,\x00\x01\x02\n", ErrorCode.UNREADABLE_FILE, "NUL"),
        (bytes(range(1, 32)) + bytes(range(128, 256)) * 40, ErrorCode.UNKNOWN_ENCODING, "UTF-8"),
        ("name,id\nabc,é".encode("utf-16")[:-1], ErrorCode.UNKNOWN_ENCODING, "cut off"),
        (b"name,ip\n", ErrorCode.NO_ROWS, "no row below"),
        (b"name,ip\n\n,\n", ErrorCode.NO_ROWS, "no row below"),
        (b"name,ip\na\nb\n", ErrorCode.NO_ROWS, "Row 2, column 'ip'"),
        (b",\n , \n", ErrorCode.NO_COLUMNS, "must name columns"),
        (zip_of({"readme.txt": b"x"}), ErrorCode.UNSUPPORTED_FORMAT, "unpack"),
        (zip_of({"content.xml": b"x"}), ErrorCode.UNSUPPORTED_FORMAT, "OpenDocument"),
        (b"[", ErrorCode.UNREADABLE_FILE, "line 1"),
        (b'[{"a": 1},\n{"a":', ErrorCode.UNREADABLE_FILE, "too early"),
        (b"[]", ErrorCode.NO_ROWS, "empty"),
        (b'{"a": {"b": 1}}', ErrorCode.NO_ROWS, "no array"),
        (b"[1, 2]", ErrorCode.NO_ROWS, "not an object"),
        (b"[{}]", ErrorCode.NO_COLUMNS, "no fields"),
    ],
)
def test_content(tmp_path: Path, content: bytes, code: ErrorCode, says: str) -> None:
    path = tmp_path / "servers.csv"
    path.write_bytes(content)
    error = refused(path)
    assert (error.code, says in error.message) == (code, True), error.message


def test_missing_and_folder(tmp_path: Path) -> None:
    assert refused(tmp_path / "nothing.csv").code == ErrorCode.UNREADABLE_FILE
    (tmp_path / "folder.csv").mkdir()
    assert refused(tmp_path / "folder.csv").code == ErrorCode.UNREADABLE_FILE


def test_format_that_was_asked_for_does_not_fit(tmp_path: Path) -> None:
    text = tmp_path / "servers.xlsx"
    text.write_text("a,b\n1,2\n")
    assert refused(text, "xlsx").code == ErrorCode.UNREADABLE_FILE
    book = workbook(tmp_path / "book.csv", {"S": [("a", "b"), (1, 2)]})
    assert refused(book, "csv").code == ErrorCode.UNSUPPORTED_FORMAT
    assert "vInfo" in refused(book, "rvtools").message
    assert refused(text, "excel").code == ErrorCode.UNSUPPORTED_FORMAT
    assert read(text).rows == 1


def test_truncated_workbook(tmp_path: Path) -> None:
    whole = workbook(tmp_path / "whole.xlsx", {"S": [("a", "b"), (1, 2)]}).read_bytes()
    path = tmp_path / "cut.xlsx"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    assert refused(path).code == ErrorCode.UNREADABLE_FILE


def test_damaged_member_of_a_workbook(tmp_path: Path) -> None:
    content = bytearray(
        zip_of({"xl/workbook.xml": b"<x/>", "xl/worksheets/sheet1.xml": bytes(50_000)})
    )
    content[120:130] = b"garbage!!!"
    path = tmp_path / "damaged.xlsx"
    path.write_bytes(content)
    assert refused(path).code == ErrorCode.UNREADABLE_FILE


def test_workbook_bomb_is_stopped_by_ratio_and_by_size(tmp_path: Path) -> None:
    path = tmp_path / "bomb.xlsx"
    path.write_bytes(BOMB)
    assert path.stat().st_size < 100_000
    by_ratio = refused(path)
    assert (by_ratio.code, "times its size" in by_ratio.message) == (ErrorCode.LIMIT_EXCEEDED, True)
    by_size = refused(path, limits={"max_expansion_ratio": 10**6, "max_expanded_bytes": 5_000_000})
    assert by_size.code == ErrorCode.LIMIT_EXCEEDED


def test_a_lying_archive_header_does_not_hide_a_bomb(tmp_path: Path) -> None:
    real = (30_000_000).to_bytes(4, "little")
    path = tmp_path / "liar.xlsx"
    path.write_bytes(BOMB.replace(real, (100).to_bytes(4, "little")))
    assert path.read_bytes() != BOMB
    assert refused(path).code in (ErrorCode.LIMIT_EXCEEDED, ErrorCode.UNREADABLE_FILE)


def test_one_cell_in_the_far_corner_is_no_table(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet["A1"], sheet["XFD1048576"] = "name", "far"
    book.save(tmp_path / "corner.xlsx")
    error = refused(tmp_path / "corner.xlsx")
    assert (error.code, "row 1048576" in error.message) == (ErrorCode.LIMIT_EXCEEDED, True)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"max_file_bytes": 5}, "MAX_FILE_BYTES"),
        ({"max_rows": 1}, "MAX_ROWS"),
        ({"max_columns": 1}, "MAX_COLUMNS"),
    ],
)
def test_limits(tmp_path: Path, limits: dict[str, int], says: str) -> None:
    path = tmp_path / "servers.csv"
    path.write_text("a,b\n1,2\n3,4\n")
    error = refused(path, limits=limits)
    assert error.code == ErrorCode.LIMIT_EXCEEDED
    assert f"DISCOVERY_{says}" in error.message
    assert len(rows_of(read(path))) == 2


def test_json_document_limit_names_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "assets.json"
    path.write_text('[{"a": 1}]')
    assert "NDJSON" in refused(path, limits={"max_document_bytes": 5}).message


def test_nothing_is_left_of_zlib(tmp_path: Path) -> None:
    path = tmp_path / "raw.csv"
    path.write_bytes(zlib.compress(b"a,b\n1,2\n" * 1000))
    assert refused(path).code in (ErrorCode.UNKNOWN_ENCODING, ErrorCode.UNREADABLE_FILE)
