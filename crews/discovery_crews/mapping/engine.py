"""From column profiles to proposed mappings: score, assign one to one, tell how sure it is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from discovery_core.wire.protocol import ApprovedMapping
from discovery_core.wire.results import ColumnProfile, FieldMapping, MappingCandidate

from discovery_crews.target_schema import TargetSchema

from .assignment import ACCEPT, ACCEPT_BARE, Choice, assign
from .confidence import APPROVED, PRESET, confidence
from .presets import Known, known_columns
from .scoring import Evidence, score_column, unit_of
from .text import TextIndex
from .tokens import cores_per_socket

CANDIDATES = 5
SAMPLES = 5
SAMPLE_LENGTH = 200
_HEAD = re.compile(r"^\w+[.:/](?=\w)")
_MANY = 4
_SHARE = 0.4
# an underscore also stands between words, so it takes more columns to make a prefix of one
_WORD_HEAD = re.compile(r"^[^\W_]+_(?=\w)")
_WORD_SHARE = 0.75


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
    as their target still exists. Then come the meanings that are known of an export. A column
    without a convincing field gets `target` None. The same columns, schema and history always
    give the same proposals.
    """
    proposed = [
        _taught(judged, lesson)
        if (lesson := judged.lesson) is not None
        else _preset(judged, known)
        if (known := judged.known) is not None
        else _proposed(judged)
        for judged in _judge(columns, schema, history or {})
    ]
    return _multiplied(proposed, schema)


def _multiplied(proposed: list[FieldMapping], schema: TargetSchema) -> list[FieldMapping]:
    """With cores of each socket as a source of the cores, where only both together tell them."""
    field = next((field for field in schema.fields if field.counted_per), None)
    if field is None or any(mapping.target == field.name for mapping in proposed):
        return proposed
    each = next((m for m in proposed if m.target is None and cores_per_socket(m.column)), None)
    times = next(
        (m for m in proposed if m.target == field.counted_per and m.role == "primary"), None
    )
    if each is None or times is None:
        return proposed
    product = each.model_copy(
        update={
            "target": field.name,
            "confidence": min(each.confidence, times.confidence),
            "reason": f"It counts for each socket: {field.name} is its product with "
            f"{times.column!r} of the same row.",
            "candidates": [MappingCandidate(target=field.name, score=times.confidence)],
            "transform": f"times:{field.counted_per}",
        }
    )
    return [product if mapping is each else mapping for mapping in proposed]


def sure_columns(
    columns: Sequence[ColumnProfile], schema: TargetSchema, least: float
) -> dict[str, ColumnProfile]:
    """The column that each field would come from, where that is at least so sure (0 to 1)."""
    return {
        judged.choice.target: judged.column
        for judged in _judge(columns, schema, {})
        if judged.choice.target is not None
        and judged.choice.role == "primary"
        and (PRESET if judged.known is not None else _confidence(judged)) >= least
    }


@dataclass(frozen=True)
class _Judged:
    """A column, the evidence on it, the field that it is given, and what decides beforehand."""

    column: ColumnProfile
    evidence: Sequence[Evidence]
    choice: Choice
    lesson: ApprovedMapping | None
    known: Known | None


def _judge(
    columns: Sequence[ColumnProfile], schema: TargetSchema, history: Mapping[str, ApprovedMapping]
) -> list[_Judged]:
    """Scores all columns and gives each at most one field."""
    index = _index(schema)
    names = set(schema.names)
    # "none of the built-in fields" says nothing of people's own
    own = {name.lower() for name in names}
    lessons = {
        position: lesson
        for position, column in enumerate(columns)
        if (lesson := history.get(lesson_key(column.name))) is not None
        and (lesson.target is None or lesson.target in names)
    }
    common = _common_prefix([column.name for column in columns])
    evidence = [
        score_column(column, schema, index, column.name.removeprefix(common)) for column in columns
    ]
    presets = {
        position: known
        for position, known in known_columns([column.name for column in columns]).items()
        if position not in lessons
        and (
            known.target in names
            or (known.target is None and columns[position].name.lower() not in own)
        )
    }
    fixed = {position: known.target for position, known in presets.items()}
    fixed |= {position: lesson.target for position, lesson in lessons.items()}
    bare = not any(field.synonyms for field in schema.fields)
    choices = assign(evidence, fixed, ACCEPT_BARE if bare else ACCEPT)
    return [
        _Judged(column, found, choice, lessons.get(position), presets.get(position))
        for position, (column, found, choice) in enumerate(
            zip(columns, evidence, choices, strict=True)
        )
    ]


def _common_prefix(names: Sequence[str]) -> str:
    """What many names are under ("inventory.", "ansible_"); else nothing."""
    for head, share in ((_HEAD, _SHARE), (_WORD_HEAD, _WORD_SHARE)):
        heads = Counter(match.group() for name in names if (match := head.match(name)))
        prefix, count = heads.most_common(1)[0] if heads else ("", 0)
        if count >= _MANY and count >= share * len(names):
            return prefix
    return ""


def _taught(judged: _Judged, lesson: ApprovedMapping) -> FieldMapping:
    """What people decided for this header before."""
    what = f"as {lesson.target}" if lesson.target else "as not to be mapped"
    reason = f"Approved before {what} by {lesson.approved_by} on {lesson.approved_at:%Y-%m-%d}."
    candidates = _candidates(judged.evidence)
    if lesson.target:
        others = [entry for entry in candidates if entry.target != lesson.target]
        first = MappingCandidate(target=lesson.target, score=APPROVED)
        candidates = [first, *others[: CANDIDATES - 1]]
    mapping = _mapping(judged, APPROVED, reason, candidates)
    return mapping.model_copy(update={"transform": lesson.transform or mapping.transform})


def _preset(judged: _Judged, known: Known) -> FieldMapping:
    """What is known of this export."""
    what = f"{known.export} means {known.target} by it."
    candidates = _candidates(judged.evidence)
    if known.target is None:
        what = f"{known.export} means none of the fields by it."
    else:
        others = [entry for entry in candidates if entry.target != known.target]
        first = MappingCandidate(target=known.target, score=PRESET)
        candidates = [first, *others[: CANDIDATES - 1]]
    mapping = _mapping(judged, PRESET, what, candidates)
    return mapping.model_copy(update={"transform": _transform(known.unit) or mapping.transform})


def _proposed(judged: _Judged) -> FieldMapping:
    """What the evidence says."""
    evidence, choice = judged.evidence, judged.choice
    chosen = _chosen(judged)
    if chosen is not None:
        reason = chosen.reason(judged.column.name)
        reason = reason[0].upper() + reason[1:]
        if choice.role == "alternate":
            reason += " Another column is the primary source of this field."
    else:
        reason = "No field fits header and values well enough."
        if choice.taken:
            reason = f"{evidence[0].target} fits, but another column fits it better."
    return _mapping(judged, _confidence(judged), reason, _candidates(evidence))


def _chosen(judged: _Judged) -> Evidence | None:
    target = judged.choice.target
    return next((entry for entry in judged.evidence if entry.target == target), None)


def _confidence(judged: _Judged) -> float:
    """How sure the evidence makes the choice, also that of no field."""
    evidence, choice = judged.evidence, judged.choice
    chosen = _chosen(judged)
    if chosen is not None:
        rest = max((entry.score for entry in evidence if entry is not chosen), default=0.0)
        return confidence(chosen.score, chosen.score - rest, alternate=choice.role == "alternate")
    nearest = evidence[0].score if evidence else 0.0
    return round(1.0 - confidence(nearest - (0.2 if choice.taken else 0.0), 0.0), 3)


def _transform(unit: str | None) -> str | None:
    """What is to be done with the values, as people and edits write it."""
    return f"unit:{unit}" if unit else None


def _candidates(evidence: Sequence[Evidence]) -> list[MappingCandidate]:
    return [
        MappingCandidate(target=entry.target, score=min(1.0, entry.score))
        for entry in evidence[:CANDIDATES]
    ]


def _mapping(
    judged: _Judged, sure: float, reason: str, candidates: list[MappingCandidate]
) -> FieldMapping:
    column, choice = judged.column, judged.choice
    return FieldMapping(
        column=column.name,
        target=choice.target,
        role=choice.role,
        confidence=sure,
        reason=reason,
        samples=[sample[:SAMPLE_LENGTH] for sample in column.samples[:SAMPLES]],
        candidates=candidates,
        transform=_transform(unit_of(column)) if choice.target is not None else None,
        decided_by="engine",
    )
