"""What people are told about an inventory, what puts machines together or apart at first."""

from __future__ import annotations

from collections.abc import Sequence

from discovery_crews.tables.numbers import described

from .assets import InventoryCounts
from .identify import Copies
from .plan import FieldSource, InventoryPlan
from .witnesses import is_weighed
from .worthless import DAMAGED, NoIdentifier

_SHOWN = 20
_KINDS = {
    "serial_number": "serial number",
    "asset_id": "VM UUID or asset id",
    "fqdn": "domain name",
    "name_and_ip": "name and address",
}


def findings_of(
    sources: Sequence[FieldSource], plan: InventoryPlan, counts: InventoryCounts
) -> list[str]:
    """One text for each thing to know, on one line."""
    found = [_copies(entry) for entry in counts.copies[:_SHOWN]]
    if len(counts.copies) > _SHOWN:
        found.append(f"{len(counts.copies) - _SHOWN} more keys are shared by different machines.")
    found += [_no_identifier(entry) for entry in counts.no_identifiers]
    found += [
        f"{column}: numbers without a unit were read as {unit}. {plan.reasons.get(column, '')}"
        for column, unit in plan.units.items()
    ]
    found += _read_numbers(sources)
    found += counts.disagreements
    for source in sources:
        if len(source.columns) > 1 and not is_weighed(source):
            names = ", ".join(entry.column for entry in source.columns)
            found.append(f"{source.field.name}: taken from the first column with a value: {names}.")
    if counts.without_identity:
        found.append(f"{counts.without_identity} rows have no value that tells them apart.")
    if counts.duplicates:
        found.append(f"{counts.duplicates} rows repeat an asset and were merged into it.")
    found.extend(
        f"{field}: {number} values could not be converted; the originals are kept."
        for field, number in counts.problems_by_field.items()
    )
    return [" ".join(text.split()) for text in found]


def _read_numbers(sources: Sequence[FieldSource]) -> list[str]:
    """How numbers were read that nobody has decided on, and what was computed from two columns."""
    found: list[str] = []
    for source in sources:
        for entry in source.columns:
            if entry.separators is not None and entry.amount(source.field).is_open:
                found.append(described(entry.column, entry.separators))
            if entry.times is not None:
                found.append(
                    f"{source.field.name}: {entry.column!r} was multiplied with {entry.times!r}."
                )
    return found


def _listed(values: Sequence[object], of: int | None = None) -> str:
    more = " \u2026" if of is not None and of > len(values) else ""
    return ", ".join(map(str, values)) + more


def _copies(entry: Copies) -> str:
    kind, _, value = entry.key.partition(":")
    copy = " One may be a copy of another: copies keep the UUID." if kind == "asset_id" else ""
    return (
        f"Same {_KINDS[kind]}, different machines: {value} is that of {_listed(entry.machines)} "
        f"(rows {_listed(entry.rows)}).{copy} They stay apart; say in the inventory's conflicts "
        "whether they are the same."
    )


def _no_identifier(entry: NoIdentifier) -> str:
    values, rows = _listed(entry.values), _listed(entry.rows, entry.count)
    if entry.fault == DAMAGED:
        return (
            f"{entry.field}: {entry.count} numbers have lost digits, as long ones do in "
            f"spreadsheets, or are in scientific notation ({values}; rows {rows}). They identify "
            "nothing; export the column as text and import it again."
        )
    return (
        f"{entry.field}: {entry.count} values are placeholders ({values}; rows {rows}). They count "
        "as missing and identify nothing; the originals are kept. Correct them at the source."
    )
