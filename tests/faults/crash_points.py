"""Kills the operator at every write of every scenario, and compares with the run without faults.

`python -m tests.faults.crash_points` runs all of it and prints the count; `--sample N` draws that
many with `--seed`, `--only TEXT` takes those whose name contains it. For each write of a learning
run there are three runs: killed before it, killed after it, and its answer lost. A new operator
goes on, and the flow must end as without a fault.
Exits with 1 where a run differs, an invariant is broken or a flow is stuck.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import structlog
from sqlalchemy.engine import URL

from tests.faults import termination
from tests.faults.control_plane import ControlPlane
from tests.faults.effects import MODES, Fault
from tests.faults.invariants import InvariantError
from tests.faults.operator_process import OperatorProcess
from tests.faults.outcome import Outcome, outcome_of
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.world import StuckError, World, open_world
from tests.postgres import fresh_database, make_template, running_server

PROGRESS_EVERY = 25
T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """One run: a scenario and where it fails."""

    scenario: Scenario
    fault: Fault

    def __str__(self) -> str:
        return f"{self.scenario.name}: {self.fault.mode} {self.fault.write}"


@dataclass(frozen=True)
class Choice:
    """Which cases to run: all, those whose name contains a text, a sample of them."""

    seed: int
    sample: int | None = None
    only: str = ""

    def scenarios(self) -> list[Scenario]:
        """Those to learn: all, or the one that `only` begins with."""
        named = [one for one in SCENARIOS if self.only.startswith(f"{one.name}:")]
        return named or list(SCENARIOS)

    def of(self, cases: list[Case]) -> list[Case]:
        """The chosen ones, in their order or as drawn."""
        cases = [case for case in cases if self.only in str(case)]
        if self.sample is None:
            return cases
        return random.Random(self.seed).sample(cases, min(self.sample, len(cases)))


@dataclass
class Report:
    """What came of all runs. A write that did not come again in its run is not reached."""

    runs: int = 0
    not_reached: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    learned: dict[str, Outcome] = field(default_factory=dict)
    by_mode: Counter[str] = field(default_factory=Counter)


@dataclass
class Lane:
    """One control plane and a database server, used by one run after the other."""

    plane: ControlPlane
    postgres: URL
    template: str
    folder: Path
    count: int = 0

    async def run(self, scenario: Scenario, fault: Fault | None) -> tuple[Outcome, list[str], bool]:
        """The outcome, the names of the first operator's writes, and whether the fault came.

        Raises StuckError and InvariantError.
        """
        self.count += 1
        folder = self.folder / str(self.count)
        record = folder / "writes.jsonl"
        with fresh_database(self.postgres, self.template) as urls:
            async with open_world(self.plane, urls, folder, script=scenario.script) as world:
                first = world.operator(record=record, fault=fault)
                replacing = asyncio.create_task(_replace(world, first))
                try:
                    await world.apply(**scenario.spec)
                    await scenario.act(world)
                    outcome = await outcome_of(world)
                finally:
                    replacing.cancel()
                if world.worker.errors:
                    raise StuckError(f"the worker: {world.worker.errors}")
                writes = [json.loads(line) for line in record.read_text().splitlines()]
        return (
            outcome,
            [write["write"] for write in writes],
            any(write["fault"] for write in writes),
        )


async def _replace(world: World, first: OperatorProcess) -> None:
    """Starts another operator as soon as the first is dead, as a Deployment does."""
    while first.alive:  # noqa: ASYNC110 - a process has no event for that
        await asyncio.sleep(0.02)
    world.operator()


async def explore(lanes: Sequence[Lane], chosen: Choice) -> Report:
    """Learns every scenario, then runs its cases in all lanes."""
    report = Report()
    cases: list[Case] = []
    learned: dict[str, list[str]] = {}

    async def learn(lane: Lane, scenario: Scenario) -> None:
        outcome, learned[scenario.name], _ = await lane.run(scenario, None)
        report.learned[scenario.name] = outcome
        _say(f"learned {scenario.name}: {len(learned[scenario.name])} writes")

    async def strike(lane: Lane, case: Case) -> None:
        await _try(lane, case, report)
        if report.runs % PROGRESS_EVERY == 0:
            _say(f"{report.runs} of {len(cases)} runs, {len(report.failures)} failures")

    scenarios = chosen.scenarios()
    await _share(lanes, scenarios, learn)
    for scenario in scenarios:
        writes = learned[scenario.name]
        cases += [Case(scenario, Fault(write, mode)) for write in writes for mode in MODES]
    cases = chosen.of(cases)
    await _share(lanes, cases, strike)
    return report


async def _share(
    lanes: Sequence[Lane], work: Sequence[T], do: Callable[[Lane, T], Awaitable[None]]
) -> None:
    """Each lane takes the next piece of work when it has done one."""
    left = list(reversed(work))

    async def take(lane: Lane) -> None:
        while left:
            await do(lane, left.pop())

    await asyncio.gather(*(take(lane) for lane in lanes))


async def _try(lane: Lane, case: Case, report: Report) -> None:
    report.runs += 1
    report.by_mode[case.fault.mode] += 1
    try:
        outcome, _, came = await lane.run(case.scenario, case.fault)
    except (StuckError, InvariantError) as error:
        problem = str(error)
    else:
        if not came:
            report.not_reached.append(str(case))
        problem = "; ".join(outcome.differences(report.learned[case.scenario.name]))
    if problem:
        report.failures.append(f"{case}: {problem}")
        _say(f"FAILED {case} (logs: {lane.folder / str(lane.count)}): {problem}")


def _say(text: str) -> None:
    print(text, flush=True)


async def run(lanes: int, chosen: Choice, folder: Path) -> Report:
    """Everything, with control planes and a database server of its own."""
    with running_server(in_memory=True) as server:
        template = make_template(server)
        async with AsyncExitStack() as stack:
            planes = [
                await stack.enter_async_context(ControlPlane(folder / f"plane-{number}"))
                for number in range(lanes)
            ]
            made = [Lane(plane, server, template, plane.folder / "worlds") for plane in planes]
            return await explore(made, chosen)


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.crash_points", description=__doc__
    )
    parser.add_argument("--sample", type=int, help="how many cases to draw (default: all)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--only", default="", help="only cases whose name contains this text")
    parser.add_argument("--logs", type=Path, help="keep the logs of all runs in this folder")
    parser.add_argument("--lanes", type=int, default=2, help="control planes side by side")
    options = parser.parse_args(argv)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    began = time.monotonic()
    _say(f"seed {options.seed}")
    chosen = Choice(options.seed, options.sample, options.only)
    with tempfile.TemporaryDirectory(prefix="discovery-faults-") as temporary:
        folder = options.logs or Path(temporary)
        report = termination.run(run(options.lanes, chosen, folder))
    modes = ", ".join(f"{count} {mode}" for mode, count in sorted(report.by_mode.items()))
    _say(
        f"{report.runs} runs ({modes}) of {len(report.learned)} scenarios in "
        f"{time.monotonic() - began:.0f} s: {len(report.failures)} failures, "
        f"{len(report.not_reached)} writes that did not come again"
    )
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
