"""Which column leads from one table to another, when no known export tells.

Two tables that share a column belong together when it tells the rows of one apart and the other
refers to it. What kind of fact the column names then says which of both is about assets: disks
refer to their server, but servers refer to their site.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Relation:
    """How a detail or lookup table belongs to a main table. `keys`: its column, the main one's."""

    keys: Keys
    about_main: bool


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
        self._unique: dict[tuple[str, str], bool] = {}

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
            in_main, in_child = self._is_unique(main, ours), self._is_unique(child, theirs)
            detail = self._share(child, theirs, main, ours) if in_main else 0.0
            lookup = self._share(main, ours, child, theirs) if in_child else 0.0
            share = max(detail, lookup)
            if share >= _MATCHED and share > best[0]:
                about_main = in_main if names_assets(ours) else in_child
                best = (share, Relation([(theirs, ours)], about_main))
        return best[1]

    def _is_unique(self, view: str, column: str) -> bool:
        if (view, column) not in self._unique:
            name = identifier(column)
            row = self._connection.execute(
                f"SELECT count(*) > 1 AND count(*) = count(DISTINCT lower(trim({name}))) "  # noqa: S608 - quoted
                f"FROM {view} WHERE trim({name}) <> ''"
            ).fetchone()
            self._unique[view, column] = bool(row and row[0])
        return self._unique[view, column]

    def _share(self, view: str, column: str, other: str, reference: str) -> float:
        """Which part of a column's values is there in a column of another view."""
        name, key = identifier(column), identifier(reference)
        row = self._connection.execute(
            f"SELECT avg((lower(trim({name})) IN (SELECT lower(trim({key})) FROM {other} "  # noqa: S608 - quoted
            f"WHERE {key} IS NOT NULL))::INT) FROM {view} WHERE trim({name}) <> ''"
        ).fetchone()
        return float(row[0] or 0) if row else 0.0
