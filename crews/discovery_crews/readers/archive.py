"""ZIP archives, measured and checked before anything in them is believed.

A few kilobytes can expand to gigabytes, a member's name can point out of the folder, and a list
of members can be longer than memory. Members are therefore counted before the list is read,
never written by their own names, and unpacked against one budget for the whole input.
"""

from __future__ import annotations

import gzip
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from discovery_core.errors import DiscoveryError, ErrorCode

from .model import Expansion, ReadRequest

_CHUNK = 1 << 20
_BYTES_PER_MEMBER = 1024
# End of central directory, its 64-bit locator and record (PKWARE APPNOTE 4.3.14 to 4.3.16).
_END, _END64_LOCATOR, _END64 = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
_LONGEST_END = 22 + 65_535
TABLE_SUFFIXES = (
    ".csv", ".tsv", ".txt", ".tab", ".json", ".ndjson", ".jsonl", ".xlsx", ".xlsm", ".xlsb",
    ".xls", ".ods", ".htm", ".html", ".xml",
)  # fmt: skip
_ARCHIVE_SUFFIXES = (".zip", ".gz", ".bz2", ".xz", ".7z", ".rar", ".tar", ".tgz", ".zst")
_IGNORED = ("thumbs.db", "desktop.ini")


def expansion_of(request: ReadRequest) -> Expansion:
    """The budget that the request brings, or one of its own."""
    return request.expansion or Expansion(request.name, request.size, request.limits)


@contextmanager
def open_archive(request: ReadRequest, what: str) -> Iterator[zipfile.ZipFile]:
    """An archive whose list of members is short enough and which needs no password.

    Raises DiscoveryError `LimitExceeded`, `EncryptedFile` or `UnreadableFile`; the last one also
    for what goes wrong while it is open.
    """
    try:
        _check_directory(request)
        with zipfile.ZipFile(request.path) as archive:
            members = archive.infolist()
            if len(members) > request.limits.max_archive_members:
                raise _too_many(request, len(members))
            if any(info.flag_bits & 1 for info in members):
                raise DiscoveryError(
                    ErrorCode.ENCRYPTED_FILE,
                    f"{request.name}: the archive is protected by a password. Save it without one.",
                )
            yield archive
    except (
        zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, struct.error,
    ) as error:  # fmt: skip
        raise DiscoveryError(
            ErrorCode.UNREADABLE_FILE,
            f"{request.name}: the {what} is damaged or cut off ({error}). Copy or export it again.",
        ) from error


def _too_many(request: ReadRequest, count: int) -> DiscoveryError:
    return DiscoveryError(
        ErrorCode.LIMIT_EXCEEDED,
        f"{request.name}: {count} files in the archive; the limit is "
        f"{request.limits.max_archive_members}. Pack only the tables, or raise "
        "DISCOVERY_MAX_ARCHIVE_MEMBERS.",
    )


def _check_directory(request: ReadRequest) -> None:
    """Refuse a list of members that is too long to be loaded."""
    with request.path.open("rb") as stream:
        stream.seek(max(0, request.size - _LONGEST_END - 20))
        tail = stream.read()
        at = tail.rfind(_END)
        if at < 0 or len(tail) - at < 22:
            raise zipfile.BadZipFile("no list of its members")
        count, size = struct.unpack_from("<HL", tail, at + 10)
        if (count == 0xFFFF or size == 0xFFFFFFFF) and tail[at - 20 : at - 16] == _END64_LOCATOR:
            (offset,) = struct.unpack_from("<Q", tail, at - 12)
            stream.seek(offset)
            record = stream.read(56)
            if record[:4] == _END64:
                count, size = struct.unpack_from("<QQ", record, 32)
    limit = request.limits.max_archive_members
    if count > limit or size > limit * _BYTES_PER_MEMBER + _LONGEST_END:
        raise _too_many(request, count)


def unpack(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, expansion: Expansion
) -> Iterator[bytes]:
    """A member's content, piece by piece, against the budget."""
    with archive.open(info) as member:
        while chunk := member.read(_CHUNK):
            expansion.add(len(chunk))
            yield chunk


def unpacked(request: ReadRequest) -> ReadRequest:
    """The request for what a gzip file holds, unpacked into the work folder within the limits.

    Raises DiscoveryError `LimitExceeded`, `UnreadableFile` or, for nothing in it, `EmptyFile`.
    """
    expansion = expansion_of(request)
    path = request.workdir / "unpacked"
    try:
        with gzip.open(request.path) as packed, path.open("wb") as output:
            while chunk := packed.read(_CHUNK):
                expansion.add(len(chunk))
                output.write(chunk)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DiscoveryError(
            ErrorCode.UNREADABLE_FILE,
            f"{request.name}: the archive is damaged or cut off ({error}). Copy or export it "
            "again.",
        ) from error
    if not path.stat().st_size:
        raise DiscoveryError(
            ErrorCode.EMPTY_FILE, f"{request.name}: the archive holds nothing. Export it again."
        )
    return replace(request, path=path, expansion=expansion)


@dataclass(frozen=True)
class Member:
    """A member that may hold a table: its name in the archive, and where it lies now."""

    name: str
    path: Path


def extract_tables(
    archive: zipfile.ZipFile, request: ReadRequest, folder: Path, expansion: Expansion
) -> tuple[list[Member], list[str]]:
    """Unpack the members that look like tables by their suffix; also the names of the others."""
    members: list[Member] = []
    others: list[str] = []
    for number, info in enumerate(archive.infolist(), start=1):
        name = _safe_name(info, request)
        parts = name.split("/")
        if not parts[-1] or "__MACOSX" in parts or parts[-1].startswith("."):
            continue
        if parts[-1].lower() in _IGNORED:
            continue
        if name.lower().endswith(_ARCHIVE_SUFFIXES):
            raise DiscoveryError(
                ErrorCode.UNSUPPORTED_FORMAT,
                f"{request.name}: {name!r} is an archive in the archive. Unpack it and pack the "
                "tables themselves.",
            )
        if not name.lower().endswith(TABLE_SUFFIXES) and "." in parts[-1]:
            others.append(name)
            continue
        path = folder / f"member-{number}"
        with path.open("wb") as stream:
            for chunk in unpack(archive, info, expansion):
                stream.write(chunk)
        members.append(Member(name, path))
    return members, others


def _safe_name(info: zipfile.ZipInfo, request: ReadRequest) -> str:
    """The member's name with slashes. Refuses links and names that lead out of the archive."""
    name = info.filename.replace("\\", "/")
    if stat.S_ISLNK(info.external_attr >> 16):
        what = "is a link, not a file"
    elif name.startswith("/") or ".." in name.split("/") or name[1:2] == ":":
        what = "points out of the archive"
    else:
        return name
    raise DiscoveryError(
        ErrorCode.UNSUPPORTED_FORMAT,
        f"{request.name}: member {name[:200]!r} {what}. Pack the tables again.",
    )
