"""Turns corrected rejected rows into a file that can be imported on its own.

`rejected.csv` is meant to be corrected in a spreadsheet: its `raw_line` is the row as it stood in
the source. What is missing for a second import is the source's header above those rows, and
the apostrophes in front of formulas have to go again. Usage:

    python -m discovery_crews.readers.resubmit servers.csv rejected.csv again.csv
"""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

from discovery_core.errors import DiscoveryError, ErrorCode

from discovery_crews.settings import reader_limits

from .credentials import WITHHELD
from .dialect import MAX_LINE
from .encoding import detect_encoding
from .kinds import kind_of
from .model import ReadRequest
from .read import text_header
from .table import REJECTED_HEADER, spreadsheet_text


@dataclass(frozen=True)
class Resubmission:
    """How many rows were written, and the numbers of those that only the source can repair."""

    written: int
    left: list[int]


def resubmit(source: Path, rejected: Path, target: Path) -> Resubmission:
    """Write the header of `source` and the `raw_line` of every row of `rejected`, in UTF-8.

    Rows that were withheld because of a credential, and rows whose `raw_line` was emptied, are
    left out; a credential that was removed from a row stays removed.

    Raises DiscoveryError when `source` is no text file or `rejected` is not what an import wrote.
    """
    request = ReadRequest(source, target.parent, source.name, reader_limits())
    if kind_of(request) != "text":
        raise DiscoveryError(
            ErrorCode.UNSUPPORTED_FORMAT,
            f"{source.name}: a workbook, a page or an archive. Copy the header of its table and "
            "the raw_line cells into a text file; they are separated by tabs or commas.",
        )
    header = text_header(request, detect_encoding(source, source.name))
    left: list[int] = []
    written = 0
    csv.field_size_limit(MAX_LINE)
    with (
        rejected.open(encoding="utf-8-sig", newline="") as rows,
        target.open("w", encoding="utf-8", newline="") as output,
    ):
        reader = csv.DictReader(rows)
        if not set(REJECTED_HEADER) <= set(reader.fieldnames or ()):
            raise DiscoveryError(
                ErrorCode.UNSUPPORTED_FORMAT,
                f"{rejected.name}: not a file of rejected rows; it needs the columns "
                f"{', '.join(REJECTED_HEADER)}.",
            )
        output.write(header)
        for row in reader:
            raw = spreadsheet_text(row["raw_line"])
            if not raw.strip() or WITHHELD in raw:
                left.append(int(row["row"]))
            else:
                output.write(raw.rstrip("\r\n") + "\n")
                written += 1
    return Resubmission(written, left)


def main() -> int:
    """The command."""
    if len(sys.argv) != 4:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    try:
        done = resubmit(*map(Path, sys.argv[1:]))
    except DiscoveryError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    sys.stdout.write(f"{done.written} rows written to {sys.argv[3]}\n")
    if done.left:
        shown = ", ".join(map(str, done.left[:20]))
        sys.stdout.write(f"{len(done.left)} rows were left out (row {shown}); see the source\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
