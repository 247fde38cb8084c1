"""Workbooks of every kind that has cells: XLSX, XLSB, XLS and ODS.

Of XLSX the parser gets a copy of what was measured, see `measure`, of XLSB and ODS one that was
unpacked within the limits. It has a limit of its own for what sheets lay claim to.
"""

from __future__ import annotations

import datetime as dt
import zipfile
from collections.abc import Iterator
from pathlib import Path

from discovery_core.errors import DiscoveryError, ErrorCode
from python_calamine import (
    CalamineError,
    CalamineSheet,
    CalamineWorkbook,
    PasswordError,
    SheetMetadata,
    SheetTypeEnum,
    SheetVisibleEnum,
    WorksheetNotFound,
)

from .archive import expansion_of, open_archive, unpack
from .measure import part_name, write_measured
from .model import Part, ReadRequest, Unread
from .sheet import Grid, read_grids

_SPREADSHEET = b"application/vnd.oasis.opendocument.spreadsheet"
_LIMIT = "Cell limit exceeded"
Cell = str | int | float | bool | dt.date | dt.datetime | dt.time | dt.timedelta


def read_workbook(request: ReadRequest, kind: str) -> tuple[list[Part], list[Unread]]:
    """The tables of a workbook of this kind (`xlsx`, `xlsb`, `xls`, `ods`), one per visible sheet.

    Also the sheets that hold none. Raises DiscoveryError; `EmptyFile` when no visible sheet holds
    anything.
    """
    name = request.name
    _check_size(request)
    # the suffix is the format's, so that the parser tries no other
    copy = request.workdir / f"measured.{kind}"
    try:
        if kind == "xlsx":
            write_measured(request, copy)
        elif kind == "xls":
            copy.symlink_to(request.path.resolve())
        else:
            _write_unpacked(request, copy)
        workbook = CalamineWorkbook.from_path(str(copy))
        return read_grids(request, _grids(request, workbook), kind)
    except PasswordError as error:
        raise DiscoveryError(
            ErrorCode.ENCRYPTED_FILE,
            f"{name}: the workbook is protected by a password. Save it without one.",
        ) from error
    except WorksheetNotFound as error:
        raise _unreadable(name, f"its sheet {str(error)!r} is not where it should be") from error
    except (CalamineError, OSError) as error:
        # what the system says has a number; the parser says of a content so that it ends too early
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if _LIMIT in str(error):
            raise _too_large(request, str(error)) from error
        raise _unreadable(name, str(error)) from error
    except BaseException as error:
        # how the parser, which is not written in Python, says that it was taken by surprise
        if type(error).__name__ != "PanicException":
            raise
        raise _unreadable(name, str(error)) from error
    finally:
        copy.unlink(missing_ok=True)


def _write_unpacked(request: ReadRequest, target: Path) -> None:
    """Copy the archive's members to `target` within the limits of expansion."""
    expansion = expansion_of(request)
    with open_archive(request, "workbook") as archive, zipfile.ZipFile(target, "w") as copy:
        for info in archive.infolist():
            with copy.open(part_name(info.filename), "w", force_zip64=True) as output:
                for chunk in unpack(archive, info, expansion):
                    output.write(chunk)


def _unreadable(name: str, problem: str) -> DiscoveryError:
    return DiscoveryError(
        ErrorCode.UNREADABLE_FILE,
        f"{name}: the workbook cannot be read ({problem}). Open it in a spreadsheet program "
        "and save it again.",
    )


def _too_large(request: ReadRequest, problem: str) -> DiscoveryError:
    return DiscoveryError(
        ErrorCode.LIMIT_EXCEEDED,
        f"{request.name}: {problem}. Delete the empty rows and columns below and beside the "
        "table, save the sheet as CSV, or raise DISCOVERY_MAX_WORKBOOK_CELLS.",
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


def packed_kind(request: ReadRequest) -> str:
    """What a ZIP archive is: `xlsx`, `xlsb`, `ods`, or `zip` for an archive of files.

    Raises DiscoveryError for other documents and for what cannot be opened.
    """
    with open_archive(request, "archive or workbook") as archive:
        names = {part_name(name): name for name in archive.namelist()}
        if "xl/workbook.xml" in names:
            return "xlsx"
        if "xl/workbook.bin" in names:
            return "xlsb"
        if "[Content_Types].xml" in names:
            what = "an Office document, but no workbook"
        elif "content.xml" in names and ("mimetype" in names or len(names) == 1):
            mimetype = names.get("mimetype")
            if mimetype and _starts_with(archive, mimetype, _SPREADSHEET):
                return "ods"
            what = "an OpenDocument file, but no spreadsheet"
        else:
            return "zip"
    raise DiscoveryError(
        ErrorCode.UNSUPPORTED_FORMAT,
        f"{request.name}: this is {what}. Copy its table into a spreadsheet and save that as XLSX "
        "or CSV.",
    )


def _starts_with(archive: zipfile.ZipFile, member: str, text: bytes) -> bool:
    with archive.open(member) as stream:
        return stream.read(len(text)) == text


def _grids(request: ReadRequest, workbook: CalamineWorkbook) -> Iterator[Grid]:
    """Every sheet of cells, opened when it is asked for, so that only one is in memory."""
    for meta in workbook.sheets_metadata:
        if meta.typ == SheetTypeEnum.WorkSheet:
            yield _grid(request, workbook, meta)


def _grid(request: ReadRequest, workbook: CalamineWorkbook, meta: SheetMetadata) -> Grid:
    if meta.visible != SheetVisibleEnum.Visible:
        return Grid(meta.name, 0, lambda: iter(()), hidden=True)
    sheet = workbook.get_sheet_by_name(meta.name)
    rows, columns = (sheet.end[0] + 1, sheet.end[1] + 1) if sheet.end else (0, 0)
    most = request.limits.max_workbook_cells
    if rows * columns > most:
        raise _too_large(
            request,
            f"sheet {meta.name!r} reaches to row {rows}, column {columns}, which is more than "
            f"{most} cells",
        )
    return Grid(meta.name, rows, lambda: _numbered(sheet), sheet.merged_cell_ranges or ())


def _numbered(sheet: CalamineSheet) -> Iterator[tuple[int, list[str]]]:
    for number, row in enumerate(sheet.iter_rows(), start=1):
        yield number, [cell_text(cell) for cell in row]


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
