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
from .presets import CERTAIN_COLUMNS, Preset, column_key

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
    main_view: str
    links: str
    keys: list[Keys]
    shown: Keys
    columns: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    def orphans(self, connection: duckdb.DuckDBPyConnection) -> Iterator[Rejection]:
        """Rows of the detail table that belong to no row of the main table, or to no single one."""
        cells = ", ".join(identifier(name) for name in self.child_columns)
        connection.execute(
            f"SELECT {ROW}, {_fits_some(self)}, {cells} FROM {self.child_view} c WHERE NOT EXISTS "  # noqa: S608 - quoted
            f"(SELECT 1 FROM {self.links} l WHERE l.child_row = c.{ROW}) ORDER BY {ROW}"
        )
        column = self.shown[0][0]
        at = list(self.child_columns).index(column)
        while batch := connection.fetchmany(_BATCH):
            for number, several, *values in batch:
                raw = io.StringIO()
                csv.writer(raw, lineterminator="").writerow(values)
                problem = f"no row of {self.main_name} belongs to it"
                remedy = f"Add the row to {self.main_name}, or correct the key."
                if several:
                    problem = f"several rows of {self.main_name} have its key, or another one"
                    remedy = (
                        "Export both tables with vCenter and VM id, or another column that tells "
                        f"the rows of {self.main_name} apart."
                    )
                yield Rejection(number, column, values[at] or "", problem, remedy, raw.getvalue())


def _folded(value: str) -> str:
    return f"lower(trim({value}))"


def _same(left: str, right: str) -> str:
    return f"{_folded(left)} = {_folded(right)}"


def join_child(
    connection: duckdb.DuckDBPyConnection,
    *,
    main: Source,
    child: Source,
    keys: list[Keys],
    preset: Preset | None,
    longest: int,
    lookup: bool = False,
) -> Joined | None:
    """The child's facts per main row: distinct values in row order, joined by `; `.

    `keys` are ways to the main table, tried in order; each leads only to a row that it tells apart
    from all others, unless the child is a `lookup`, whose rows are about several. A source is its
    name, its view and its columns. None when no row of the child finds one.
    """
    main_name, main_view, main_columns = main
    child_name, child_view, child_columns = child
    result = Joined(
        f"joined_{child_view}", child_view, child_columns, main_name, main_view,
        f"links_{child_view}", keys, keys[0],
    )  # fmt: skip
    linked = _link(connection, result, lookup=lookup)
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
    key = " and ".join(name for name, _ in result.shown)
    columns = len(result.columns)
    lost = rows - linked
    said = [
        (linked, f"{linked} rows were joined to {main_name} by {key} as {columns} columns."),
        (lost, f"{lost} rows, now rejected ones, belong to no row of {main_name}, or to several."),
        (empty, f"{empty} empty columns were left out."),
        (len(unsummed), f"columns that are no measures were left out: {', '.join(unsummed)}."),
        (cut, f"{cut} joined values are longer than {longest} characters; they were cut there."),
    ]  # fmt: skip
    result.findings = [f"{child_name}: {text}" for count, text in said if count]
    return result


def _link(connection: duckdb.DuckDBPyConnection, result: Joined, *, lookup: bool) -> int:
    """Write pairs of child and main rows; how many child rows have at least one.

    The way that most rows went is the one that is `shown`. Rows that an identifier parts do not
    find each other by a name.
    """
    connection.execute(f"CREATE TEMP TABLE {result.links} (child_row BIGINT, main_row BIGINT)")
    parted = _parted(result.keys)
    linked: list[int] = []
    for number, keys in enumerate(result.keys):
        child, source = result.child_view, result.main_view
        if not lookup:
            parts = ", ".join(_folded(identifier(b)) for _, b in keys)
            source = f"(SELECT * FROM {source} QUALIFY count(*) OVER (PARTITION BY {parts}) = 1)"  # noqa: S608 - quoted
        if number:
            gone = f"SELECT child_row FROM {result.links}"  # noqa: S608 - own name
            child = f"(SELECT * FROM {child} WHERE {ROW} NOT IN ({gone}))"  # noqa: S608 - own name
        connection.execute(
            f"INSERT INTO {result.links} SELECT c.{ROW}, m.{ROW} FROM {child} c "  # noqa: S608 - quoted
            f"JOIN {source} m ON {_equal(keys)}{parted}"
        )
        found = connection.execute(
            f"SELECT count(DISTINCT child_row) FROM {result.links}"  # noqa: S608 - quoted
        ).fetchone()
        linked.append((int(found[0]) if found else 0) - sum(linked))
    result.shown = result.keys[linked.index(max(linked))]
    return sum(linked)


def _equal(keys: Keys) -> str:
    return " AND ".join(_same(f"c.{identifier(a)}", f"m.{identifier(b)}") for a, b in keys)


def _is_certain(keys: Keys, number: int) -> bool:
    """Whether two rows that differ in these columns are about different things."""
    only_ids = all(column_key(name) in CERTAIN_COLUMNS for _, name in keys)
    return only_ids or (number == 0 and len(keys) == 1)


def _parted(ways: list[Keys]) -> str:
    """SQL to add to a join: no way of identifiers that both rows have leads elsewhere."""
    return "".join(
        f" AND NOT ({known} AND NOT ({_equal(keys)}))"
        for number, keys in enumerate(ways)
        if _is_certain(keys, number)
        for known in [
            " AND ".join(
                f"c.{identifier(a)} IS NOT NULL AND m.{identifier(b)} IS NOT NULL" for a, b in keys
            )
        ]
    )


def _fits_some(result: Joined) -> str:
    """SQL: whether some way's key of a child row is there in the main table."""
    return " OR ".join(
        f"({', '.join(_folded('c.' + identifier(a)) for a, _ in keys)}) IN "  # noqa: S608 - quoted
        f"(SELECT ({', '.join(_folded(identifier(b)) for _, b in keys)}) FROM {result.main_view} "
        f"WHERE {' AND '.join(identifier(b) + ' IS NOT NULL' for _, b in keys)})"
        for keys in result.keys
    )


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
