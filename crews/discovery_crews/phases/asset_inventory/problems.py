"""SQL for what is wrong with a cell, in words: each is NULL where nothing is."""

from __future__ import annotations

from discovery_crews.tables import addresses
from discovery_crews.tables.engine import identifier, literal

from .plan import FieldSource
from .worthless import fault


def unconverted(source: FieldSource, missing: str, original: str) -> str:
    """Where `missing` holds, the cell cannot be what its field takes."""
    target = source.field
    wanted = {
        "number": f"not a number{' in ' + target.unit if target.unit else ''}",
        "integer": "not a whole number",
        "boolean": "neither yes nor no",
        "date": "not a date that can be read in one way",
    }.get(target.type, "cannot be read")
    message = f"{target.name}: {wanted}: "
    return f"CASE WHEN {missing} THEN {literal(message)} || left({original}, 100) END"


def no_identifier(field: str, original: str) -> str:
    """The value of an identifier's field identifies nothing."""
    return f"{literal(field + ': ')} || {fault(original)} || ': ' || left(trim({original}), 100)"


def no_address(field: str, column: str, original: str) -> str:
    """Something in the cell is no address."""
    odd = addresses.not_addresses(identifier(column))
    message = literal(f"{field}: not an address: ")
    return f"CASE WHEN {odd} THEN {message} || left({original}, 100) END"
