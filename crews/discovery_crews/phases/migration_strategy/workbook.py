"""The workbook for people: summary, assets, strategies, gaps and dependencies on sheets."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import duckdb
import xlsxwriter

from discovery_crews.readers.table import spreadsheet_safe
from discovery_crews.tables.engine import literal

# what a worksheet holds (Excel specifications and limits)
_MOST_ROWS = 1_048_576
_MOST_CHARACTERS = 32_767
_WIDTH = 18


def write_workbook(
    connection: duckdb.DuckDBPyConnection,
    target: Path,
    summary: Sequence[tuple[str, object]],
    dependencies: Path,
) -> None:
    """Write `assets.xlsx` from the tables `inventory` and `strategies`."""
    book = xlsxwriter.Workbook(
        str(target),
        {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False},
    )
    # without a time of its own the same content would give other bytes
    book.set_properties({"created": dt.datetime(2000, 1, 1, tzinfo=dt.UTC)})
    bold = book.add_format({"bold": True})
    sheet = book.add_worksheet("Summary")
    sheet.set_column(0, 1, _WIDTH * 2)
    for row, (name, value) in enumerate(summary):
        sheet.write_string(row, 0, name, bold)
        _write(sheet, row, 1, value)
    gaps = "SELECT identity, name, asset_type, unnest(gaps) AS missing FROM strategies"
    sheets = {
        "Assets": "SELECT * FROM inventory ORDER BY identity",
        "Strategies": "SELECT * FROM strategies ORDER BY identity",
        "Gaps": f"{gaps} ORDER BY identity, missing",
        "Dependencies": f"SELECT * FROM read_parquet({literal(dependencies)})",  # noqa: S608 - quoted
    }
    for title, query in sheets.items():
        _sheet(book, title, connection.execute(query), bold)
    book.close()


def _sheet(
    book: xlsxwriter.Workbook,
    title: str,
    rows: duckdb.DuckDBPyConnection,
    bold: xlsxwriter.format.Format,
) -> None:
    sheet = book.add_worksheet(title)
    names = [column[0] for column in rows.description or ()]
    sheet.set_column(0, max(0, len(names) - 1), _WIDTH)
    sheet.freeze_panes(1, 0)
    for column, name in enumerate(names):
        sheet.write_string(0, column, name, bold)
    number = 0
    while (values := rows.fetchone()) is not None and number < _MOST_ROWS - 2:
        number += 1
        for column, value in enumerate(values):
            _write(sheet, number, column, value)
    if values is not None:
        sheet.write_string(
            number + 1, 0, "More rows than a worksheet holds; see the CSV file.", bold
        )
    if number:
        sheet.autofilter(0, 0, number, max(0, len(names) - 1))


def _write(sheet: xlsxwriter.worksheet.Worksheet, row: int, column: int, value: object) -> None:
    """A cell: numbers stay numbers, a text never becomes a formula."""
    if value is None:
        return
    if isinstance(value, bool):
        sheet.write_boolean(row, column, value)
    elif isinstance(value, (int, float)):
        sheet.write_number(row, column, value)
    else:
        text = "; ".join(map(str, value)) if isinstance(value, list) else str(value)
        sheet.write_string(row, column, spreadsheet_safe(text)[:_MOST_CHARACTERS])
