"""How a delimited file separates its cells, and its physical lines one by one."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

MAX_LINE = 4_000_000
_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_RECORDS = 200
_SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n?$", re.IGNORECASE)


@dataclass(frozen=True)
class Dialect:
    """How cells are separated. `lines_before` counts Excel's `sep=;` line."""

    delimiter: str
    skip_space: bool = False
    lines_before: int = 0

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
    best, best_score = Dialect(","), (0.0, 0)
    for delimiter in _DELIMITERS:
        for skip_space in (False, True):
            if skip_space and f'{delimiter} "' not in start:
                continue
            dialect = Dialect(delimiter, skip_space)
            score = _consistency(dialect, start)
            if score > best_score:
                best, best_score = dialect, score
    return best


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
    """Feeds physical lines to the parser and remembers those of the current record."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._again: list[str] = []
        self.record: list[str] = []

    def __iter__(self) -> LineSource:
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else self._stream.readline(MAX_LINE)
        if not line:
            raise StopIteration
        self.record.append(line)
        return line

    def take(self) -> list[str]:
        """The physical lines since the last call."""
        lines, self.record = self.record, []
        return lines

    def give_back(self, lines: list[str]) -> None:
        """Read these lines again, in this order, before the rest of the file."""
        self._again.extend(reversed(lines))
