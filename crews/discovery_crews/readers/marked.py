"""A table as its tags tell it: cell by cell, some of which cover several rows and columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .layout import Merge
from .sheet import Grid


class TooMuchError(Exception):
    """A table reaches farther than may be read."""


@dataclass
class MarkedTable:
    """Collects cells; `limit` is over how many it may reach, empty ones and covered ones included.

    Raises TooMuchError.
    """

    name: str
    limit: int
    hidden: bool = False
    width: int = 0
    rows: dict[int, dict[int, str]] = field(default_factory=dict)
    merged: list[Merge] = field(default_factory=list)
    _covered: dict[int, int] = field(default_factory=dict)
    _spent: int = 0
    _row: int = -1
    _column: int = 0

    def next_row(self, number: int | None = None) -> None:
        """Begin a row: the next one, or that of this number from 1."""
        self._row = self._row + 1 if number is None else number - 1
        self._column = 0

    def move_to(self, column: int) -> None:
        """Go on at this column, from 1."""
        self._column = column - 1

    def place(self, text: str, across: int = 1, down: int = 1) -> None:
        """Put a cell behind the last one of its row; it covers so many columns and rows."""
        self._row = max(self._row, 0)
        while self._covered.get(self._column, 0) > self._row:
            self._column += 1
            self._spend(1)
        last = self._column + across
        if text:
            self.width = max(self.width, last)
            if (self._row + 1) * self.width > self.limit:
                raise TooMuchError
            self.rows.setdefault(self._row, {})[self._column] = text
        if text and (across > 1 or down > 1):
            self.merged.append(((self._row, self._column), (self._row + down - 1, last - 1)))
        if down > 1:
            self._spend(across)
            self._covered.update(dict.fromkeys(range(self._column, last), self._row + down))
        self._column = last

    def _spend(self, steps: int) -> None:
        self._spent += steps
        if self._spent > self.limit:
            raise TooMuchError

    def grid(self) -> Grid:
        """The whole as a sheet."""
        last = max(self.rows, default=-1) + 1
        return Grid(self.name, last, self._numbered, self.merged, self.hidden)

    def _numbered(self) -> Iterator[tuple[int, list[str]]]:
        for row in range(max(self.rows, default=-1) + 1):
            cells = [""] * self.width
            for column, text in self.rows.get(row, {}).items():
                cells[column] = text
            yield row + 1, cells
