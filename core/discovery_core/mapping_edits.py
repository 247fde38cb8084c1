"""What a person changes about proposed mappings: checked against target fields and values.

A transform says how a column's values are read, in steps with a comma between: `unit:MiB` (what
bare numbers are in), `decimal:comma` or `decimal:point`, `times:cpu_sockets` (numbers count for
each of that field of the same row).

Pure, because two places need the same answer: the API says at once what is wrong with an edit,
and the store, which everything passes through, refuses it as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from .errors import InvalidAnswerError
from .resource_gate import NO_TRANSFORM, MappingEdit
from .wire.results import FieldMapping, TargetDescription

_SHOWN_SAMPLES = 3
_KINDS = ("unit", "decimal", "times")
# a number as the inventory converts it: digits, and at most one word such as a unit after them
_NUMBER = re.compile(r"^[~≈]?\s*[-+]?\d[\d.,'\s]*[a-zA-Z%/]*")


def steps(transform: str | None) -> dict[str, str]:
    """A transform's steps by their kind: `unit`, `decimal`, `times`; empty for none."""
    named = (transform or NO_TRANSFORM).split(",")
    return {kind: what for kind, colon, what in (s.partition(":") for s in named) if colon}


def transform_of(steps_by_kind: Mapping[str, str]) -> str | None:
    """The transform of these steps, None for no step."""
    kinds = [kind for kind in _KINDS if kind in steps_by_kind]
    return ",".join(f"{kind}:{steps_by_kind[kind]}" for kind in kinds) or None


def apply_edits(
    mappings: Sequence[FieldMapping],
    edits: Sequence[MappingEdit],
    targets: Sequence[str],
    fields: Sequence[TargetDescription] = (),
) -> list[FieldMapping]:
    """The final mappings. Raises InvalidAnswerError naming every edit that is at fault.

    An edited column becomes the primary source of its target; a column that held it before
    becomes an alternate. `fields` describe the targets where that is known.
    """
    described = {field.name: field for field in fields}
    known = {mapping.column: mapping for mapping in mappings}
    problems = _unknown(known, edits, set(targets))
    problems += _taken_twice(edits)
    for edit in edits:
        if edit.column in known and edit.target in described:
            problems += _misfit(known[edit.column], edit, described[edit.target])
        elif edit.transform not in (None, NO_TRANSFORM) and not edit.target:
            problems.append(
                f"column {edit.column!r} is not mapped, so it has no unit and no decimals"
            )
    if problems:
        raise InvalidAnswerError(problems)
    edited = {edit.column: edit for edit in edits}
    primary = {edit.target for edit in edits if edit.target}
    final = []
    for mapping in mappings:
        if mapping.column in edited:
            edit = edited[mapping.column]
            final.append(_edited(mapping, edit, described.get(edit.target)))
        elif mapping.target in primary:
            final.append(mapping.model_copy(update={"role": "alternate"}))
        else:
            final.append(mapping)
    if problems := _without_factor(final):
        raise InvalidAnswerError(problems)
    return final


def _without_factor(final: Sequence[FieldMapping]) -> list[str]:
    """Columns that count for each of a field that no column is mapped to."""
    mapped = {mapping.target for mapping in final}
    return [
        f"column {mapping.column!r} is multiplied with {field!r}, to which no column is mapped; "
        "map one, or leave times out"
        for mapping in final
        if mapping.target and (field := steps(mapping.transform).get("times", mapping.target))
        and field not in mapped
    ]  # fmt: skip


def _unknown(
    known: dict[str, FieldMapping], edits: Sequence[MappingEdit], legal: set[str]
) -> list[str]:
    problems: list[str] = []
    seen: set[str] = set()
    for edit in edits:
        if edit.column not in known:
            problems.append(f"there is no column {edit.column!r}")
        if edit.column in seen:
            problems.append(f"column {edit.column!r} is edited twice")
        if edit.target and edit.target not in legal:
            problems.append(f"{edit.target!r} is not a target field (column {edit.column!r})")
        seen.add(edit.column)
    return problems


def _taken_twice(edits: Sequence[MappingEdit]) -> list[str]:
    taken: dict[str, str] = {}
    return [
        f"columns {taken[edit.target]!r} and {edit.column!r} are both given {edit.target!r}; a "
        "field has one primary column"
        for edit in edits
        if edit.target and taken.setdefault(edit.target, edit.column) != edit.column
    ]


def _misfit(mapping: FieldMapping, edit: MappingEdit, field: TargetDescription) -> list[str]:
    """Why an edit contradicts its field or the column's values; empty where it does not."""
    problems = []
    asked = [] if edit.transform in (None, NO_TRANSFORM) else str(edit.transform).split(",")
    if impossible := [step for step in asked if step not in field.transforms]:
        possible = ", ".join(field.transforms) or "no unit"
        problems.append(
            f"{impossible[0]!r} is not possible for {field.name!r} (column {edit.column!r}); "
            f"it takes {possible}"
        )
    if len(steps(edit.transform)) < len(asked):
        problems.append(
            f"column {edit.column!r}: {edit.transform!r} says the same twice; name one unit and "
            "one way of writing decimals"
        )
    samples = [sample.strip() for sample in mapping.samples if sample.strip()]
    shown = ", ".join(repr(sample[:40]) for sample in samples[:_SHOWN_SAMPLES])
    readable = {"integer": _number, "number": _number, "date": _digits}.get(field.type)
    if readable is not None and samples and not any(map(readable, samples)):
        kind = "dates" if field.type == "date" else "numbers"
        problems.append(
            f"column {edit.column!r} has values such as {shown}, and {field.name!r} takes {kind}"
        )
    allowed = {value.casefold() for value in field.allowed_values}
    if allowed and samples and not any(sample.casefold() in allowed for sample in samples):
        problems.append(
            f"column {edit.column!r} has values such as {shown}, and {field.name!r} takes only "
            + ", ".join(field.allowed_values[:10])
        )
    return problems


def _number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


def _digits(text: str) -> bool:
    return any(character.isdigit() for character in text)


def _edited(
    mapping: FieldMapping, edit: MappingEdit, field: TargetDescription | None
) -> FieldMapping:
    """The mapping as edited. What the edit's transform leaves open stays as proposed.

    Another target takes over how the column writes decimals, which has nothing to do with it.
    """
    target = edit.target or None
    kept = steps(mapping.transform) if target is not None else {}
    if target != mapping.target:
        possible = field.transforms if field is not None else ()
        kept = {k: what for k, what in kept.items() if k == "decimal" and f"{k}:{what}" in possible}
    if edit.transform == NO_TRANSFORM:
        kept = {}
    transform = transform_of(kept | steps(edit.transform))
    return mapping.model_copy(update={"target": target, "role": "primary", "transform": transform})
