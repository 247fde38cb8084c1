"""One column per field, except for variants of the same thing, and a real "no match".

Pairs of column and field are served by score, so that the column that fits best is a field's
primary source. A column whose field is taken is an alternate where its header clearly means the
same, takes another field where that is nearly as good, and is else left unmapped rather than
pushed onto something wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .scoring import Evidence

ACCEPT = 0.445
SECOND_CHOICE = 0.05
# a schema that words each field once cannot be met as well as one with synonyms
ACCEPT_BARE = 0.34
VARIANT_HEADER = 0.8
VARIANT_SCORE = 0.62
LIKELY_VARIANT = 0.58
NEARLY_AS_GOOD = 0.85
AS_GOOD = 0.95
AGREEMENT = 0.06
AGREEING_HEADER = 0.29
AGREEING_VALUES = 0.4
AGREEING_LEAD = 0.1
_CONSIDERED = 3


@dataclass(frozen=True)
class Choice:
    """What a column gets. `taken`: it would have had a field, which another column fits better."""

    target: str | None
    role: Literal["primary", "alternate"] = "primary"
    taken: bool = False


def assign(
    evidence: Sequence[Sequence[Evidence]],
    fixed: Mapping[int, str | None],
    accept: float = ACCEPT,
) -> list[Choice]:
    """A choice for every column, by position; `fixed` are decided already, by people.

    A score below `accept` is no match.
    """
    choices: dict[int, Choice] = {}
    taken: set[str] = set()
    for column, target in sorted(fixed.items()):
        role: Literal["primary", "alternate"] = "alternate" if target in taken else "primary"
        choices[column] = Choice(target, role)
        if target is not None:
            taken.add(target)
    wishes = sorted(
        (-entry.score, column, rank)
        for column, found in enumerate(evidence)
        if column not in choices
        for rank, entry in enumerate(found[:_CONSIDERED])
        if acceptable(found, rank, accept) and entry.score >= NEARLY_AS_GOOD * found[0].score
    )
    holders: dict[str, int] = {}
    for _, column, rank in wishes:
        if column in choices:
            continue
        entry = evidence[column][rank]
        if entry.target in holders and entry.target in taken:
            other = _elsewhere(evidence[holders[entry.target]], taken, accept)
            if other is not None and not _means(entry):
                moved = holders[entry.target]
                choices[moved] = Choice(other)
                taken.add(other)
                holders[other] = moved
                taken.discard(entry.target)
        if entry.target not in taken:
            choices[column] = Choice(entry.target)
            taken.add(entry.target)
            holders[entry.target] = column
        elif rank == 0 and _means(entry):
            choices[column] = Choice(entry.target, "alternate")
    return [
        choices[column] if column in choices else _left(found, accept)
        for column, found in enumerate(evidence)
    ]


def acceptable(found: Sequence[Evidence], rank: int, accept: float) -> bool:
    """Whether a field is a match at all: by score, or a little below where both witnesses agree."""
    entry = found[rank]
    if rank:
        return entry.score >= accept + SECOND_CHOICE
    if entry.score >= accept:
        return True
    lead = entry.score - max((o.score for i, o in enumerate(found) if i != rank), default=0.0)
    agree = entry.header.score >= AGREEING_HEADER and entry.values.telling >= AGREEING_VALUES
    return agree and lead >= AGREEING_LEAD and entry.score >= accept - AGREEMENT


def _means(entry: Evidence) -> bool:
    """Whether the column clearly means the field, so that it is a variant where it is taken."""
    return entry.header.score >= VARIANT_HEADER and entry.score >= VARIANT_SCORE


def _elsewhere(found: Sequence[Evidence], taken: set[str], accept: float) -> str | None:
    """Another field that a column would serve as well as the one it has."""
    best = found[0].score
    return next(
        (
            entry.target
            for entry in found[:_CONSIDERED]
            if entry.target not in taken and entry.score >= max(accept, AS_GOOD * best)
        ),
        None,
    )


def _left(found: Sequence[Evidence], accept: float) -> Choice:
    """What remains for a column that got none of its fields."""
    if not found or not acceptable(found, 0, accept):
        return Choice(None)
    if found[0].score >= LIKELY_VARIANT:
        return Choice(found[0].target, "alternate")
    return Choice(None, taken=True)
