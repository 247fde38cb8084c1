"""Runs `make test`: every step to the end, whatever fails on the way, and then what each has taken.

A run that ended at its first red step would show a second fault only an hour later. So a step that
fails is noted, what needs it is not run, and everything else is. At the end stand the seconds and
the processors' load of each step beside its budget, the slowest tests, and what failed.

`python -m tests.run SUITE` takes names of steps to run only those; `--list` prints them. The suites
are `check`, `test` and `faults`, as the Makefile's targets.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.steps import SUITES, Step

ROOT = Path(__file__).resolve().parents[1]
SLOWEST = 20


@dataclass
class Result:
    """What came of a step."""

    step: Step
    state: str = "not run"
    seconds: float = 0.0
    busy: float = 0.0
    why: str = ""


@dataclass(frozen=True)
class Case:
    """A test of a step, as pytest has reported it."""

    name: str
    seconds: float
    failed: bool


@dataclass
class Run:
    """One run of some steps."""

    folder: Path
    environment: dict[str, str]
    results: list[Result] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)

    def step(self, step: Step) -> None:
        """Runs a step, unless one that it needs has failed."""
        result = Result(step)
        self.results.append(result)
        states = {r.step.name: r.state for r in self.results}
        missing = [name for name in step.needs if states.get(name, "passed") != "passed"]
        if missing:
            result.why = f"needs {', '.join(missing)}"
            return
        print(f"\n== {step.name}: {step.what}", flush=True)
        report = self.folder / f"{step.name}.xml"
        environment = self.environment | {"REPORT": str(report)}
        began, busy = time.monotonic(), _busy()
        code = 0
        for command in step.commands:
            code = _call(command, environment)
            if code != 0:
                break
        result.seconds = time.monotonic() - began
        result.busy = (_busy() - busy) / max(result.seconds, 0.01) / (os.cpu_count() or 1)
        result.state = "passed" if code == 0 else "FAILED"
        self.cases += _cases(report)

    def tell(self) -> int:
        """Prints the tables; the exit status."""
        print(f"\n{'step':12} {'state':8} {'seconds':>8} {'budget':>7} {'load':>5}  what")
        for r in self.results:
            over = " over its budget" if r.seconds > r.step.budget else ""
            print(
                f"{r.step.name:12} {r.state:8} {r.seconds:8.0f} {r.step.budget:7} {r.busy:5.0%}  "
                f"{r.why or r.step.what}{over}"
            )
        total = sum(r.seconds for r in self.results)
        print(f"{'all':12} {'':8} {total:8.0f} {sum(r.step.budget for r in self.results):7}")
        print(f"\nthe {SLOWEST} slowest tests:")
        for case in sorted(self.cases, key=lambda c: -c.seconds)[:SLOWEST]:
            print(f"{case.seconds:8.1f} s  {case.name}")
        failed = [case.name for case in self.cases if case.failed]
        red = [r for r in self.results if r.state != "passed"]
        for r in red:
            print(f"{r.state}: {r.step.name}{f' ({r.why})' if r.why else ''}")
        for name in failed:
            print(f"FAILED: {name}")
        print(f"\n{len(self.cases) - len(failed)} passed, {len(failed)} failed")
        return 1 if red or failed else 0


def _call(command: str, environment: dict[str, str]) -> int:
    """Runs a command line; a signal to this process ends it and what it started, orderly."""
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=ROOT,
        env=environment,
        start_new_session=True,
    )
    try:
        return process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        raise


def _busy() -> float:
    """Seconds that all processors together have worked since the machine's start."""
    user, nice, system, *_ = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def _cases(report: Path) -> list[Case]:
    if not report.exists():
        return []
    return [
        Case(
            f"{case.get('classname', '').replace('.', '/')}::{case.get('name')}",
            float(case.get("time", 0)),
            case.find("failure") is not None or case.find("error") is not None,
        )
        for case in ET.parse(report).getroot().iter("testcase")
    ]


def _terminated(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; 1 where anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.run", description=__doc__)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("steps", nargs="*", help="names of steps; all where there is none")
    parser.add_argument("--list", action="store_true", help="print the steps")
    options = parser.parse_args(argv)
    steps = SUITES[options.suite]
    if options.list:
        for step in steps:
            print(f"{step.name:12} {step.budget:5} s  {step.what}")
        return 0
    unknown = set(options.steps) - {step.name for step in steps}
    if unknown:
        parser.error(f"there is no step {', '.join(sorted(unknown))}; see --list")
    # also where a shell has started this in the background, and SIGINT would be ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminated)
    folder = Path(tempfile.mkdtemp(prefix="discoveryflow-run-"))
    # what is drawn is the same each time; another FAULTS_SEED draws something else
    environment = {"FAULTS_SEED": "1"} | os.environ | {"DISCOVERY_STRICT_SKIPS": "1"}
    run = Run(folder, environment)
    chosen = [step for step in steps if not options.steps or step.name in options.steps]
    starts = any(step.name == "cluster" for step in chosen)
    with _cluster_as_it_was(environment) if starts else contextlib.nullcontext():
        try:
            for step in chosen:
                run.step(step)
        finally:
            status = run.tell()
            shutil.rmtree(folder, ignore_errors=True)
    return status


@contextlib.contextmanager
def _cluster_as_it_was(environment: dict[str, str]) -> Iterator[None]:
    """Takes the cluster down at the end, unless it was up before or KEEP_CLUSTER=yes."""
    tool = [sys.executable, "-m", "tests.cluster.provision"]
    asked = subprocess.run([*tool, "status"], cwd=ROOT, capture_output=True, check=False)
    try:
        yield
    finally:
        if asked.returncode != 0 and environment.get("KEEP_CLUSTER", "no") != "yes":
            subprocess.run([*tool, "down"], cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main())
