"""Which of several columns is believed about a machine's operating system, row by row.

VMware Tools know that a machine was upgraded, and call what they do not know "CentOS 4/5 or later";
its configuration may say "CentOS 7", or what was installed ten years ago. So the machine's own
report comes first, and gives way where it knows less of the same product. What disagrees is told.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import duckdb
import yaml

from discovery_crews.systems import system_of
from discovery_crews.tables.engine import ROW, identifier, literal
from discovery_crews.tables.values import string

from .plan import FieldSource, SourceColumn

ROLE = "os_name"
# the column of `weigh`'s table: which of the witnesses is believed, from 0
BELIEVED = "__os_witness"
_EXAMPLES = 3
_TEXT = 80
# of these no distribution of Linux is a closer name
_NO_LINUX = ("windows", "windows-server", "esxi", "macos", "freebsd")


@dataclass(frozen=True)
class Disagreement:
    """Rows whose witnesses name different systems: how many, the first ones, one example."""

    rows: int
    first: tuple[int, ...]
    texts: tuple[str, str]

    def told(self, columns: Sequence[str]) -> str:
        """What people are told."""
        numbers = ", ".join(map(str, self.first))
        more = ", …" if self.rows > len(self.first) else ""
        names = " and ".join(f"{name!r}" for name in columns)
        return (
            f"The columns {names} disagree about the operating system of {self.rows} rows "
            f"({numbers}{more}; row {self.first[0]}: {self.texts[0]!r} and {self.texts[1]!r}). "
            "What the machine reports was taken where it names product and version; check them."
        )


@lru_cache(maxsize=1)
def _headers() -> dict[str, re.Pattern[str]]:
    text = (resources.files(__package__) / "witnesses.yaml").read_text(encoding="utf-8")
    return {
        kind: re.compile(rf"(?<!\w)({'|'.join(words)})(?!\w)", re.IGNORECASE)
        for kind, words in yaml.safe_load(text).items()
    }


def in_order(columns: Sequence[SourceColumn]) -> tuple[SourceColumn, ...]:
    """The columns, those first that the machine itself reports, those last that were configured."""
    headers = _headers()

    def place(entry: SourceColumn) -> int:
        name = entry.column.replace("_", " ")
        if headers["reported"].search(name):
            return 0
        return 2 if headers["configured"].search(name) else 1

    return tuple(sorted(columns, key=place))


def is_weighed(source: FieldSource) -> bool:
    """Whether several columns speak of the operating system."""
    return source.role == ROLE and len(source.columns) > 1


def weigh(
    connection: duckdb.DuckDBPyConnection, records: Path, source: FieldSource, target: Path
) -> Disagreement | None:
    """Write `target`: for every row the number of the column that is believed (`BELIEVED`).

    Texts are read once per distinct one; everything else is SQL.
    """
    columns = [string(identifier(entry.column)) for entry in source.columns]
    scan = f"read_parquet({literal(records)})"
    queries = [f"SELECT {column} AS text FROM {scan}" for column in columns]  # noqa: S608 - quoted
    _read(connection, queries)
    joins = " ".join(
        f"LEFT JOIN os_texts AS w{n} ON w{n}.text = {column}" for n, column in enumerate(columns)
    )
    believed = "0"
    for n in range(1, len(columns)):
        believed = (
            f"CASE WHEN w{n}.text IS NOT NULL AND ({_better(n, believed, len(columns))}) "
            f"THEN {n} ELSE {believed} END"
        )
    connection.execute(
        f"COPY (SELECT {ROW}, {believed} AS {BELIEVED} FROM {scan} {joins}) "  # noqa: S608 - quoted
        f"TO {literal(target)} (FORMAT parquet, ROW_GROUP_SIZE 50000)"
    )
    other = f"coalesce({', '.join(f'w{n}.text' for n in range(1, len(columns)))})"
    differ = " OR ".join(
        _differ(f"w{a}", f"w{b}") for b in range(1, len(columns)) for a in range(b)
    )
    row = connection.execute(
        f"SELECT count(*), list({ROW} ORDER BY {ROW})[:{_EXAMPLES}], "  # noqa: S608 - quoted
        f"arg_min(left(coalesce(w0.text, {other}), {_TEXT}), {ROW}), "
        f"arg_min(left({other}, {_TEXT}), {ROW}) FROM {scan} {joins} WHERE {differ}"
    ).fetchone()
    connection.execute("DROP TABLE os_texts")
    if row is None or not row[0]:
        return None
    return Disagreement(int(row[0]), tuple(row[1]), (row[2], row[3]))


def _read(connection: duckdb.DuckDBPyConnection, queries: Sequence[str]) -> None:
    """Table `os_texts`: every text, its product and version, and how much it says (0 to 2)."""
    connection.execute(
        "CREATE TEMP TABLE os_texts (text VARCHAR, product VARCHAR, version VARCHAR, says INTEGER)"
    )
    texts = connection.execute(
        f"SELECT DISTINCT text FROM ({' UNION ALL '.join(queries)}) WHERE text IS NOT NULL"  # noqa: S608 - quoted
    ).fetchall()
    rows: list[tuple[str, str | None, str | None, int]] = []
    for (text,) in texts:
        found = system_of(text, "os")
        if found is None:
            rows.append((text, None, None, 0))
            continue
        vague = found.product in ("linux", "windows")
        says = 2 if found.version else 0 if vague else 1
        rows.append((text, found.product, found.version, says))
    if rows:
        connection.executemany("INSERT INTO os_texts VALUES (?, ?, ?, ?)", rows)


def _better(n: int, believed: str, columns: int) -> str:
    """SQL: whether witness `n` is believed rather than the one that was before it."""
    chosen = {}
    for name in ("text", "product", "says"):
        cases = " ".join(f"WHEN {k} THEN w{k}.{name}" for k in range(columns))
        chosen[name] = f"CASE {believed} {cases} END"
    return (
        f"{chosen['text']} IS NULL OR ({chosen['says']} = 0 AND w{n}.says > 0) "
        f"OR ({chosen['says']} = 1 AND w{n}.says = 2 AND {chosen['product']} = w{n}.product)"
    )


def _differ(a: str, b: str) -> str:
    """SQL: whether two witnesses cannot both be right."""
    closed = ", ".join(map(literal, _NO_LINUX))
    closer = " OR ".join(
        f"({x}.product = 'linux' AND {y}.product NOT IN ({closed})) OR "
        f"({x}.product = 'windows' AND {x}.version IS NULL AND {y}.product = 'windows-server')"
        for x, y in ((a, b), (b, a))
    )
    return (
        f"(({a}.product <> {b}.product AND NOT coalesce({closer}, false)) OR "
        f"({a}.product = {b}.product AND {a}.version <> {b}.version))"
    )
