"""The closed list of cleansing rules, each one a SQL expression over a column of texts.

Agents choose among these and nothing else, so a plan can be read, checked and repeated. A rule
never guesses: a value that does not clearly fit stays as it is, and the original text of every
changed column is kept beside the clean one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import duckdb
from discovery_core.wire.results import ColumnProfile

from discovery_crews.systems import system_of
from discovery_crews.tables.engine import ROW, identifier, literal
from discovery_crews.tables.meanings import meaning
from discovery_crews.tables.patterns import FALSE_WORDS, TRUE_WORDS, matches
from discovery_crews.tables.units import UNIT_SPELLINGS
from discovery_crews.tables.values import CLEAR_SEPARATORS, text_list, words

_SPACE = r"[\s\x{00A0}\x{2007}\x{202F}\x{FEFF}]"
_SAMPLE = 200
_UNIFY_LIMIT = 500
_FEW_VALUES = 20
_OFTEN = 0.3
# of a machine or a light: a state, which true and false would hide
_STATES = ("on", "off")

# Dates that can be read in one way only; with dots the day comes first wherever they are used.
_CLEAR_DATES = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d-%b-%Y", "%d %b %Y", "%d %B %Y",
    "%b %d, %Y",
)  # fmt: skip
_OPEN_DATES: dict[str, tuple[str, ...]] = {
    "dmy": ("%d/%m/%Y", "%d-%m-%Y"),
    "mdy": ("%m/%d/%Y", "%m-%d-%Y"),
}
_TIMES = (" %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", "T%H:%M:%S", "T%H:%M:%SZ")


@dataclass(frozen=True)
class Rule:
    """One entry of the closed list. `sql` turns an expression into the cleansed expression."""

    name: str
    title: str
    sql: Callable[[str], str]


@dataclass(frozen=True)
class Effect:
    """What a rule does to a column: rows changed of all, and the first change as an example.

    `exclusive`, of a rule for dates, counts rows that the other order of day and month cannot
    read.
    """

    column: str
    rule: str
    rows_changed: int
    before: str | None
    after: str | None
    exclusive: int = 0


def _trim(value: str) -> str:
    return f"nullif(regexp_replace({value}, '^{_SPACE}+|{_SPACE}+$', '', 'g'), '')"


def _collapse(value: str) -> str:
    return f"regexp_replace({value}, '{_SPACE}+', ' ', 'g')"


def _missing(value: str) -> str:
    return f"CASE WHEN {matches(value, 'placeholder')} THEN NULL ELSE {value} END"


def _boolean(value: str) -> str:
    word = f"lower(trim({value}))"
    true, false = (
        words(entry for entry in listed if entry not in _STATES)
        for listed in (TRUE_WORDS, FALSE_WORDS)
    )
    return (
        f"CASE WHEN {word} IN {true} THEN 'true' WHEN {word} IN {false} THEN 'false' "
        f"ELSE {value} END"
    )


def _level(value: str) -> str:
    return f"coalesce({meaning(value, 'level')}, {value})"


def _list(value: str) -> str:
    """Only clear separators: a comma is also part of names and numbers."""
    parts = text_list(value, CLEAR_SEPARATORS)
    several = f"regexp_matches(trim({value}), '[;|\\n]|^\\[.*\\]$')"
    joined = f"coalesce(array_to_string({parts}, '; '), {value})"
    return f"CASE WHEN {several} THEN {joined} ELSE {value} END"


def _unit(value: str) -> str:
    """A number, a space, and the unit as this product writes it; the number stays as it was."""
    number = rf"regexp_extract(trim({value}), '^([-+]?[0-9][0-9.,]*) *([a-zA-Z/%]+)$', 1)"
    unit = rf"lower(regexp_extract(trim({value}), '^([-+]?[0-9][0-9.,]*) *([a-zA-Z/%]+)$', 2))"
    cases = " ".join(
        f"WHEN {literal(spelling)} THEN {literal(name)}"
        for spelling, name in UNIT_SPELLINGS.items()
    )
    return f"coalesce({number} || ' ' || CASE {unit} {cases} END, {value})"


def _mac(value: str) -> str:
    digits = f"regexp_replace(lower({value}), '[^0-9a-f]', '', 'g')"
    joined = "|| ':' ||".join(f" substr({digits}, {start}, 2) " for start in range(1, 12, 2))
    return f"CASE WHEN {matches(value, 'mac')} THEN {joined} ELSE {value} END"


def _date(order: str | None) -> Callable[[str], str]:
    formats = (*_CLEAR_DATES, *_OPEN_DATES.get(order or "", ()))
    days = ", ".join(literal(text) for text in formats)
    times = ", ".join(literal(day + time) for day in formats for time in _TIMES)

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
            "normalise_list",
            "Write several values of one cell (a|b, a;b, one a line, JSON list) as a; b.",
            _list,
        ),
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
            "Write yes/no (in seven languages), enabled/disabled as true/false; on/off stays.",
            _boolean,
        ),
        Rule(
            "normalise_level",
            "Write levels (hoch, \u00e9lev\u00e9, 2 - High) as critical, high, medium, low.",
            _level,
        ),
        Rule(
            "normalise_os",
            "Write operating systems as product and version (Win2k12r2: Windows Server 2012 R2).",
            lambda value: value,
        ),
        Rule("normalise_unit", "Write 16gb, 16 Gbytes as 16 GB; the number stays.", _unit),
        Rule("normalise_mac", "Write MAC addresses as aa:bb:cc:dd:ee:ff.", _mac),
        Rule(
            "normalise_date",
            "Write dates that can be read in one way only as ISO 8601; leave 01/02/2024 alone.",
            _date(None),
        ),
        Rule(
            "normalise_date_dmy",
            "Write dates as ISO 8601, reading 01/02/2024 as the first of February.",
            _date("dmy"),
        ),
        Rule(
            "normalise_date_mdy",
            "Write dates as ISO 8601, reading 01/02/2024 as the second of January.",
            _date("mdy"),
        ),
    ]
    return {rule.name: rule for rule in rules}


RULES = _rules()
DATE_RULES = tuple(name for name in RULES if name.startswith("normalise_date"))
# offered, and not recommended: the edition and the minor version are facts too
ON_REQUEST = ("normalise_os",)
_LEVELS = "business_criticality"
_ALWAYS = ("trim", "collapse_whitespace", "missing_tokens")


def applicable_rules(column: ColumnProfile, field: str | None = None) -> list[str]:
    """Names of the rules that make sense for a column, by its profile, in order of application.

    `field` is the built-in field that it would be mapped to, where that is known.
    """
    if column.filled == 0:
        return []
    names = list(_ALWAYS)
    patterns = column.patterns
    # words of a vocabulary repeat; names of assets do not and keep their spelling
    repeated = column.distinct <= max(_FEW_VALUES, column.filled // 4)
    if column.type == "string" and 1 < column.distinct <= _UNIFY_LIMIT and repeated:
        names.append("unify_spelling")
    if patterns.get("list") and not patterns.get("key_value"):
        names.insert(1, "normalise_list")
    if column.type == "boolean":
        names.append("normalise_boolean")
    if field == _LEVELS:
        names.append("normalise_level")
    if patterns.get("os", 0) > _OFTEN * column.filled and column.distinct <= _UNIFY_LIMIT:
        names.append("normalise_os")
    if patterns.get("size"):
        names.append("normalise_unit")
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
        WHERE v.value <> best.chosen ORDER BY v.first LIMIT {_UNIFY_LIMIT}
        """  # noqa: S608 - identifiers and literals are quoted
    ).fetchall()
    if not rows:
        return value
    keys = ", ".join(literal(row[0]) for row in rows)
    chosen = ", ".join(literal(row[1]) for row in rows)
    return f"coalesce(map([{keys}], [{chosen}])[{value}], {value})"


def _systems(connection: duckdb.DuckDBPyConnection, records: Path, value: str) -> str:
    """The expression that replaces texts by the operating system that they name, where clear."""
    rows = connection.execute(
        f"""
        SELECT {value} AS value, min({ROW}) AS first FROM read_parquet({literal(records)})
        WHERE {value} IS NOT NULL GROUP BY 1 ORDER BY first LIMIT {_UNIFY_LIMIT}
        """  # noqa: S608 - identifiers and literals are quoted
    ).fetchall()
    named = {
        text: found.name
        for text, _ in rows
        if (found := system_of(text, "os")) is not None
        and found.version is not None
        and found.name != text
    }
    if not named:
        return value
    keys, names = ", ".join(map(literal, named)), ", ".join(map(literal, named.values()))
    return f"coalesce(map([{keys}], [{names}])[{value}], {value})"


# rules whose expression depends on the column's values
_BY_VALUES = {"unify_spelling": _spellings, "normalise_os": _systems}


def stages(
    connection: duckdb.DuckDBPyConnection, records: Path, column: str, rules: Sequence[str]
) -> list[str]:
    """SQL expressions over the column: its value after the first rule, after the second, etc."""
    value = identifier(column)
    result: list[str] = []
    for name in rules:
        if name in _BY_VALUES:
            value = _BY_VALUES[name](connection, records, value)
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
    """What each rule would do to the column, trimmed first if trimming is among the rules."""
    raw = identifier(column)
    base = RULES["trim"].sql(raw) if "trim" in rules else raw
    pairs: list[tuple[str, str]] = []
    for name in rules:
        if name in _BY_VALUES:
            pairs.append((base, _BY_VALUES[name](connection, records, base)))
        else:
            start = raw if name == "trim" else base
            pairs.append((start, RULES[name].sql(start)))
    effects = _measure(connection, records, column, rules, pairs)
    if not set(DATE_RULES) <= set(rules):
        return effects
    dmy, mdy = RULES["normalise_date_dmy"].sql(base), RULES["normalise_date_mdy"].sql(base)
    exclusive = _exclusive(
        connection,
        records,
        raw,
        {
            "normalise_date_dmy": f"{mdy} = {base} AND {dmy} <> {base}",
            "normalise_date_mdy": f"{dmy} = {base} AND {mdy} <> {base}",
        },
    )
    return [replace(effect, exclusive=exclusive.get(effect.rule, 0)) for effect in effects]


def _exclusive(
    connection: duckdb.DuckDBPyConnection, records: Path, name: str, conditions: dict[str, str]
) -> dict[str, int]:
    parts = ", ".join(f"count(*) FILTER (WHERE {text})" for text in conditions.values())
    row = connection.execute(
        f"SELECT {parts} FROM read_parquet({literal(records)}) WHERE {name} IS NOT NULL"  # noqa: S608 - quoted
    ).fetchone()
    return {rule: int(n) for rule, n in zip(conditions, row or (), strict=True)}


def effects_in_order(
    connection: duckdb.DuckDBPyConnection, records: Path, column: str, rules: Sequence[str]
) -> tuple[list[Effect], str]:
    """What each rule does after those before it, and the final expression over the column."""
    chain = [identifier(column), *stages(connection, records, column, rules)]
    effects = _measure(connection, records, column, rules, list(pairwise(chain)))
    return effects, chain[-1]
