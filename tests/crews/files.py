"""Awkward inputs, made on the spot, and the folder of real ones."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import openpyxl
import pytest
from discovery_crews.readers import ReadRequest, ReadTable, read_source
from discovery_crews.settings import ReaderLimits

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"


def real_file(name: str) -> Path:
    """A real input, or a skip that says where it is looked for."""
    path = REAL / name
    if not path.is_file():
        pytest.skip(f"real input files are not here: {path}")
    return path


def read(
    path: Path, source_format: str = "auto", *, limits: dict[str, int] | None = None
) -> ReadTable:
    """Read a file into a work folder beside it."""
    workdir = path.parent / f"{path.name}.work"
    workdir.mkdir(exist_ok=True)
    request = ReadRequest(path, workdir, path.name, ReaderLimits.model_validate(limits or {}))
    return read_source(request, source_format)


def rows_of(table: ReadTable) -> list[dict[str, Any]]:
    """The imported rows, in order, as column to text; `__row` included."""
    with duckdb.connect() as connection:
        cursor = connection.execute(f"SELECT * FROM '{table.parquet}' ORDER BY __row")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def workbook(path: Path, sheets: dict[str, Sequence[Sequence[object]]]) -> Path:
    """An XLSX file with these sheets."""
    book = openpyxl.Workbook()
    if book.active is not None:
        book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(list(row))
    book.save(path)
    return path


def zip_of(members: dict[str, bytes]) -> bytes:
    """A ZIP archive with these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            # a fixed time, so that the bytes are the same in every process
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return buffer.getvalue()
