"""Where every reader delivers: checked rows go to Parquet, refused rows to a CSV for people.

Readers differ in how they find rows; what happens to a row (limits, names of columns, numbering,
the file of rejected rows) has to be the same for all of them, so it lives here.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from discovery_core.errors import DiscoveryError, ErrorCode

from discovery_crews.settings import ReaderLimits
from discovery_crews.tables.engine import (
    RESERVED_PREFIX,
    ROW,
    connect,
    count_rows,
    identifier,
    literal,
)

from .credentials import WITHHELD, KeyFilter, mask_keys
from .model import Rejection

REJECTED_HEADER = ("row", "column", "value", "problem", "remedy", "raw_line")
# Folder in the work folder for the tables of an input, until they are one.
PARTS = "parts"
_NUMBER = re.compile(r"^[-+]?[\d.,]+\s*%?$")
_FORMULA = re.compile(r"^'*[=+\-@\t\r]")
# half of a character, as undecodable bytes stand in a text
_HALF = re.compile("[\ud800-\udfff]")
_MAX_RECORD_BYTES = 32 * 1024 * 1024


def spreadsheet_safe(text: str) -> str:
    """`text` so that a spreadsheet shows it instead of running it as a formula.

    `spreadsheet_text` undoes it. Guidance: OWASP, "CSV Injection".
    """
    return "'" + text if _FORMULA.match(text) and not _NUMBER.match(text) else text


def spreadsheet_text(text: str) -> str:
    """What `spreadsheet_safe` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


class RejectedFile:
    """Writes refused rows as they are met.

    Where an input has several tables, a last column `source_file` says which one a row is from.
    """

    def __init__(
        self, path: Path, *, with_source: bool = False, keep_credentials: bool = False
    ) -> None:
        self.path = path
        self._keys = None if keep_credentials else KeyFilter()
        self._with_source = with_source
        self.count = 0
        self.by_problem: Counter[str] = Counter()
        self.first: Rejection | None = None
        self._stream: TextIO = path.open(
            "w", encoding="utf-8", errors="backslashreplace", newline=""
        )
        self._writer = csv.writer(self._stream, lineterminator="\r\n")
        self._writer.writerow([*REJECTED_HEADER, *(["source_file"] if with_source else [])])

    def add(self, rejection: Rejection, source: str = "") -> None:
        """Record one refused row; `source` is its table where there are several."""
        if self._keys is not None:
            value, raw = mask_keys(rejection.value), self._keys.clean(rejection.raw)
            rejection = replace(rejection, value="" if raw == WITHHELD else value, raw=raw)
        self.first = self.first or rejection
        self.count += 1
        self.by_problem[rejection.problem] += 1
        cells = (
            rejection.column,
            rejection.value[:1000],
            rejection.problem,
            rejection.remedy,
            rejection.raw[:100_000].rstrip("\r\n"),
        )
        where = [spreadsheet_safe(source)] if self._with_source else []
        self._writer.writerow([rejection.row, *map(spreadsheet_safe, cells), *where])

    def copy(self, path: Path, source: str) -> None:
        """Take over all rows of another such file."""
        with path.open(encoding="utf-8", newline="") as stream:
            rows = csv.reader(stream)
            next(rows)
            for number, *cells in rows:
                column, value, problem, remedy, raw = map(spreadsheet_text, cells)
                self.add(Rejection(int(number), column, value, problem, remedy, raw), source)

    def close(self) -> None:
        """Finish the file."""
        self._stream.close()


def name_columns(header: Sequence[str], findings: list[str]) -> list[str]:
    """Usable, unique column names: a blank one becomes `column_3`, a repeated one `Name_2`.

    Names are compared without case, as SQL does; each change adds a finding.
    """
    names: list[str] = []
    taken = {" ".join(text.split()).lower() for text in header}
    used: set[str] = set()
    for position, text in enumerate(header, start=1):
        given = " ".join(text.replace("\x00", "").split())
        if _HALF.search(given):
            given = _HALF.sub("\ufffd", given)
            findings.append(
                f"The header of column {position}, {given!r}, has bytes that are no text."
            )
        name = given
        if not name:
            name = _free(f"column_{position}", taken | used)
            findings.append(f"Column {position} has no header; it is called {name!r}.")
        elif name.startswith(RESERVED_PREFIX):
            name = _free(name.lstrip("_") or f"column_{position}", taken | used)
            findings.append(f"Column {given!r}: names with '__' are reserved; called {name!r}.")
        elif name.lower() in used:
            name = _next_free(given, taken | used)
            findings.append(
                f"Header {given!r} is there more than once; column {position} is called {name!r}."
            )
        used.add(name.lower())
        names.append(name)
    return names


def _free(name: str, taken: set[str]) -> str:
    return name if name.lower() not in taken else _next_free(name, taken)


def _next_free(name: str, taken: set[str]) -> str:
    number = 2
    while f"{name}_{number}".lower() in taken:
        number += 1
    return f"{name}_{number}"


def check_columns(name: str, count: int, limits: ReaderLimits) -> None:
    """Refuse a table that is too wide."""
    if count > limits.max_columns:
        raise DiscoveryError(
            ErrorCode.LIMIT_EXCEEDED,
            f"{name}: the header has {count} columns, the limit is {limits.max_columns}. "
            "Remove columns that are not needed, or raise DISCOVERY_MAX_COLUMNS.",
        )


class CellSpool:
    """Rows of equal width on their way to Parquet.

    They are spooled as one strictly quoted CSV which the engine then loads in parallel; the
    engine never sees the user's own CSV dialect, so it can misread none.
    """

    def __init__(self, workdir: Path, columns: Sequence[str]) -> None:
        self.columns = list(columns)
        self.rows = 0
        self._workdir = workdir
        self._path = workdir / "spool.csv"
        self._stream = self._path.open("w", encoding="utf-8", newline="", buffering=1 << 20)
        self._writer = csv.writer(self._stream, lineterminator="\r\n")

    def add(self, batch: Iterable[list[str]], count: int) -> None:
        """Append `count` rows; each ends with its row number as text."""
        self._writer.writerows(batch)
        self.rows += count

    def to_parquet(self, target: Path) -> None:
        """Write everything added as Parquet and drop the spool."""
        self._stream.close()
        schema = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in self.columns)
        scan = (
            f"read_csv({literal(self._path)}, auto_detect = false, header = false, "
            f"columns = {{{schema}, '{ROW}': 'BIGINT'}}, delim = ',', quote = '\"', "
            f"escape = '\"', new_line = '\\r\\n', nullstr = '', allow_quoted_nulls = true, "
            f"max_line_size = {_MAX_RECORD_BYTES})"
        )
        selected = [identifier(name) for name in self.columns]
        _copy(self._workdir, scan, [*selected, ROW], target, self.rows)
        self._path.unlink()


def copy_json_spool(
    workdir: Path, spool: Path, columns: dict[str, str], target: Path, rows: int
) -> None:
    """Write a spool of flat JSON objects (one a line) as Parquet; `columns`: key to name."""
    schema = ", ".join(f"{literal(key)}: 'VARCHAR'" for key in columns)
    scan = (
        f"read_json({literal(spool)}, format = 'newline_delimited', "
        f"columns = {{{schema}, '{ROW}': 'BIGINT'}}, maximum_object_size = {_MAX_RECORD_BYTES})"
    )
    selected = [
        f"nullif({identifier(key)}, '') AS {identifier(name)}" for key, name in columns.items()
    ]
    _copy(workdir, scan, [*selected, ROW], target, rows)
    spool.unlink()


def _copy(workdir: Path, scan: str, expressions: list[str], target: Path, rows: int) -> None:
    selected = ", ".join(expressions)
    with connect(workdir) as connection:
        connection.execute(
            f"COPY (SELECT {selected} FROM {scan}) TO {literal(target)} "  # noqa: S608 - quoted
            "(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 100000)"
        )
        loaded = count_rows(connection, target)
    if loaded != rows:
        raise AssertionError(f"{rows} rows were read, but {loaded} were stored")


def require_rows(name: str, rows: int, rejected: RejectedFile) -> None:
    """Refuse a table without a usable row, saying why each one was refused."""
    if rows:
        return
    if rejected.first is None:
        raise DiscoveryError(
            ErrorCode.NO_ROWS,
            f"{name}: there is a header but no row below it. Export again with data.",
        )
    first = rejected.first
    raise DiscoveryError(
        ErrorCode.NO_ROWS,
        f"{name}: all {rejected.count} rows were rejected. Row {first.row}, column "
        f"{first.column!r}: {first.problem}. {first.remedy}",
    )


def check_rows(name: str, rows: int, limits: ReaderLimits) -> None:
    """Refuse a table that is too long."""
    if rows > limits.max_rows:
        raise DiscoveryError(
            ErrorCode.LIMIT_EXCEEDED,
            f"{name}: more than {limits.max_rows} rows. Split the file, or raise "
            "DISCOVERY_MAX_ROWS and the crew pod's memory.",
        )
