"""How far an import can be trusted, as one number whose parts say why.

Nothing is ever refused for it: it is for comparing exports and for seeing what to repair first.
"""

from __future__ import annotations

from collections.abc import Sequence

from discovery_core.wire.results import ColumnProfile, QualityPart

from discovery_crews.readers import ReadTable

from .anomalies import Anomalies

WEIGHTS = {
    "acceptance": 0.25,
    "completeness": 0.25,
    "validity": 0.25,
    "consistency": 0.15,
    "uniqueness": 0.10,
}
_TYPE_PATTERNS = (
    "ipv4", "ipv6", "mac", "uuid", "integer", "decimal", "date", "datetime", "boolean", "fqdn",
    "email", "size", "percent",
)  # fmt: skip
_DOMINANT = 0.5


def assess(
    table: ReadTable, profile: Sequence[ColumnProfile], anomalies: Anomalies
) -> tuple[float, list[QualityPart]]:
    """The score between 0 and 1, and its parts in the order of `WEIGHTS`."""
    measured = {
        "acceptance": _acceptance(table),
        "completeness": _completeness(profile),
        "validity": _validity(table, anomalies),
        "consistency": _consistency(profile),
        "uniqueness": _uniqueness(table, anomalies),
    }
    parts = [
        QualityPart(name=name, score=round(score, 4), weight=WEIGHTS[name], explanation=explained)
        for name, (score, explained) in measured.items()
    ]
    return round(sum(part.score * part.weight for part in parts), 4), parts


def _real(column: ColumnProfile) -> int:
    return column.filled - column.patterns.get("placeholder", 0)


def _acceptance(table: ReadTable) -> tuple[float, str]:
    total = table.rows + table.rows_rejected
    return table.rows / total, f"{table.rows} of {total} rows were imported."


def _completeness(profile: Sequence[ColumnProfile]) -> tuple[float, str]:
    """Empty columns do not count: exports of tools have many."""
    used = [column for column in profile if column.filled]
    cells = sum(column.filled + column.missing for column in used)
    real = sum(map(_real, used))
    share = real / cells if cells else 0.0
    return share, f"{real} of {cells} cells say something, in {len(used)} columns with values."


def _validity(table: ReadTable, anomalies: Anomalies) -> tuple[float, str]:
    wrong = anomalies.rows_with_errors
    share = 1 - wrong / table.rows if table.rows else 0.0
    return share, f"{wrong} of {table.rows} rows hold a value that cannot be right."


def _consistency(profile: Sequence[ColumnProfile]) -> tuple[float, str]:
    odd = total = 0
    for column in profile:
        fitting = max((column.patterns.get(name, 0) for name in _TYPE_PATTERNS), default=0)
        real = _real(column)
        if column.type != "string":
            total += real
        elif real and fitting > _DOMINANT * real:
            total += real
            odd += real - fitting
    share = 1 - odd / total if total else 1.0
    return share, f"{odd} of {total} values are unlike the others of their column."


def _uniqueness(table: ReadTable, anomalies: Anomalies) -> tuple[float, str]:
    repeats = max(
        (entry.rows for entry in anomalies.found if entry.kind == "repeated_identifier"), default=0
    )
    share = 1 - repeats / table.rows if table.rows else 0.0
    return share, f"{repeats} of {table.rows} rows repeat an identifier."
