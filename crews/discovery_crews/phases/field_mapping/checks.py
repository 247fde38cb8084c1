"""What the values say against a proposal, told before a person approves it.

A mapping names the field of a column; whether its numbers come out right shows only when they are
read. So they are read here as the inventory will read them, and what comes out is compared.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import duckdb
from discovery_core.mapping_edits import steps, transform_of
from discovery_core.wire.results import ColumnProfile, FieldMapping

from discovery_crews.mapping.amounts import Amount, differs, refined, usable_unit
from discovery_crews.mapping.tokens import words_of
from discovery_crews.tables.engine import ROW, connect, identifier, literal
from discovery_crews.tables.numbers import described
from discovery_crews.tables.patterns import matches
from discovery_crews.tables.units import unit_of_header
from discovery_crews.target_schema import TargetField, TargetSchema

from .judgement import DOUBTED

_EXAMPLES = 3
_NUMERIC = ("integer", "number")
# a share of a column's values that is no slip of the pen
_MANY = 0.05


@dataclass(frozen=True)
class _Told:
    """A finding on a column, and how many rows it is about."""

    column: str
    rows: int
    text: str


def checked(
    workdir: Path,
    records: Path,
    profile: Sequence[ColumnProfile],
    mappings: Sequence[FieldMapping],
    schema: TargetSchema,
) -> tuple[list[FieldMapping], list[str]]:
    """The mappings with how numbers are read where that is open, and findings by their harm."""
    columns = {column.name: column for column in profile}
    with connect(workdir) as connection:
        amounts = refined(connection, records, _amounts(mappings, columns, schema))
        table = f"read_parquet({literal(records)})"
        told = [
            *_implausible(connection, table, amounts),
            *_disagreeing(connection, table, amounts),
            *_unreadable(connection, table, amounts),
        ]
    read = {amount.column: amount for amount in amounts}
    told += [
        _Told(amount.column, 0, described(amount.column, amount.separators))
        for amount in amounts
        if amount.is_open and amount.separators is not None
    ]
    doubted = {entry.column for entry in told if entry.rows > _MANY * columns[entry.column].filled}
    return [
        _stating(_sure_of(mapping, doubted), read.get(mapping.column)) for mapping in mappings
    ], [entry.text for entry in told]


def _sure_of(mapping: FieldMapping, doubted: Set[str]) -> FieldMapping:
    """The mapping, less sure where many of its values speak against it, so that people look."""
    if mapping.column not in doubted:
        return mapping
    return mapping.model_copy(update={"confidence": min(mapping.confidence, DOUBTED)})


def _amounts(
    mappings: Sequence[FieldMapping], columns: dict[str, ColumnProfile], schema: TargetSchema
) -> list[Amount]:
    """The columns that numeric fields come from, those of a field's primary source first."""
    primary = {m.target: m.column for m in mappings if m.target and m.role == "primary"}
    found: list[Amount] = []
    for mapping in sorted(mappings, key=lambda mapping: mapping.role != "primary"):
        field = schema.get(mapping.target or "")
        if field is None or field.type not in _NUMERIC or mapping.column not in columns:
            continue
        said, separators = steps(mapping.transform), columns[mapping.column].separators
        stated = None if separators is None or separators.sure else said.get("decimal")
        if stated is not None and separators is not None:
            separators = separators.model_copy(update={"decimal": stated})
        found.append(
            Amount(
                mapping.column,
                field,
                _unit(mapping, field),
                separators,
                stated=stated is not None,
                times=primary.get(said["times"]) if "times" in said else None,
            )
        )
    return found


def _unit(mapping: FieldMapping, field: TargetField) -> str | None:
    if not field.is_measured:
        return None
    stated = steps(mapping.transform).get("unit")
    return usable_unit(field, stated, unit_of_header(mapping.column), words_of(mapping.column).unit)


def _stating(mapping: FieldMapping, amount: Amount | None) -> FieldMapping:
    """The mapping with the decimals that its open numbers are read with.

    What was said of an earlier file stays only where this one leaves it open.
    """
    if amount is None:
        return mapping
    said = {kind: what for kind, what in steps(mapping.transform).items() if kind != "decimal"}
    if amount.is_open or amount.stated:
        said["decimal"] = amount.decimal
    if amount.times is None:
        said.pop("times", None)
    return mapping.model_copy(update={"transform": transform_of(said)})


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1 else f"{value:.12g}"


def _examples(rows: Sequence[tuple[object, ...]], unit: str) -> str:
    """Texts with what they become: `'16.384' is 0.016 GB (row 2)`."""
    return ", ".join(
        f"{str(t)[:60]!r} is {_number(float(str(v)))}{unit} (row {r})" for r, t, v in rows
    )


def _implausible(
    connection: duckdb.DuckDBPyConnection, table: str, amounts: Sequence[Amount]
) -> list[_Told]:
    """Values that no machine has, once they are converted as proposed."""
    found: list[_Told] = []
    for amount in amounts:
        if amount.field.plausible is None:
            continue
        low, high = amount.field.plausible
        rows = connection.execute(
            f"SELECT {ROW}, t, v, count(*) OVER () FROM (SELECT {ROW}, "  # noqa: S608 - quoted
            f"{identifier(amount.column)} AS t, {amount.sql()} AS v FROM {table}) "
            f"WHERE v <> 0 AND v NOT BETWEEN {low} AND {high} ORDER BY {ROW} LIMIT {_EXAMPLES}"
        ).fetchall()
        if rows:
            unit = f" {amount.field.unit}" if amount.field.unit else ""
            found.append(
                _Told(
                    amount.column,
                    rows[0][3],
                    f"{amount.column}: {rows[0][3]} values would be outside of what "
                    f"{amount.field.name} usually is, {low:g} to {high:g}{unit}: "
                    f"{_examples([row[:3] for row in rows], unit)}. "
                    "Correct the field, the unit or the decimals of this column.",
                )
            )
    return found


def _disagreeing(
    connection: duckdb.DuckDBPyConnection, table: str, amounts: Sequence[Amount]
) -> list[_Told]:
    """Columns of one field that say different things of the same rows."""
    first: dict[str, Amount] = {}
    found: list[_Told] = []
    for other in amounts:
        mine = first.setdefault(other.field.name, other)
        if mine is other:
            continue
        rows = connection.execute(
            f"SELECT {ROW}, a, b, count(*) OVER () FROM "  # noqa: S608 - quoted
            f"(SELECT {ROW}, {mine.sql()} AS a, {other.sql()} AS b FROM {table}) "
            f"WHERE {differs('a', 'b')} ORDER BY {ROW} LIMIT {_EXAMPLES}"
        ).fetchall()
        if rows:
            unit = f" {mine.field.unit}" if mine.field.unit else ""
            shown = ", ".join(
                f"row {row}: {_number(a)} and {_number(b)}{unit}" for row, a, b, _ in rows
            )
            found.append(
                _Told(
                    other.column,
                    rows[0][3],
                    f"{mine.field.name}: {mine.column!r} and {other.column!r} disagree in "
                    f"{rows[0][3]} rows ({shown}). {mine.column!r} is taken; unmap the one that "
                    "means something else.",
                )
            )
    return found


def _unreadable(
    connection: duckdb.DuckDBPyConnection, table: str, amounts: Sequence[Amount]
) -> list[_Told]:
    """Values that give no number of the field."""
    found: list[_Told] = []
    for amount in amounts:
        text = f"trim({identifier(amount.column)})"
        rows = connection.execute(
            f"SELECT {ROW}, t, count(*) OVER () FROM "  # noqa: S608 - quoted
            f"(SELECT {ROW}, {text} AS t, {amount.sql()} AS v FROM {table}) "
            f"WHERE v IS NULL AND t <> '' AND NOT {matches('t', 'placeholder')} "
            f"ORDER BY {ROW} LIMIT {_EXAMPLES}"
        ).fetchall()
        if rows:
            unit = f" in {amount.field.unit}" if amount.field.unit else ""
            shown = ", ".join(f"{str(t)[:60]!r} (row {row})" for row, t, _ in rows)
            found.append(
                _Told(
                    amount.column,
                    rows[0][2],
                    f"{amount.column}: {rows[0][2]} values are no number{unit} for "
                    f"{amount.field.name} and would be missing: {shown}.",
                )
            )
    return found
