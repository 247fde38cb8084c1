"""The door to the readers: decides by content which one reads a file."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

from discovery_core.errors import DiscoveryError, ErrorCode

from .archive import TABLE_SUFFIXES, expansion_of, extract_tables, open_archive
from .combine import combine
from .connections import NOT_ASSETS, is_connections
from .credentials import remove_credentials
from .delimited import delimited_header, read_delimited
from .documents import read_json, read_ndjson
from .encoding import TextEncoding, detect_encoding
from .json_faults import NAMES as JSON_NAMES
from .json_faults import begins_like_json, is_json
from .model import NO_TABLE, Part, ReadRequest, ReadTable, Unread
from .presets import RVTOOLS, recognise, recognised_finding, table_name
from .table import PARTS
from .workbook import is_workbook, read_workbook

FORMATS = ("auto", "csv", "xlsx", "json", "ndjson", "rvtools", "zip")

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "a PNG image"),
    (b"%PDF", "a PDF document"),
    (b"GIF8", "a GIF image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90", "a program"),
    (b"PAR1", "a Parquet file"),
    (b"SQLite format 3", "a SQLite database"),
    (b"{\\rtf", "an RTF document"),
    (b"<!DOCTYPE html", "a web page; was it a login page that was saved?"),
    (b"<html", "a web page; was it a login page that was saved?"),
    (b"<?xml", "an XML document"),
)
_REMEDY = "Export the inventory as CSV, XLSX or JSON."
ARCHIVE_START = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")


def read_source(request: ReadRequest, source_format: str = "auto") -> ReadTable:
    """Read a file into `records.parquet` and `rejected.csv` in the request's work folder.

    Raises DiscoveryError with a code, the place and the remedy for every file that cannot be
    read.
    """
    name = request.name
    if source_format not in FORMATS:
        raise DiscoveryError(
            ErrorCode.UNSUPPORTED_FORMAT,
            f"{name}: format {source_format!r} is not known; use one of {', '.join(FORMATS)}.",
        )
    head = _head(request)
    if not head.startswith(ARCHIVE_START):
        table = _read_single(request, source_format, head)
        if is_connections(table.columns):
            table.findings.insert(0, NOT_ASSETS)
        return table
    if source_format not in ("auto", "xlsx", "rvtools", "zip"):
        raise DiscoveryError(
            ErrorCode.UNSUPPORTED_FORMAT,
            f"{name}: format {source_format!r} was asked for, but this is an XLSX workbook or "
            "a ZIP archive. Set the format to auto.",
        )
    parts, unread, found = _read_parts(request)
    if source_format in ("xlsx", "zip") and source_format != found:
        raise DiscoveryError(
            ErrorCode.UNSUPPORTED_FORMAT,
            f"{name}: format {source_format!r} was asked for, but this is {found!r}. Set the "
            "format to auto.",
        )
    return _one_table(request, parts, unread, found, rvtools=source_format == "rvtools")


def _read_single(request: ReadRequest, source_format: str, head: bytes) -> ReadTable:
    _refuse_binary(request.path, head, request.name)
    if source_format in ("xlsx", "rvtools", "zip"):
        what = "ZIP archive" if source_format == "zip" else "XLSX workbook"
        raise DiscoveryError(
            ErrorCode.UNREADABLE_FILE,
            f"{request.name}: format {source_format!r} was asked for, but this is no {what}. "
            "Set the format to auto, or export it again.",
        )
    table = _read_text(request, source_format)
    table = remove_credentials(request, table)
    preset = recognise(table.columns, table_name(request.name))
    if preset:
        table.findings.insert(0, recognised_finding(preset))
    return table


def _read_parts(request: ReadRequest) -> tuple[list[Part], list[Unread], str]:
    """The tables of a workbook or an archive, what holds none, and which of both it is."""
    with open_archive(request, "archive or workbook") as archive:
        workbook = is_workbook(set(archive.namelist()), request.name)
    if workbook:
        return *read_workbook(request), "xlsx"
    return *read_archive(request), "zip"


def _one_table(
    request: ReadRequest, parts: list[Part], unread: list[Unread], found: str, *, rvtools: bool
) -> ReadTable:
    main = [
        part
        for part in parts
        for preset in [recognise(part.table.columns, table_name(part.source))]
        if preset and preset.tool == RVTOOLS and preset.role == "main"
    ]
    if rvtools and not main:
        raise DiscoveryError(
            ErrorCode.UNSUPPORTED_FORMAT,
            f"{request.name}: format 'rvtools' was asked for, but there is no table vInfo. "
            "Set the format to auto.",
        )
    table = combine(request, parts, unread, "rvtools" if main else found)
    shutil.rmtree(request.workdir / PARTS)
    return table


def read_archive(request: ReadRequest) -> tuple[list[Part], list[Unread]]:
    """The tables of a ZIP archive, in the order of its members, and what holds none."""
    expansion = expansion_of(request)
    with open_archive(request, "archive") as archive:
        folder = request.workdir / PARTS
        folder.mkdir(exist_ok=True)
        members, others = extract_tables(archive, request, folder, expansion)
    parts: list[Part] = []
    unread = [Unread(name, "not a kind of table") for name in others]
    problem: DiscoveryError | None = None
    for member in members:
        workdir = folder / f"{member.path.name}.work"
        workdir.mkdir(exist_ok=True)
        inner = replace(
            request,
            path=member.path,
            workdir=workdir,
            name=f"{request.name}/{member.name}",
            expansion=expansion,
        )
        try:
            found, left = _read_member(inner, member.name)
        except DiscoveryError as error:
            if error.code not in NO_TABLE:
                raise
            problem = problem or (None if _is_note(member.name) else error)
            unread.append(Unread(member.name, "no table"))
        else:
            if _is_note(member.name) and len(found[0].table.columns) == 1:
                unread.append(Unread(member.name, "text, no table", found[0].table.rows))
                continue
            parts += found
            unread += left
    if not parts:
        raise problem or DiscoveryError(
            ErrorCode.UNSUPPORTED_FORMAT,
            f"{request.name}: no file in the archive is a table ({', '.join(TABLE_SUFFIXES)}). "
            "Pack the exports themselves, or unpack the archive and use the file in it.",
        )
    return parts, unread


def _is_note(member: str) -> bool:
    """Whether a member may just as well be a remark to its reader."""
    return member.lower().endswith(".txt") or "." not in member.rpartition("/")[2]


def _read_member(request: ReadRequest, member: str) -> tuple[list[Part], list[Unread]]:
    head = _head(request)
    if not head.startswith(ARCHIVE_START):
        return [Part(member, _read_single(request, "auto", head))], []
    with open_archive(request, "archive or workbook") as archive:
        workbook = is_workbook(set(archive.namelist()), request.name)
    if not workbook:
        raise DiscoveryError(
            ErrorCode.UNSUPPORTED_FORMAT,
            f"{request.name}: an archive in the archive. Unpack it and pack the tables themselves.",
        )
    parts, unread = read_workbook(request)
    return (
        [replace(part, source=f"{member}/{part.source}") for part in parts],
        [replace(entry, source=f"{member}/{entry.source}") for entry in unread],
    )


def _read_text(request: ReadRequest, source_format: str) -> ReadTable:
    encoding = detect_encoding(request.path, request.name)
    with request.path.open(encoding=encoding.codec, errors=encoding.errors) as stream:
        start = stream.read(64 * 1024)
    if not start.strip("\ufeff \t\r\n\x00"):
        raise _empty(request.name)
    if source_format == "ndjson":
        return read_ndjson(request, encoding)
    named = request.name.lower().endswith(JSON_NAMES)
    if source_format == "json" or (source_format == "auto" and (named or begins_like_json(start))):
        if source_format == "auto" and _is_lines(start):
            return read_ndjson(request, encoding)
        return read_json(request, encoding)
    return read_delimited(request, encoding)


def text_header(request: ReadRequest, encoding: TextEncoding) -> str:
    """What has to stand above rows of this text file: its header's line, or nothing for JSON."""
    with request.path.open(encoding=encoding.codec, errors=encoding.errors) as stream:
        if begins_like_json(stream.read(64 * 1024)):
            return ""
    return delimited_header(request, encoding)


def _is_lines(start: str) -> bool:
    """Whether the first two lines are objects, of which one may be broken."""
    lines = [line.strip() for line in start.splitlines() if line.strip()][:2]
    return (
        len(lines) == 2
        and all(line.startswith("{") for line in lines)
        and any(line.endswith("}") and is_json(line) for line in lines)
    )


def _head(request: ReadRequest) -> bytes:
    name, limit = request.name, request.limits.max_file_bytes
    try:
        size = request.size
        with request.path.open("rb") as stream:
            head = stream.read(4096)
    except OSError as error:
        raise DiscoveryError(
            ErrorCode.UNREADABLE_FILE, f"{name}: cannot be read: {error.strerror}."
        ) from error
    if size == 0:
        raise _empty(name)
    if size > limit:
        raise DiscoveryError(
            ErrorCode.LIMIT_EXCEEDED,
            f"{name}: {size} bytes, the limit is {limit}. Split the file, or raise "
            "DISCOVERY_MAX_FILE_BYTES.",
        )
    return head


def _empty(name: str) -> DiscoveryError:
    return DiscoveryError(
        ErrorCode.EMPTY_FILE, f"{name}: the file is empty. Export it again and check its size."
    )


def _refuse_binary(path: Path, head: bytes, name: str) -> None:
    if head.startswith(_OLE):
        _refuse_ole(path, name)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for signature, what in _SIGNATURES:
        if start[: len(signature)].lower() == signature.lower():
            raise DiscoveryError(
                ErrorCode.UNSUPPORTED_FORMAT, f"{name}: this is {what}, not a table. {_REMEDY}"
            )
    if zipfile.is_zipfile(path):
        raise DiscoveryError(
            ErrorCode.UNSUPPORTED_FORMAT, f"{name}: this is a self-extracting archive. {_REMEDY}"
        )


def _refuse_ole(path: Path, name: str) -> None:
    """OLE containers: encrypted workbooks name their stream so ([MS-OFFCRYPTO] 2.3.4.4)."""
    with path.open("rb") as stream:
        content = stream.read(16 * 1024 * 1024)
    if "EncryptedPackage".encode("utf-16-le") in content:
        raise DiscoveryError(
            ErrorCode.ENCRYPTED_FILE,
            f"{name}: the workbook is protected by a password. Save it without one "
            "(File > Info > Protect Workbook) and try again.",
        )
    raise DiscoveryError(
        ErrorCode.UNSUPPORTED_FORMAT,
        f"{name}: this is an old Office file (XLS, DOC, MSG). Save the workbook as XLSX or CSV.",
    )
