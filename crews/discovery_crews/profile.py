"""Facts about every column over all rows, which agents judge and people read.

Each column is grouped by value once and everything is derived from the groups: exact counts at
the price of one aggregation, and the patterns are matched once per distinct value. Samples are
the first distinct values in row order, so the same file always gives the same profile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
from discovery_core.wire.results import ColumnProfile
from pydantic import TypeAdapter

from discovery_crews.mapping.tokens import words_of
from discovery_crews.tables.engine import ROW, connect, identifier, literal, source_columns
from discovery_crews.tables.numbers import (
    Written,
    decide,
    read_number,
    written,
    written_columns,
)
from discovery_crews.tables.patterns import PATTERNS, SIZE_UNITS, matches
from discovery_crews.tables.units import canonical_unit, unit_of_header
from discovery_crews.tables.values import digits_of

Profile = list[ColumnProfile]
SAMPLES = 5
SAMPLE_CHARACTERS = 200
_SHARE = 0.95
# fewer different numbers have no usual range
_FEWEST = 8
_FAR = 3
_LONGEST_NUMBER = 60
_ADAPTER = TypeAdapter(Profile)

# Tried in this order: the first type that fits nearly all values names the column.
_TYPES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("mac", ("mac",)),
    ("ip", ("ipv4", "ipv6")),
    ("uuid", ("uuid",)),
    ("integer", ("integer",)),
    ("boolean", ("boolean",)),
    ("date", ("date",)),
    ("datetime", ("datetime", "date")),
    ("number", ("integer", "decimal", "percent")),
    ("size", ("size", "integer", "decimal")),
    ("email", ("email",)),
    ("url", ("url",)),
    ("fqdn", ("fqdn",)),
    ("list", ("list",)),
)
_NUMERIC = ("integer", "number", "size")
# numbers that count nothing say nothing about decimals
_NO_AMOUNT = frozenset({"version", "os", "firmware", "bios", "ip", "address", "phone", "id"})


# What a value must have for a pattern to be worth trying, as SQL over the trimmed value `t` and
# its length `l`: each follows from the pattern, so it saves time and changes no count.
_DIGIT_START = "regexp_matches(t, '^[-+]?[0-9]')"
_DIGIT_END = "(unicode(right(t, 1)) BETWEEN 48 AND 57)"
_GUARDS: dict[str, str] = {
    "ipv4": "l <= 18 AND unicode(t) BETWEEN 48 AND 57 AND contains(t, '.')",
    "ipv6": "contains(t, ':')",
    "mac": "l IN (14, 17)",
    "uuid": "l BETWEEN 36 AND 38",
    "fqdn": f"contains(t, '.') AND NOT {_DIGIT_END}",
    "hostname": "NOT contains(t, '.') AND NOT contains(t, ' ')",
    "email": "contains(t, '@')",
    "url": "contains(t, '://')",
    "integer": f"unicode(t) <= 57 AND {_DIGIT_END}",
    "decimal": f"unicode(t) <= 57 AND {_DIGIT_END}",
    "date": "unicode(t) BETWEEN 48 AND 57",
    "datetime": "unicode(t) BETWEEN 48 AND 57 AND contains(t, ':')",
    "boolean": "l <= 10",
    "percent": "suffix(t, '%')",
    "size": f"unicode(t) <= 57 AND NOT {_DIGIT_END}",
    "key_value": "contains(t, '=')",
    "list": "contains(t, ';') OR contains(t, '|') OR contains(t, ',') OR starts_with(t, '[')",
    "version": "contains(t, '.') AND (unicode(t) BETWEEN 48 AND 57 OR unicode(t) IN (86, 118))",
    "placeholder": f"NOT {_DIGIT_END} AND (l <= 26 OR unicode(t) IN (45, 46, 63))",
}


def _count(pattern: str) -> str:
    """SQL: how many rows have a value with this pattern."""
    test = matches("t", pattern)
    if pattern in _GUARDS:
        # CASE, because a conjunction may be evaluated in either order
        test = f"CASE WHEN {_GUARDS[pattern]} THEN {test} ELSE false END"
    return f"coalesce(sum(n) FILTER (WHERE {test}), 0)"


def _column_query(records: Path, column: str) -> str:
    name = identifier(column)
    counts = ",\n".join(_count(pattern) for pattern in PATTERNS)
    number = "try_cast(regexp_extract(t, '^[-+]?[0-9]+') AS DOUBLE)"
    numbers = written_columns("t", "digits", "n", "first")
    unit = f"regexp_extract(t, '(?i)[0-9] ?({SIZE_UNITS}|%)$', 1)"
    return f"""
        WITH v AS (
            SELECT *, trim(value) AS t, length(trim(value)) AS l FROM (
                SELECT {name} AS value, count(*) AS n, min({ROW}) AS first
                FROM read_parquet({literal(records)})
                WHERE {name} IS NOT NULL AND trim({name}) <> ''
                GROUP BY ALL
            )
        ), facts AS (
            SELECT *,
                CASE WHEN {_DIGIT_START} THEN {number} END AS number,
                CASE WHEN {_DIGIT_START} AND l <= {_LONGEST_NUMBER} THEN {digits_of("t")} END
                    AS digits,
                CASE WHEN regexp_matches(t, '[0-9] ?[^0-9 ]+$') THEN lower({unit}) ELSE '' END
                    AS unit
            FROM v
        ), units AS (
            SELECT unit, sum(n) AS n FROM facts WHERE unit <> '' GROUP BY ALL
        )
        SELECT
            coalesce(sum(n), 0), count(*), min(value), max(value), max(length(value)),
            coalesce(sum(n) FILTER (WHERE value <> t), 0),
            min(number), max(number),
            (SELECT list(left(value, {SAMPLE_CHARACTERS}) ORDER BY first)
             FROM (SELECT value, first FROM v ORDER BY first LIMIT {SAMPLES})),
            (SELECT first(unit ORDER BY n DESC, unit) FROM units),
            (SELECT coalesce(max(n), 0) FROM units),
            {numbers},
            {counts}
        FROM facts
    """  # noqa: S608 - identifiers and literals are quoted


def _range(
    connection: duckdb.DuckDBPyConnection, records: Path, facts: ColumnProfile
) -> tuple[float | None, float | None, int]:
    """Lowest and highest number as the column writes them, and how many lie far outside.

    Far is further than three interquartile ranges beyond the quartiles.
    """
    number = read_number(f"trim({identifier(facts.name)})", facts.separators)
    row = connection.execute(
        f"""
        WITH numbers AS (SELECT {number} AS x FROM read_parquet({literal(records)})),
        quartiles AS (
            SELECT quantile_cont(x, 0.25) AS low, quantile_cont(x, 0.75) AS high FROM numbers
        )
        SELECT min(x), max(x), count(*) FILTER (
            WHERE high > low
                AND (x < low - {_FAR} * (high - low) OR x > high + {_FAR} * (high - low))
        ) FROM numbers, quartiles
        """  # noqa: S608 - identifiers and literals are quoted
    ).fetchone()
    return row or (None, None, 0)


def _number_text(value: float | None) -> str | None:
    if value is None:
        return None
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def _infer_type(filled: int, patterns: dict[str, int]) -> str:
    real = filled - patterns.get("placeholder", 0)
    if real <= 0:
        return "string"
    for name, parts in _TYPES:
        # a value has at most one pattern of a type, but for integer and date within others
        share = sum(patterns.get(part, 0) for part in parts)
        if share >= _SHARE * real:
            return name
    return "string"


def _findings(facts: ColumnProfile, longest: int, padded: int) -> list[str]:
    findings: list[str] = []
    placeholders = facts.patterns.get("placeholder", 0)
    if facts.filled == 0:
        findings.append("The column is empty.")
    if placeholders:
        findings.append(f"{placeholders} values stand for a missing one (N/A, -, unknown …).")
    if padded:
        findings.append(f"{padded} values have spaces around them.")
    if longest > 255:
        findings.append(f"The longest value has {longest} characters.")
    if facts.filled > 1 and facts.missing == 0 and facts.distinct == 1:
        findings.append("Every row has the same value.")
    return findings


def profile_column(
    connection: duckdb.DuckDBPyConnection, records: Path, column: str, rows: int
) -> tuple[ColumnProfile, Written]:
    """Facts about one column of a Parquet file of texts, and how it writes numbers.

    What depends on the separators of its numbers is left open, see `_read_numbers`.
    """
    row = connection.execute(_column_query(records, column)).fetchone()
    if row is None:
        raise AssertionError("an aggregate without GROUP BY gives one row")
    filled, distinct, low, high, longest, padded, small, large, samples, unit, with_unit = row[:11]
    numbers = written(row[11:17])
    counts = {name: int(n) for name, n in zip(PATTERNS, row[17:], strict=True)}
    patterns = {name: n for name, n in counts.items() if n}
    kind = _infer_type(int(filled), patterns)
    numeric = kind in _NUMERIC
    facts = ColumnProfile(
        name=column,
        type=kind,
        filled=int(filled),
        missing=rows - int(filled),
        distinct=int(distinct),
        samples=list(samples or []),
        unit=unit_of_header(column) or _common_unit(unit, int(with_unit), int(filled), patterns),
        minimum=_number_text(small) if numeric else _cut(low),
        maximum=_number_text(large) if numeric else _cut(high),
        patterns=patterns,
        multi_values=patterns.get("list", 0),
    )
    facts.findings = _findings(facts, int(longest or 0), int(padded))
    return facts, numbers


def _read_numbers(
    connection: duckdb.DuckDBPyConnection,
    records: Path,
    measured: Sequence[tuple[ColumnProfile, Written]],
    delimiter: str | None,
    before: Sequence[ColumnProfile],
) -> Profile:
    """The profile with numbers read as their columns write them, by all columns of the file.

    What was decided before stays: cleansing changes no separator and knows less of the file.
    """
    decided = {column.name: column.separators for column in before}
    amounts = {
        facts.name: found
        for facts, found in measured
        if facts.type in _NUMERIC and not _NO_AMOUNT & set(words_of(facts.name).words)
    }
    profile: Profile = []
    for facts, own in measured:
        if facts.type in _NUMERIC:
            others = [found for name, found in amounts.items() if name != facts.name]
            facts.separators = decided.get(facts.name) or decide(own, others, delimiter)
            if facts.separators is not None or facts.distinct >= _FEWEST:
                low, high, outliers = _range(connection, records, facts)
                facts.minimum, facts.maximum = _number_text(low), _number_text(high)
                facts.outliers = outliers if facts.distinct >= _FEWEST else 0
                if facts.outliers:
                    facts.findings.append(f"{facts.outliers} numbers lie far outside the usual.")
        profile.append(facts)
    return profile


def _common_unit(
    unit: str | None, with_unit: int, filled: int, patterns: dict[str, int]
) -> str | None:
    """The unit that nearly all values carry; numbers without one may be in another."""
    real = filled - patterns.get("placeholder", 0)
    return canonical_unit(unit) if with_unit >= _SHARE * real else None


def _cut(text: str | None) -> str | None:
    return None if text is None else text[:SAMPLE_CHARACTERS]


def profile_records(
    workdir: Path,
    records: Path,
    rows: int,
    progress: Callable[[int | None, int | None, str], None] | None = None,
    *,
    delimiter: str | None = None,
    before: Sequence[ColumnProfile] = (),
) -> Profile:
    """The profile of every source column of `records`, in order.

    `delimiter` separates the cells of the source, `before` is the profile of earlier records.
    """
    with connect(workdir) as connection:
        columns = source_columns(connection, records)
        measured: list[tuple[ColumnProfile, Written]] = []
        for position, column in enumerate(columns, start=1):
            measured.append(profile_column(connection, records, column, rows))
            if progress:
                progress(rows, rows, f"profiling column {position} of {len(columns)}")
        return _read_numbers(connection, records, measured, delimiter, before)


def write_profile(path: Path, profile: Sequence[ColumnProfile]) -> None:
    """Write the artefact `profile`: a JSON list with the wire's names."""
    content = [column.model_dump(mode="json", by_alias=True) for column in profile]
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def read_profile(path: Path) -> Profile:
    """Read the artefact `profile`."""
    return _ADAPTER.validate_json(path.read_bytes())


def brief(profile: Sequence[ColumnProfile], limit: int = 300) -> list[dict[str, object]]:
    """The profile in few words, for an agent: at most `limit` columns, three short samples."""
    return [
        {
            "name": column.name,
            "type": column.type,
            "filled": column.filled,
            "missing": column.missing,
            "distinct": column.distinct,
            "unit": column.unit,
            "samples": [sample[:60] for sample in column.samples[:3]],
        }
        for column in profile[:limit]
    ]
