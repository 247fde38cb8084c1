"""`python -m tests.run` goes on after a failure, and says all that failed and what it took."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
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
    run = Run(folder, dict(os.environ), steps)
    run.go()
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
    assert run.tell(1) == 1
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["this"]
    states = {name: result.state for name, result in run.results.items()}
    assert states == {
        "first": "FAILED", "second": "not run", "third": "not run", "fourth": "passed",
    }  # fmt: skip
    told = capfd.readouterr().out
    assert "not run: second (needs first)" in told
    assert "FAILED: first" in told


def test_what_is_needed_and_was_not_asked_for_is_taken_to_be_there(tmp_path: Path) -> None:
    assert ran(tmp_path, Step("second", "alone", 1, ("true",), needs=("first",))).tell(1) == 0


def test_failed_tests_and_the_slowest_are_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = ran(tmp_path, Step("tests", "some", 1, (f"echo '{REPORT}' >\"$REPORT\"",)))
    # even where the command said that all is well
    assert run.tell(1) == 1
    told = capfd.readouterr().out
    assert told.index("2.5 s  tests/a::slow") < told.index("0.1 s  tests/a::quick")
    assert "FAILED: tests/a::slow" in told
    assert "1 passed, 1 failed" in told


def test_steps_go_aside_beside_the_others_and_are_waited_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def meets(one: str, other: str) -> str:
        """One after another they would never end."""
        there = f"until test -e {tmp_path}/{other}; do sleep 0.02; done"
        return f"touch {tmp_path}/{one}; {there}; echo {one} has met"

    run = ran(
        tmp_path,
        Step("here", "waits", 1, (meets("here", "there"),)),
        Step("there", "waits", 1, (meets("there", "here"),), aside=True),
        Step("then", "says", 1, ("echo afterwards",), needs=("here",), after=("there",)),
    )
    assert run.tell(1) == 0
    told = capfd.readouterr().out
    assert told.index("== there: waits, aside\nthere has met") < told.index("afterwards")


def test_what_comes_after_a_failed_step_runs_and_what_needs_one_aside_does_not(
    tmp_path: Path,
) -> None:
    run = ran(
        tmp_path,
        Step("aside", "fails", 1, ("false",), aside=True),
        Step("needs", "does not run", 1, ("true",), needs=("aside",)),
        Step("after", "runs", 1, ("true",), after=("aside",)),
    )
    states = {name: result.state for name, result in run.results.items()}
    assert states == {"aside": "FAILED", "needs": "not run", "after": "passed"}


def test_a_signal_ends_all_that_runs_and_starts_nothing_more(tmp_path: Path) -> None:
    def waits(name: str) -> str:
        path = tmp_path / name
        return f"trap 'touch {path}-ended; exit 1' INT; touch {path}; sleep 60 & wait"

    steps = (
        Step("here", "waits", 1, (waits("here"),)),
        Step("later", "never", 1, (f"touch {tmp_path}/later",)),
        Step("there", "waits", 1, (waits("there"),), aside=True),
    )

    def interrupt() -> None:
        while not ((tmp_path / "here").exists() and (tmp_path / "there").exists()):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sender = threading.Thread(target=interrupt)
        sender.start()
        with pytest.raises(KeyboardInterrupt):
            ran(tmp_path, *steps)
        sender.join()
    finally:
        signal.signal(signal.SIGINT, before)
    left = {path.name for path in tmp_path.iterdir() if path.is_file()} - {"there.out"}
    assert left == {"here", "there", "here-ended", "there-ended"}


@pytest.mark.parametrize("suite", SUITES)
def test_each_step_comes_once_and_after_what_it_needs(suite: str) -> None:
    names = [step.name for step in SUITES[suite]]
    assert len(set(names)) == len(names)
    for number, step in enumerate(SUITES[suite]):
        # or two lanes could wait for each other
        assert {*step.needs, *step.after} <= set(names[:number])


def test_a_group_of_tests_has_one_process(tmp_path: Path) -> None:
    """As the step `beside` asks for it: a stage that all its tests share is made once."""
    (tmp_path / "test_group.py").write_text(
        "import pathlib\n"
        "import pytest\n"
        "@pytest.mark.xdist_group('stage')\n"
        "@pytest.mark.parametrize('number', range(8))\n"
        "def test_each(number, worker_id):\n"
        f"    (pathlib.Path({str(tmp_path)!r}) / f'{{worker_id}}.ran').touch()\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "8 passed" in done.stdout, done.stdout
    assert len(list(tmp_path.glob("*.ran"))) == 1
