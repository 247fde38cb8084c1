"""What is worth a look in an imported table: computed by code, judged by the crew.

An observation is a fact with a name from a closed list and an id. Agents decide which ones
matter for a migration inventory and how much; they cannot add numbers of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from discovery_core.wire.results import ColumnProfile

from discovery_crews.mapping.engine import propose
from discovery_crews.readers import ReadTable
from discovery_crews.target_schema import builtin_schema

from .anomalies import Anomaly, Severity

Aspect = Literal["schema", "quality", "anomaly"]

# Addresses may be there several times, but a list of them tells assets apart.
_ALSO_IDENTIFYING = {"ip_address"}
_MOSTLY = 0.5
_NEARLY_ALL = 0.95
_LONG = 255


@dataclass(frozen=True)
class Observation:
    """One fact. `suggested` is the severity that rules would give it."""

    id: str
    aspect: Aspect
    kind: str
    column: str | None
    fact: str
    suggested: Severity

    def as_json(self) -> dict[str, str | None]:
        """What a tool tells an agent."""
        return {
            "id": self.id,
            "kind": self.kind,
            "column": self.column,
            "fact": self.fact,
            "suggested_severity": self.suggested,
        }


class _Collector:
    def __init__(self) -> None:
        self.found: list[Observation] = []

    def add(
        self, aspect: Aspect, kind: str, column: str | None, fact: str, suggested: Severity
    ) -> None:
        identifier = f"{aspect[0]}{len(self.found) + 1}"
        self.found.append(Observation(identifier, aspect, kind, column, fact, suggested))


def observe(
    table: ReadTable, profile: Sequence[ColumnProfile], anomalies: Sequence[Anomaly]
) -> list[Observation]:
    """All observations about a table, in a fixed order."""
    collector = _Collector()
    identifying = _identifying(profile)
    _schema(collector, table, profile, identifying)
    _quality(collector, table, profile, identifying)
    _anomalies(collector, profile)
    for anomaly in anomalies:
        collector.add("anomaly", anomaly.kind, anomaly.column, anomaly.fact, anomaly.severity)
    return collector.found


def _schema(
    collector: _Collector,
    table: ReadTable,
    profile: Sequence[ColumnProfile],
    identifying: set[str],
) -> None:
    for finding in table.findings:
        collector.add("schema", "reading", None, finding, "info")
    if not identifying:
        collector.add(
            "schema",
            "no_identifier",
            None,
            "No column looks like a name, address or serial number that tells assets apart.",
            "error",
        )
    if len(profile) == 1:
        collector.add(
            "schema",
            "single_column",
            profile[0].name,
            "There is only one column; the delimiter may not have been recognised.",
            "error",
        )
    units: dict[str, list[str]] = {}
    for column in profile:
        if column.unit:
            stem = column.name.lower().split("(")[0].replace("_", " ").split()
            units.setdefault(stem[0] if stem else "", []).append(column.name)
    for names in units.values():
        if len(names) > 1:
            collector.add(
                "schema",
                "variants",
                names[0],
                f"These columns may hold one fact in several units: {', '.join(names)}.",
                "info",
            )


def _identifying(profile: Sequence[ColumnProfile]) -> set[str]:
    """Columns with values that the mapping would take for what tells assets apart."""
    schema = builtin_schema()
    fields = {field.name for field in schema.fields if field.unique} | _ALSO_IDENTIFYING
    filled = {column.name for column in profile if column.filled}
    return {
        proposal.column
        for proposal in propose(profile, schema)
        if proposal.target in fields and proposal.column in filled
    }


def _quality(
    collector: _Collector,
    table: ReadTable,
    profile: Sequence[ColumnProfile],
    identifying: set[str],
) -> None:
    if table.rows_rejected:
        total = table.rows + table.rows_rejected
        problems = "; ".join(f"{text}: {n}" for text, n in table.rejected_by_problem.items())
        share = table.rows_rejected / total
        collector.add(
            "quality",
            "rejected_rows",
            None,
            f"{table.rows_rejected} of {total} rows were rejected ({problems}).",
            "error" if share > 0.1 else "warning",
        )
    empty = [column.name for column in profile if column.filled == 0]
    if empty:
        collector.add(
            "quality",
            "empty_columns",
            None,
            f"{len(empty)} columns are empty: {', '.join(empty[:20])}"
            + (" …" if len(empty) > 20 else "")
            + ".",
            "info",
        )
    for column in profile:
        if column.filled == 0:
            continue
        placeholders = column.patterns.get("placeholder", 0)
        if placeholders:
            collector.add(
                "quality",
                "placeholders",
                column.name,
                f"{placeholders} of {column.filled} values stand for a missing one.",
                "info",
            )
        if column.name in identifying and column.missing > 0.2 * table.rows:
            collector.add(
                "quality",
                "sparse_identifier",
                column.name,
                f"{column.missing} of {table.rows} rows have no value here.",
                "warning",
            )


def _anomalies(collector: _Collector, profile: Sequence[ColumnProfile]) -> None:
    for column in profile:
        real = column.filled - column.patterns.get("placeholder", 0)
        if real <= 0:
            continue
        _mixed(collector, column, real)
        for finding in column.findings:
            if "longest value" in finding:
                collector.add("anomaly", "long_values", column.name, finding, "warning")
        if column.outliers:
            collector.add(
                "anomaly",
                "outliers",
                column.name,
                f"{column.outliers} of {real} numbers lie far outside the usual; they range from "
                f"{column.minimum} to {column.maximum}.",
                "info",
            )
        name = column.name.lower()
        if "host" in name and column.patterns.get("os", 0) > _MOSTLY * real:
            collector.add(
                "anomaly",
                "values_do_not_fit_name",
                column.name,
                "A column named like a host holds names of operating systems.",
                "error",
            )
        lists = column.patterns.get("list", 0)
        if lists > 0 and column.type in ("string", "ip", "fqdn", "mac"):
            collector.add(
                "anomaly",
                "multiple_values",
                column.name,
                f"{lists} cells hold several values.",
                "info",
            )


def _mixed(collector: _Collector, column: ColumnProfile, real: int) -> None:
    if column.type != "string":
        return
    for pattern in ("ipv4", "mac", "uuid", "integer", "date", "fqdn", "email"):
        share = column.patterns.get(pattern, 0) / real
        if _MOSTLY < share < _NEARLY_ALL:
            odd = real - column.patterns[pattern]
            collector.add(
                "anomaly",
                "mixed_values",
                column.name,
                f"{odd} of {real} values are not of the kind {pattern!r} like the others.",
                "warning",
            )
            return
