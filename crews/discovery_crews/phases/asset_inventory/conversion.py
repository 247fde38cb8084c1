"""How a value came to be: the unit in which its text was read, and the rule that said so.

Kept with every typed value beside its original text, so that a number in the inventory can be
checked without the source and without the code that converted it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from discovery_crews.tables.engine import identifier, literal
from discovery_crews.tables.values import unit_read, unit_text

from .plan import FieldSource, SourceColumn

CONVERSION_RULES = {
    "unit_in_value": "the text has a unit of its own",
    "unit_of_column": "the header or the mapping states the unit",
    "unit_judged": "the crew judged the unit of bare numbers",
    "unit_of_field": "no unit is stated anywhere; the field's own",
    "number": "a number without a unit",
    "whole_number": "a whole number without a unit",
    "product": "multiplied with the number that another column has for the same row",
    "boolean": "yes or no, in one of several languages",
    "date": "a date in a form that can be read in one way",
}


def conversion(source: FieldSource, parts: Sequence[str], judged: Collection[str]) -> str | None:
    """SQL: a JSON object with `rule` and, for quantities, `unit`; NULL where there is no value.

    `parts` are the converted columns of the source, `judged` the columns whose unit the crew chose.
    None for texts and lists, which are taken as they are.
    """
    if source.field.type in ("string", "list"):
        return None
    cases = " ".join(
        f"WHEN {part} IS NOT NULL THEN {_of_column(source, entry, judged)}"
        for entry, part in zip(source.columns, parts, strict=True)
    )
    return f"CASE {cases} END"


def _of_column(source: FieldSource, entry: SourceColumn, judged: Collection[str]) -> str:
    target = source.field
    if target.type in ("boolean", "date"):
        return f"json_object('rule', {literal(target.type)})"
    if entry.times is not None:
        return "json_object('rule', 'product')"
    if not target.unit:
        rule = "whole_number" if target.type == "integer" else "number"
        return f"json_object('rule', {literal(rule)})"
    name = identifier(entry.column)
    if entry.column in judged:
        rule = "unit_judged"
    else:
        rule = "unit_of_column" if entry.unit else "unit_of_field"
    return (
        f"json_object('unit', {unit_read(name, target.unit, entry.unit)}, 'rule', "
        f"CASE {unit_text(name)} WHEN '' THEN {literal(rule)} ELSE 'unit_in_value' END)"
    )
