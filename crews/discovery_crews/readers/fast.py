"""Regular delimited files, loaded by the engine itself: many times as fast as row by row.

The engine's own CSV parser is lenient in places (it drops blank lines, takes an empty cell too
many, and spaces around quotes), and says little about what it met. So its result counts only
where the file's bytes prove that there was nothing of the kind; anything else goes the careful
way, from the start. Both ways give the same rows with the same numbers.
"""

from __future__ import annotations

import codecs
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import duckdb

from discovery_crews.settings import ReaderLimits
from discovery_crews.tables.engine import ROW, connect, identifier, literal

from .credentials import TRACES
from .dialect import Dialect
from .encoding import TextEncoding
from .layout import TOTAL_PATTERN, BodyRules

_CHUNK = 1 << 20
_OVERLAP = 32
_BUFFER = 32 * 1024 * 1024
_MAX_LINE_BYTES = 2_000_000
# What Python's str.strip() takes off: the careful way asks it what is blank.
_SPACES = "".join(chr(code) for code in range(0x3001) if chr(code).isspace())
_LENIENT = (b' "', b'" ', b'\t"', b'"\t')


@dataclass(frozen=True)
class _Bytes:
    """What the body of a file holds, counted over all of its bytes."""

    lines: int
    delimiters: int
    quotes: int
    keys: bool
    blank: int


@dataclass(frozen=True)
class Head:
    """The physical lines of a file up to and with its header, one per record, and their columns."""

    lines: list[str]
    columns: list[str]
    rules: BodyRules


@dataclass(frozen=True)
class Loaded:
    """What came of it: `rows` in the target file, None where it has to be read with care.

    `blank` counts empty lines after the last row; `keys` is False where the bytes hold no trace
    of private keys.
    """

    rows: int | None = None
    blank: int = 0
    keys: bool = True


def load_regular(
    path: Path,
    target: Path,
    encoding: TextEncoding,
    dialect: Dialect,
    head: Head,
    limits: ReaderLimits,
) -> Loaded:
    """Write the rows of a regular file to `target` (Parquet); see `Loaded` for any other file."""
    simple = encoding.errors == "strict" and not dialect.skip_space
    if not simple or not dialect.delimiter.isascii() or dialect.delimiter in ' "':
        return Loaded()
    if any(line.count("\n") + line.count("\r") > line.endswith("\r\n") + 1 for line in head.lines):
        return Loaded()
    copied = _as_utf8(path, target.with_suffix(".utf8"), encoding)
    source = copied or path
    size = sum(len(line.encode()) for line in head.lines)
    try:
        # numbering rows keeps the engine on one core; the bytes are counted on another meanwhile
        with connect(target.parent) as connection, ThreadPoolExecutor(1) as other:
            scan = other.submit(_scan, source, size, dialect.delimiter)
            rows = _copy(connection, source, target, dialect, head, limits)
            found = scan.result()
            if found is None:
                return Loaded()
            if rows == found.lines and _proven(connection, target, dialect, head, found):
                return Loaded(rows, found.blank, found.keys)
            return Loaded(keys=found.keys)
    finally:
        if copied:
            copied.unlink()


def _as_utf8(path: Path, target: Path, encoding: TextEncoding) -> Path | None:
    """A copy in UTF-8 of a file in another encoding; None where it is UTF-8 already."""
    if codecs.lookup(encoding.codec).name in ("utf-8", "utf-8-sig"):
        return None
    with (
        path.open(encoding=encoding.codec, newline="") as source,
        target.open("w", encoding="utf-8", newline="") as copy,
    ):
        while chunk := source.read(_CHUNK):
            copy.write(chunk)
    return target


def _scan(path: Path, start: int, delimiter: str) -> _Bytes | None:
    """Counts over the bytes behind the header; None where the engine may read them otherwise."""
    cell = delimiter.encode()
    traces = [trace.encode() for trace in TRACES]
    feeds = returns = pairs = quotes = delimiters = 0
    keys = False
    rest = b""
    with path.open("rb") as stream:
        if stream.read(3) == codecs.BOM_UTF8:
            start += 3
        stream.seek(start)
        while chunk := stream.read(_CHUNK):
            feeds += chunk.count(b"\n")
            returns += chunk.count(b"\r")
            delimiters += chunk.count(cell)
            window = rest + chunk
            pairs += window.count(b"\r\n") - rest.count(b"\r\n")
            if b"\x00" in chunk:
                return None
            if b'"' in chunk:
                quotes += chunk.count(b'"')
                if any(pattern in window for pattern in _LENIENT):
                    return None
            keys = keys or any(trace in window for trace in traces)
            rest = window[-_OVERLAP:]
    if returns and not returns == pairs == feeds:
        return None
    # blank lines at the end are common, and the engine drops them where there are more columns
    end = rest.replace(b"\r\n", b"\n")
    blank = max(0, len(end) - len(end.rstrip(b"\n")) - 1) if delimiters else 0
    lines = feeds + (not rest.endswith(b"\n")) - blank
    return _Bytes(lines, delimiters, quotes, keys, blank)


def _copy(
    connection: duckdb.DuckDBPyConnection,
    source: Path,
    target: Path,
    dialect: Dialect,
    head: Head,
    limits: ReaderLimits,
) -> int | None:
    """Load the file; how many rows it gave, or None where the engine refuses it."""
    schema = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in head.columns)
    skip = len(head.lines)
    longest = min(limits.max_cell_characters, _MAX_LINE_BYTES)
    # a file in which no line is longer than a cell may be has no cell that is too long
    scan = (
        f"read_csv({literal(source)}, auto_detect = false, header = false, skip = {skip}, "
        f"compression = 'none', columns = {{{schema}}}, delim = {literal(dialect.delimiter)}, "
        "quote = '\"', escape = '\"', nullstr = '', allow_quoted_nulls = true, strict_mode = true, "
        f"null_padding = false, max_line_size = {longest}, buffer_size = {_BUFFER})"
    )
    query = (
        f"COPY (SELECT *, row_number() OVER () + {skip} AS {ROW} FROM {scan}) "  # noqa: S608 - quoted
        f"TO {literal(target)} "
        "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE 100000)"
    )
    try:
        connection.execute(query)
    except duckdb.InvalidInputException:
        return None
    row = connection.execute(f"SELECT count(*) FROM read_parquet({literal(target)})").fetchone()  # noqa: S608 - quoted
    return int(row[0]) if row else 0


def _proven(
    connection: duckdb.DuckDBPyConnection,
    target: Path,
    dialect: Dialect,
    head: Head,
    found: _Bytes,
) -> bool:
    """Whether every row had as many cells as the header, and none asks for the careful way."""
    expected = found.lines * (len(head.columns) - 1)
    rows = f"read_parquet({literal(target)})"
    if found.quotes:
        delimiter = literal(dialect.delimiter)
        inner = " + ".join(
            f"sum(CASE WHEN contains({name}, {delimiter}) "
            f"THEN length({name}) - length(replace({name}, {delimiter}, '')) ELSE 0 END)"
            for name in map(identifier, head.columns)
        )
        expected += _number(connection, f"SELECT {inner} FROM {rows}")  # noqa: S608 - quoted
    if found.delimiters != expected:
        return False
    return not _number(connection, _irregular(rows, head))


def _irregular(rows: str, head: Head) -> str:
    """SQL: number of rows that may be blank, a sum or the header again."""
    names = [identifier(name) for name in head.columns]
    first, spaces = names[0], literal(_SPACES)
    total = f"regexp_full_match({{}}, {literal(TOTAL_PATTERN)})"
    at, text = head.rules.first
    again = f"trim({names[at]}, {spaces}) = {literal(text)}"
    # a row whose first cell begins with a visible character is not blank
    open_start = f"({first} IS NULL OR unicode({first}) NOT BETWEEN 33 AND 126)"
    blank = " AND ".join(f"coalesce(trim({name}, {spaces}), '') = ''" for name in names)
    totals = " OR ".join(total.format(name) for name in names)
    plain = f"NOT {open_start} AND ({total.format(first)} OR {again})"
    return (
        f"SELECT (SELECT count(*) FROM {rows} WHERE {plain}) + (SELECT count(*) FROM {rows} "  # noqa: S608 - quoted
        f"WHERE {open_start} AND (({blank}) OR {totals} OR {again}))"
    )


def _number(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0] or 0) if row else 0
