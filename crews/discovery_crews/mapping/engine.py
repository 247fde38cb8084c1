"""From column profiles to proposed mappings: score, assign one to one, tell how sure it is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

from discovery_core.wire import ApprovedMapping, ColumnProfile, FieldMapping, MappingCandidate

from discovery_crews.target_schema import TargetSchema

from .assignment import ACCEPT, ACCEPT_BARE, Choice, assign
from .confidence import APPROVED, PRESET, confidence
from .presets import Known, known_columns
from .scoring import Evidence, score_column, unit_of
from .text import TextIndex

CANDIDATES = 5
SAMPLES = 5
SAMPLE_LENGTH = 200
_HEAD = re.compile(r"\w+[.:/](?=\w)")
_MANY = 4
_SHARE = 0.4
# an underscore also stands between words, so it takes more columns to make a prefix of one
_WORD_HEAD = re.compile(r"[^\W_]+_(?=\w)")
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
    index = _index(schema)
    names = set(schema.names)
    lessons = {
        position: lesson
        for position, column in enumerate(columns)
        if (lesson := (history or {}).get(lesson_key(column.name))) is not None
        and (lesson.target is None or lesson.target in names)
    }
    common = _common_prefix([column.name for column in columns])
    evidence = [
        score_column(column, schema, index, column.name.removeprefix(common)) for column in columns
    ]
    presets = {
        position: known
        for position, known in known_columns([column.name for column in columns]).items()
        if position not in lessons and (known.target is None or known.target in names)
    }
    fixed = {position: known.target for position, known in presets.items()}
    fixed |= {position: lesson.target for position, lesson in lessons.items()}
    bare = not any(field.synonyms for field in schema.fields)
    choices = assign(evidence, fixed, ACCEPT_BARE if bare else ACCEPT)
    return [
        _taught(column, found, choice, lessons[position])
        if position in lessons
        else _preset(column, found, choice, presets[position])
        if position in presets
        else _proposed(column, found, choice)
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


def _taught(
    column: ColumnProfile, evidence: Sequence[Evidence], choice: Choice, lesson: ApprovedMapping
) -> FieldMapping:
    """What people decided for this header before."""
    what = f"as {lesson.target}" if lesson.target else "as not to be mapped"
    reason = f"Approved before {what} by {lesson.approved_by} on {lesson.approved_at:%Y-%m-%d}."
    candidates = _candidates(evidence)
    if lesson.target:
        others = [entry for entry in candidates if entry.target != lesson.target]
        first = MappingCandidate(target=lesson.target, score=APPROVED)
        candidates = [first, *others[: CANDIDATES - 1]]
    return _mapping(column, choice, APPROVED, reason, candidates)


def _preset(
    column: ColumnProfile, evidence: Sequence[Evidence], choice: Choice, known: Known
) -> FieldMapping:
    """What is known of this export."""
    what = f"{known.export} means {known.target} by it."
    candidates = _candidates(evidence)
    if known.target is None:
        what = f"{known.export} means none of the fields by it."
    else:
        others = [entry for entry in candidates if entry.target != known.target]
        first = MappingCandidate(target=known.target, score=PRESET)
        candidates = [first, *others[: CANDIDATES - 1]]
    mapping = _mapping(column, choice, PRESET, what, candidates)
    return mapping.model_copy(update={"transform": _transform(known.unit) or mapping.transform})


def _proposed(column: ColumnProfile, evidence: Sequence[Evidence], choice: Choice) -> FieldMapping:
    """What the evidence says."""
    chosen = next((entry for entry in evidence if entry.target == choice.target), None)
    if chosen is not None:
        rest = max((entry.score for entry in evidence if entry is not chosen), default=0.0)
        alternate = choice.role == "alternate"
        sure = confidence(chosen.score, chosen.score - rest, alternate=alternate)
        reason = chosen.reason(column.name)
        reason = reason[0].upper() + reason[1:]
        if alternate:
            reason += " Another column is the primary source of this field."
    else:
        nearest = evidence[0].score if evidence else 0.0
        sure = round(1.0 - confidence(nearest - (0.2 if choice.taken else 0.0), 0.0), 3)
        reason = "No field fits header and values well enough."
        if choice.taken:
            reason = f"{evidence[0].target} fits, but another column fits it better."
    return _mapping(column, choice, sure, reason, _candidates(evidence))


def _transform(unit: str | None) -> str | None:
    """What is to be done with the values, as people and edits write it."""
    return f"unit:{unit}" if unit else None


def _candidates(evidence: Sequence[Evidence]) -> list[MappingCandidate]:
    return [
        MappingCandidate(target=entry.target, score=min(1.0, entry.score))
        for entry in evidence[:CANDIDATES]
    ]


def _mapping(
    column: ColumnProfile,
    choice: Choice,
    sure: float,
    reason: str,
    candidates: list[MappingCandidate],
) -> FieldMapping:
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
