"""Puts the operator behind faulty connections, and compares how flows end with a sound run.

`python -m tests.faults.faults_on_the_wire` runs all: each fault of the API server's connection and
of the database's with each of five scenarios, and each statement of a happy run and of a second
round in turn. `--sample N` draws that many of each part with `--seed`. A flow must end as without a
fault, the invariants must hold, the operator must live, and the fault must have struck. Exits with
1 where one of these is not so.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import aiohttp
import structlog
from discovery_core.errors import StoreError

from tests.faults import api_faults, database_faults, termination
from tests.faults.api_proxy import ApiFault, ApiProxy
from tests.faults.control_plane import ControlPlane, free_ports
from tests.faults.crash_points import Lane
from tests.faults.database_faults import At, Counting, Of
from tests.faults.database_proxy import DatabaseFault, DatabaseProxy
from tests.faults.invariants import InvariantError
from tests.faults.outcome import Outcome, outcome_of
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.world import StuckError, open_world
from tests.postgres import fresh_database, make_template, running_server

Fault = ApiFault | DatabaseFault
CHOSEN = ("happy", "reject", "cancel", "retry from a phase", "delete midway")
IN_TURN = ("happy", "retry from a phase")
# of each scenario and way to fail; most of the thousands are the same questions again and again
STATEMENTS = 40
STRIKE_SECONDS = 20.0
# nobody is killed here, so a busy machine need not lose its leader
LEADER_TTL = 6.0


class UnlikeError(Exception):
    """A run did not end as it should."""


@dataclass(frozen=True)
class Case:
    """One run: a scenario, and what makes its fault. `row` is its line in the table."""

    scenario: Scenario
    row: str
    make: Callable[[], Fault]


@dataclass
class Row:
    """A line of the table."""

    runs: int = 0
    strikes: int = 0
    failures: int = 0


@dataclass
class Report:
    """What came of all runs."""

    rows: dict[str, Row] = field(default_factory=lambda: defaultdict(Row))
    failures: list[str] = field(default_factory=list)


async def run_once(lane: Lane, scenario: Scenario, fault: Fault) -> Outcome:
    """The outcome behind a fault. Raises StuckError, InvariantError and UnlikeError."""
    lane.count += 1
    folder = lane.folder / f"wire-{lane.count}"
    on_api = fault if isinstance(fault, ApiFault) else ApiFault()
    on_database = fault if isinstance(fault, DatabaseFault) else DatabaseFault()
    await asyncio.to_thread(folder.mkdir, parents=True)
    with fresh_database(lane.postgres, lane.template) as urls:
        async with (
            DatabaseProxy(urls.superuser, on_database) as database,
            ApiProxy(lane.plane, folder / "proxy.kubeconfig", on_api) as api,
            open_world(
                lane.plane,
                replace(
                    urls,
                    operator=database.url(urls.operator),
                    execution=database.url(urls.execution),
                ),
                folder,
                script=scenario.script,
                leader_ttl_seconds=LEADER_TTL,
            ) as world,
        ):
            (port,) = free_ports(1)
            operator = world.operator(kubeconfig=api.kubeconfig, health_port=port)
            await world.apply(**scenario.spec)
            await scenario.act(world)
            if not isinstance(fault, Counting) and type(fault) not in {ApiFault, DatabaseFault}:
                await _struck(fault)
            outcome = await outcome_of(world)
            if on_api.noticed and await world.flow():
                await _told(port, on_api.noticed)
            if world.worker.errors:
                raise UnlikeError(f"the worker: {world.worker.errors}")
            if not operator.alive:
                raise UnlikeError("the operator has ended")
    if on_api.broken:
        raise UnlikeError("; ".join(on_api.broken[:5]))
    return outcome


async def _told(port: int, problem: str) -> None:
    """Until the operator's /healthz names a problem."""
    said = ""
    async with aiohttp.ClientSession() as session:
        for _ in range(int(STRIKE_SECONDS / 0.2)):
            async with session.get(f"http://127.0.0.1:{port}/healthz") as answer:
                said = await answer.text()
            if problem in said:
                return
            await asyncio.sleep(0.2)
    raise UnlikeError(f"/healthz does not say {problem!r} but {said!r}")


async def _struck(fault: Fault) -> None:
    """A fault of a late statement may still have to come: the operator's loops go on."""
    if isinstance(fault, At):
        fault.hurry()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STRIKE_SECONDS):
            while not fault.strikes:  # noqa: ASYNC110 - a fault has no event for that
                await asyncio.sleep(0.05)
    if not fault.strikes:
        raise UnlikeError("the fault never struck")


class Explorer:
    """Learns scenarios as they are needed, and runs cases in all lanes."""

    def __init__(self, lanes: Sequence[Lane], report: Report) -> None:
        self._lanes = lanes
        self._learned: dict[str, Outcome] = {}
        self._counted: dict[str, Counting] = {}
        self._report = report

    async def learn(self, names: Sequence[str]) -> None:
        """Runs scenarios without a fault, through the proxies."""
        queue = [scenario for scenario in SCENARIOS if scenario.name in names]

        async def work(lane: Lane) -> None:
            while queue:
                scenario, counting = queue.pop(), Counting()
                self._learned[scenario.name] = await run_once(lane, scenario, counting)
                self._counted[scenario.name] = counting
                say(f"learned {scenario.name}: {_counted(counting)}")

        await asyncio.gather(*(work(lane) for lane in self._lanes))

    def in_turn(self, seed: int) -> list[Case]:
        """A case for each commit that the learning runs have counted, and for some statements."""
        return [
            Case(
                scenario,
                f"{database_faults.describe(strike)}, at one of the {of}",
                partial(At, strike, of, number),
            )
            for scenario in SCENARIOS
            if scenario.name in IN_TURN
            for strike, of in database_faults.IN_TURN
            for number in _numbers(of, self._counted[scenario.name].counted[of], seed)
        ]

    async def explore(self, cases: Sequence[Case]) -> None:
        """Runs cases in all lanes."""
        queue = list(reversed(cases))

        async def work(lane: Lane) -> None:
            while queue:
                await self._try(lane, queue.pop())

        await asyncio.gather(*(work(lane) for lane in self._lanes))

    async def _try(self, lane: Lane, case: Case) -> None:
        row, fault = self._report.rows[case.row], case.make()
        row.runs += 1
        try:
            _same(await run_once(lane, case.scenario, fault), self._learned[case.scenario.name])
            say(f"as without: {case.scenario.name}: {fault.name} ({fault.strikes} strikes)")
        except (StuckError, InvariantError, UnlikeError, StoreError) as error:
            row.failures += 1
            told = f"{case.scenario.name}: {fault.name} ({fault.strikes} strikes): {error}"
            self._report.failures.append(told)
            say(f"FAILED {told}")
        row.strikes += fault.strikes


def _same(outcome: Outcome, sound: Outcome) -> None:
    differences = outcome.differences(sound)
    if differences:
        raise UnlikeError("; ".join(differences))


def _numbers(of: Of, count: int, seed: int) -> list[int]:
    numbers = range(1, count + 1)
    if of == "commits of a write":
        return list(numbers)
    return sorted(random.Random(seed).sample(numbers, min(STATEMENTS, count)))


def _counted(counting: Counting) -> str:
    return ", ".join(f"{count} {of}" for of, count in counting.counted.items())


def standing_cases() -> list[Case]:
    """Each fault that strikes again and again, with each chosen scenario."""
    makers: list[Callable[[], Fault]] = [*api_faults.ALL, *database_faults.ALL]
    return [
        Case(scenario, make().name, make)
        for make in makers
        for scenario in SCENARIOS
        if scenario.name in CHOSEN
    ]


def say(text: str) -> None:
    """Prints a line at once."""
    print(text, flush=True)


@asynccontextmanager
async def open_lanes(count: int) -> AsyncIterator[list[Lane]]:
    """Control planes side by side, over one database server."""
    with (
        tempfile.TemporaryDirectory(prefix="discovery-wire-") as name,
        running_server(in_memory=True) as server,
    ):
        folder, template = Path(name), make_template(server)
        async with AsyncExitStack() as stack:
            planes = [ControlPlane(folder / f"plane-{number}") for number in range(count)]
            for plane in planes:
                await stack.enter_async_context(plane)
            yield [Lane(plane, server, template, plane.folder / "worlds") for plane in planes]


def drawn(cases: Sequence[Case], sample: int | None, seed: int) -> list[Case]:
    """That many cases, of each row as many as of any other as far as there are."""
    if sample is None:
        return list(cases)
    had: Counter[str] = Counter()
    ranked: list[tuple[int, Case]] = []
    for case in random.Random(seed).sample(cases, len(cases)):
        ranked.append((had[case.row], case))
        had[case.row] += 1
    ranked.sort(key=lambda one: one[0])
    return [case for _, case in ranked[:sample]]


async def run(lanes: int, sample: int | None, seed: int, only: str = "") -> Report:
    """Everything, or `sample` cases of it; `only` those whose row has that text."""
    report = Report()
    async with open_lanes(lanes) as made:
        explorer = Explorer(made, report)
        await explorer.learn(CHOSEN)
        cases = [case for case in standing_cases() + explorer.in_turn(seed) if only in case.row]
        await explorer.explore(drawn(cases, sample, seed))
    return report


def table(report: Report) -> str:
    """The report as a Markdown table."""
    lines = ["| fault | runs | strikes | failures |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {row.runs} | {row.strikes} | {row.failures} |"
        for name, row in report.rows.items()
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.faults_on_the_wire", description=__doc__
    )
    parser.add_argument("--sample", type=int, help="how many cases to draw (default: all)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--lanes", type=int, default=2, help="control planes side by side")
    parser.add_argument("--only", default="", help="only faults with this in their name")
    options = parser.parse_args(argv)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    began = time.monotonic()
    say(f"seed {options.seed}")
    report = termination.run(run(options.lanes, options.sample, options.seed, options.only))
    say(table(report))
    runs = sum(row.runs for row in report.rows.values())
    strikes = sum(row.strikes for row in report.rows.values())
    say(
        f"{runs} runs, {strikes} strikes, {len(report.failures)} failures "
        f"in {time.monotonic() - began:.0f} s"
    )
    return 1 if report.failures or not runs else 0


if __name__ == "__main__":
    sys.exit(main())
