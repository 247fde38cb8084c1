"""CSV, TSV and their relatives, with every awkward row either read right or refused by name.

The standard library's C parser in strict mode decides what a cell is; the engine would be three
times as fast, but cannot say which row of a ragged file is at fault when quotes span lines.
"""

from __future__ import annotations

import csv
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from discovery_core.errors import DiscoveryError, ErrorCode

from discovery_crews.settings import ReaderLimits

from .credentials import RowShield
from .dialect import MAX_LINE, Dialect, LineSource, detect_dialect
from .encoding import TextEncoding
from .fast import Head, Loaded, load_regular
from .header import find_header, header_findings
from .layout import (
    HEADER_WITHIN,
    TOTAL_PROBLEM,
    TOTAL_REMEDY,
    BodyRules,
    body_findings,
    start_findings,
)
from .model import ReadRequest, ReadTable, Rejection
from .presets import recognise
from .table import CellSpool, RejectedFile, check_columns, check_rows, name_columns, require_rows

_BATCH = 5000
_SAMPLE_CHARACTERS = 256 * 1024
_SURROGATE = re.compile("[\ud800-\udfff]")


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
        self.short = 0
        self.columns: list[str] = []
        self.head: list[str] = []
        self.header_lines: list[str] = []
        self.findings: list[str] = []
        self.rules = BodyRules([])
        self.shield = RowShield([], keep=True)
        self.may_be_short = False

    def name_columns(self, header: list[str]) -> None:
        """Take the header's cells as names of columns."""
        self.columns = name_columns(header, self.findings)
        self.rules = BodyRules(header)
        self.shield = RowShield(self.columns, keep=self.limits.keep_credential_columns)
        preset = recognise(header)
        self.may_be_short = preset is not None and preset.ragged

    def header(self) -> list[str]:
        """Cells of the header; what stands above it becomes a finding.

        The header keeps the row number that a spreadsheet shows, so titles count.
        """
        rows, lines = self._first_rows()
        found = find_header(rows)
        if found is None:
            raise DiscoveryError(
                ErrorCode.NO_COLUMNS,
                f"{self.name}: no header found. The first row must name columns.",
            )
        start, cells = found
        titles = [(self.number + at + 1, rows[at]) for at in start.titles]
        self.number += start.header + 1
        body = start.header + 1
        self.head = [line for record in lines[:body] for line in record]
        self.header_lines = [line for record in lines[start.top : body] for line in record]
        self.findings += start_findings(self.number + start.top - start.header, titles)
        self.findings += header_findings(start, self.number, cells)
        self.lines.give_back([line for record in lines[body:] for line in record])
        return cells

    def _first_rows(self) -> tuple[list[list[str]], list[list[str]]]:
        """Cells and physical lines of the first records, up to one that cannot be split."""
        rows: list[list[str]] = []
        lines: list[list[str]] = []
        parser = self.dialect.reader(self.lines)
        while len(rows) < HEADER_WITHIN:
            try:
                cells = next(parser)
            except StopIteration:
                break
            except csv.Error as error:
                if not any(cell.strip() for row in rows for cell in row):
                    raise DiscoveryError(
                        ErrorCode.UNREADABLE_FILE,
                        f"{self.name}: row {self.number + len(rows) + 1}, the header, cannot be "
                        f"read: {error}. Check its quotes.",
                    ) from error
                lines.append(self.lines.take())
                break
            rows.append(cells)
            lines.append(self.lines.take())
        return rows, lines

    def all_findings(self) -> list[str]:
        """What to tell people, once all rows are read."""
        return self.findings + body_findings(
            blank=self.blank,
            padded=self.padded,
            repeated=self.rules.repeated,
            short=self.short,
        )

    def records(self) -> Iterator[list[str]]:
        """Good rows, each with its number appended; bad ones go to the rejected file."""
        parser = self.dialect.reader(self.lines)
        while True:
            problem = ""
            try:
                cells = next(parser)
            except StopIteration:
                return
            except csv.Error as error:
                problem, cells = str(error), []
            record = self.lines.take()
            self.number += 1
            if not problem and not any(map(str.strip, cells)):
                self.blank += 1
                continue
            if problem or not self._plain(cells, record):
                cells = [] if problem else self._fitted(cells)
                if problem or len(cells) != len(self.columns) or not self._sound(cells, record):
                    self._refuse(cells, record, problem)
                    if problem:
                        parser = self.dialect.reader(self.lines)
                    continue
            if self.rules.is_repeated_header(cells):
                continue
            if self.rules.is_total(cells):
                self._reject(self.columns[0], cells[0], TOTAL_PROBLEM, TOTAL_REMEDY, record, cells)
                continue
            cells.append(str(self.number))
            yield cells

    def _plain(self, cells: list[str], record: list[str]) -> bool:
        """Whether a row needs no closer look: right width, one line, not long, sure bytes."""
        return (
            len(cells) == len(self.columns)
            and len(record) == 1
            and len(record[0]) <= self.limits.max_cell_characters
            and not self.check_bytes
        )

    def _fitted(self, cells: list[str]) -> list[str]:
        """The row without empty cells beyond the header, or completed where that is allowed."""
        width = len(self.columns)
        if len(cells) > width and not any(map(str.strip, cells[width:])):
            self.padded += 1
            return cells[:width]
        if len(cells) < width and self.may_be_short:
            self.short += 1
            return cells + [""] * (width - len(cells))
        return cells

    def _sound(self, cells: list[str], record: list[str]) -> bool:
        """The slow checks, for rows that span lines, are long, or may hold undecodable bytes."""
        if any(len(cell) > self.limits.max_cell_characters for cell in cells):
            return False
        if sum(map(len, record)) >= MAX_LINE:
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
                cells,
            )
        elif len(cells) > width:
            self._reject(
                f"column_{width + 1}",
                cells[width],
                f"row is too long: more cells than the {width} columns of the header",
                f"This row has {len(cells)} cells; quote cells that contain "
                f"{self.dialect.delimiter!r}, or name the extra column.",
                record,
                cells,
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
                    cells,
                )
                return
            if _SURROGATE.search(cell):
                self._reject(
                    column,
                    cell,
                    "bytes that are not UTF-8",
                    "Save the file as 'CSV UTF-8'.",
                    record,
                    cells,
                )
                return
        self._reject(
            self.columns[0],
            cells[0],
            f"row is longer than {MAX_LINE} characters",
            "Split it, or close the quote that swallows the rows after it.",
            record,
            cells,
        )

    def _swallowed(self, record: list[str], width: int) -> bool:
        """Whether a stray quote made several rows into one: the last line is a row by itself.

        The last line of a cell that really spans lines has a closing quote without an opening.
        """
        cells = self.dialect.cells(record[-1])
        return cells is not None and len(cells) == width and not any('"' in cell for cell in cells)

    def _reject(
        self,
        column: str,
        value: str,
        problem: str,
        remedy: str,
        record: list[str],
        cells: Sequence[str] = (),
    ) -> None:
        rejection = Rejection(self.number, column, value, problem, remedy, "".join(record))
        self.rejected.add(self.shield.hide(rejection, cells, self.dialect.delimiter))


def _drain(reader: _DelimitedReader, spool: CellSpool, request: ReadRequest) -> None:
    records = reader.records()
    while batch := list(itertools.islice(records, _BATCH)):
        spool.add(batch, len(batch))
        check_rows(request.name, spool.rows, request.limits)
        request.progress(spool.rows, None, "reading rows")


def _start(
    request: ReadRequest, stream: TextIO, encoding: TextEncoding, rejected: RejectedFile
) -> tuple[list[str], _DelimitedReader, list[str]]:
    """The lines before the table, a reader that stands behind the header, and its cells."""
    dialect = detect_dialect(stream.read(_SAMPLE_CHARACTERS))
    stream.seek(0)
    marked = [stream.readline() for _ in range(dialect.lines_before)]
    reader = _DelimitedReader(
        request.name,
        dialect,
        LineSource(stream, wrapped=dialect.wrapped),
        request.limits,
        rejected,
        check_bytes=encoding.errors != "strict",
    )
    if dialect.wrapped:
        reader.findings.append(
            "Each line of the file was quoted as a whole; the rows in them were read. Check that "
            "all columns are there."
        )
    return marked, reader, reader.header()


def delimited_header(request: ReadRequest, encoding: TextEncoding) -> str:
    """The physical lines of a delimited file's header, with Excel's `sep=` line."""
    with request.path.open(encoding=encoding.codec, errors=encoding.errors, newline="") as stream:
        rejected = RejectedFile(Path(os.devnull))
        marked, reader, _ = _start(request, stream, encoding, rejected)
        rejected.close()
        return "".join([*marked, *reader.header_lines]).rstrip("\r\n") + "\n"


def read_delimited(request: ReadRequest, encoding: TextEncoding) -> ReadTable:
    """Read a delimited text file; see `read_source`."""
    name, limits, workdir = request.name, request.limits, request.workdir
    csv.field_size_limit(MAX_LINE)
    rejected = RejectedFile(
        workdir / "rejected.csv", keep_credentials=limits.keep_credential_columns
    )
    target = workdir / "records.parquet"
    with request.path.open(encoding=encoding.codec, errors=encoding.errors, newline="") as stream:
        marked, reader, header = _start(request, stream, encoding, rejected)
        dialect = reader.dialect
        check_columns(name, len(header), limits)
        reader.name_columns(header)
        header_row = reader.number
        loaded = Loaded()
        simple = not (reader.may_be_short or dialect.wrapped)
        if simple and len(reader.head) == header_row - len(marked):
            head = Head(marked + reader.head, reader.columns, reader.rules)
            loaded = load_regular(request.path, target, encoding, dialect, head, limits)
        if loaded.rows is None:
            spool = CellSpool(workdir, reader.columns)
            _drain(reader, spool, request)
    rejected.close()
    rows = spool.rows if loaded.rows is None else loaded.rows
    reader.blank += loaded.blank
    check_rows(name, rows, limits)
    require_rows(name, rows, rejected)
    if loaded.rows is None:
        spool.to_parquet(target)
    findings = [encoding.finding] if encoding.finding else []
    findings += reader.all_findings()
    if rejected.count > rows:
        findings.append(
            f"More rows were rejected ({rejected.count}) than imported ({rows}); is row "
            f"{header_row} really the header, and {dialect.delimiter!r} the delimiter?"
        )
    return ReadTable(
        parquet=target,
        rejected=rejected.path,
        columns=reader.columns,
        rows=rows,
        rows_rejected=rejected.count,
        rejected_by_problem=dict(rejected.by_problem),
        format="csv",
        encoding=encoding.label,
        delimiter=dialect.delimiter,
        findings=findings,
        may_hold_keys=loaded.keys,
    )
