"""The door to the readers: decides by content which one reads a file."""

from __future__ import annotations

import shutil
from dataclasses import replace

from discovery_core.errors import DiscoveryError, ErrorCode

from .archive import TABLE_SUFFIXES, expansion_of, extract_tables, open_archive, unpacked
from .combine import combine
from .connections import NOT_ASSETS, is_connections
from .credentials import remove_credentials
from .delimited import delimited_header, read_delimited
from .documents import read_json, read_ndjson
from .encoding import TextEncoding, detect_encoding
from .json_faults import NAMES as JSON_NAMES
from .json_faults import begins_like_json, is_json
from .kinds import MARKUP, kind_of
from .markup import read_markup
from .model import NO_TABLE, Part, ReadRequest, ReadTable, Unread
from .presets import RVTOOLS, recognise, recognised_finding, table_name
from .table import PARTS
from .workbook import read_workbook

FORMATS = ("auto", "csv", "xlsx", "json", "ndjson", "rvtools", "zip")


def read_source(request: ReadRequest, source_format: str = "auto") -> ReadTable:
    """Read a file into `records.parquet` and `rejected.csv` in the request's work folder.

    Raises DiscoveryError with a code, the place and the remedy for every file that cannot be
    read.
    """
    if source_format not in FORMATS:
        raise DiscoveryError(
            ErrorCode.UNSUPPORTED_FORMAT,
            f"{request.name}: format {source_format!r} is not known; use one of "
            f"{', '.join(FORMATS)}.",
        )
    _check_file(request)
    kind = kind_of(request)
    if kind != "gzip":
        return _read_kind(request, source_format, kind)
    inner = unpacked(request)
    try:
        return _read_kind(inner, source_format, kind_of(inner))
    finally:
        inner.path.unlink()


def _read_kind(request: ReadRequest, source_format: str, kind: str) -> ReadTable:
    if kind == "text":
        table = _read_single(request, source_format)
        if is_connections(table.columns):
            table.findings.insert(0, NOT_ASSETS)
        return table
    if kind == "gzip":
        raise _nested(request.name)
    if source_format not in ("auto", "rvtools", kind):
        raise DiscoveryError(
            ErrorCode.UNSUPPORTED_FORMAT,
            f"{request.name}: format {source_format!r} was asked for, but this is {kind!r}. Set "
            "the format to auto.",
        )
    parts, unread = read_archive(request) if kind == "zip" else _read_sheets(request, kind)
    return _one_table(request, parts, unread, kind, rvtools=source_format == "rvtools")


def _nested(name: str) -> DiscoveryError:
    return DiscoveryError(
        ErrorCode.UNSUPPORTED_FORMAT,
        f"{name}: an archive in the archive. Unpack it and pack the tables themselves.",
    )


def _read_single(request: ReadRequest, source_format: str) -> ReadTable:
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


def _read_sheets(request: ReadRequest, kind: str) -> tuple[list[Part], list[Unread]]:
    """The tables of a workbook or a page, and the sheets that hold none."""
    return read_markup(request, kind) if kind in MARKUP else read_workbook(request, kind)


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
    _check_file(request)
    kind = kind_of(request)
    if kind == "text":
        return [Part(member, _read_single(request, "auto"))], []
    if kind in ("zip", "gzip"):
        raise _nested(request.name)
    parts, unread = _read_sheets(request, kind)
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
    named = request.name.lower().removesuffix(".gz").endswith(JSON_NAMES)
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


def _check_file(request: ReadRequest) -> None:
    name, limit = request.name, request.limits.max_file_bytes
    try:
        size = request.size
        with request.path.open("rb") as stream:
            stream.read(1)
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


def _empty(name: str) -> DiscoveryError:
    return DiscoveryError(
        ErrorCode.EMPTY_FILE, f"{name}: the file is empty. Export it again and check its size."
    )
