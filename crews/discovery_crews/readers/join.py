"""What a detail table (disks, network cards, tags) says about each row of the main table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import duckdb

from discovery_crews.tables.engine import ROW, identifier, literal

from .keys import Keys
from .model import Rejection
from .presets import Preset, column_key

_BATCH = 1000
_AMOUNT = r"^-?[0-9]+([.][0-9]+)?$"
_GROUPED = r"^-?[0-9]{1,3}(,[0-9]{3})+([.][0-9]+)?$"

Source = tuple[str, str, Sequence[str]]


@dataclass
class Joined:
    """`view` has `main_row` and one column `c0`, `c1` … per entry of `columns`."""

    view: str
    child_view: str
    child_columns: Sequence[str]
    main_name: str
    links: str
    keys: list[Keys]
    columns: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    def orphans(self, connection: duckdb.DuckDBPyConnection) -> Iterator[Rejection]:
        """Rows of the detail table that belong to no row of the main table."""
        cells = ", ".join(identifier(name) for name in self.child_columns)
        connection.execute(
            f"SELECT {ROW}, {cells} FROM {self.child_view} c WHERE NOT EXISTS "  # noqa: S608 - quoted
            f"(SELECT 1 FROM {self.links} l WHERE l.child_row = c.{ROW}) ORDER BY {ROW}"
        )
        column = self.keys[0][0][0]
        at = list(self.child_columns).index(column)
        while batch := connection.fetchmany(_BATCH):
            for number, *values in batch:
                raw = io.StringIO()
                csv.writer(raw, lineterminator="").writerow(values)
                yield Rejection(
                    number,
                    column,
                    values[at] or "",
                    f"no row of {self.main_name} belongs to it",
                    f"Add the row to {self.main_name}, or correct the key.",
                    raw.getvalue(),
                )


def _same(left: str, right: str) -> str:
    return f"lower(trim({left})) = lower(trim({right}))"


def join_child(
    connection: duckdb.DuckDBPyConnection,
    *,
    main: Source,
    child: Source,
    keys: list[Keys],
    preset: Preset | None,
    longest: int,
) -> Joined | None:
    """The child's facts per main row: distinct values in row order, joined by `; `.

    `keys` are tried in order. A first key of one column is certain: the later ones count only
    where it is missing. A source is its name, its view and its columns. None when no row of the
    child finds one.
    """
    main_name, main_view, main_columns = main
    child_name, child_view, child_columns = child
    result = Joined(
        f"joined_{child_view}", child_view, child_columns, main_name, f"links_{child_view}", keys
    )
    linked = _link(connection, result, main_view)
    if not linked:
        return None
    (rows,) = connection.execute(f"SELECT count(*) FROM {child_view}").fetchall()[0]  # noqa: S608 - quoted
    used, empty = _new_columns(connection, result, main_view, main_columns)
    expressions = [(f"{child_name}.{name}", f"c.{identifier(name)}") for name in used]
    extra: list[tuple[str, str]] = []
    unsummed: list[str] = []
    if preset and preset.role == "tags":
        expressions = _tags(child_name, used)
    elif preset and preset.role == "series":
        expressions, extra = [], _measures(connection, child_name, child_view, used)
        unsummed = [name for name in used if (f"{child_name}.{name} avg") not in dict(extra)]
    if preset and preset.sums:
        extra = [(f"{child_name} count", "count(*)::VARCHAR"), *_sums(child_name, used, preset)]
    result.columns = [name for name, _ in (*expressions, *extra)]
    cut = _aggregate(connection, result, [sql for _, sql in expressions],
                     [sql for _, sql in extra], longest)  # fmt: skip
    key = " and ".join(name for name, _ in keys[0])
    columns = len(result.columns)
    lost = rows - linked
    said = [
        (linked, f"{linked} rows were joined to {main_name} by {key} as {columns} columns."),
        (lost, f"{lost} rows, now rejected ones, belong to no row of {main_name}."),
        (empty, f"{empty} empty columns were left out."),
        (len(unsummed), f"columns that are no measures were left out: {', '.join(unsummed)}."),
        (cut, f"{cut} joined values are longer than {longest} characters; they were cut there."),
    ]  # fmt: skip
    result.findings = [f"{child_name}: {text}" for count, text in said if count]
    return result


def _link(connection: duckdb.DuckDBPyConnection, result: Joined, main: str) -> int:
    """Write pairs of child and main rows; how many child rows have at least one."""
    connection.execute(f"CREATE TEMP TABLE {result.links} (child_row BIGINT, main_row BIGINT)")
    certain = len(result.keys[0]) == 1
    own, theirs = (identifier(name) for name in result.keys[0][0])
    lacking = f" AND (c.{own} IS NULL OR m.{theirs} IS NULL)" if certain else ""
    for number, keys in enumerate(result.keys):
        equal = " AND ".join(_same(f"c.{identifier(a)}", f"m.{identifier(b)}") for a, b in keys)
        child, source = result.child_view, main
        if number or not certain:
            # names lead only to a row that they tell apart from all others
            parts = ", ".join(f"lower(trim({identifier(b)}))" for _, b in keys)
            source = f"(SELECT * FROM {main} QUALIFY count(*) OVER (PARTITION BY {parts}) = 1)"  # noqa: S608 - quoted
        if number:
            linked = f"SELECT child_row FROM {result.links}"  # noqa: S608 - own name
            child = f"(SELECT * FROM {child} WHERE {ROW} NOT IN ({linked}))"  # noqa: S608 - own name
            equal += lacking
        connection.execute(
            f"INSERT INTO {result.links} SELECT c.{ROW}, m.{ROW} FROM {child} c "  # noqa: S608 - quoted
            f"JOIN {source} m ON {equal}"
        )
    found = connection.execute(
        f"SELECT count(DISTINCT child_row) FROM {result.links}"  # noqa: S608 - quoted
    ).fetchone()
    return int(found[0]) if found else 0


def _new_columns(
    connection: duckdb.DuckDBPyConnection, result: Joined, main: str, main_columns: Sequence[str]
) -> tuple[list[str], int]:
    """Columns that say more than the main table does, and how many others are empty."""
    theirs = {column_key(name): name for name in main_columns}
    keys = {name for group in result.keys for name, _ in group}
    facts = []
    for name in result.child_columns:
        value = f"c.{identifier(name)}"
        other = theirs.get(column_key(name))
        differs = f"{value} IS DISTINCT FROM m.{identifier(other)}" if other else "true"
        facts += [f"count({value})", f"count(*) FILTER ({value} IS NOT NULL AND {differs})"]
    counts = connection.execute(
        f"SELECT {', '.join(facts)} FROM {result.links} l "  # noqa: S608 - quoted
        f"JOIN {result.child_view} c ON c.{ROW} = l.child_row "
        f"JOIN {main} m ON m.{ROW} = l.main_row"
    ).fetchone()
    if counts is None:
        raise AssertionError("an aggregate without GROUP BY gives one row")
    used, empty = [], 0
    for position, name in enumerate(result.child_columns):
        filled, new = counts[2 * position], counts[2 * position + 1]
        if not filled:
            empty += 1
        elif new and name not in keys:
            used.append(name)
    return used, empty


def _tags(child: str, used: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of key and value as one text each."""
    names = {column_key(name): f"c.{identifier(name)}" for name in used}
    key, value = names.get("key"), names.get("value", "NULL")
    if key is None:
        return [(f"{child}.{name}", f"c.{identifier(name)}") for name in used]
    return [(f"{child}.tags", f"{key} || coalesce('=' || {value}, '')")]


def _number(value: str) -> str:
    """SQL: the amount that a text writes (`1024`, `10.5`, `1,024`), or NULL."""
    text = f"trim({value})"
    return (
        f"CASE WHEN regexp_matches({text}, {literal(_AMOUNT)}) THEN try_cast({text} AS DOUBLE) "
        f"WHEN regexp_matches({text}, {literal(_GROUPED)}) "
        f"THEN try_cast(replace({text}, ',', '') AS DOUBLE) END"
    )


def _plain(number: str) -> str:
    """SQL: a number as text, without decimals where there are none."""
    rounded = f"round({number}, 4)"
    return (
        f"CASE WHEN {rounded} = floor({rounded}) AND abs({rounded}) < 1e15 "
        f"THEN try_cast({rounded} AS BIGINT)::VARCHAR ELSE {rounded}::VARCHAR END"
    )


def _sums(child: str, used: Sequence[str], preset: Preset) -> list[tuple[str, str]]:
    """Sizes that add up, and each of them; where one of them is no number there is no sum."""
    wanted = {column_key(name) for name in preset.sums}
    sums = []
    for name in used:
        if column_key(name) in wanted:
            value = f"c.{identifier(name)}"
            number = _number(value)
            total = f"CASE WHEN count({value}) = count({number}) THEN sum({number}) END"
            sums.append((f"{child}.{name} sum", _plain(f"({total})")))
            each = f"string_agg(trim({value}), '; ' ORDER BY l.child_row)"
            sums.append((f"{child}.{name} each", each))
    return sums


def _measures(
    connection: duckdb.DuckDBPyConnection, child: str, view: str, used: Sequence[str]
) -> list[tuple[str, str]]:
    """Average and maximum of every measured column; texts and times are not repeated."""
    measures = [(f"{child} count", "count(*)::VARCHAR")]
    for name in used:
        number = _number(f"c.{identifier(name)}")
        row = connection.execute(
            f"SELECT count({identifier(name)}) = count({number}) FROM {view} c"  # noqa: S608 - quoted
        ).fetchone()
        if row and row[0]:
            measures.append((f"{child}.{name} avg", _plain(f"avg({number})")))
            measures.append((f"{child}.{name} max", _plain(f"max({number})")))
    return measures


def _aggregate(
    connection: duckdb.DuckDBPyConnection,
    result: Joined,
    values: Sequence[str],
    extra: Sequence[str],
    longest: int,
) -> int:
    """Write the result's table; how many joined values had to be cut."""
    pairs = f"FROM {result.links} l JOIN {result.child_view} c ON c.{ROW} = l.child_row"
    texts = ", ".join(
        f"string_agg(value, '; ' ORDER BY first) FILTER (number = {number}) AS c{number}"
        for number in range(len(values))
    )
    more = ", ".join(f"{sql} AS c{len(values) + number}" for number, sql in enumerate(extra))
    if not values and not extra:
        connection.execute(f"CREATE TEMP TABLE {result.view} (main_row BIGINT)")
        return 0
    parts = []
    if values:
        numbers = ", ".join(str(number) for number in range(len(values)))
        parts.append(
            f"(SELECT main_row, {texts} FROM (SELECT main_row, number, value, "  # noqa: S608 - quoted
            f"min(child_row) AS first FROM (SELECT l.main_row, l.child_row, "
            f"unnest([{numbers}]) AS number, unnest([{', '.join(values)}]) AS value {pairs}) "
            "WHERE trim(value) <> '' GROUP BY ALL) GROUP BY main_row)"
        )
    if extra:
        parts.append(f"(SELECT l.main_row, {more} {pairs} GROUP BY l.main_row)")
    source = " FULL JOIN ".join(f"{part} p{number}" for number, part in enumerate(parts)) + (
        " USING (main_row)" if len(parts) > 1 else ""
    )
    cells = ", ".join(f"left(c{n}, {longest}) AS c{n}" for n in range(len(values) + len(extra)))
    long = " + ".join(f"coalesce(length(c{n}) > {longest}, false)::INT" for n in range(len(values)))
    connection.execute(
        f"CREATE TEMP TABLE {result.view} AS "  # noqa: S608 - quoted
        f"SELECT main_row, {long or 0} AS cut{', ' + cells if cells else ''} FROM {source}"
    )
    cut = connection.execute(f"SELECT sum(cut) FROM {result.view}").fetchone()  # noqa: S608 - quoted
    return int(cut[0] or 0) if cut else 0
