"""What may go wrong between the product and PostgreSQL.

`ALL` strikes again and again while a scenario runs; `At` strikes once, at a given statement, so
that each statement of a run can have its turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from tests.faults.database_proxy import DatabaseFault, Statement, Strike

Of = Literal["statements", "statements of a transaction", "commits of a write"]


def counts(of: Of, statement: Statement) -> bool:
    """Whether a statement is one of those."""
    match of:
        case "statements":
            return True
        case "statements of a transaction":
            return statement.in_transaction and not statement.text.upper().startswith("ROLLBACK")
        case "commits of a write":
            return statement.commit and statement.writes


class Counting(DatabaseFault):
    """Lets everything pass and counts: the learning run."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: dict[Of, int] = {
            "statements": 0,
            "statements of a transaction": 0,
            "commits of a write": 0,
        }

    def strike(self, statement: Statement) -> Strike | None:
        for of in self.counted:
            self.counted[of] += counts(of, statement)
        return None


class At(DatabaseFault):
    """Strikes once, at the statement of that number.

    How often the operator's loops come by depends on the machine's load: `hurry`, once a run has
    ended with fewer statements than the learning run, has it strike at the next one.
    """

    def __init__(self, strike: Strike, of: Of, number: int) -> None:
        super().__init__()
        self.name = f"{describe(strike)} at {number} of {of}"
        self._strike, self._of, self._number = strike, of, number
        self._seen = 0

    def strike(self, statement: Statement) -> Strike | None:
        if not counts(self._of, statement):
            return None
        self._seen += 1
        if self.strikes or self._seen < self._number:
            return None
        self.strikes += 1
        return self._strike

    def hurry(self) -> None:
        """Strike at the next one."""
        self._number = self._seen + 1


class Every(DatabaseFault):
    """Strikes at the `first` and then at each `step`-th one."""

    def __init__(self, strike: Strike, of: Of, first: int, step: int) -> None:
        super().__init__()
        self.name = f"{describe(strike)}, every {step} of {of}"
        self._strike, self._of, self._first, self._step = strike, of, first, step
        self._seen = 0

    def strike(self, statement: Statement) -> Strike | None:
        if not counts(self._of, statement):
            return None
        self._seen += 1
        if self._seen < self._first or (self._seen - self._first) % self._step:
            return None
        self.strikes += 1
        return self._strike


class TooManyClients(DatabaseFault):
    """Each program gets one connection; the others of its pool are refused with 53300."""

    name = "one connection for each pool"

    def admits(self, application: str, connections: int) -> bool:
        if connections < 1:
            return True
        self.strikes += 1
        return False


def describe(strike: Strike) -> str:
    """A strike in words."""
    words = {
        "cut": "connection cut before",
        "lose": "answer lost",
        "refuse": f"SQLSTATE {strike.sqlstate}",
        "restart": "database restarts",
        "hold": "pool held",
    }
    return words[strike.kind]


CUT, LOSE = Strike("cut"), Strike("lose")
SERIALIZATION, DEADLOCK = Strike("refuse", "40001"), Strike("refuse", "40P01")

ALL: tuple[Callable[[], DatabaseFault], ...] = (
    lambda: Every(LOSE, "commits of a write", 1, 3),
    lambda: Every(CUT, "statements", 20, 40),
    lambda: Every(SERIALIZATION, "statements of a transaction", 5, 15),
    lambda: Every(DEADLOCK, "commits of a write", 1, 3),
    lambda: Every(Strike("restart", seconds=1.0), "commits of a write", 4, 12),
    lambda: Every(Strike("hold", seconds=1.2), "commits of a write", 3, 6),
    TooManyClients,
)
# how each statement in turn may fail
IN_TURN: tuple[tuple[Strike, Of], ...] = (
    (LOSE, "commits of a write"),
    (CUT, "statements"),
    (LOSE, "statements"),
    (SERIALIZATION, "statements of a transaction"),
    (DEADLOCK, "statements of a transaction"),
)
