"""What readers are given and what they return; the one vocabulary that all of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from discovery_core.errors import DiscoveryError, ErrorCode

from discovery_crews.settings import ReaderLimits

Progress = Callable[[int | None, int | None, str], None]
# Refusals that say only that a part of an input is no table; the other parts may be.
NO_TABLE = frozenset({ErrorCode.EMPTY_FILE, ErrorCode.NO_ROWS, ErrorCode.NO_COLUMNS})
_RATIO_FROM = 10 * 1024 * 1024


class Expansion:
    """How far an input may expand, archives in it included. `size` is the input's own size."""

    def __init__(self, name: str, size: int, limits: ReaderLimits) -> None:
        self._name = name
        self._size = max(size, 1)
        self._limits = limits
        self._total = 0

    def add(self, count: int) -> None:
        """Count unpacked bytes. Raises DiscoveryError `LimitExceeded`."""
        self._total += count
        ratio, limits = self._total / self._size, self._limits
        if self._total > limits.max_expanded_bytes or (
            self._total > _RATIO_FROM and ratio > limits.max_expansion_ratio
        ):
            raise DiscoveryError(
                ErrorCode.LIMIT_EXCEEDED,
                f"{self._name}: expands to more than {self._total // 1024 // 1024} MiB "
                f"({ratio:.0f} times its size); the limits are {limits.max_expanded_bytes} bytes "
                f"(DISCOVERY_MAX_EXPANDED_BYTES) and {limits.max_expansion_ratio} times "
                "(DISCOVERY_MAX_EXPANSION_RATIO). Save the table as CSV.",
            )


def quiet(done: int | None, total: int | None, message: str) -> None:
    """Progress nobody listens to."""


@dataclass(frozen=True)
class ReadRequest:
    """A file to read: `name` is what messages call it, `workdir` takes what is written.

    `expansion` is the budget of the archive that the file came out of, if any.
    """

    path: Path
    workdir: Path
    name: str
    limits: ReaderLimits
    progress: Progress = quiet
    expansion: Expansion | None = None

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self.path.stat().st_size


@dataclass(frozen=True)
class ReadTable:
    """A source as read: `parquet` holds one text column per entry of `columns`, then `__row`.

    `rejected` is the CSV of refused rows (header only when there are none); `findings` are
    sentences for people about what was renamed, left out or assumed. `may_hold_keys` is False
    where the reader has seen that there is no trace of private keys. `connections` is what tables
    of connections beside the main one say (`connections.write_connections`), if there are any.
    """

    parquet: Path
    rejected: Path
    columns: list[str]
    rows: int
    rows_rejected: int
    rejected_by_problem: dict[str, int]
    format: str
    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    findings: list[str] = field(default_factory=list)
    may_hold_keys: bool = True
    connections: Path | None = None


@dataclass(frozen=True)
class Part:
    """One of several tables of an input; `source` is its file or sheet, as people know it."""

    source: str
    table: ReadTable


@dataclass(frozen=True)
class Unread:
    """A part of an input that was not taken: what it is called, how long it is and why."""

    source: str
    why: str
    rows: int | None = None

    @property
    def text(self) -> str:
        """For people."""
        rows = f"{self.rows} rows, " if self.rows is not None else ""
        return f"{self.source!r} ({rows}{self.why})"


@dataclass(frozen=True)
class Rejection:
    """One refused row: `row` as a spreadsheet numbers it, and what to do about it."""

    row: int
    column: str
    value: str
    problem: str
    remedy: str
    raw: str
