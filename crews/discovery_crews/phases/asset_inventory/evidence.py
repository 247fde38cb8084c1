"""What the inventory crew looks at before it decides: measured over all rows, by SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb

from discovery_crews.mapping.amounts import refined
from discovery_crews.tables.addresses import addresses
from discovery_crews.tables.engine import connect, identifier, literal
from discovery_crews.tables.numbers import decide, measure, read_number
from discovery_crews.tables.values import string, text_list, unit_text

from .classify import available_keys, class_rule, key_value, usable_fields
from .plan import CLASS_RULES, FieldSource

_MACHINE_FACTS = ("os_name", "cpu_cores", "memory_gb", "storage_gb")


@dataclass(frozen=True)
class UnitEvidence:
    """Numbers of a column whose unit neither its header nor its values state."""

    column: str
    target: str
    target_unit: str
    without_unit: int
    minimum: float | None
    median: float | None
    maximum: float | None


@dataclass(frozen=True)
class KeyEvidence:
    """How well a field tells assets apart.

    `merges`: rows that share the value with a row of another name (for the name itself: with a row
    of another system, processor, memory or storage); `splits`: rows that share their name with a
    row of another value; `counts`: whether the values are numbers without gaps, as a list's rows
    are counted.
    """

    field: str
    filled: int
    distinct: int
    merges: int
    splits: int
    counts: bool = False


@dataclass(frozen=True)
class Evidence:
    """Everything the crew may judge by."""

    rows: int
    units: list[UnitEvidence]
    keys: list[KeyEvidence]
    classes: dict[str, dict[str, int]]


def with_separators(
    workdir: Path, records: Path, sources: Sequence[FieldSource]
) -> list[FieldSource]:
    """The sources with how their columns write numbers: as was said, else by what they hold."""
    numeric = [
        (source.field, entry)
        for source in sources
        if source.field.type in ("integer", "number")
        for entry in source.columns
    ]
    with connect(workdir) as connection:
        written = {entry.column: measure(connection, records, entry.column) for _, entry in numeric}
        amounts = []
        for field, entry in numeric:
            others = [found for column, found in written.items() if column != entry.column]
            found = decide(written[entry.column], others)
            if found is not None and entry.decimal is not None:
                found = found.model_copy(update={"decimal": entry.decimal})
            amounts.append(replace(entry, separators=found).amount(field))
        decided = {a.column: a.separators for a in refined(connection, records, amounts)}
    return [
        replace(
            source,
            columns=tuple(
                replace(entry, separators=decided.get(entry.column)) for entry in source.columns
            ),
        )
        for source in sources
    ]


def _unit_evidence(
    connection: duckdb.DuckDBPyConnection, records: Path, source: FieldSource
) -> list[UnitEvidence]:
    found: list[UnitEvidence] = []
    unit = source.field.unit
    if not source.field.is_measured or unit is None:
        return found
    for entry in source.columns:
        if entry.unit is not None:
            continue
        name = identifier(entry.column)
        value = read_number(name, entry.separators)
        row = connection.execute(
            f"SELECT count(v), min(v), quantile_disc(v, 0.5), max(v) FROM "  # noqa: S608 - quoted
            f"(SELECT {value} AS v FROM read_parquet({literal(records)}) "
            f"WHERE {unit_text(name)} = '')"
        ).fetchone()
        if row and row[0]:
            found.append(UnitEvidence(entry.column, source.field.name, unit, *row))
    return found


def as_texts(records: Path, sources: Sequence[FieldSource]) -> str:
    """A subquery with one column per mapped field, still as text (lists as lists)."""
    parts: list[str] = []
    for source in sources:
        read = addresses if source.is_addresses else text_list if source.is_list else string
        texts = [read(identifier(entry.column)) for entry in source.columns]
        parts.append(f"coalesce({', '.join(texts)}) AS {identifier(source.role)}")
    selected = ", ".join(parts) or "NULL AS nothing"
    return f"(SELECT {selected} FROM read_parquet({literal(records)}))"  # noqa: S608 - quoted


def _key_evidence(
    connection: duckdb.DuckDBPyConnection, texts: str, fields: dict[str, bool]
) -> list[KeyEvidence]:
    names = [name for name in ("asset_name", "hostname", "fqdn") if name in fields]
    label = f"lower(coalesce({', '.join(map(identifier, names))}))" if names else "NULL"
    found: list[KeyEvidence] = []
    for field in available_keys(fields):
        value = key_value(field, fields)
        # a name cannot contradict itself, but machines of one name can
        other = _machine(fields) if field in names[:1] else label
        row = connection.execute(
            f"""
            WITH keyed AS (
                SELECT {value} AS k, {label} AS label, {other} AS other FROM {texts}
            ), by_key AS (
                SELECT k, count(*) AS n, count(DISTINCT other) AS labels FROM keyed
                WHERE k IS NOT NULL GROUP BY k
            ), by_label AS (
                SELECT label, count(*) AS n, count(DISTINCT k) AS keys FROM keyed
                WHERE label IS NOT NULL AND k IS NOT NULL GROUP BY label
            )
            SELECT coalesce(sum(n), 0), count(*), coalesce(sum(n) FILTER (WHERE labels > 1), 0),
                (SELECT coalesce(sum(n) FILTER (WHERE keys > 1), 0) FROM by_label),
                count(*) = count(try_cast(k AS BIGINT))
                    AND max(try_cast(k AS BIGINT)) - min(try_cast(k AS BIGINT)) < 2 * count(*)
            FROM by_key
            """  # noqa: S608 - identifiers and literals are quoted
        ).fetchone()
        if row and row[0]:
            filled, distinct, merges, splits = map(int, row[:4])
            found.append(KeyEvidence(field, filled, distinct, merges, splits, bool(row[4])))
    return found


def _machine(fields: dict[str, bool]) -> str:
    """What rows of one machine have in common, even where each row is one of its addresses."""
    facts = [name for name in _MACHINE_FACTS if name in fields]
    if "ip_address" not in fields or not facts:
        return "NULL"
    return f"nullif(concat_ws('|', {', '.join(map(identifier, facts))}), '')"


def gather(workdir: Path, records: Path, sources: Sequence[FieldSource], rows: int) -> Evidence:
    """The evidence for a set of approved mappings."""
    fields = {source.role: source.is_list for source in sources}
    texts = as_texts(records, sources)
    with connect(workdir) as connection:
        units = [item for s in sources for item in _unit_evidence(connection, records, s)]
        keys = _key_evidence(connection, texts, fields)
        classes: dict[str, dict[str, int]] = {}
        for rule in CLASS_RULES:
            kind = class_rule(rule, usable_fields(fields))
            counted = connection.execute(
                f"SELECT {kind} AS c, count(*) FROM {texts} "  # noqa: S608 - quoted
                "GROUP BY c ORDER BY c"
            ).fetchall()
            classes[rule] = {name: int(n) for name, n in counted if name is not None}
    return Evidence(rows, units, keys, classes)
