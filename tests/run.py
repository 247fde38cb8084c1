"""Runs `make test`: every step to the end, whatever fails on the way, and then what each has taken.

A run that ended at its first red step would show a second fault only an hour later. So a step that
fails is noted, what needs it is not run, and everything else is. Steps that mostly wait, for pods
and for alerts, go aside, one after another beside the others; their output comes when they end. At
the end stand the seconds and the machine's load of each step beside its budget, the slowest tests,
and what failed.

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
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.steps import BUDGETS, SUITES, Step

ROOT = Path(__file__).resolve().parents[1]
SLOWEST = 20


@dataclass
class Result:
    """What came of a step; `ended` once no more comes of it."""

    step: Step
    state: str = "not run"
    seconds: float = 0.0
    busy: float = 0.0
    why: str = ""
    ended: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Case:
    """A test of a step, as pytest has reported it."""

    name: str
    seconds: float
    failed: bool


class Run:
    """One run of some steps; reports and what goes aside are written into `folder`."""

    def __init__(self, folder: Path, environment: dict[str, str], steps: Sequence[Step]) -> None:
        self.folder = folder
        self.results = {step.name: Result(step) for step in steps}
        self.cases: list[Case] = []
        self._environment = environment
        self._calls = Calls()
        self._began = time.monotonic()

    def go(self) -> None:
        """Runs all steps; a signal to this process ends what they have started, orderly."""
        lanes = [[r for r in self.results.values() if r.step.aside is a] for a in (False, True)]
        with ThreadPoolExecutor(len(lanes)) as threads:
            running = [threads.submit(self._lane, lane) for lane in lanes]
            try:
                for lane in running:
                    lane.result()
            finally:
                self._calls.end()

    def _lane(self, lane: Sequence[Result]) -> None:
        try:
            for result in lane:
                self._step(result)
        finally:
            # whoever waits for one of these waits no longer
            for result in lane:
                result.ended.set()

    def _step(self, result: Result) -> None:
        """Runs a step after those that it waits for, unless one that it needs has failed."""
        step = result.step
        for name in {*step.needs, *step.after} & set(self.results):
            self.results[name].ended.wait()
        missing = [n for n in step.needs if n in self.results and self.results[n].state != "passed"]
        if missing:
            result.why = f"needs {', '.join(missing)}"
        elif not self._calls.ended:
            self._run(result)
        result.ended.set()

    def _run(self, result: Result) -> None:
        step = result.step
        report = self.folder / f"{step.name}.xml"
        # pytest closes its folder to others when it starts, also to the database of another lane
        temporary = self.folder / f"{step.name}.tmp"
        temporary.mkdir()
        environment = self._environment | {
            "REPORT": str(report),
            "PYTEST_DEBUG_TEMPROOT": str(temporary),
        }
        title = f"\n== {step.name}: {step}"
        print(f"{title}{' has begun' if step.aside else ''}", flush=True)
        began, busy = time.monotonic(), _busy()
        with self._output(step, title) as output:
            done = all(self._calls.call(c, environment, output) == 0 for c in step.commands)
        result.seconds = time.monotonic() - began
        result.busy = (_busy() - busy) / max(result.seconds, 0.01) / (os.cpu_count() or 1)
        result.state = "passed" if done else "FAILED"
        self.cases += _cases(report)

    @contextlib.contextmanager
    def _output(self, step: Step, title: str) -> Iterator[IO[str] | None]:
        """Where the commands of a step write to; None is this process's own output."""
        if not step.aside:
            yield None
            return
        file = self.folder / f"{step.name}.out"
        with file.open("w") as output:
            try:
                yield output
            finally:
                print(f"{title}\n{file.read_text(errors='replace')}", flush=True)

    def tell(self, budget: int) -> int:
        """Prints the tables, the whole time beside `budget` seconds; the exit status."""
        print(f"\n{'step':12} {'state':8} {'seconds':>8} {'budget':>7} {'load':>5}  what")
        results = self.results.values()
        for r in results:
            over = " over its budget" if r.seconds > r.step.budget else ""
            print(
                f"{r.step.name:12} {r.state:8} {r.seconds:8.0f} {r.step.budget:7} {r.busy:5.0%}  "
                f"{r.why or r.step}{over}"
            )
        print(f"{'all':12} {'':8} {time.monotonic() - self._began:8.0f} {budget:7}")
        print(f"\nthe {SLOWEST} slowest tests:")
        for case in sorted(self.cases, key=lambda c: -c.seconds)[:SLOWEST]:
            print(f"{case.seconds:8.1f} s  {case.name}")
        failed = [case.name for case in self.cases if case.failed]
        red = [r for r in results if r.state != "passed"]
        for r in red:
            print(f"{r.state}: {r.step.name}{f' ({r.why})' if r.why else ''}")
        for name in failed:
            print(f"FAILED: {name}")
        print(f"\n{len(self.cases) - len(failed)} passed, {len(failed)} failed")
        return 1 if red or failed else 0


class Calls:
    """The command lines that run at the moment, each in a process group of its own."""

    def __init__(self) -> None:
        self.ended = False
        self._lock = threading.Lock()
        self._running: list[subprocess.Popen[bytes]] = []

    def call(self, command: str, environment: dict[str, str], output: IO[str] | None) -> int:
        """Runs a command line of bash; its status, 130 where the run has been ended before."""
        with self._lock:
            if self.ended:
                return 128 + signal.SIGINT
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", command],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            self._running.append(process)
        try:
            return process.wait()
        finally:
            with self._lock:
                self._running.remove(process)

    def end(self) -> None:
        """Ends what runs and what it has started, orderly; nothing starts any more."""
        with self._lock:
            self.ended = True
            running = list(self._running)
        for process in running:
            _signal(process, signal.SIGINT)
        for process in running:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


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
            print(f"{step.name:12} {step.budget:5} s  {step}")
        print(f"{'all':12} {BUDGETS[options.suite]:5} s")
        return 0
    unknown = set(options.steps) - {step.name for step in steps}
    if unknown:
        parser.error(f"there is no step {', '.join(sorted(unknown))}; see --list")
    # also where a shell has started this in the background, and SIGINT would be ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminated)
    # short, because there are sockets in it
    folder = Path(tempfile.mkdtemp(prefix="dfrun-"))
    # what is drawn is the same each time; another FAULTS_SEED draws something else
    environment = {"FAULTS_SEED": "1"} | os.environ | {"DISCOVERY_STRICT_SKIPS": "1"}
    chosen = [step for step in steps if not options.steps or step.name in options.steps]
    starts = any(step.name == "cluster" for step in chosen)
    with _cluster_as_it_was(environment) if starts else contextlib.nullcontext():
        run = Run(folder, environment, chosen)
        try:
            run.go()
        finally:
            status = run.tell(BUDGETS[options.suite])
            if status == 0:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                print(f"what the steps wrote is in {folder}")
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
