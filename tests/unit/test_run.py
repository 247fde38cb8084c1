"""`python -m tests.run` goes on after a failure, and says all that failed and what it took."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.run import Run
from tests.steps import SUITES, Step

REPORT = (
    '<testsuites><testsuite><testcase classname="tests.a" name="quick" time="0.1"/>'
    '<testcase classname="tests.a" name="slow" time="2.5"><failure/></testcase>'
    "</testsuite></testsuites>"
)


def ran(folder: Path, *steps: Step) -> Run:
    run = Run(folder, dict(os.environ))
    for step in steps:
        run.step(step)
    return run


def test_a_step_that_fails_ends_only_those_that_need_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = ran(
        tmp_path,
        Step("first", "fails", 1, ("false", f"touch {tmp_path}/not-this")),
        Step("second", "needs it", 1, (f"touch {tmp_path}/nor-this",), needs=("first",)),
        Step("third", "needs that", 1, (f"touch {tmp_path}/nor-that",), needs=("second",)),
        Step("fourth", "goes on", 1, (f"touch {tmp_path}/this",)),
    )
    assert run.tell() == 1
    assert [p.name for p in tmp_path.iterdir()] == ["this"]
    states = {result.step.name: result.state for result in run.results}
    assert states == {
        "first": "FAILED", "second": "not run", "third": "not run", "fourth": "passed",
    }  # fmt: skip
    told = capfd.readouterr().out
    assert "not run: second (needs first)" in told
    assert "FAILED: first" in told


def test_what_is_needed_and_was_not_asked_for_is_taken_to_be_there(tmp_path: Path) -> None:
    assert ran(tmp_path, Step("second", "alone", 1, ("true",), needs=("first",))).tell() == 0


def test_failed_tests_and_the_slowest_are_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = ran(tmp_path, Step("tests", "some", 1, (f"echo '{REPORT}' >\"$REPORT\"",)))
    # even where the command said that all is well
    assert run.tell() == 1
    told = capfd.readouterr().out
    assert told.index("2.5 s  tests/a::slow") < told.index("0.1 s  tests/a::quick")
    assert "FAILED: tests/a::slow" in told
    assert "1 passed, 1 failed" in told


@pytest.mark.parametrize("suite", SUITES)
def test_each_step_comes_once_and_after_what_it_needs(suite: str) -> None:
    names = [step.name for step in SUITES[suite]]
    assert len(set(names)) == len(names)
    for number, step in enumerate(SUITES[suite]):
        assert set(step.needs) <= set(names[:number])
