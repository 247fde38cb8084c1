"""The seed of everything in these tests that is drawn: printed, and given back by FAULTS_SEED.

FAULTS=full takes the long run instead of the sample that fits into a check before a commit.
"""

from __future__ import annotations

import os
import random


def seed() -> int:
    """One for the whole run, also for its worker processes."""
    return int(os.environ.setdefault("FAULTS_SEED", str(random.SystemRandom().randrange(2**32))))


def full() -> bool:
    """Whether the long run is wanted."""
    return os.environ.get("FAULTS", "") == "full"
