"""How a delimited file separates its cells, and its physical lines one by one."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TextIO

MAX_LINE = 4_000_000
_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_RECORDS = 200
_NEARLY_ALL, _MOSTLY = 0.9, 0.7
_WRAPPED = re.compile(r'"((?:[^"]|"")*+)"')
_BEHIND = ",;\t| "
_SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n?$", re.IGNORECASE)


@dataclass(frozen=True)
class Dialect:
    """How cells are separated. `lines_before` counts Excel's `sep=;` line.

    `wrapped` where each line is one quoted text that holds the row, as it comes of exporting twice.
    """

    delimiter: str
    skip_space: bool = False
    lines_before: int = 0
    wrapped: bool = False

    def reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """A strict parser over physical lines."""
        return csv.reader(
            lines, delimiter=self.delimiter, skipinitialspace=self.skip_space, strict=True
        )

    def cells(self, line: str) -> list[str] | None:
        """The cells of one physical line on its own, or None when its quotes do not close."""
        try:
            return next(self.reader(iter([line])), [])
        except csv.Error:
            return None


def detect_dialect(start: str) -> Dialect:
    """The dialect under which most of the first records are equally wide."""
    marked = _SEPARATOR_LINE.match(start.partition("\n")[0])
    if marked:
        return Dialect(marked.group(1), lines_before=1)
    return _wrapped_dialect(start) or _most_consistent(start)[0]


def _wrapped_dialect(start: str) -> Dialect | None:
    """The dialect within lines that are quoted as a whole, where nearly all are and agree."""
    lines = [line for line in start.splitlines(keepends=True) if line.strip()][:_SAMPLE_RECORDS]
    rows = [unwrap(line) for line in lines]
    # a header may stand above without
    changed = sum(1 for line, row in zip(lines[1:], rows[1:], strict=True) if row != line)
    if not changed or changed < _NEARLY_ALL * (len(lines) - 1):
        return None
    dialect, (share, width) = _most_consistent("".join(rows))
    first = dialect.cells(rows[0]) or []
    # one cell that holds a comma, such as "Doe, Jane", is no row
    telling = width > 2 or any('"' in row for row in rows)
    if share < _MOSTLY or len(first) != width or not telling:
        return None
    return replace(dialect, wrapped=True)


def unwrap(line: str) -> str:
    """The row in a line that is quoted as a whole; the line itself where it is not."""
    text = line.rstrip("\r\n")
    found = _WRAPPED.fullmatch(text.rstrip(_BEHIND))
    return found[1].replace('""', '"') + line[len(text) :] if found else line


def _most_consistent(start: str) -> tuple[Dialect, tuple[float, int]]:
    best, best_score = Dialect(","), (0.0, 0)
    for delimiter in _DELIMITERS:
        for skip_space in (False, True):
            if skip_space and f'{delimiter} "' not in start:
                continue
            dialect = Dialect(delimiter, skip_space)
            score = _consistency(dialect, start)
            if score > best_score:
                best, best_score = dialect, score
    return best, best_score


def _consistency(dialect: Dialect, start: str) -> tuple[float, int]:
    widths: list[int] = []
    try:
        for cells in dialect.reader(io.StringIO(start, newline="")):
            if any(cells):
                widths.append(len(cells))
            if len(widths) >= _SAMPLE_RECORDS:
                break
    except csv.Error:
        if not widths:
            return (0.0, 0)
    if not widths:
        return (0.0, 0)
    # a title may be narrower than the table, but then most rows have to agree on another width
    width, count = max(Counter(widths).items(), key=lambda found: (found[1], found[0]))
    if width != widths[0] and count * 2 <= len(widths):
        width, count = widths[0], widths.count(widths[0])
    return (count / len(widths), width) if width > 1 else (0.0, 0)


class LineSource:
    """Feeds physical lines to the parser and remembers those of the current record.

    Where they are `wrapped`, it feeds the rows in them.
    """

    def __init__(self, stream: TextIO, *, wrapped: bool = False) -> None:
        self._stream = stream
        self._wrapped = wrapped
        self._again: list[str] = []
        self.record: list[str] = []

    def __iter__(self) -> LineSource:
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else self._stream.readline(MAX_LINE)
        if not line:
            raise StopIteration
        if self._wrapped:
            line = unwrap(line)
        self.record.append(line)
        return line

    def take(self) -> list[str]:
        """The physical lines since the last call."""
        lines, self.record = self.record, []
        return lines

    def give_back(self, lines: list[str]) -> None:
        """Read these lines again, in this order, before the rest of the file."""
        self._again.extend(reversed(lines))
