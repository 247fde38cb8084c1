"""Values that cannot be right, and rows that contradict each other, found over all rows.

What a column is about is not decided yet at import, so the mapping engine's own proposal says
which checks make sense; a check never changes or refuses anything, it is told.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import duckdb
from discovery_core.wire.results import ColumnProfile

from discovery_crews.mapping.amounts import Amount, refined, usable_unit
from discovery_crews.mapping.engine import sure_columns
from discovery_crews.tables import values
from discovery_crews.tables.engine import ROW, connect, identifier, literal
from discovery_crews.tables.numbers import read_number
from discovery_crews.tables.patterns import matches
from discovery_crews.tables.units import convertible
from discovery_crews.target_schema import builtin_schema

Severity = Literal["info", "warning", "error"]

_SURE = 0.7
_EXAMPLES = 3
_MOST_CORES = 2048
_MOST_MEMORY_GB = 65_536
_MOST_STORAGE_GB = 10_485_760
# a display name may be there twice with good reason
_UNIQUE: dict[str, Severity] = {
    "serial_number": "warning", "asset_id": "warning", "fqdn": "warning", "hostname": "warning",
    "asset_name": "info",
}  # fmt: skip
_NAMES = ("asset_name", "hostname", "fqdn")
_SHARES = (
    "cpu_utilization_avg", "cpu_utilization_max",
    "memory_utilization_avg", "memory_utilization_max",
)  # fmt: skip


@dataclass(frozen=True)
class Anomaly:
    """Rows of which something cannot be right: how many, and what a person should know."""

    kind: str
    column: str
    rows: int
    fact: str
    severity: Severity


@dataclass(frozen=True)
class Anomalies:
    """All anomalies of a table, and in how many rows at least one value is an error."""

    found: list[Anomaly]
    rows_with_errors: int


@dataclass(frozen=True)
class _Check:
    """Rows for which `condition` (SQL over the source's columns) holds are at fault."""

    kind: str
    column: str
    condition: str
    says: str
    severity: Severity = "error"


def find_anomalies(
    workdir: Path, records: Path, profile: Sequence[ColumnProfile], today: dt.date
) -> Anomalies:
    """The anomalies of imported records. `today` is what dates are compared with."""
    roles = sure_columns(profile, builtin_schema(), _SURE)
    with connect(workdir) as connection:
        roles = _as_meant(connection, records, roles)
        checks = [*_value_checks(roles, today), *_pair_checks(roles)]
        found, rows = _apply(connection, records, checks)
        found.extend(_repeated(connection, records, roles))
        found.extend(_conflicts(connection, records, roles))
    return Anomalies(found, rows)


def _as_meant(
    connection: duckdb.DuckDBPyConnection, records: Path, roles: dict[str, ColumnProfile]
) -> dict[str, ColumnProfile]:
    """The columns with their numbers read as the mapping will propose it."""
    amounts = [
        Amount(column.name, field, usable_unit(field, column.unit), column.separators)
        for name, column in roles.items()
        if (field := builtin_schema().get(name)) and field.type in ("integer", "number")
    ]
    read = {amount.column: amount.separators for amount in refined(connection, records, amounts)}
    return {
        name: column.model_copy(update={"separators": read.get(column.name, column.separators)})
        for name, column in roles.items()
    }


def _number(column: ColumnProfile, target: str | None = None) -> str:
    """The column's value as a number, in `target` where the column's unit is known."""
    text = f"trim({identifier(column.name)})"
    if target is None:
        return read_number(text, column.separators)
    comma = column.separators is not None and column.separators.decimal == "comma"
    return values.number(text, target, column.unit, decimal_comma=comma)


def _value_checks(roles: dict[str, ColumnProfile], today: dt.date) -> Iterator[_Check]:
    for field in ("cpu_cores", "cpu_sockets"):
        if column := roles.get(field):
            number = _number(column)
            yield _Check(
                "impossible_value",
                column.name,
                f"{number} <= 0 OR {number} > {_MOST_CORES} OR {number} <> floor({number})",
                f"no whole number of processors between 1 and {_MOST_CORES}",
            )
    for field, most in (("memory_gb", _MOST_MEMORY_GB), ("storage_gb", _MOST_STORAGE_GB)):
        if column := roles.get(field):
            number = _number(column)
            condition = f"{number} < 0" if field == "storage_gb" else f"{number} <= 0"
            if column.unit and convertible(column.unit, "GB"):
                condition += f" OR {_number(column, 'GB')} > {most}"
            yield _Check("impossible_value", column.name, condition, f"not between 0 and {most} GB")
    for field in _SHARES:
        if (column := roles.get(field)) and column.unit in (None, "%"):
            number = _number(column)
            yield _Check(
                "impossible_value",
                column.name,
                f"{number} < 0 OR {number} > 100",
                "no percentage between 0 and 100",
            )
    if column := roles.get("created_date"):
        yield _Check(
            "future_date",
            column.name,
            f"left({values.date(identifier(column.name))}, 10) > {literal(today.isoformat())}",
            f"later than today, {today.isoformat()}",
        )


def _pair_checks(roles: dict[str, ColumnProfile]) -> Iterator[_Check]:
    used, total = roles.get("storage_used_gb"), roles.get("storage_gb")
    if used and total and used.unit == total.unit:
        yield _Check(
            "used_exceeds_total",
            used.name,
            f"{_number(used)} > {_number(total)}",
            f"more than {total.name} in the same row",
            "warning",
        )


def _apply(
    connection: duckdb.DuckDBPyConnection, records: Path, checks: Sequence[_Check]
) -> tuple[list[Anomaly], int]:
    if not checks:
        return [], 0
    conditions = [f"coalesce({check.condition}, false)" for check in checks]
    counted = ", ".join(
        f"count(*) FILTER ({condition}), "
        f"list({ROW} ORDER BY {ROW}) FILTER ({condition})[:{_EXAMPLES}], "
        f"first({identifier(check.column)} ORDER BY {ROW}) FILTER ({condition})"
        for check, condition in zip(checks, conditions, strict=True)
    )
    errors = [
        condition
        for check, condition in zip(checks, conditions, strict=True)
        if check.severity == "error"
    ]
    row = connection.execute(
        f"SELECT count(*) FILTER ({' OR '.join(errors) or 'false'}), {counted} "  # noqa: S608 - quoted
        f"FROM read_parquet({literal(records)})"
    ).fetchone()
    if row is None:
        raise AssertionError("an aggregate without GROUP BY gives one row")
    found: list[Anomaly] = []
    for position, check in enumerate(checks):
        number, rows, value = row[1 + position * 3 : 4 + position * 3]
        if number:
            fact = f"{number} values are {check.says}: {value[:60]!r} in row {_listed(rows)}."
            found.append(Anomaly(check.kind, check.column, number, fact, check.severity))
    return found, int(row[0])


def _listed(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows))


def _repeated(
    connection: duckdb.DuckDBPyConnection, records: Path, roles: dict[str, ColumnProfile]
) -> Iterator[Anomaly]:
    """Identifiers that several rows share: they would become one asset, or are wrong."""
    for field, severity in _UNIQUE.items():
        column = roles.get(field)
        if column is None:
            continue
        name = identifier(column.name)
        rows = connection.execute(
            f"""
            SELECT lower(trim({name})) AS value, count(*) AS n,
                list({ROW} ORDER BY {ROW})[:{_EXAMPLES}], sum(count(*) - 1) OVER ()
            FROM read_parquet({literal(records)})
            WHERE trim({name}) <> '' AND NOT {matches(name, "placeholder")}
            GROUP BY 1 HAVING count(*) > 1 ORDER BY n DESC, value LIMIT 1
            """  # noqa: S608 - identifiers and literals are quoted
        ).fetchone()
        if rows is not None:
            value, times, examples, repeats = rows
            fact = (
                f"{repeats} values repeat an earlier one: {value[:60]!r} is there {times} times "
                f"(rows {_listed(examples)})."
            )
            yield Anomaly("repeated_identifier", column.name, int(repeats), fact, severity)


def _conflicts(
    connection: duckdb.DuckDBPyConnection, records: Path, roles: dict[str, ColumnProfile]
) -> Iterator[Anomaly]:
    """Addresses that rows with different names claim."""
    address = roles.get("ip_address")
    named = next((roles[field] for field in _NAMES if field in roles), None)
    if address is None or named is None:
        return
    row = connection.execute(
        f"""
        WITH claims AS (
            SELECT unnest({values.text_list(identifier(address.name))}) AS address,
                lower(trim({identifier(named.name)})) AS name, {ROW} AS row
            FROM read_parquet({literal(records)})
        )
        SELECT address, list(row ORDER BY row)[:{_EXAMPLES}], count(*) OVER ()
        FROM claims WHERE name <> '' AND {matches("address", "ipv4")}
        GROUP BY address HAVING count(DISTINCT name) > 1
        ORDER BY min(row) LIMIT 1
        """  # noqa: S608 - identifiers and literals are quoted
    ).fetchone()
    if row is not None:
        value, examples, number = row
        fact = (
            f"{number} addresses belong to rows of different names: {value} in rows "
            f"{_listed(examples)}."
        )
        yield Anomaly("conflicting_addresses", address.name, int(number), fact, "warning")
