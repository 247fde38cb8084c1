"""Archives that lie, explode or reach out are refused, within bounded time and memory."""

from __future__ import annotations

import io
import re
import stat
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from discovery_core.errors import DiscoveryError, ErrorCode

from tests.crews.files import read, rows_of, workbook, zip_of

GOOD = b"Name,IP\nweb,1.1.1.1\n"


def refused(
    path: Path, content: bytes, limits: dict[str, int] | None = None
) -> tuple[ErrorCode, str]:
    path.write_bytes(content)
    with pytest.raises(DiscoveryError) as caught:
        read(path, limits=limits)
    assert caught.value.message.startswith(path.name)
    return caught.value.code, caught.value.message


def link(name: str, target: str) -> bytes:
    """An archive with a symbolic link."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.create_system = 3
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, target)
    return buffer.getvalue()


def encrypted() -> bytes:
    """An archive whose only member is marked as encrypted."""
    content = bytearray(zip_of({"a.csv": GOOD}))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (zip_of({"a.csv": GOOD, "../../evil.csv": GOOD}), ErrorCode.UNSUPPORTED_FORMAT, "points"),
        (zip_of({"/etc/evil.csv": GOOD}), ErrorCode.UNSUPPORTED_FORMAT, "points out"),
        (zip_of({"..\\evil.csv": GOOD}), ErrorCode.UNSUPPORTED_FORMAT, "points out"),
        (zip_of({"C:\\evil.csv": GOOD}), ErrorCode.UNSUPPORTED_FORMAT, "points out"),
        (link("a.csv", "/etc/passwd"), ErrorCode.UNSUPPORTED_FORMAT, "is a link"),
        (encrypted(), ErrorCode.ENCRYPTED_FILE, "password"),
        (zip_of({"a.csv": zip_of({"b.csv": GOOD})}), ErrorCode.UNSUPPORTED_FORMAT, "in the arch"),
        (zip_of({"a.zip": b"whatever"}), ErrorCode.UNSUPPORTED_FORMAT, "'a.zip' is an archive"),
        (zip_of({"a.csv": b"\x89PNG\r\n"}), ErrorCode.UNSUPPORTED_FORMAT, "a.csv: this is a PNG"),
        (zip_of({"a.csv": b"<?xml version='1.0'?><a/>"}), ErrorCode.UNSUPPORTED_FORMAT, "an XML"),
        (zip_of({"a.csv": GOOD, "b.csv": b"a,b\n1,\x00\n"}), ErrorCode.UNREADABLE_FILE, "b.csv"),
        (zip_of({"a.csv": b""}), ErrorCode.EMPTY_FILE, "a.csv: the file is empty"),
        (zip_of({"a.png": b"\x89PNG"}), ErrorCode.UNSUPPORTED_FORMAT, "no file in the archive"),
        (zip_of({}), ErrorCode.UNSUPPORTED_FORMAT, "no file in the archive"),
        (zip_of({"a.csv": GOOD * 99})[:90], ErrorCode.UNREADABLE_FILE, "damaged or cut off"),
    ],
)  # fmt: skip
def test_refused_archives(tmp_path: Path, content: bytes, code: ErrorCode, says: str) -> None:
    found, message = refused(tmp_path / "x.zip", content)
    assert (found, says in message) == (code, True), message
    assert {entry.name for entry in tmp_path.iterdir()} == {"x.zip", "x.zip.work"}


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"max_archive_members": 1}, "DISCOVERY_MAX_ARCHIVE_MEMBERS"),
        ({"max_expanded_bytes": 30}, "DISCOVERY_MAX_EXPANDED_BYTES"),
        ({"max_file_bytes": 30}, "DISCOVERY_MAX_FILE_BYTES"),
        ({"max_rows": 1}, "DISCOVERY_MAX_ROWS"),
        ({"max_columns": 1}, "DISCOVERY_MAX_COLUMNS"),
    ],
)
def test_limits_of_an_archive(tmp_path: Path, limits: dict[str, int], says: str) -> None:
    content = zip_of({"a.csv": GOOD, "b.csv": GOOD})
    code, message = refused(tmp_path / "x.zip", content, limits)
    assert (code, says in message) == (ErrorCode.LIMIT_EXCEEDED, True), message
    assert len(rows_of(read(tmp_path / "x.zip"))) == 2


def test_bombs_of_members_are_stopped_early(tmp_path: Path) -> None:
    content = zip_of({f"{n}.csv": b"a" * 15_000_000 for n in range(3)})
    assert len(content) < 100_000
    started = time.perf_counter()
    code, message = refused(tmp_path / "x.zip", content)
    assert (code, "times its size" in message) == (ErrorCode.LIMIT_EXCEEDED, True)
    assert time.perf_counter() - started < 5
    assert sum(path.stat().st_size for path in tmp_path.rglob("member-*")) < 15_000_000


def test_a_workbook_in_an_archive_counts_against_the_same_budget(tmp_path: Path) -> None:
    book = workbook(tmp_path / "b.xlsx", {"S": [("Name", "IP"), ("web", "x" * 2000)]})
    with zipfile.ZipFile(book) as archive:
        limits = {"max_expanded_bytes": sum(info.file_size for info in archive.infolist())}
    assert read(book, limits=limits).rows == 1
    code, _ = refused(tmp_path / "y.zip", zip_of({"b.xlsx": book.read_bytes()}), limits)
    assert code == ErrorCode.LIMIT_EXCEEDED


def test_a_list_of_members_longer_than_memory_is_never_loaded(tmp_path: Path) -> None:
    """The directory claims a million members; only its end is looked at."""
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 60_000, 60_000, 50_000_000, 4, 0)
    code, message = refused(tmp_path / "x.zip", b"PK\x03\x04" + bytes(100) + end)
    assert (code, "60000 files" in message) == (ErrorCode.LIMIT_EXCEEDED, True)
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 10**6, 10**6, 10**8, 4)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 104, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 4, 0)
    content = b"PK\x03\x04" + bytes(100) + record + locator + end
    code, message = refused(tmp_path / "y.zip", content)
    assert (code, "1000000 files" in message) == (ErrorCode.LIMIT_EXCEEDED, True)


def test_an_archive_written_with_64_bit_sizes(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "x.zip", "w") as archive,
        archive.open("a.csv", "w", force_zip64=True) as member,
    ):
        member.write(GOOD)
    assert read(tmp_path / "x.zip").rows == 1


BOMB = """
import re, sys
from pathlib import Path
from discovery_core.errors import DiscoveryError
from discovery_crews.readers import ReadRequest, read_source
from discovery_crews.settings import reader_limits

source = Path(sys.argv[1])
workdir = source.parent / "work"
workdir.mkdir()
try:
    read_source(ReadRequest(source, workdir, source.name, reader_limits()))
except DiscoveryError as error:
    print(error.code, end=" ")
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(int(peak[1]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [200, 10**9])
def test_a_workbook_that_expands_to_a_gigabyte(tmp_path: Path, ratio: int) -> None:
    path = tmp_path / "bomb.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("xl/workbook.xml", b"<workbook/>")
        with archive.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as member:
            for _ in range(1100):
                member.write(bytes(1 << 20))
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", BOMB, str(path)],
        env={"DISCOVERY_MAX_EXPANSION_RATIO": str(ratio), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    code, mebibytes = done.stdout.split()
    assert code == ErrorCode.LIMIT_EXCEEDED
    assert int(mebibytes) < 300
    assert time.perf_counter() - started < 60


@pytest.mark.parametrize(
    ("content", "rows", "says"),
    [
        (b'[{"a": "1"}, {"a": ' + b"[" * 60 + b"]" * 60 + b"}]", 1, "deeper than 50"),
        (b'{"a": "1"}\n{"a": ' + b'{"b":' * 60 + b"1" + b"}" * 61 + b"\n", 1, "deeper than 50"),
        (b'{"a": "1"}\n' * 2 + b'{"a": ' + b"[" * 90000 + b"\n", 2, "nested too deeply"),
    ],
)
def test_nested_rows_are_rejected(tmp_path: Path, content: bytes, rows: int, says: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    table = read(path)
    assert (table.rows, table.rows_rejected) == (rows, 1)
    assert re.search(says, table.rejected.read_text())


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"a":' * 100_000, b'{"a":' * 200 + b'[{"b": 1}]' + b"}" * 200],
)
def test_documents_nested_too_deeply(tmp_path: Path, content: bytes) -> None:
    code, message = refused(tmp_path / "a.json", content)
    assert (code, "nested too deeply" in message) == (ErrorCode.LIMIT_EXCEEDED, True)


def test_nesting_is_a_setting(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'[{"a": ' + b"[" * 60 + b"1" + b"]" * 60 + b"}]")
    assert read(path, limits={"max_nesting": 100}).rows == 1
