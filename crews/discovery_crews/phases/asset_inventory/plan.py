"""What the inventory crew decides, and the closed lists that it decides from.

Code can convert, classify and merge millions of rows, but whether `Memory 2224` means MiB or
whether a chassis serial number tells virtual machines apart is a judgement; this module is the
border between the two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import cast

from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_core.mapping_edits import steps
from discovery_core.wire.results import FieldMapping, Separators
from pydantic import BaseModel, ConfigDict, Field

from discovery_crews.mapping.amounts import Amount, usable_unit
from discovery_crews.mapping.tokens import words_of
from discovery_crews.tables.numbers import Decimal
from discovery_crews.tables.units import canonical_unit, unit_of_header
from discovery_crews.target_schema import TargetField, TargetSchema, builtin_schema

ASSET_TYPES = ("server", "database", "application", "network", "storage", "unknown")

# Fields that can tell assets apart, strongest first; compare ServiceNow's identification rules.
# `name_and_ip` is the short name with an address: for names that several assets share.
NAME_AND_IP = "name_and_ip"
IDENTITY_KEYS = (
    "serial_number", "asset_id", "fqdn", "hostname", NAME_AND_IP, "asset_name", "ip_address",
)  # fmt: skip

CLASS_RULES: dict[str, str] = {
    "by_type_column": "the mapped asset type, read by synonyms (VM, ESXi host, switch, SAN …)",
    "by_model": "model or manufacturer says switch, router, firewall, SAN, NAS …",
    "by_database": "a database version, but no processor, memory or operating system",
    "by_application": "an application name, but nothing that only machines have",
    "by_machine_facts": "operating system, processor, memory, address or host name: a server",
}


@dataclass(frozen=True)
class SourceColumn:
    """A column that feeds a field. `unit` is what its numbers are in where they carry none.

    `decimal` is how it was said to write decimals, `times` the column that multiplies its numbers;
    `separators` is what `evidence.gather` found of it.
    """

    column: str
    unit: str | None = None
    decimal: Decimal | None = None
    times: str | None = None
    separators: Separators | None = None

    def amount(self, target: TargetField) -> Amount:
        """The column as a source of numbers."""
        stated = self.decimal is not None
        return Amount(self.column, target, self.unit, self.separators, stated, self.times)


@dataclass(frozen=True)
class FieldSource:
    """A field of the target schema with its columns, the primary one first.

    `role` is the built-in field that it corresponds to, by which keys and classes know it; a
    field of a user's own schema may have another name, or no such role (`field:…`).
    """

    field: TargetField
    columns: tuple[SourceColumn, ...]
    role: str

    @property
    def is_list(self) -> bool:
        """Whether the field holds several values."""
        return self.field.type == "list"

    @property
    def is_addresses(self) -> bool:
        """Whether the values are lists of IP addresses."""
        return self.is_list and self.role == "ip_address"


def _folded(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", text.lower())


@lru_cache(maxsize=1)
def _roles() -> dict[str, str]:
    """Folded names and synonyms of the built-in fields; an earlier field wins."""
    roles: dict[str, str] = {}
    fields = builtin_schema().fields
    for entry in fields:
        roles.setdefault(_folded(entry.name), entry.name)
    for entry in fields:
        for synonym in entry.synonyms:
            roles.setdefault(_folded(synonym), entry.name)
    return roles


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
    taken: set[str] = set()
    for name, target in known.items():
        entries = sorted(chosen.get(name, []), key=lambda entry: entry.role != "primary")
        if not entries:
            continue
        role = _roles().get(_folded(name))
        if role is None or role in taken:
            role = f"field:{name}"
        taken.add(role)
        feeding = tuple(_source_column(entry, target, chosen) for entry in entries)
        sources.append(FieldSource(target, feeding, role))
    return sources


def _source_column(
    mapping: FieldMapping, target: TargetField, chosen: dict[str, list[FieldMapping]]
) -> SourceColumn:
    """How the column is read. Raises DiscoveryError where what multiplies it is not mapped."""
    if target.type not in ("integer", "number"):
        return SourceColumn(mapping.column)
    said = steps(mapping.transform)
    decimal = cast("Decimal | None", said.get("decimal"))
    times = None
    if "times" in said:
        named = sorted(chosen.get(said["times"], []), key=lambda entry: entry.role != "primary")
        if not named:
            raise DiscoveryError(
                ErrorCode.INVALID_MAPPING,
                f"{mapping.column!r} is to be multiplied with {said['times']}, to which no column "
                "is mapped. Map one, or leave times out (spec.rerun from field_mapping).",
            )
        times = named[0].column
    unit = None
    if target.is_measured:
        stated = canonical_unit(said.get("unit"))
        named_by = (unit_of_header(mapping.column), words_of(mapping.column).unit)
        unit = usable_unit(target, stated, *named_by)
    return SourceColumn(mapping.column, unit, decimal, times)


def with_units(sources: Sequence[FieldSource], units: dict[str, str]) -> list[FieldSource]:
    """The sources with the plan's units where the column's own name states none."""
    return [
        replace(
            source,
            columns=tuple(
                replace(entry, unit=entry.unit or units.get(entry.column))
                for entry in source.columns
            ),
        )
        for source in sources
    ]
