"""Which column leads from one table to another, when no known export tells.

Two tables that share a column belong together when it tells the rows of one apart and the other
refers to it. What kind of fact the column names then says which of both is about assets: disks
refer to their server, but servers refer to their site.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import duckdb

from discovery_crews.tables.engine import identifier

from .presets import column_key

Keys = list[tuple[str, str]]

# Names under which every table counts its own rows; equal numbers there mean nothing.
_NO_KEYS = {"id", "#", "no", "no.", "nr", "nr.", "row", "index", "pos", "line", "count"}
_ASSET_WORDS = frozenset(
    "server host hostname vm machine asset device instance computer node ci serial uuid fqdn agent "
    "application app system".split()
)
_MATCHED = 0.5
_COMPARED_COLUMNS = 20
_PAIRED_COLUMNS = 6
# a key that some of the main table's rows share is still the key of all others
_NEARLY, _NEARLY_ID = 0.8, 0.6


@dataclass(frozen=True)
class Relation:
    """How a detail or lookup table belongs to a main table.

    `ways` are its columns with the main one's, best first. The rows of a `lookup` are each about
    several of the main table.
    """

    ways: list[Keys]
    about_main: bool
    lookup: bool = False


def names_assets(column: str) -> bool:
    """Whether a column's header is about an asset itself: `Server Name`, `VM UUID`, `Name`."""
    words = column_key(column).replace("_", " ").replace("-", " ").split()
    return words == ["name"] or any(
        word in _ASSET_WORDS or word.removesuffix("id").removesuffix("name") in _ASSET_WORDS
        for word in words
    )


class KeyFinder:
    """Looks for keys between tables; what it has measured once it remembers."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._distinct: dict[tuple[str, ...], float] = {}

    def relation(
        self, main: str, main_columns: Sequence[str], child: str, child_columns: Sequence[str]
    ) -> Relation | None:
        """The best key between two views, or None.

        `about_main` tells that the first one is about the assets, by the key's name.
        """
        own = {column_key(name): name for name in child_columns}
        shared = [
            (own[column_key(name)], name)
            for name in main_columns
            if column_key(name) in own and column_key(name) not in _NO_KEYS
        ]
        best: tuple[float, Relation | None] = (0.0, None)
        for theirs, ours in shared[:_COMPARED_COLUMNS]:
            apart = self._apart(main, [ours])
            in_child = self._apart(child, [theirs]) == 1
            in_main = apart == 1 or (
                apart >= (_NEARLY_ID if _is_id(ours) else _NEARLY)
                and names_assets(ours)
                and not (in_child and not _is_id(ours))
            )
            detail = self._share(child, [theirs], main, [ours]) * apart if in_main else 0.0
            lookup = self._share(main, [ours], child, [theirs]) if in_child else 0.0
            share = max(detail, lookup)
            if share >= _MATCHED and share > best[0]:
                about_main = in_main if names_assets(ours) else in_child
                ways = [[(theirs, ours)], *_with_others((theirs, ours), shared, apart)]
                best = (share, Relation(ways, about_main, lookup=not in_main))
        return best[1] or self._by_two(main, child, shared)

    def _by_two(self, main: str, child: str, shared: Keys) -> Relation | None:
        """Two columns that together tell the main table's rows apart, such as name and site."""
        for first, second in combinations(shared[:_PAIRED_COLUMNS], 2):
            theirs, ours = [first[0], second[0]], [first[1], second[1]]
            if (
                any(map(names_assets, ours))
                and self._apart(main, ours) == 1
                and self._share(child, theirs, main, ours) >= _MATCHED
            ):
                return Relation([[first, second]], about_main=True)
        return None

    def _apart(self, view: str, columns: Sequence[str]) -> float:
        """Distinct values of the columns together per row that has them; 0 for a single row."""
        known = (view, *columns)
        if known not in self._distinct:
            filled = " AND ".join(f"trim({identifier(name)}) <> ''" for name in columns)
            row = self._connection.execute(
                f"SELECT CASE WHEN count(*) > 1 THEN count(DISTINCT {_value(columns)}) / count(*) "  # noqa: S608 - quoted
                f"ELSE 0 END FROM {view} WHERE {filled}"
            ).fetchone()
            self._distinct[known] = float(row[0] or 0) if row else 0.0
        return self._distinct[known]

    def _share(
        self, view: str, columns: Sequence[str], other: str, references: Sequence[str]
    ) -> float:
        """Which part of the values of columns is there in columns of another view."""
        filled = " AND ".join(f"trim({identifier(name)}) <> ''" for name in columns)
        known = " AND ".join(f"{identifier(name)} IS NOT NULL" for name in references)
        row = self._connection.execute(
            f"SELECT avg(({_value(columns)} IN (SELECT {_value(references)} FROM {other} "  # noqa: S608 - quoted
            f"WHERE {known}))::INT) FROM {view} WHERE {filled}"
        ).fetchone()
        return float(row[0] or 0) if row else 0.0


def _value(columns: Sequence[str]) -> str:
    parts = ", ".join(f"lower(trim({identifier(name)}))" for name in columns)
    return parts if len(columns) == 1 else f"({parts})"


def _is_id(column: str) -> bool:
    words = column_key(column).replace("_", " ").replace("-", " ").split()
    return any(word.endswith(("uuid", "guid", "serial", "id")) for word in words)


def _with_others(key: tuple[str, str], shared: Keys, apart: float) -> list[Keys]:
    """The key with each other shared column that is about assets, where it repeats."""
    if apart == 1:
        return []
    others = [pair for pair in shared[:_COMPARED_COLUMNS] if pair != key and names_assets(pair[1])]
    return [[key, pair] for pair in others[:_PAIRED_COLUMNS]]
