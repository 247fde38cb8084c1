"""Where a table begins and ends among the rows of a sheet or a text file.

People put titles above the header, tools repeat the header on each page, and spreadsheets end
with a sum. One set of rules serves delimited text and workbooks, so that both understand the
same table in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

from discovery_core.credentials import is_credential_header

from .credentials import WITHHELD, mask_keys
from .presets import is_header_of_preset

HEADER_WITHIN = 50
TOTAL_WORDS = (
    r"(?:grand |sub)?totals?|total general|total g[eé]n[eé]ral|sum|sums|summe|summen|gesamt|"
    r"gesamtsumme|zwischensumme|insgesamt|somme|sous-total|suma|soma|totale|totaal|totaux"
)
TOTAL_PROBLEM = "looks like a total"
NOTE_PROBLEM = "looks like a note below the table"
NOTE_REMEDY = "If it is an asset, fill another of its cells and submit it again."
_NOTE = re.compile(
    r"^(?:\s*([*#©]|\(c\)|(note|hinweis|nota|remarque|source|quelle|generated|exported|created|"
    r"printed|report|page|seite|confidential|vertraulich|erstellt|exportiert|stand|export[eé]|"
    r"g[eé]n[eé]r[eé]|generado|gerado|end of|legend)\b)|\S+(\s+\S+){3,})",
    re.IGNORECASE,
)
_NOTE_COLUMNS = 3
_TELLING = 300
MOST_NOTES = 20
TOTAL_REMEDY = "Nothing, if it is a sum. If it is an asset, give it another name."
TOTAL_PATTERN = rf"(?i:\s*(?:{TOTAL_WORDS})\s*(?::\s*)?)"
_TOTAL = re.compile("^" + TOTAL_PATTERN)
_AMOUNT = re.compile(
    r"^\s*(?:[-+][$€£]?\s*|[$€£]\s*)?\d+(?:[.,' \u00a0]\d{3})*(?:[.,]\d+)?\s*"
    r"(?:(?:%|[A-Za-z]{1,5}|[€$£])\s*)?"
)
_COMMENT = ("#", "//", "--")
# A header names facts; these are facts themselves: numbers, dates, addresses, numbered hosts.
_VALUE = re.compile(
    r"^(?:[-+]?\d[\d.,:/ -]*%?|\d{4}-\d\d-\d\d.*|[0-9a-f]{2}([:-][0-9a-f]{2}){5}|"
    r"[0-9a-f]{8}-[0-9a-f-]{27}|[^\s@]+@\S+|true|false|yes|no|n/a|[a-z][a-z-]*\d{2,}[a-z]*|"
    r"[a-z0-9-]+(\.[a-z0-9-]+)*\.(com|org|net|local|lan|corp|internal|example|de|io))",
    re.IGNORECASE,
)


# First and last cell of a merged range, each as row and column from 0.
Merge = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Start:
    """Indexes into the rows that were looked at: the header's last and first row, and titles."""

    header: int
    titles: tuple[int, ...]
    top: int


def find_start(rows: Sequence[Sequence[str]]) -> Start | None:
    """The header among a table's first rows, and the rows above it that say something.

    A title has fewer cells than the table below it, or begins like a comment. None when no row
    holds anything.
    """
    filled = [index for index, cells in enumerate(rows) if _filled(cells)]
    if not filled:
        return None
    header = _header(rows, filled)
    return Start(header, tuple(index for index in filled if index < header), header)


def _header(rows: Sequence[Sequence[str]], filled: list[int]) -> int:
    known = next((index for index in filled if is_header_of_preset(rows[index])), None)
    if known is not None:
        return known
    # of a short file titles may be half of all rows
    typical = sorted(_filled(rows[index]) for index in filled)[len(filled) * 3 // 4]
    width = median_low([_extent(rows[index]) for index in filled])
    for index in filled:
        cells = rows[index]
        # the last columns may have no name, but a title has few cells
        narrow = _extent(cells) < width and _filled(cells) * 4 < typical * 3
        if _filled(cells) * 2 <= typical or narrow or _is_comment(cells):
            continue
        if looks_like_names(cells):
            return index
        break
    solid = [index for index in filled if not _is_comment(rows[index])] or filled
    return next((index for index in solid if _filled(rows[index]) >= 2), solid[0])


def looks_like_names(cells: Sequence[str]) -> bool:
    """Whether most cells could be headers: words that differ, not values."""
    texts = {_cut(cell).lower() for cell in cells if cell.strip()}
    return bool(texts) and not are_values(cells) and len(texts) * 2 > _filled(cells)


def are_values(cells: Sequence[str]) -> bool:
    """Whether a good part of the cells are facts themselves, as no header has them."""
    values = sum(1 for cell in cells if _VALUE.fullmatch(_cut(cell).lower()))
    return values * 5 > _filled(cells)


def _cut(cell: str) -> str:
    """As much of a cell as tells what it is."""
    return cell.strip()[:_TELLING]


def _is_comment(cells: Sequence[str]) -> bool:
    first = next((cell.strip() for cell in cells if cell.strip()), "")
    return first.startswith(_COMMENT) and len(first) > 2


def _filled(cells: Sequence[str]) -> int:
    return sum(1 for cell in cells if cell.strip())


def _extent(cells: Sequence[str]) -> int:
    """Number of cells up to the last one that holds something."""
    return next((i for i in range(len(cells), 0, -1) if cells[i - 1].strip()), 0)


class BodyRules:
    """Tells rows of a table from what is only between them. `header` as it was written."""

    def __init__(self, header: Sequence[str]) -> None:
        self._header = [cell.strip() for cell in header]
        self._first = next((cell for cell in self._header if cell), "")
        self._at = self._header.index(self._first) if self._first else 0
        self._wide = sum(map(bool, self._header)) > 1
        self.repeated = 0

    @property
    def first(self) -> tuple[int, str]:
        """Index and text of the header's first cell that is not blank."""
        return self._at, self._first

    def is_repeated_header(self, cells: Sequence[str]) -> bool:
        """Whether this is the header again; counted."""
        if not self._wide or len(cells) <= self._at or cells[self._at].strip() != self._first:
            return False
        again = [cell.strip() for cell in cells] == self._header
        self.repeated += again
        return again

    def may_be_note(self, cells: Sequence[str]) -> bool:
        """Whether this may be a remark below the table: one text in a row of several columns."""
        texts = [cell for cell in cells if cell.strip()]
        return (
            len(texts) == 1
            and len(cells) >= _NOTE_COLUMNS
            and _NOTE.match(_cut(texts[0])) is not None
        )

    def is_total(self, cells: Sequence[str]) -> bool:
        """Whether this is a sum: it says so in its first cell, and only amounts follow.

        A row of four cells and more with all of them filled is taken for an asset of that name.
        """
        first = cells[0] if cells[0].strip() else next(filter(str.strip, cells), "")
        if len(cells) < 2 or not _TOTAL.fullmatch(_cut(first)):
            return False
        texts = [cell for cell in cells if cell.strip()]
        full = len(texts) == len(cells) > 3
        return not full and all(_AMOUNT.fullmatch(_cut(text)) for text in texts[1:])


def start_findings(header: int, titles: Sequence[tuple[int, Sequence[str]]]) -> list[str]:
    """What to tell people about rows above the header; numbers as a spreadsheet has them."""
    if not titles:
        return []
    shown = "; ".join(f"row {number}: {_title(cells)}" for number, cells in titles[:5])
    return [f"Rows above row {header} were taken as a title ({shown})."]


def _title(cells: Sequence[str]) -> str:
    """A title's beginning, unless it speaks of a password."""
    text = " ".join(cell.strip() for cell in cells if cell.strip())
    return WITHHELD if is_credential_header(text) else mask_keys(text)[:80]


def body_findings(*, blank: int, padded: int = 0, repeated: int = 0, short: int = 0) -> list[str]:
    """What to tell people about rows that were left out or completed."""
    findings = []
    if padded:
        findings.append(
            f"{padded} rows end with empty cells beyond the header; those were left out."
        )
    if blank:
        findings.append(f"{blank} blank rows were left out.")
    if repeated:
        findings.append(f"The header is repeated in {repeated} rows; those were left out.")
    if short:
        findings.append(
            f"{short} rows are shorter than the header; their last cells count as missing."
        )
    return findings
