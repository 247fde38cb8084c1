"""How likely a proposal is right, so that a person can look at the doubtful ones first.

A logistic curve over the score and its lead over the next field. Its weights are set so that it
holds on the tuning half of the labelled inventories with some distance to 1, since other
inventories are less well known; `bench/mapping.py` prints how well it holds on both halves.
"""

from __future__ import annotations

import math

# bias, score, lead over the next field (up to 0.4), whether another column is the primary source
WEIGHTS = (-2.8, 6.6, 2.6, -0.8)
LOWEST, HIGHEST = 0.02, 0.97
APPROVED = 0.97
PRESET = 0.95
_MOST_LEAD = 0.4


def features(score: float, lead: float, *, alternate: bool) -> tuple[float, float, float, float]:
    """What the curve is over."""
    return 1.0, score, min(max(lead, 0.0), _MOST_LEAD), float(alternate)


def confidence(score: float, lead: float, *, alternate: bool = False) -> float:
    """The chance, 0 to 1, that a mapping with this score and lead is right."""
    pairs = zip(WEIGHTS, features(score, lead, alternate=alternate), strict=True)
    chance = 1.0 / (1.0 + math.exp(-sum(weight * value for weight, value in pairs)))
    return round(min(HIGHEST, max(LOWEST, chance)), 3)
