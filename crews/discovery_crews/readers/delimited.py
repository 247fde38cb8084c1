"""CSV, TSV and their relatives, with every awkward row either read right or refused by name.

The standard library's C parser in strict mode decides what a cell is; the engine would be three
times as fast, but cannot say which row of a ragged file is at fault when quotes span lines.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

from discovery_core.errors import DiscoveryError, ErrorCode

from discovery_crews.settings import ReaderLimits

from .encoding import TextEncoding
from .table import (
    CellSpool,
    ReadRequest,
    ReadTable,
    RejectedFile,
    Rejection,
    check_columns,
    check_rows,
    name_columns,
    require_rows,
)

_DELIMITERS = (",", ";", "\t", "|")
_BATCH = 5000
_MAX_LINE = 4_000_000
_SAMPLE_CHARACTERS = 256 * 1024
_SAMPLE_RECORDS = 200
_SURROGATE = re.compile("[\ud800-\udfff]")
_SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n?$", re.IGNORECASE)


@dataclass(frozen=True)
class Dialect:
    """How cells are separated. `lines_before` counts Excel's `sep=;` line."""

    delimiter: str
    skip_space: bool = False
    lines_before: int = 0

    def reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """A strict parser over physical lines."""
        return csv.reader(
            lines, delimiter=self.delimiter, skipinitialspace=self.skip_space, strict=True
        )

    def cells(self, line: str) -> list[str] | None:
        """The cells of one physical line on its own, or None when its quotes do not close."""
        try:
            return next(self.reader(iter([line])), [])
        except csv.Error:
            return None


def detect_dialect(start: str) -> Dialect:
    """The dialect under which most of the first records are as wide as the header."""
    marked = _SEPARATOR_LINE.match(start.partition("\n")[0])
    if marked:
        return Dialect(marked.group(1), lines_before=1)
    best, best_score = Dialect(","), (0.0, 0)
    for delimiter in _DELIMITERS:
        for skip_space in (False, True):
            if skip_space and f'{delimiter} "' not in start:
                continue
            dialect = Dialect(delimiter, skip_space)
            score = _consistency(dialect, start)
            if score > best_score:
                best, best_score = dialect, score
    return best


def _consistency(dialect: Dialect, start: str) -> tuple[float, int]:
    widths: list[int] = []
    try:
        for cells in dialect.reader(io.StringIO(start, newline="")):
            if any(cells):
                widths.append(len(cells))
            if len(widths) >= _SAMPLE_RECORDS:
                break
    except csv.Error:
        if not widths:
            return (0.0, 0)
    if not widths or widths[0] < 2:
        return (0.0, 0)
    return (sum(width == widths[0] for width in widths) / len(widths), widths[0])


class LineSource:
    """Feeds physical lines to the parser and remembers those of the current record."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._again: list[str] = []
        self.record: list[str] = []

    def __iter__(self) -> LineSource:
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else self._stream.readline(_MAX_LINE)
        if not line:
            raise StopIteration
        self.record.append(line)
        return line

    def give_back(self, lines: list[str]) -> None:
        """Read these lines again, in this order, before the rest of the file."""
        self._again.extend(reversed(lines))


class _DelimitedReader:
    """One pass over a file. Rows are numbered as a spreadsheet does: the header is row 1."""

    def __init__(
        self,
        name: str,
        dialect: Dialect,
        lines: LineSource,
        limits: ReaderLimits,
        rejected: RejectedFile,
        *,
        check_bytes: bool,
    ) -> None:
        self.name = name
        self.dialect = dialect
        self.limits = limits
        self.rejected = rejected
        self.lines = lines
        self.check_bytes = check_bytes
        self.number = dialect.lines_before
        self.blank = 0
        self.padded = 0
        self.columns: list[str] = []

    def header(self) -> list[str]:
        """Cells of the first record that is not blank."""
        try:
            for cells in self.dialect.reader(self.lines):
                self.number += 1
                if any(cell.strip() for cell in cells):
                    self.lines.record.clear()
                    return cells
                self.lines.record.clear()
        except csv.Error as error:
            raise DiscoveryError(
                ErrorCode.UNREADABLE_FILE,
                f"{self.name}: row {self.number + 1}, the header, cannot be read: {error}. "
                "Check its quotes.",
            ) from error
        raise DiscoveryError(
            ErrorCode.NO_COLUMNS, f"{self.name}: no header found. The first row must name columns."
        )

    def records(self) -> Iterator[list[str]]:
        """Good rows, each with its number appended; bad ones go to the rejected file."""
        width = len(self.columns)
        longest = self.limits.max_cell_characters
        source = self.lines
        parser = self.dialect.reader(source)
        while True:
            problem = ""
            try:
                cells = next(parser)
            except StopIteration:
                return
            except csv.Error as error:
                problem, cells = str(error), []
            record = source.record
            source.record = []
            self.number += 1
            if not problem and len(cells) == width:
                if len(record) == 1 and len(record[0]) <= longest and not self.check_bytes:
                    if not any(map(str.strip, cells)):
                        self.blank += 1
                        continue
                    cells.append(str(self.number))
                    yield cells
                    continue
            elif not problem and not any(cell.strip() for cell in cells):
                self.blank += 1
                continue
            elif not problem and len(cells) > width and not any(map(str.strip, cells[width:])):
                self.padded += 1
                cells = cells[:width]
            if problem or len(cells) != width or not self._sound(cells, record):
                self._refuse(cells, record, problem)
                if problem:
                    parser = self.dialect.reader(source)
                continue
            cells.append(str(self.number))
            yield cells

    def _sound(self, cells: list[str], record: list[str]) -> bool:
        """The slow checks, for rows that span lines, are long, or may hold undecodable bytes."""
        if any(len(cell) > self.limits.max_cell_characters for cell in cells):
            return False
        if sum(map(len, record)) >= _MAX_LINE:
            return False
        return not (self.check_bytes and any(_SURROGATE.search(line) for line in record))

    def _refuse(self, cells: list[str], record: list[str], problem: str) -> None:
        width = len(self.columns)
        if len(record) > 1 and (problem or self._swallowed(record, width)):
            self.lines.give_back(record[1:])
            record = record[:1]
            self._reject(
                "",
                record[0],
                "quote is not closed on its line",
                "Close the quote, or double a quote that belongs to the text.",
                record,
            )
        elif problem:
            self._reject(
                "",
                "".join(record),
                f"cannot be split into cells ({problem})",
                "Put cells with quotes in quotes and double the inner ones.",
                record,
            )
        elif len(cells) < width:
            self._reject(
                self.columns[len(cells)],
                "",
                f"row is too short: fewer cells than the {width} columns of the header",
                f"This row has {len(cells)} cells; add the missing cells or delimiters.",
                record,
            )
        elif len(cells) > width:
            self._reject(
                f"column_{width + 1}",
                cells[width],
                f"row is too long: more cells than the {width} columns of the header",
                f"This row has {len(cells)} cells; quote cells that contain "
                f"{self.dialect.delimiter!r}, or name the extra column.",
                record,
            )
        else:
            self._refuse_cell(cells, record)

    def _refuse_cell(self, cells: list[str], record: list[str]) -> None:
        limit = self.limits.max_cell_characters
        for column, cell in zip(self.columns, cells, strict=True):
            if len(cell) > limit:
                self._reject(
                    column,
                    cell,
                    f"cell is longer than {limit} characters",
                    "Shorten it, or raise DISCOVERY_MAX_CELL_CHARACTERS.",
                    record,
                )
                return
            if _SURROGATE.search(cell):
                self._reject(
                    column,
                    cell,
                    "bytes that are not UTF-8",
                    "Save the file as 'CSV UTF-8'.",
                    record,
                )
                return
        self._reject(
            self.columns[0],
            cells[0],
            f"row is longer than {_MAX_LINE} characters",
            "Split it, or close the quote that swallows the rows after it.",
            record,
        )

    def _swallowed(self, record: list[str], width: int) -> bool:
        """Whether a stray quote made several rows into one: the last line is a row by itself.

        The last line of a cell that really spans lines has a closing quote without an opening.
        """
        cells = self.dialect.cells(record[-1])
        return cells is not None and len(cells) == width and not any('"' in cell for cell in cells)

    def _reject(
        self, column: str, value: str, problem: str, remedy: str, record: list[str]
    ) -> None:
        self.rejected.add(Rejection(self.number, column, value, problem, remedy, "".join(record)))


def _drain(reader: _DelimitedReader, spool: CellSpool, request: ReadRequest) -> None:
    records = reader.records()
    while batch := list(itertools.islice(records, _BATCH)):
        spool.add(batch, len(batch))
        check_rows(request.name, spool.rows, request.limits)
        request.progress(spool.rows, None, "reading rows")


def read_delimited(request: ReadRequest, encoding: TextEncoding) -> ReadTable:
    """Read a delimited text file; see `read_source`."""
    name, limits, workdir = request.name, request.limits, request.workdir
    findings = [encoding.finding] if encoding.finding else []
    csv.field_size_limit(_MAX_LINE)
    rejected = RejectedFile(workdir / "rejected.csv")
    with request.path.open(encoding=encoding.codec, errors=encoding.errors, newline="") as stream:
        start = stream.read(_SAMPLE_CHARACTERS)
        dialect = detect_dialect(start)
        stream.seek(0)
        for _ in range(dialect.lines_before):
            stream.readline()
        reader = _DelimitedReader(
            name,
            dialect,
            LineSource(stream),
            limits,
            rejected,
            check_bytes=encoding.errors != "strict",
        )
        header = reader.header()
        check_columns(name, len(header), limits)
        reader.columns = name_columns(header, findings)
        spool = CellSpool(workdir, reader.columns)
        _drain(reader, spool, request)
    rejected.close()
    require_rows(name, spool.rows, rejected)
    if reader.padded:
        findings.append(
            f"{reader.padded} rows end with empty cells beyond the header; those were left out."
        )
    if reader.blank:
        findings.append(f"{reader.blank} blank rows were left out.")
    if rejected.count > spool.rows:
        findings.append(
            f"More rows were rejected ({rejected.count}) than imported ({spool.rows}); is row "
            f"{dialect.lines_before + 1} really the header, and {dialect.delimiter!r} the "
            "delimiter?"
        )
    target = workdir / "records.parquet"
    spool.to_parquet(target)
    return ReadTable(
        parquet=target,
        rejected=rejected.path,
        columns=reader.columns,
        rows=spool.rows,
        rows_rejected=rejected.count,
        rejected_by_problem=dict(rejected.by_problem),
        format="csv",
        encoding=encoding.label,
        delimiter=dialect.delimiter,
        findings=findings,
    )
