"""The closed list of cleansing rules, each one a SQL expression over a column of texts.

Agents choose among these and nothing else, so a plan can be read, checked and repeated. A rule
never guesses: a value that does not clearly fit stays as it is, and the original text of every
changed column is kept beside the clean one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import duckdb
from discovery_core.wire import ColumnProfile

from discovery_crews.tables.engine import ROW, identifier, literal
from discovery_crews.tables.patterns import matches

_SPACE = r"[\s\x{00A0}\x{2007}\x{202F}\x{FEFF}]"
_SAMPLE = 200
UNIFY_LIMIT = 500

# strptime formats by the order in which day, month and year are written; times are optional
_DATE_FORMATS: dict[str, tuple[str, ...]] = {
    "ymd": ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d"),
    "dmy": ("%d-%m-%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%b-%Y", "%d %b %Y", "%d %B %Y"),
    "mdy": ("%m/%d/%Y", "%m-%d-%Y", "%b %d, %Y"),
}
_TIME_FORMATS = (" %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", "T%H:%M:%S", "T%H:%M:%SZ")


@dataclass(frozen=True)
class Rule:
    """One entry of the closed list. `sql` turns an expression into the cleansed expression."""

    name: str
    title: str
    sql: Callable[[str], str]


@dataclass(frozen=True)
class Effect:
    """What a rule does to a column: rows changed of all, and the first change as an example."""

    column: str
    rule: str
    rows_changed: int
    before: str | None
    after: str | None


def _trim(value: str) -> str:
    return f"nullif(regexp_replace({value}, '^{_SPACE}+|{_SPACE}+$', '', 'g'), '')"


def _collapse(value: str) -> str:
    return f"regexp_replace({value}, '{_SPACE}+', ' ', 'g')"


def _missing(value: str) -> str:
    return f"CASE WHEN {matches(value, 'placeholder')} THEN NULL ELSE {value} END"


def _boolean(value: str) -> str:
    word = f"lower(trim({value}))"
    return (
        f"CASE WHEN {word} IN ('true', 'yes', 'y', 'on', 'enabled') THEN 'true' "
        f"WHEN {word} IN ('false', 'no', 'n', 'off', 'disabled') THEN 'false' ELSE {value} END"
    )


def _mac(value: str) -> str:
    digits = f"regexp_replace(lower({value}), '[^0-9a-f]', '', 'g')"
    joined = "|| ':' ||".join(f" substr({digits}, {start}, 2) " for start in range(1, 12, 2))
    return f"CASE WHEN {matches(value, 'mac')} THEN {joined} ELSE {value} END"


def _date(order: str) -> Callable[[str], str]:
    days = ", ".join(literal(text) for text in _DATE_FORMATS[order])
    times = ", ".join(literal(day + time) for day in _DATE_FORMATS[order] for time in _TIME_FORMATS)

    def sql(value: str) -> str:
        text = f"trim({value})"
        return (
            f"coalesce(strftime(try_strptime({text}, [{days}]), '%Y-%m-%d'), "
            f"strftime(try_strptime({text}, [{times}]), '%Y-%m-%dT%H:%M:%S'), {value})"
        )

    return sql


def _rules() -> dict[str, Rule]:
    rules = [
        Rule("trim", "Remove spaces around a value; an empty value becomes missing.", _trim),
        Rule(
            "collapse_whitespace", "Make every run of spaces and line breaks one space.", _collapse
        ),
        Rule(
            "missing_tokens",
            "Treat N/A, -, ?, unknown, none, null, TBD and the like as missing.",
            _missing,
        ),
        Rule(
            "unify_spelling",
            "Write values that differ only in case as the most frequent one.",
            lambda value: value,
        ),
        Rule(
            "normalise_boolean",
            "Write yes/no, on/off, y/n, enabled/disabled as true/false.",
            _boolean,
        ),
        Rule("normalise_mac", "Write MAC addresses as aa:bb:cc:dd:ee:ff.", _mac),
        Rule(
            "normalise_date_ymd",
            "Read dates as year-month-day, write them as ISO 8601.",
            _date("ymd"),
        ),
        Rule(
            "normalise_date_dmy",
            "Read dates as day-month-year, write them as ISO 8601.",
            _date("dmy"),
        ),
        Rule(
            "normalise_date_mdy",
            "Read dates as month-day-year, write them as ISO 8601.",
            _date("mdy"),
        ),
    ]
    return {rule.name: rule for rule in rules}


RULES = _rules()
DATE_RULES = tuple(name for name in RULES if name.startswith("normalise_date_"))
_ALWAYS = ("trim", "collapse_whitespace", "missing_tokens")


def applicable_rules(column: ColumnProfile) -> list[str]:
    """Names of the rules that make sense for a column, by its profile, in order of application."""
    if column.filled == 0:
        return []
    names = list(_ALWAYS)
    patterns = column.patterns
    if column.type == "string" and 1 < column.distinct <= UNIFY_LIMIT:
        names.append("unify_spelling")
    if column.type == "boolean":
        names.append("normalise_boolean")
    if patterns.get("mac"):
        names.append("normalise_mac")
    if column.type in ("date", "datetime"):
        names.extend(DATE_RULES)
    return names


def _spellings(connection: duckdb.DuckDBPyConnection, records: Path, value: str) -> str:
    """The expression that replaces rarer spellings of `value` by the most frequent one."""
    rows = connection.execute(
        f"""
        WITH v AS (
            SELECT {value} AS value, count(*) AS n, min({ROW}) AS first
            FROM read_parquet({literal(records)})
            WHERE {value} IS NOT NULL GROUP BY 1
        ), best AS (
            SELECT lower(value) AS folded, first(value ORDER BY n DESC, first) AS chosen
            FROM v GROUP BY folded HAVING count(*) > 1
        )
        SELECT v.value, best.chosen FROM v JOIN best ON lower(v.value) = best.folded
        WHERE v.value <> best.chosen ORDER BY v.first LIMIT {UNIFY_LIMIT}
        """  # noqa: S608 - identifiers and literals are quoted
    ).fetchall()
    if not rows:
        return value
    keys = ", ".join(literal(row[0]) for row in rows)
    chosen = ", ".join(literal(row[1]) for row in rows)
    return f"coalesce(map([{keys}], [{chosen}])[{value}], {value})"


def stages(
    connection: duckdb.DuckDBPyConnection, records: Path, column: str, rules: Sequence[str]
) -> list[str]:
    """SQL expressions over the column: its value after the first rule, after the second, etc."""
    value = identifier(column)
    result: list[str] = []
    for name in rules:
        if name == "unify_spelling":
            value = _spellings(connection, records, value)
        else:
            value = RULES[name].sql(value)
        result.append(value)
    return result


def _measure(
    connection: duckdb.DuckDBPyConnection,
    records: Path,
    column: str,
    names: Sequence[str],
    pairs: Sequence[tuple[str, str]],
) -> list[Effect]:
    """Rows changed and first example between pairs of expressions over the column."""
    if not pairs:
        return []
    parts = ", ".join(
        f"coalesce(sum(__n) FILTER (WHERE {old} IS DISTINCT FROM {new}), 0), "
        f"arg_min(left({old}, {_SAMPLE}), __first) FILTER (WHERE {old} IS DISTINCT FROM {new}), "
        f"arg_min(struct_pack(v := left({new}, {_SAMPLE})), __first) "
        f"FILTER (WHERE {old} IS DISTINCT FROM {new})"
        for old, new in pairs
    )
    row = connection.execute(
        f"""
        WITH v AS (
            SELECT {identifier(column)}, count(*) AS __n, min({ROW}) AS __first
            FROM read_parquet({literal(records)}) WHERE {identifier(column)} IS NOT NULL
            GROUP BY 1
        ) SELECT {parts} FROM v
        """  # noqa: S608 - identifiers and literals are quoted
    ).fetchone()
    if row is None:
        raise AssertionError("an aggregate without GROUP BY gives one row")
    effects: list[Effect] = []
    for position, name in enumerate(names):
        count, before, after = row[position * 3 : position * 3 + 3]
        effects.append(Effect(column, name, int(count), before, after["v"] if after else None))
    return effects


def effects_alone(
    connection: duckdb.DuckDBPyConnection, records: Path, column: str, rules: Sequence[str]
) -> list[Effect]:
    """What each rule would do to the column as it is."""
    raw = identifier(column)
    pairs = [(raw, stages(connection, records, column, [name])[0]) for name in rules]
    return _measure(connection, records, column, rules, pairs)


def effects_in_order(
    connection: duckdb.DuckDBPyConnection, records: Path, column: str, rules: Sequence[str]
) -> tuple[list[Effect], str]:
    """What each rule does after those before it, and the final expression over the column."""
    chain = [identifier(column), *stages(connection, records, column, rules)]
    effects = _measure(connection, records, column, rules, list(pairwise(chain)))
    return effects, chain[-1]
