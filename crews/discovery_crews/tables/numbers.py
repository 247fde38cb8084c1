"""How a column writes its numbers, decided once for everybody who reads them.

`16.384` is sixteen thousand in one export and sixteen in another, and nothing in the text says
which. The profile, the mapping, the checks of an import and the inventory all go by what is
decided here, from the column's own values first, then from those of the file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
from discovery_core.wire.results import Separators

from .engine import identifier, literal
from .values import digits_of, plain_number

Decimal = Literal["comma", "point"]
OTHER: dict[Decimal, Decimal] = {"comma": "point", "point": "comma"}
SEMICOLON = ";"
_SIGN = "[-+]?"
# what leaves no doubt, with {d} between whole and fraction and {g} between groups of thousands
_SURE = (
    r"{s}[0-9]*{d}([0-9]{{1,2}}|[0-9]{{4,}})|{s}(0|[0-9]{{4,}}){d}[0-9]{{3}}"
    r"|{s}[0-9]{{1,3}}({g}[0-9]{{3}})+{d}[0-9]+|{s}[0-9]{{1,3}}({g}[0-9]{{3}}){{2,}}"
)
_COMMA = _SURE.format(s=_SIGN, d=",", g="[.]")
_POINT = _SURE.format(s=_SIGN, d="[.]", g=",")
_OPEN_POINT = _SIGN + "[1-9][0-9]{0,2}[.][0-9]{3}"
_OPEN_COMMA = _SIGN + "[1-9][0-9]{0,2},[0-9]{3}"
_UNGROUPED = _SIGN + "[1-9][0-9]{3,}"
_LEADING = re.compile(r"^[~≈]?\s*([-+]?[0-9][0-9.,'\s]*)(?:[a-zA-Z%][a-zA-Z/%]*)?$")


@dataclass(frozen=True)
class Written:
    """How many values are written in which way.

    `comma` and `point`: decimals that leave no doubt; `open_point` and `open_comma`: `1.234` and
    `1,234`, by whose example `example` is; `ungrouped`: a thousand and more without a separator.
    """

    comma: int = 0
    point: int = 0
    open_point: int = 0
    open_comma: int = 0
    ungrouped: int = 0
    example: str | None = None

    @property
    def open(self) -> int:
        """Values that are read otherwise under the other separator."""
        return self.open_point + self.open_comma


def written_columns(text: str, digits: str, times: str, first: str) -> str:
    """SQL: the six columns of `Written`, aggregated over texts with their `digits_of`.

    `times` is how often a text is there, `first` orders them.
    """

    def filtered(pattern: str) -> str:
        return f"FILTER (WHERE regexp_full_match({digits}, '{pattern}'))"

    counts = ", ".join(
        f"coalesce(sum({times}) {filtered(pattern)}, 0)"
        for pattern in (_COMMA, _POINT, _OPEN_POINT, _OPEN_COMMA, _UNGROUPED)
    )
    return f"{counts}, first({text} ORDER BY {first}) {filtered(f'{_OPEN_POINT}|{_OPEN_COMMA}')}"


def written(row: Sequence[Any]) -> Written:
    """From what `written_columns` gives."""
    comma, point, open_point, open_comma, ungrouped, example = row
    return Written(
        int(comma), int(point), int(open_point), int(open_comma), int(ungrouped), example
    )


def measure(connection: duckdb.DuckDBPyConnection, records: Path, column: str) -> Written:
    """How a column of texts writes numbers, over all rows."""
    name = identifier(column)
    row = connection.execute(
        f"SELECT {written_columns('t', 'digits', 'n', 't')} FROM ("  # noqa: S608 - quoted
        f"SELECT trim({name}) AS t, {digits_of('t')} AS digits, count(*) AS n "
        f"FROM read_parquet({literal(records)}) WHERE length(trim({name})) > 2 GROUP BY ALL)"
    ).fetchone()
    if row is None:
        raise AssertionError("an aggregate without GROUP BY gives one row")
    return written(row)


def decide(
    own: Written, others: Sequence[Written] = (), delimiter: str | None = None
) -> Separators | None:
    """How a column writes decimals; None where none of its values has a separator.

    `others` are the file's other columns of numbers, `delimiter` what separates its cells.
    """
    if own.comma + own.point + own.open == 0:
        return None
    decimal, sure, why = _by_itself(own) or _by_file(others, delimiter)
    return Separators(decimal=decimal, sure=sure, why=why, open=own.open, example=own.example)


def _by_itself(own: Written) -> tuple[Decimal, bool, str] | None:
    if own.comma != own.point:
        decimal: Decimal = "comma" if own.comma > own.point else "point"
        mixed = min(own.comma, own.point) > 0
        why = "most other values of the column" if mixed else "the column's other values"
        return decimal, not mixed, f"{why} have a decimal {decimal}"
    if own.ungrouped and (own.open_point == 0) != (own.open_comma == 0):
        # who writes 65536 in whole numbers means no fraction by 131.072
        grouping: Decimal = "point" if own.open_point else "comma"
        why = "the column has whole numbers of four digits and more beside them"
        return OTHER[grouping], False, why
    return None


def _by_file(others: Sequence[Written], delimiter: str | None) -> tuple[Decimal, bool, str]:
    commas = sum(1 for other in others if other.comma > other.point)
    points = sum(1 for other in others if other.point > other.comma)
    if commas != points:
        decimal: Decimal = "comma" if commas > points else "point"
        return decimal, False, f"other columns of the file have a decimal {decimal}"
    if delimiter == SEMICOLON:
        return "comma", False, "cells are separated by semicolons, as where decimals have a comma"
    return "point", False, "nothing in the file says otherwise, and most exports do so"


def described(column: str, found: Separators) -> str:
    """For people: how the open values of a column were read, why, and how that is corrected."""
    example = found.example or ""
    meant = number_of(example, found.decimal)
    shown = "" if meant is None else f"{example!r} as {meant:g}"
    return (
        f"{column}: {found.open} numbers can be read in two ways; they were read with a decimal "
        f"{found.decimal} ({shown}), because {found.why}. If that is wrong, choose "
        f"decimal:{OTHER[found.decimal]}."
    )


def number_of(text: str, decimal: Decimal | None) -> float | None:
    """A number with at most a word behind it, as the engine reads it by `plain_number`.

    None for what is no number, and for one beyond all sizes, which says nothing.
    """
    found = _LEADING.match(text.strip())
    if found is None:
        return None
    digits = re.sub(r"['\s]", "", found.group(1))
    if "," in digits and "." in digits:
        last = max(digits.rfind(","), digits.rfind("."))
        group = "." if digits[last] == "," else ","
        digits = digits.replace(group, "").replace(",", ".")
    elif re.fullmatch(rf"{_SIGN}[0-9]{{1,3}}((,[0-9]{{3}}){{2,}}|([.][0-9]{{3}}){{2,}})", digits):
        digits = digits.replace(",", "").replace(".", "")
    elif re.fullmatch(_OPEN_COMMA, digits):
        digits = digits.replace(",", "." if decimal == "comma" else "")
    elif re.fullmatch(_OPEN_POINT, digits):
        digits = digits.replace(".", "" if decimal == "comma" else ".")
    elif re.fullmatch(rf"{_SIGN}[0-9]{{1,2}}(,[0-9]{{2}})+,[0-9]{{3}}", digits):
        digits = digits.replace(",", "")
    else:
        digits = digits.replace(",", ".")
    try:
        number = float(digits)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def read_number(text: str, found: Separators | None) -> str:
    """SQL: the number of a text as its column writes numbers, whatever word is behind it."""
    return plain_number(text, decimal_comma=found is not None and found.decimal == "comma")
