"""The admission policy's limit on phaseTimeout, evaluated as the API server does it."""

from __future__ import annotations

from typing import Any

import pytest
from celpy import celtypes

from tests.unit.admission import computed, rule

RULE = "phaseTimeout is too long"


def evaluated(part: str, timeout: str, *, creating: bool, changed: list[str]) -> Any:
    """What CEL makes of `part` of the rule, where 4h are the most."""
    return computed(
        rule(RULE, "4h")[part],
        "ann@example.org",
        object={"spec": {"phaseTimeout": timeout}},
        variables={"creating": creating, "changed": changed},
    )


@pytest.mark.parametrize(
    ("timeout", "passes"), [("15m", True), ("4h", True), ("4h1s", False), ("241m", False)]
)
@pytest.mark.parametrize(("creating", "changed"), [(True, []), (False, ["phaseTimeout"])])
def test_s04_a_phase_may_take_so_long(
    timeout: str, passes: bool, creating: bool, changed: list[str]
) -> None:
    told = evaluated("expression", timeout, creating=creating, changed=changed)
    assert told == celtypes.BoolType(passes)


def test_s04_a_flow_that_is_older_than_the_limit_may_still_be_stopped() -> None:
    assert evaluated("expression", "24h", creating=False, changed=["state"])


def test_s04_the_refusal_names_the_setting() -> None:
    told = str(evaluated("messageExpression", "5h", creating=True, changed=[]))
    assert told.startswith("spec.phaseTimeout is 5h, and this installation allows at most 4h")
    assert "crews.maxPhaseTimeout" in told
