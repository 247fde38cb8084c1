"""One column per field, except for variants of the same thing, and a real "no match".

Columns are served by how much they would lose: the one whose second choice is poor goes first.
A column whose field is taken becomes an alternate where it clearly means the same, takes its
next choice where that is nearly as good, and is else left unmapped rather than pushed onto
something wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .scoring import Evidence

ACCEPT = 0.46
VARIANT_TEXT = 0.8
VARIANT_SCORE = 0.62
NEARLY_AS_GOOD = 0.85
APPROVED_CONFIDENCE = 0.97


@dataclass(frozen=True)
class Choice:
    """What a column gets. `taken`: it would have had a field, which another column fits better."""

    target: str | None
    role: Literal["primary", "alternate"] = "primary"
    confidence: float = 0.0
    taken: bool = False


def confidence_of(score: float, margin: float) -> float:
    """The chance that the choice is right, from its score and its lead over the next."""
    logit = 8.5 * (score - 0.52) + 2.2 * min(margin, 0.4)
    return round(min(0.99, max(0.02, 1 / (1 + math.exp(-logit)))), 3)


def assign(
    evidence: Mapping[str, list[Evidence]], fixed: Mapping[str, str | None]
) -> dict[str, Choice]:
    """A choice for every column; `fixed` are decided already, by people."""
    choices: dict[str, Choice] = {}
    taken: dict[str, str] = {}
    for column, target in fixed.items():
        role: Literal["primary", "alternate"] = "primary"
        if target is not None and taken.setdefault(target, column) != column:
            role = "alternate"
        choices[column] = Choice(target, role, APPROVED_CONFIDENCE)
    waiting = [column for column in evidence if column not in choices]
    waiting.sort(key=lambda column: -_urgency(evidence[column]))
    for column in waiting:
        choices[column] = _serve(evidence[column], taken)
        if choices[column].target is not None and choices[column].role == "primary":
            taken[str(choices[column].target)] = column
    return choices


def _urgency(found: list[Evidence]) -> float:
    if not found:
        return 0.0
    second = found[1].score if len(found) > 1 else 0.0
    return found[0].score + 0.35 * (found[0].score - second)


def _serve(found: list[Evidence], taken: Mapping[str, str]) -> Choice:
    if not found or found[0].score < ACCEPT:
        nearest = found[0].score if found else 0.0
        return Choice(None, confidence=round(1 - confidence_of(nearest, 0.0), 3))
    best = found[0]
    second = found[1].score if len(found) > 1 else 0.0
    if best.target not in taken:
        return Choice(best.target, "primary", confidence_of(best.score, best.score - second))
    if best.header.score >= VARIANT_TEXT and best.score >= VARIANT_SCORE:
        return Choice(best.target, "alternate", confidence_of(best.score, best.score - second))
    for entry in found[1:3]:
        good = entry.score >= max(ACCEPT, NEARLY_AS_GOOD * best.score)
        if good and entry.target not in taken:
            return Choice(entry.target, "primary", confidence_of(entry.score - 0.05, 0.0))
    if best.score >= VARIANT_SCORE:
        return Choice(best.target, "alternate", confidence_of(best.score - 0.05, 0.0))
    return Choice(None, confidence=round(1 - confidence_of(best.score - 0.2, 0.0), 3), taken=True)
