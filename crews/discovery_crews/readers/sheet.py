"""One sheet of cells becomes one table, whatever kind of workbook it stands in."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from discovery_core.errors import DiscoveryError, ErrorCode

from .credentials import RowShield, remove_credentials
from .header import find_header, header_findings
from .layout import (
    HEADER_WITHIN,
    MOST_NOTES,
    NOTE_PROBLEM,
    NOTE_REMEDY,
    TOTAL_PROBLEM,
    TOTAL_REMEDY,
    BodyRules,
    Merge,
    body_findings,
    start_findings,
)
from .model import NO_TABLE, Part, ReadRequest, ReadTable, Rejection, Unread
from .table import (
    PARTS,
    CellSpool,
    RejectedFile,
    check_columns,
    check_rows,
    name_columns,
    require_rows,
)

_BATCH = 2000


@dataclass(frozen=True)
class Grid:
    """A sheet: `rows` is the number of its last one, 0 where it is empty.

    `numbered` goes through the rows with their spreadsheet numbers, equally wide, and can be called
    again. `merged` are the ranges of merged cells, whose value stands in the first.
    """

    name: str
    rows: int
    numbered: Callable[[], Iterator[tuple[int, list[str]]]]
    merged: Sequence[Merge] = ()
    hidden: bool = False


def read_grids(
    request: ReadRequest, grids: Iterator[Grid], source_format: str
) -> tuple[list[Part], list[Unread]]:
    """The tables of the visible sheets, one at a time, and the sheets that hold none.

    Raises DiscoveryError; `EmptyFile` when no visible sheet holds anything.
    """
    parts: list[Part] = []
    unread: list[Unread] = []
    problem: DiscoveryError | None = None
    for number, grid in enumerate(grids, start=1):
        if grid.hidden:
            unread.append(Unread(grid.name, "hidden"))
            continue
        if not grid.rows:
            continue
        workdir = request.workdir / PARTS / f"sheet-{number}"
        workdir.mkdir(parents=True, exist_ok=True)
        try:
            inner = replace(request, workdir=workdir)
            table = remove_credentials(inner, read_sheet(inner, grid, source_format))
        except DiscoveryError as error:
            if error.code not in NO_TABLE:
                raise
            problem = problem or error
            unread.append(Unread(grid.name, "no table", grid.rows))
        else:
            parts.append(Part(grid.name, table))
    if not parts:
        raise problem or DiscoveryError(
            ErrorCode.EMPTY_FILE,
            f"{request.name}: no visible sheet of the workbook holds anything.",
        )
    return parts, unread


def _used_columns(grid: Grid, header_row: int, header: list[str]) -> list[int]:
    """Indexes of columns with a header or any value; exports have empty ones at the end."""
    open_columns = {index for index, text in enumerate(header) if not text.strip()}
    for number, cells in grid.numbered():
        if not open_columns:
            break
        if number > header_row:
            open_columns -= {index for index in open_columns if cells[index].strip()}
    return [index for index in range(len(header)) if index not in open_columns]


def read_sheet(request: ReadRequest, grid: Grid, source_format: str) -> ReadTable:
    """The table of a sheet, written into the request's work folder.

    Raises DiscoveryError, `NoColumns` and `NoRows` where it is none.
    """
    limits, workdir = request.limits, request.workdir
    place = f"{request.name}, sheet {grid.name!r}"
    first = list(itertools.islice(grid.numbered(), HEADER_WITHIN))
    found = find_header([cells for _, cells in first], grid.merged)
    if found is None:
        raise DiscoveryError(ErrorCode.NO_COLUMNS, f"{place}: no header found.")
    start, header = found
    number = first[start.header][0]
    findings = start_findings(first[start.top][0], [first[at] for at in start.titles])
    findings += header_findings(start, number, header)
    used = _used_columns(grid, number, header)
    if not used:
        raise DiscoveryError(ErrorCode.NO_COLUMNS, f"{place}: no header found.")
    check_columns(place, len(used), limits)
    check_rows(place, grid.rows - number, limits)
    columns = name_columns([header[index] for index in used], findings)
    rejected = RejectedFile(
        workdir / "rejected.csv", keep_credentials=limits.keep_credential_columns
    )
    spool = CellSpool(workdir, columns)
    body = (row for row in grid.numbered() if row[0] > number)
    rules = BodyRules([header[index] for index in used])
    shield = RowShield(columns, keep=limits.keep_credential_columns)
    limit = limits.max_cell_characters
    blank = _spool_rows(body, used, rules, shield, spool, rejected, limit)
    rejected.close()
    require_rows(place, spool.rows, rejected)
    findings += body_findings(blank=blank, repeated=rules.repeated)
    # of a header of two rows they are understood
    merged = sum(1 for (row, _), _ in grid.merged if row >= number or start.top == start.header)
    if merged:
        findings.append(
            f"{merged} groups of cells are merged; the value counts for the first cell of each."
        )
    target = workdir / "records.parquet"
    spool.to_parquet(target)
    return ReadTable(
        parquet=target,
        rejected=rejected.path,
        columns=columns,
        rows=spool.rows,
        rows_rejected=rejected.count,
        rejected_by_problem=dict(rejected.by_problem),
        format=source_format,
        sheet=grid.name,
        findings=findings,
    )


def _spool_rows(
    body: Iterator[tuple[int, list[str]]],
    used: list[int],
    rules: BodyRules,
    shield: RowShield,
    spool: CellSpool,
    rejected: RejectedFile,
    limit: int,
) -> int:
    """Spool the rows below the header; how many blank ones were left out.

    Remarks are rows of one text that no asset follows; before an asset they are taken for one.
    """
    blank = 0
    notes: list[tuple[int, list[str]]] = []
    batch: list[list[str]] = []
    for number, all_cells in body:
        cells = [all_cells[index] for index in used]
        if not any(map(str.strip, cells)):
            blank += 1
            continue
        if rules.is_repeated_header(cells):
            continue
        refusal = _refusal(cells, spool.columns, rules, limit)
        if refusal is not None:
            rejection = Rejection(number, *refusal, _raw_line(cells))
            rejected.add(shield.hide(rejection, cells, "\t"))
            continue
        if rules.may_be_note(cells) and len(notes) < MOST_NOTES:
            notes.append((number, cells))
            continue
        batch.extend([*note, str(at)] for at, note in notes)
        notes.clear()
        batch.append([*cells, str(number)])
        if len(batch) >= _BATCH:
            spool.add(batch, len(batch))
            batch = []
    spool.add(batch, len(batch))
    for number, cells in notes:
        at = next(index for index, cell in enumerate(cells) if cell.strip())
        told = (spool.columns[at], cells[at], NOTE_PROBLEM, NOTE_REMEDY)
        rejection = Rejection(number, *told, _raw_line(cells))
        rejected.add(shield.hide(rejection, cells, "\t"))
    return blank


def _raw_line(cells: list[str]) -> str:
    """A row as a spreadsheet copies it: cells separated by tabs."""
    line = io.StringIO()
    csv.writer(line, delimiter="\t", lineterminator="").writerow(cells)
    return line.getvalue()


def _refusal(
    cells: list[str], columns: list[str], rules: BodyRules, limit: int
) -> tuple[str, str, str, str] | None:
    """Column, value, problem and remedy of a row that is not taken."""
    if rules.is_total(cells):
        return columns[0], cells[0], TOTAL_PROBLEM, TOTAL_REMEDY
    for column, cell in zip(columns, cells, strict=True):
        if len(cell) > limit:
            problem = f"cell is longer than {limit} characters"
            return column, cell, problem, "Shorten it, or raise DISCOVERY_MAX_CELL_CHARACTERS."
    return None
