"""XLSX workbooks, measured before they are opened.

The parser is given a copy of what was measured, see `measure`, and never the file itself.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from discovery_core.errors import DiscoveryError, ErrorCode
from python_calamine import (
    CalamineError,
    CalamineSheet,
    CalamineWorkbook,
    PasswordError,
    SheetTypeEnum,
    SheetVisibleEnum,
)

from .credentials import RowShield, remove_credentials
from .layout import (
    HEADER_WITHIN,
    MOST_NOTES,
    NOTE_PROBLEM,
    NOTE_REMEDY,
    TOTAL_PROBLEM,
    TOTAL_REMEDY,
    BodyRules,
    body_findings,
    find_start,
    start_findings,
)
from .measure import part_name, write_measured
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
Cell = str | int | float | bool | dt.date | dt.datetime | dt.time | dt.timedelta


@dataclass(frozen=True)
class _Sheet:
    name: str
    sheet: CalamineSheet

    @property
    def rows(self) -> int:
        """Number of the last row."""
        return self.sheet.end[0] + 1 if self.sheet.end else 0


def read_workbook(request: ReadRequest) -> tuple[list[Part], list[Unread]]:
    """The tables of an XLSX file, one per visible sheet, and the sheets that hold none.

    Raises DiscoveryError; `EmptyFile` when no visible sheet holds anything.
    """
    name = request.name
    _check_size(request)
    measured = request.workdir / "measured.xlsx"
    try:
        write_measured(request, measured)
        workbook = CalamineWorkbook.from_path(str(measured))
        return _read_sheets(request, workbook)
    except PasswordError as error:
        raise DiscoveryError(
            ErrorCode.ENCRYPTED_FILE,
            f"{name}: the workbook is protected by a password. Save it without one.",
        ) from error
    except CalamineError as error:
        raise _unreadable(name, str(error)) from error
    except BaseException as error:
        # how the parser, which is not written in Python, says that it was taken by surprise
        if type(error).__name__ != "PanicException":
            raise
        raise _unreadable(name, str(error)) from error
    finally:
        measured.unlink(missing_ok=True)


def _unreadable(name: str, problem: str) -> DiscoveryError:
    return DiscoveryError(
        ErrorCode.UNREADABLE_FILE,
        f"{name}: the workbook cannot be read ({problem}). Open it in a spreadsheet program "
        "and save it again.",
    )


def _check_size(request: ReadRequest) -> None:
    name, limits = request.name, request.limits
    if request.size > limits.max_workbook_bytes:
        raise DiscoveryError(
            ErrorCode.LIMIT_EXCEEDED,
            f"{name}: a workbook of {request.size} bytes; the limit is "
            f"{limits.max_workbook_bytes}. Save the sheet as CSV, or raise "
            "DISCOVERY_MAX_WORKBOOK_BYTES.",
        )


def is_workbook(names: set[str], name: str) -> bool:
    """Whether a ZIP archive with these members is a workbook; other documents are refused."""
    names = {part_name(name) for name in names}
    if "xl/workbook.xml" in names:
        return True
    if "xl/workbook.bin" in names:
        what = "a binary workbook (XLSB); save it as XLSX"
    elif "[Content_Types].xml" in names:
        what = "an Office document, but no workbook"
    elif "content.xml" in names and ("mimetype" in names or len(names) == 1):
        what = "an OpenDocument file; save it as XLSX"
    else:
        return False
    raise DiscoveryError(ErrorCode.UNSUPPORTED_FORMAT, f"{name}: this is {what}.")


def _read_sheets(
    request: ReadRequest, workbook: CalamineWorkbook
) -> tuple[list[Part], list[Unread]]:
    """Every visible sheet on its own, so that only one is in memory at a time."""
    parts: list[Part] = []
    unread: list[Unread] = []
    problem: DiscoveryError | None = None
    for number, meta in enumerate(workbook.sheets_metadata, start=1):
        if meta.typ != SheetTypeEnum.WorkSheet:
            continue
        if meta.visible != SheetVisibleEnum.Visible:
            unread.append(Unread(meta.name, "hidden"))
            continue
        sheet = _Sheet(meta.name, workbook.get_sheet_by_name(meta.name))
        if not sheet.rows:
            continue
        workdir = request.workdir / PARTS / f"sheet-{number}"
        workdir.mkdir(parents=True, exist_ok=True)
        try:
            inner = replace(request, workdir=workdir)
            table = remove_credentials(inner, _read_sheet(inner, sheet))
        except DiscoveryError as error:
            if error.code not in NO_TABLE:
                raise
            problem = problem or error
            unread.append(Unread(meta.name, "no table", sheet.rows))
        else:
            parts.append(Part(meta.name, table))
    if not parts:
        raise problem or DiscoveryError(
            ErrorCode.EMPTY_FILE,
            f"{request.name}: no visible sheet of the workbook holds anything.",
        )
    return parts, unread


def cell_text(value: Cell) -> str:
    """A cell as text: whole numbers without decimals, dates as ISO 8601, TRUE and FALSE."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, dt.datetime):
        if value.time() == dt.time():
            return value.date().isoformat()
        return value.isoformat(sep=" ", timespec="seconds")
    return value.isoformat() if isinstance(value, (dt.date, dt.time)) else str(value)


def _numbered(sheet: CalamineSheet) -> Iterator[tuple[int, list[str]]]:
    """Rows with their spreadsheet number, one at a time; can be gone through again."""
    for number, row in enumerate(sheet.iter_rows(), start=1):
        yield number, [cell_text(cell) for cell in row]


def _used_columns(sheet: CalamineSheet, header_row: int, header: list[str]) -> list[int]:
    """Indexes of columns with a header or any value; exports have empty ones at the end."""
    open_columns = {index for index, text in enumerate(header) if not text.strip()}
    for number, cells in _numbered(sheet):
        if not open_columns:
            break
        if number > header_row:
            open_columns -= {index for index in open_columns if cells[index].strip()}
    return [index for index in range(len(header)) if index not in open_columns]


def _read_sheet(request: ReadRequest, chosen: _Sheet) -> ReadTable:
    limits, workdir = request.limits, request.workdir
    place = f"{request.name}, sheet {chosen.name!r}"
    first = list(itertools.islice(_numbered(chosen.sheet), HEADER_WITHIN))
    start = find_start([cells for _, cells in first])
    if start is None:
        raise DiscoveryError(ErrorCode.NO_COLUMNS, f"{place}: no header found.")
    number, header = first[start.header]
    findings = start_findings(number, [first[at] for at in start.titles])
    used = _used_columns(chosen.sheet, number, header)
    if not used:
        raise DiscoveryError(ErrorCode.NO_COLUMNS, f"{place}: no header found.")
    check_columns(place, len(used), limits)
    check_rows(place, chosen.rows - number, limits)
    columns = name_columns([header[index] for index in used], findings)
    rejected = RejectedFile(
        workdir / "rejected.csv", keep_credentials=limits.keep_credential_columns
    )
    spool = CellSpool(workdir, columns)
    body = (row for row in _numbered(chosen.sheet) if row[0] > number)
    rules = BodyRules([header[index] for index in used])
    shield = RowShield(columns, keep=limits.keep_credential_columns)
    limit = limits.max_cell_characters
    blank = _spool_rows(body, used, rules, shield, spool, rejected, limit)
    rejected.close()
    require_rows(place, spool.rows, rejected)
    findings += body_findings(blank=blank, repeated=rules.repeated)
    merged = len(chosen.sheet.merged_cell_ranges or [])
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
        format="xlsx",
        sheet=chosen.name,
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
