"""What a guard of the product is, for those who take it away.

A guard in code is a piece of text in one file and what stands there without it; a guard in the
database is SQL that takes it away from the template that every test database is copied from.
"""

from __future__ import annotations

from dataclasses import dataclass

CORE = "core/discovery_core/store"
OPERATOR = "operator/discovery_operator"
API = "api/discovery_api"
CREW = "crews/discovery_crews"


@dataclass(frozen=True)
class Guard:
    """`old` occurs once in `where`; without the guard it reads `new`. `test` is a node id."""

    name: str
    where: str
    old: str
    new: str
    test: str


@dataclass(frozen=True)
class DatabaseGuard:
    """`sql` takes the guard away, as superuser."""

    name: str
    where: str
    sql: str
    test: str


def unless(condition: str) -> tuple[str, str]:
    """A check that never finds anything."""
    return f"if {condition}:", "if False:"
