"""Columns of numbers as the fields that they are mapped to have them read.

What a column alone leaves open, its field and its neighbours often say: 0.016 GB is no server's
memory, and a column beside it says "128 GB". One reading serves the checks of an import, the
proposal that people approve and the inventory that is made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
from discovery_core.wire.results import Separators

from discovery_crews.tables import values
from discovery_crews.tables.engine import identifier, literal
from discovery_crews.tables.numbers import OTHER, Decimal
from discovery_crews.tables.units import convertible
from discovery_crews.target_schema import TargetField

# how far two columns of one fact may lie apart: GB and GiB differ by 7 %, and rounding adds to it
_ROUNDING = 0.1
_HALF = 0.5
_CLEARLY = 2
# a machine with this many GB is rare, a number of MB below it is not a machine's memory
_MEMORY_IN_MB = 512
_MACHINE_STORAGE_IN_MB = 20_000


@dataclass(frozen=True)
class Amount:
    """A column that feeds a numeric field.

    `unit` is what bare numbers are in, None where nobody has said it; `separators` how decimals
    are written, None where no number has any; `stated`: people or a lesson have said so; `times` is
    the column whose number of the same row multiplies this one's.
    """

    column: str
    field: TargetField
    unit: str | None = None
    separators: Separators | None = None
    stated: bool = False
    times: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether its separators may be read in two ways and nobody has decided which."""
        found = self.separators
        return found is not None and found.open > 0 and not found.sure and not self.stated

    @property
    def decimal(self) -> Decimal:
        """What separates decimals."""
        return self.separators.decimal if self.separators is not None else "point"

    def sql(self, decimal: Decimal | None = None, unit: str | None = None) -> str:
        """SQL: the field's value, NULL for none or one that cannot be converted."""
        text, target = identifier(self.column), self.field
        comma = (decimal or self.decimal) == "comma"
        if target.type == "integer" and not target.unit:
            value = values.whole_number(text, decimal_comma=comma)
        else:
            bare = unit or self.unit
            value = values.number(text, target.unit or None, bare, decimal_comma=comma)
        if self.times is None:
            return value
        factor = values.whole_number(identifier(self.times), decimal_comma=False)
        return f"(({value}) * ({factor}))"


def judged_unit(field: TargetField, median: float | None, largest: float | None) -> tuple[str, str]:
    """The likeliest unit of bare numbers, by their size, and why; the field's own when in doubt."""
    median, largest, unit = median or 0.0, largest or 0.0, field.unit or ""
    if unit == "GB":
        limit = _MEMORY_IN_MB if "memory" in field.name else _MACHINE_STORAGE_IN_MB
        if median >= limit * 1024 * 1024:
            return "KB", f"A median of {median:g} GB or MB would be no machine's."
        if median >= limit:
            return "MiB", f"A median of {median:g} GB would be no machine's."
    if unit == "MHz" and 0 < largest < 10:
        return "GHz", f"A clock of at most {largest:g} MHz would be no machine's."
    if unit == "%" and 0 < largest <= 1:
        return "fraction", "No number is above 1."
    return unit, f"Numbers of this size are usual in {unit}."


def refined(
    connection: duckdb.DuckDBPyConnection, records: Path, amounts: Sequence[Amount]
) -> list[Amount]:
    """The amounts with open separators decided by neighbours and fields where those tell.

    Bare numbers get the unit that their size suggests, so that what is made of them is known.
    """
    table = f"read_parquet({literal(records)})"
    sized = [
        amount if amount.is_open else _sized(connection, table, amount, amount.decimal)
        for amount in amounts
    ]
    return [
        _decided(connection, table, amount, sized) if amount.is_open else amount for amount in sized
    ]


def _sized(
    connection: duckdb.DuckDBPyConnection, table: str, amount: Amount, decimal: Decimal
) -> Amount:
    """The amount in the unit of its bare numbers, read with this decimal."""
    if amount.unit is not None or not amount.field.is_measured:
        return amount
    text = identifier(amount.column)
    value = values.plain_number(text, decimal_comma=decimal == "comma")
    row = connection.execute(
        f"SELECT count(v), quantile_disc(v, 0.5), max(v) FROM (SELECT {value} AS v "  # noqa: S608 - quoted
        f"FROM {table} WHERE {values.unit_text(text)} = '')"
    ).fetchone()
    if row is None or not row[0]:
        return amount
    return replace(amount, unit=judged_unit(amount.field, row[1], row[2])[0])


def _decided(
    connection: duckdb.DuckDBPyConnection, table: str, amount: Amount, amounts: Sequence[Amount]
) -> Amount:
    usual = amount.separators
    if usual is None:
        raise AssertionError("only open separators are decided")
    decimal, why = (
        _by_neighbour(connection, table, amount, amounts)
        or _by_range(connection, table, amount)
        or (usual.decimal, usual.why)
    )
    found = usual.model_copy(update={"decimal": decimal, "why": why})
    return _sized(connection, table, replace(amount, separators=found), decimal)


def _by_neighbour(
    connection: duckdb.DuckDBPyConnection, table: str, amount: Amount, amounts: Sequence[Amount]
) -> tuple[Decimal, str] | None:
    """The reading under which another column of the same field says the same."""
    for other in amounts:
        if other.column == amount.column or other.field != amount.field or other.is_open:
            continue
        agreeing = {}
        for decimal in OTHER:
            mine = _sized(connection, table, amount, decimal).sql(decimal)
            row = connection.execute(
                f"SELECT count(*) FILTER (NOT {differs('a', 'b')}) FROM "  # noqa: S608 - quoted
                f"(SELECT {mine} AS a, {other.sql()} AS b FROM {table})"
            ).fetchone()
            agreeing[decimal] = int(row[0]) if row else 0
        if chosen := _clearly(agreeing):
            return chosen, f"{other.column!r} then says the same of the same rows"
    return None


def _by_range(
    connection: duckdb.DuckDBPyConnection, table: str, amount: Amount
) -> tuple[Decimal, str] | None:
    """The reading under which the numbers are such as the field's usually are."""
    if amount.field.plausible is None or (amount.field.is_measured and amount.unit is None):
        return None
    low, high = amount.field.plausible
    point, comma = amount.sql("point"), amount.sql("comma")
    row = connection.execute(
        f"SELECT count(*) FILTER (p BETWEEN {low} AND {high}), "  # noqa: S608 - numbers
        f"count(*) FILTER (c BETWEEN {low} AND {high}) FROM "
        f"(SELECT {point} AS p, {comma} AS c FROM {table}) WHERE p IS DISTINCT FROM c"
    ).fetchone()
    chosen = _clearly({"point": int(row[0]), "comma": int(row[1])}) if row else None
    unit = f" {amount.field.unit}" if amount.field.unit else ""
    return (
        (chosen, f"otherwise they are not between {low:g} and {high:g}{unit}") if chosen else None
    )


def _clearly(counted: dict[Decimal, int]) -> Decimal | None:
    best = max(counted, key=lambda decimal: counted[decimal])
    return best if counted[best] > _CLEARLY * counted[OTHER[best]] else None


def differs(one: str, other: str) -> str:
    """SQL: whether two numbers of one fact lie further apart than rounding explains."""
    apart, most = f"abs({one} - {other})", f"greatest(abs({one}), abs({other}))"
    return f"({apart} > {_ROUNDING} * {most} AND ({apart} > {_HALF} OR {apart} > 0.5 * {most}))"


def usable_unit(field: TargetField, *named: str | None) -> str | None:
    """The first unit that is named and measures what the field does, else any that is named.

    A percentage stays a percentage: above gigabytes its bare numbers are none.
    """
    known = [unit for unit in named if unit]
    fitting = (unit for unit in known if field.unit and convertible(unit, field.unit))
    return next(fitting, known[0] if known else None)
