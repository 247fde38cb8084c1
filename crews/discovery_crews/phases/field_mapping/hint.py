"""What a person asked for when the mapping is done once more.

A hint is free text for the crew; lines such as `Column -> field` are instructions, which code
follows to the letter, so that asking again helps with the built-in planner too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from discovery_core.errors import InvalidAnswerError
from discovery_core.mapping_edits import apply_edits
from discovery_core.resource_gate import MappingEdit
from discovery_core.wire.results import FieldMapping, TargetDescription

from discovery_crews.mapping.confidence import APPROVED
from discovery_crews.mapping.engine import lesson_key

_ARROW = re.compile("->|=>|→")
_NONE = frozenset(["", "-", "none", "nothing", "ignore"])


@dataclass(frozen=True)
class Followed:
    """The mappings with the hint's instructions, and what could not be followed, in words."""

    mappings: list[FieldMapping]
    instructions: int
    problems: list[str]


def follow(
    hint: str | None, mappings: Sequence[FieldMapping], fields: Sequence[TargetDescription]
) -> Followed:
    """Applies the instructions among the hint's lines."""
    final = list(mappings)
    columns = {lesson_key(mapping.column): mapping.column for mapping in mappings}
    targets = {field.name.casefold(): field.name for field in fields}
    names = [field.name for field in fields]
    count, problems = 0, []
    for line in (hint or "").splitlines():
        named, arrow, wanted = _instruction(line)
        if not arrow or not named:
            continue
        column = columns.get(lesson_key(named), named)
        target = "" if wanted.casefold() in _NONE else targets.get(wanted.casefold(), wanted)
        try:
            edit = MappingEdit(column=column[:512], target=target[:128])
            final = [
                _as_asked(mapping) if mapping.column == column else mapping
                for mapping in apply_edits(final, [edit], names, fields)
            ]
            count += 1
        except InvalidAnswerError as error:
            problems += error.problems
    return Followed(final, count, problems)


def _instruction(line: str) -> tuple[str, str, str]:
    """What stands before and behind the first arrow of a line, and the arrow; empty without one."""
    found = _ARROW.search(line)
    if found is None:
        return "", "", ""
    named = line[: found.start()].strip()
    return named.strip("\"'`"), found.group(), line[found.end() :].strip().strip("\"'`. ")


def _as_asked(mapping: FieldMapping) -> FieldMapping:
    return mapping.model_copy(update={"confidence": APPROVED, "reason": "As the hint asks."})
