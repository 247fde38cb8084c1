"""Column names of a file that has a header and no rows.

The readers refuse such a file, rightly: there is nothing to inventory. For mapping it is a fair
question ("where would these columns go?"), so the header alone is read here.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from discovery_core.errors import DiscoveryError, ErrorCode
from python_calamine import CalamineWorkbook

from discovery_crews.readers.dialect import detect_dialect
from discovery_crews.readers.encoding import detect_encoding
from discovery_crews.readers.table import name_columns

_START_CHARACTERS = 64 * 1024


def header_of(path: Path) -> list[str]:
    """The column names of a delimited text or a workbook without rows below its header.

    Raises DiscoveryError (NO_COLUMNS) where no header is found.
    """
    with path.open("rb") as stream:
        zipped = stream.read(2) == b"PK"
    cells = _of_workbook(path) if zipped else _of_text(path)
    if not any(cell.strip() for cell in cells):
        raise DiscoveryError(
            ErrorCode.NO_COLUMNS,
            f"{path.name}: no header found. The first row must name columns.",
        )
    return name_columns(cells, [])


def _of_text(path: Path) -> list[str]:
    encoding = detect_encoding(path, path.name)
    with path.open(encoding=encoding.codec, errors=encoding.errors, newline="") as stream:
        start = stream.read(_START_CHARACTERS)
    dialect = detect_dialect(start)
    lines = itertools.islice(iter(start.splitlines(keepends=True)), dialect.lines_before, None)
    return next((cells for cells in dialect.reader(lines) if any(map(str.strip, cells))), [])


def _of_workbook(path: Path) -> list[str]:
    best: list[str] = []
    with CalamineWorkbook.from_path(str(path)) as workbook:
        for name in workbook.sheet_names:
            for row in workbook.get_sheet_by_name(name).to_python(nrows=50):
                cells = [str(cell).strip() for cell in row]
                if sum(map(bool, cells)) > sum(map(bool, best)):
                    best = cells
    return [cell for cell in best if cell]
