"""XLSX workbooks, measured before they are opened.

A workbook is a ZIP archive: a few kilobytes can expand to gigabytes, and one cell in the far
corner makes a dense table of billions. Every member is therefore unpacked once against limits
(which also finds truncated files) before the parser sees it.
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from discovery_core.errors import DiscoveryError, ErrorCode
from python_calamine import (
    CalamineError,
    CalamineSheet,
    CalamineWorkbook,
    PasswordError,
    SheetTypeEnum,
    SheetVisibleEnum,
)

from .layout import (
    HEADER_WITHIN,
    TOTAL_PROBLEM,
    TOTAL_REMEDY,
    BodyRules,
    body_findings,
    find_start,
    start_findings,
)
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

_BATCH = 2000
_CHUNK = 1 << 20
_REFERENCE = re.compile(rb'<c r="([A-Z]{1,3})([0-9]{1,7})"')
_RATIO_FROM = 10 * 1024 * 1024
# Main sheet of RVTools exports (sbroenne/RvToolsMerge, docs/ColumnMappings.md).
_RVTOOLS_MAIN = ("vinfo", "tabvinfo")
_RVTOOLS_OTHERS = ("vcpu", "vmemory", "vdisk", "vhost", "vpartition", "vnetwork")

Cell = str | int | float | bool | dt.date | dt.datetime | dt.time | dt.timedelta


@dataclass(frozen=True)
class _Sheet:
    name: str
    sheet: CalamineSheet
    cells: int

    @property
    def rows(self) -> int:
        """Number of the last row."""
        return self.sheet.end[0] + 1 if self.sheet.end else 0


def read_workbook(request: ReadRequest, *, rvtools: bool = False) -> ReadTable:
    """Read the main sheet of an XLSX file; see `read_source`. The other sheets are named."""
    name = request.name
    _check_archive(request)
    try:
        workbook = CalamineWorkbook.from_path(str(request.path))
        chosen, others, is_rvtools = _choose(workbook, name, rvtools=rvtools)
    except PasswordError as error:
        raise DiscoveryError(
            ErrorCode.ENCRYPTED_FILE,
            f"{name}: the workbook is protected by a password. Save it without one.",
        ) from error
    except CalamineError as error:
        raise DiscoveryError(
            ErrorCode.UNREADABLE_FILE,
            f"{name}: the workbook cannot be read ({error}). Open it in a spreadsheet program "
            "and save it again.",
        ) from error
    findings = [f"Sheet {chosen.name!r} was read."] if others else []
    if others:
        findings.append("Sheets not read: " + ", ".join(repr(other) for other in others) + ".")
    return _read_sheet(request, chosen, findings, rvtools=is_rvtools)


def _check_archive(request: ReadRequest) -> None:
    name, limits = request.name, request.limits
    if request.size > limits.max_workbook_bytes:
        raise DiscoveryError(
            ErrorCode.LIMIT_EXCEEDED,
            f"{name}: a workbook of {request.size} bytes; the limit is "
            f"{limits.max_workbook_bytes}. Save the sheet as CSV, or raise "
            "DISCOVERY_MAX_WORKBOOK_BYTES.",
        )
    try:
        with zipfile.ZipFile(request.path) as archive:
            names = set(archive.namelist())
            _check_kind(names, name)
            total = 0
            for info in archive.infolist():
                if info.flag_bits & 1:
                    raise DiscoveryError(
                        ErrorCode.ENCRYPTED_FILE,
                        f"{name}: the archive is protected by a password. Save it without one.",
                    )
                total = _measure(archive, info, total, request)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise DiscoveryError(
            ErrorCode.UNREADABLE_FILE,
            f"{name}: the workbook is damaged or cut off ({error}). Copy or export it again.",
        ) from error


def _check_kind(names: set[str], name: str) -> None:
    if "xl/workbook.xml" in names or "xl/workbook.bin" in names:
        return
    what = "a ZIP archive; unpack it and use the file in it"
    if "[Content_Types].xml" in names:
        what = "an Office document, but no workbook"
    elif "content.xml" in names:
        what = "an OpenDocument file; save it as XLSX"
    raise DiscoveryError(ErrorCode.UNSUPPORTED_FORMAT, f"{name}: this is {what}.")


def _measure(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, total: int, request: ReadRequest
) -> int:
    """Unpack one member without keeping it; the expanded size so far."""
    name, limits, size = request.name, request.limits, request.size
    is_sheet = info.filename.startswith("xl/worksheets/")
    last_column = last_row = 0
    rest = b""
    with archive.open(info) as member:
        while chunk := member.read(_CHUNK):
            total += len(chunk)
            ratio = total / max(size, 1)
            if total > limits.max_expanded_bytes or (
                total > _RATIO_FROM and ratio > limits.max_expansion_ratio
            ):
                raise DiscoveryError(
                    ErrorCode.LIMIT_EXCEEDED,
                    f"{name}: the workbook expands to more than {total // 1024 // 1024} MiB "
                    f"({ratio:.0f} times its size); the limits are {limits.max_expanded_bytes} "
                    f"bytes and {limits.max_expansion_ratio} times. Save the sheet as CSV.",
                )
            if is_sheet:
                for column, row in _REFERENCE.findall(rest + chunk):
                    last_column = max(last_column, _column_number(column))
                    last_row = max(last_row, int(row))
                rest = chunk[-32:]
    if last_column * last_row > limits.max_workbook_cells:
        raise DiscoveryError(
            ErrorCode.LIMIT_EXCEEDED,
            f"{name}: a sheet reaches to row {last_row}, column {last_column}, which is more than "
            f"{limits.max_workbook_cells} cells. Delete the empty rows and columns below and "
            "beside the table, or save the sheet as CSV.",
        )
    return total


def _column_number(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return number


def _choose(
    workbook: CalamineWorkbook, name: str, *, rvtools: bool
) -> tuple[_Sheet, list[str], bool]:
    """The main sheet, the names of the others that hold data, and whether this is RVTools."""
    sheets = [
        _Sheet(meta.name, sheet, _cells(sheet))
        for meta in workbook.sheets_metadata
        if meta.typ == SheetTypeEnum.WorkSheet
        for sheet in [workbook.get_sheet_by_name(meta.name)]
        if meta.visible == SheetVisibleEnum.Visible
    ]
    filled = [sheet for sheet in sheets if sheet.cells]
    if not filled:
        raise DiscoveryError(
            ErrorCode.EMPTY_FILE, f"{name}: no visible sheet of the workbook holds anything."
        )
    names = {sheet.name.lower() for sheet in filled}
    main = [sheet for sheet in filled if sheet.name.lower() in _RVTOOLS_MAIN]
    is_rvtools = bool(main) and (rvtools or bool(names & set(_RVTOOLS_OTHERS)))
    if rvtools and not main:
        raise DiscoveryError(
            ErrorCode.UNSUPPORTED_FORMAT,
            f"{name}: format 'rvtools' was asked for, but there is no sheet vInfo. "
            "Set the format to auto.",
        )
    chosen = main[0] if is_rvtools else max(filled, key=lambda sheet: sheet.cells)
    return chosen, [sheet.name for sheet in filled if sheet is not chosen], is_rvtools


def _cells(sheet: CalamineSheet) -> int:
    if sheet.start is None or sheet.end is None:
        return 0
    return (sheet.end[0] - sheet.start[0] + 1) * (sheet.end[1] - sheet.start[1] + 1)


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


def _read_sheet(
    request: ReadRequest, chosen: _Sheet, findings: list[str], *, rvtools: bool
) -> ReadTable:
    limits, workdir = request.limits, request.workdir
    place = f"{request.name}, sheet {chosen.name!r}"
    first = list(itertools.islice(_numbered(chosen.sheet), HEADER_WITHIN))
    start = find_start([cells for _, cells in first])
    if start is None:
        raise DiscoveryError(ErrorCode.NO_COLUMNS, f"{place}: no header found.")
    number, header = first[start.header]
    findings += start_findings(number, [first[at] for at in start.titles])
    used = _used_columns(chosen.sheet, number, header)
    if not used:
        raise DiscoveryError(ErrorCode.NO_COLUMNS, f"{place}: no header found.")
    check_columns(place, len(used), limits)
    check_rows(place, chosen.rows - number, limits)
    columns = name_columns([header[index] for index in used], findings)
    rejected = RejectedFile(workdir / "rejected.csv")
    spool = CellSpool(workdir, columns)
    body = (row for row in _numbered(chosen.sheet) if row[0] > number)
    rules = BodyRules([header[index] for index in used])
    blank = _spool_rows(body, used, rules, spool, rejected, limits.max_cell_characters)
    rejected.close()
    require_rows(place, spool.rows, rejected)
    findings += body_findings(blank=blank, repeated=rules.repeated)
    target = workdir / "records.parquet"
    spool.to_parquet(target)
    return ReadTable(
        parquet=target,
        rejected=rejected.path,
        columns=columns,
        rows=spool.rows,
        rows_rejected=rejected.count,
        rejected_by_problem=dict(rejected.by_problem),
        format="rvtools" if rvtools else "xlsx",
        sheet=chosen.name,
        findings=findings,
    )


def _spool_rows(
    body: Iterator[tuple[int, list[str]]],
    used: list[int],
    rules: BodyRules,
    spool: CellSpool,
    rejected: RejectedFile,
    limit: int,
) -> int:
    """Spool the rows below the header; how many blank ones were left out."""
    blank = 0
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
            rejected.add(Rejection(number, *refusal, "\t".join(cells)))
            continue
        batch.append([*cells, str(number)])
        if len(batch) >= _BATCH:
            spool.add(batch, len(batch))
            batch = []
    spool.add(batch, len(batch))
    return blank


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
