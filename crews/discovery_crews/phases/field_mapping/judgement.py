"""What the mapping crew may answer, and what code makes of it.

An agent can only move a column within its shortlist or decline it. Confidence, one-to-one
assignment and the reason's facts are computed here, so that no answer makes the result invalid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

from discovery_core.wire.results import FieldMapping
from pydantic import BaseModel, ConfigDict, Field, ValidationError

AGREED = 0.05
DOUBTED = 0.6


class Doubt(BaseModel):
    """A column whose values contradict its proposal."""

    model_config = ConfigDict(extra="forbid")

    column: str = Field(description="a column as show_columns names it")
    reason: str = Field(default="", max_length=300, description="what contradicts, in few words")


class Doubts(BaseModel):
    """The pattern recognizer's answer."""

    model_config = ConfigDict(extra="forbid")

    doubts: list[Doubt] = Field(default_factory=list, max_length=2000)


class Decision(BaseModel):
    """One column that is mapped otherwise than proposed."""

    model_config = ConfigDict(extra="forbid")

    column: str = Field(description="a column as show_shortlists names it")
    target: str | None = Field(
        default=None, description="a target of the column's shortlist, or null to decline"
    )
    reason: str = Field(default="", max_length=300, description="why, in one sentence")


class MappingDecisions(BaseModel):
    """The semantic matcher's answer."""

    model_config = ConfigDict(extra="forbid")

    decisions: list[Decision] = Field(default_factory=list, max_length=2000)
    summary: str = Field(default="", max_length=600)


def _model(schema: type[Any], answer: Mapping[str, Any]) -> Any:
    try:
        return schema.model_validate(dict(answer))
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise ValueError(f"{place}: {problem['msg']}") from error


def check_doubts(proposed: Sequence[FieldMapping], answer: Mapping[str, Any]) -> Doubts:
    """The doubts. Raises ValueError for a column that does not exist."""
    doubts: Doubts = _model(Doubts, answer)
    known = {mapping.column for mapping in proposed}
    unknown = sorted({doubt.column for doubt in doubts.doubts} - known)
    if unknown:
        raise ValueError(f"there is no column {unknown[0]!r}")
    return doubts


def check_decisions(
    proposed: Sequence[FieldMapping], answer: Mapping[str, Any]
) -> MappingDecisions:
    """The decisions. Raises ValueError for unknown columns and targets off the shortlist."""
    decisions: MappingDecisions = _model(MappingDecisions, answer)
    shortlists = {
        mapping.column: [candidate.target for candidate in mapping.candidates]
        for mapping in proposed
    }
    seen: set[str] = set()
    for decision in decisions.decisions:
        if decision.column not in shortlists:
            raise ValueError(f"there is no column {decision.column!r}")
        if decision.column in seen:
            raise ValueError(f"column {decision.column!r} is decided twice")
        seen.add(decision.column)
        allowed = shortlists[decision.column]
        if decision.target is not None and decision.target not in allowed:
            raise ValueError(
                f"{decision.column!r}: {decision.target!r} is not on its shortlist {allowed}; "
                "choose from it or decline with null"
            )
    return decisions


def apply_decisions(
    proposed: Sequence[FieldMapping], decisions: MappingDecisions, doubts: Doubts
) -> list[FieldMapping]:
    """The proposals after the crew's judgement, in the same order.

    A column that takes over another's field becomes its primary source, and the other an
    alternate; where a field loses its primary source, the surest alternate takes its place. A
    doubted column that nobody changed loses confidence. A decision for what is proposed anyway
    changes nothing.
    """
    chosen = {decision.column: decision for decision in decisions.decisions}
    doubted = {doubt.column: doubt.reason for doubt in doubts.doubts}
    result = []
    moved: set[str] = set()
    for mapping in proposed:
        decision = chosen.get(mapping.column)
        if decision is not None and decision.target != mapping.target:
            result.append(_changed(mapping, decision))
            moved.add(mapping.column)
        elif mapping.column in doubted and mapping.target is not None:
            result.append(_doubted(mapping, doubted[mapping.column]))
        else:
            result.append(mapping)
    return _one_primary_each(result, moved)


def _one_primary_each(mappings: Sequence[FieldMapping], moved: Set[str]) -> list[FieldMapping]:
    """Roles such that every mapped field has one primary source: a moved column before others."""
    best: dict[str, FieldMapping] = {}
    for mapping in mappings:
        if mapping.target is not None:
            rival = best.setdefault(mapping.target, mapping)
            if _claim(mapping, moved) > _claim(rival, moved):
                best[mapping.target] = mapping
    result = []
    for mapping in mappings:
        first = mapping.target is None or best[mapping.target] is mapping
        role = "primary" if first else "alternate"
        result.append(
            mapping if mapping.role == role else mapping.model_copy(update={"role": role})
        )
    return result


def _claim(mapping: FieldMapping, moved: Set[str]) -> tuple[bool, bool, float]:
    return mapping.column in moved, mapping.role == "primary", mapping.confidence


def _doubted(mapping: FieldMapping, reason: str) -> FieldMapping:
    why = reason.strip() or "the values do not look like it"
    return mapping.model_copy(
        update={
            "confidence": round(mapping.confidence * DOUBTED, 3),
            "reason": f"{mapping.reason} Doubted: {why}",
        }
    )


def _changed(mapping: FieldMapping, decision: Decision) -> FieldMapping:
    said = decision.reason.strip()
    if decision.target is None:
        return mapping.model_copy(
            update={
                "target": None,
                "role": "primary",
                "confidence": round(max(0.5, 1 - mapping.confidence), 3),
                "reason": "Declined by the crew" + (f": {said}" if said else "."),
                "transform": None,
                "decided_by": "agent",
            }
        )
    score = next(c.score for c in mapping.candidates if c.target == decision.target)
    return mapping.model_copy(
        update={
            "target": decision.target,
            "role": "primary",
            "confidence": round(min(0.95, 0.3 + 0.6 * score + AGREED), 3),
            "reason": "Chosen by the crew from the shortlist" + (f": {said}" if said else "."),
            "decided_by": "agent",
        }
    )
