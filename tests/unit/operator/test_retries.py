"""When a failed attempt is tried again: doubled, bounded, spread, and as long as was asked for."""

from __future__ import annotations

from itertools import pairwise
from uuid import UUID

import pytest
from discovery_core.errors import ErrorCode
from discovery_core.resource import Retries
from discovery_operator.retries import retry_delay

RETRIES = Retries.model_validate({"maxAttempts": 10, "initialDelay": "4s", "maxDelay": "60s"})
RUNS = [UUID(int=number) for number in range(1000)]


def delays(failures: int = 1, at_least: float | None = None) -> list[float]:
    """The delay of each of many attempts that have failed together."""
    found = [
        retry_delay(
            RETRIES, ErrorCode.LLM_RATE_LIMITED, failures=failures, run_id=run, at_least=at_least
        )
        for run in RUNS
    ]
    return [delay for delay in found if delay is not None]


@pytest.mark.parametrize(
    ("failures", "at_least", "lowest", "highest"),
    [
        (1, None, 3.0, 4.0),
        (2, None, 6.0, 8.0),
        (9, None, 45.0, 60.0),
        (1, 100.0, 100.0, 125.0),
        (9, 3600.0, 3600.0, 4500.0),
    ],
)
def test_those_that_fail_together_are_spread_over_the_whole_range(
    failures: int, at_least: float | None, lowest: float, highest: float
) -> None:
    found = sorted(delays(failures, at_least))
    width = highest - lowest
    assert len(found) == len(RUNS)
    assert lowest <= found[0] < lowest + 0.02 * width
    assert highest - 0.02 * width < found[-1] <= highest
    assert max(after - before for before, after in pairwise(found)) < 0.02 * width


def test_what_was_asked_for_never_shortens_a_delay() -> None:
    assert delays(9, 1.0) == delays(9)


def test_it_is_the_same_however_often_it_is_asked() -> None:
    assert delays(1, 100.0) == delays(1, 100.0)


def test_what_was_asked_for_makes_nothing_retryable() -> None:
    for code, failures in ((ErrorCode.LLM_QUOTA, 1), (ErrorCode.LLM_RATE_LIMITED, 10)):
        assert retry_delay(RETRIES, code, failures=failures, run_id=RUNS[0], at_least=100.0) is None
