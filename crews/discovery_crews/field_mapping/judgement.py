"""What the mapping crew may answer, and what code makes of it.

An agent can only move a column within its shortlist or decline it. Confidence, one-to-one
assignment and the reason's facts are computed here, so that no answer makes the result invalid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from discovery_core.wire import FieldMapping
from pydantic import BaseModel, ConfigDict, Field, ValidationError

AGREED = 0.05


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
    alternate; a doubted column that nobody changed loses confidence.
    """
    chosen = {decision.column: decision for decision in decisions.decisions}
    doubted = {doubt.column: doubt.reason for doubt in doubts.doubts}
    moved_to = {
        decision.target: decision.column
        for decision in decisions.decisions
        if decision.target is not None
    }
    result = []
    for mapping in proposed:
        decision = chosen.get(mapping.column)
        if decision is not None and decision.target != mapping.target:
            result.append(_changed(mapping, decision, moved_to))
        elif mapping.column in doubted and mapping.target is not None:
            why = doubted[mapping.column] or "the values do not look like it"
            result.append(
                mapping.model_copy(
                    update={
                        "confidence": round(mapping.confidence * 0.6, 3),
                        "reason": f"{mapping.reason} Doubted: {why}",
                    }
                )
            )
        elif mapping.target in moved_to and moved_to[mapping.target] != mapping.column:
            result.append(mapping.model_copy(update={"role": "alternate"}))
        else:
            result.append(mapping)
    return result


def _changed(
    mapping: FieldMapping, decision: Decision, moved_to: Mapping[str, str]
) -> FieldMapping:
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
    primary = moved_to[decision.target] == mapping.column
    return mapping.model_copy(
        update={
            "target": decision.target,
            "role": "primary" if primary else "alternate",
            "confidence": round(min(0.95, 0.3 + 0.6 * score + AGREED), 3),
            "reason": "Chosen by the crew from the shortlist" + (f": {said}" if said else "."),
            "decided_by": "agent",
        }
    )
