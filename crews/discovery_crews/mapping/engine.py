"""From column profiles to proposed mappings: score, assign one to one, tell how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from discovery_core.wire import ApprovedMapping, ColumnProfile, FieldMapping, MappingCandidate

from discovery_crews.target_schema import TargetSchema

from .assignment import Choice, assign
from .scoring import Evidence, score_column
from .text import TextIndex

CANDIDATES = 5
SAMPLES = 5
SAMPLE_LENGTH = 200


@lru_cache(maxsize=4)
def _index(schema: TargetSchema) -> TextIndex:
    return TextIndex(schema)


def lesson_key(header: str) -> str:
    """How headers are compared with those that were approved before."""
    return " ".join(header.lower().split())


def propose(
    columns: Sequence[ColumnProfile],
    schema: TargetSchema,
    history: Mapping[str, ApprovedMapping] | None = None,
) -> list[FieldMapping]:
    """A proposal for every column, in their order.

    `history` are decisions of this tenant by `lesson_key`; they win over all evidence, as long
    as their target still exists. A column without a convincing field gets `target` None.
    """
    index = _index(schema)
    names = set(schema.names)
    lessons = {
        column.name: lesson
        for column in columns
        if (lesson := (history or {}).get(lesson_key(column.name))) is not None
        and (lesson.target is None or lesson.target in names)
    }
    evidence = {column.name: score_column(column, schema, index) for column in columns}
    choices = assign(evidence, {name: lesson.target for name, lesson in lessons.items()})
    return [
        _mapping(column, evidence[column.name], choices[column.name], lessons.get(column.name))
        for column in columns
    ]


def _mapping(
    column: ColumnProfile,
    evidence: list[Evidence],
    choice: Choice,
    lesson: ApprovedMapping | None,
) -> FieldMapping:
    candidates = [
        MappingCandidate(target=entry.target, score=min(1.0, entry.score))
        for entry in evidence[:CANDIDATES]
    ]
    chosen = next((entry for entry in evidence if entry.target == choice.target), None)
    if lesson is not None:
        what = f"as {lesson.target}" if lesson.target else "as not to be mapped"
        reason = f"Approved before {what} by {lesson.approved_by} on {lesson.approved_at:%Y-%m-%d}."
        if lesson.target and all(entry.target != lesson.target for entry in candidates):
            candidates = [
                MappingCandidate(target=lesson.target, score=0.97),
                *candidates[: CANDIDATES - 1],
            ]
    elif chosen is not None:
        reason = chosen.reason(column.name)
        reason = reason[0].upper() + reason[1:]
        if choice.role == "alternate":
            reason += " Another column is the primary source of this field."
    elif evidence and choice.taken:
        reason = f"{evidence[0].target} fits, but another column fits it better."
    else:
        reason = "No field fits header and values well enough."
    return FieldMapping(
        column=column.name,
        target=choice.target,
        role=choice.role,
        confidence=choice.confidence,
        reason=reason,
        samples=[sample[:SAMPLE_LENGTH] for sample in column.samples[:SAMPLES]],
        candidates=candidates,
        transform=column.unit if choice.target is not None else None,
        decided_by="engine",
    )
