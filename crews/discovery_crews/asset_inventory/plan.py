"""What the inventory crew decides, and the closed lists that it decides from.

Code can convert, classify and merge millions of rows, but whether `Memory 2224` means MiB or
whether a chassis serial number tells virtual machines apart is a judgement; this module is the
border between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_core.wire import FieldMapping
from pydantic import BaseModel, ConfigDict, Field

from discovery_crews.tables.units import canonical_unit, convertible, unit_of_header
from discovery_crews.target_schema import TargetField, TargetSchema

ASSET_TYPES = ("server", "database", "application", "network", "storage", "unknown")

# Fields that can tell assets apart, strongest first; compare ServiceNow's identification rules.
IDENTITY_KEYS = ("serial_number", "asset_id", "fqdn", "hostname", "asset_name", "ip_address")

CLASS_RULES: dict[str, str] = {
    "by_type_column": "the mapped asset type, read by synonyms (VM, ESXi host, switch, SAN …)",
    "by_model": "model, manufacturer or name says switch, router, firewall, SAN, NAS …",
    "by_database": "a database version, but no processor, memory or operating system",
    "by_application": "an application name, but nothing that only machines have",
    "by_machine_facts": "operating system, processor, memory, address or host name: a server",
}


@dataclass(frozen=True)
class SourceColumn:
    """A column that feeds a field. `unit` is what its numbers are in where they carry none."""

    column: str
    unit: str | None = None


@dataclass(frozen=True)
class FieldSource:
    """A field of the target schema with its columns, the primary one first."""

    field: TargetField
    columns: tuple[SourceColumn, ...]


class InventoryPlan(BaseModel):
    """The crew's decisions, checked: every entry is from a closed list.

    `units`: source unit by column, for columns whose numbers carry none.
    """

    model_config = ConfigDict(frozen=True)

    identity_keys: tuple[str, ...]
    class_rules: tuple[str, ...] = tuple(CLASS_RULES)
    default_type: str = "unknown"
    units: dict[str, str] = Field(default_factory=dict)
    reasons: dict[str, str] = Field(default_factory=dict)
    summary: str = ""


def numeric_with_unit(target: TargetField) -> bool:
    """Whether the numbers of a field are in a unit that has relatives."""
    return target.type in ("number", "integer") and bool(
        target.unit and convertible(target.unit, target.unit)
    )


def field_sources(
    mappings: Sequence[FieldMapping], schema: TargetSchema, columns: Sequence[str]
) -> list[FieldSource]:
    """The approved mappings as sources of fields, in the schema's order.

    Raises DiscoveryError `InvalidMapping` for a column or a target that does not exist.
    """
    known = {entry.name: entry for entry in schema.fields}
    chosen: dict[str, list[FieldMapping]] = {}
    problems: list[str] = []
    for mapping in mappings:
        if mapping.column not in columns:
            problems.append(f"column {mapping.column!r} is not in the source")
        elif mapping.target is not None and mapping.target not in known:
            problems.append(f"{mapping.column!r}: target {mapping.target!r} is not in the schema")
        elif mapping.target is not None:
            chosen.setdefault(mapping.target, []).append(mapping)
    if problems:
        raise DiscoveryError(
            ErrorCode.INVALID_MAPPING,
            "The approved mappings do not fit the data: "
            + "; ".join(problems[:10])
            + ". Ask for the mapping again (spec.rerun from field_mapping).",
        )
    sources: list[FieldSource] = []
    for name, target in known.items():
        entries = sorted(chosen.get(name, []), key=lambda entry: entry.role != "primary")
        if entries:
            sources.append(
                FieldSource(target, tuple(_source_column(entry, target) for entry in entries))
            )
    return sources


def _source_column(mapping: FieldMapping, target: TargetField) -> SourceColumn:
    if not numeric_with_unit(target) or target.unit is None:
        return SourceColumn(mapping.column)
    stated = canonical_unit((mapping.transform or "").removeprefix("unit:"))
    for unit in (stated, unit_of_header(mapping.column)):
        if unit and convertible(unit, target.unit):
            return SourceColumn(mapping.column, unit)
    return SourceColumn(mapping.column)


def with_units(sources: Sequence[FieldSource], units: dict[str, str]) -> list[FieldSource]:
    """The sources with the plan's units where the column's own name states none."""
    return [
        FieldSource(
            source.field,
            tuple(
                SourceColumn(entry.column, entry.unit or units.get(entry.column))
                for entry in source.columns
            ),
        )
        for source in sources
    ]
