"""How the operator keeps up with many flows at once: real API server, PostgreSQL, execution API.

Starts N flows, whose crews each take a while and then do their phase over the execution API, and
approves each. All have to succeed and the invariants have to hold, else it exits with 1. Printed:
transitions (by the database's clock), throughput, the operator's writes to the API server, CPU
seconds of every process (the load generator's share included), memory and connections. Everything
runs on this one machine, so what the load generator, the API server and the database use is not
there for the operator.

Usage: `python -m bench.load [--flows 1000] [--work 240 360] [--starts 4]`. Caps on running attempts
are off unless `--running` is given.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bench import meters
from bench.lane import Lane, Load, open_lane
from tests.faults import termination
from tests.faults.invariants import Expectations, InvariantError, check
from tests.faults.operator_process import OperatorProcess
from tests.faults.world import FLOWS

STARTS_PER_SECOND = 4.0
QUIET_SECONDS = 10.0
TELL_SECONDS = 15.0
FULL = """
SELECT (SELECT extract(epoch FROM max(created_at)) FROM master_flows),
       (SELECT extract(epoch FROM min(state_since)) FROM discovery_flows)
"""


@dataclass
class Readings:
    """What was read during and around the run."""

    began: float = 0.0
    took: float = 0.0
    in_flight: int = 0
    live: int = 0
    connections: Counter[str] = field(default_factory=Counter)
    writes: Counter[tuple[str, str]] = field(default_factory=Counter)
    cpu: dict[str, float] = field(default_factory=dict)
    peak: float = 0.0
    queue: int = 0
    within: dict[float, int] = field(default_factory=dict)
    reconciled: int = 0
    takeovers: int = 0
    load: list[str] = field(default_factory=list)


async def run(
    lane: Lane, operator: OperatorProcess, flows: int, starts: float, limit: float
) -> Readings:
    """Starts so many flows a second, and reads until all have ended or `limit` seconds are over."""
    found = Readings(load=[meters.load_average()])
    writes, cpu = await meters.api_writes(lane.world.plane), lane.cpu(operator)
    found.began = told = time.time()
    starting = asyncio.create_task(_start(lane, flows, starts))
    while time.time() - found.began < limit and operator.alive:
        await asyncio.sleep(1)
        await asyncio.to_thread(_look, lane, found)
        text = await meters.operator_metrics(lane.metrics_port)
        found.queue = max(found.queue, meters.number(text, "discoveryflow_queue_length"))
        if time.time() - told > TELL_SECONDS:
            told = time.time()
            states = dict(Counter(lane.people.states.values()))
            print(f"{told - found.began:4.0f} s: {states}; {meters.load_average()}", flush=True)
        if starting.done() and not lane.people.in_flight():
            break
    await starting
    found.took = time.time() - found.began
    await asyncio.sleep(QUIET_SECONDS)
    found.cpu = {name: used - cpu[name] for name, used in lane.cpu(operator).items()}
    found.writes = await meters.api_writes(lane.world.plane) - writes
    found.peak = meters.usage(operator.process.pid or 0).peak
    text = await meters.operator_metrics(lane.metrics_port)
    found.within = meters.histogram(text, "discoveryflow_transition_seconds")
    found.reconciled = meters.number(text, "discoveryflow_reconcile_seconds_count")
    found.takeovers = meters.number(text, "discoveryflow_leader_takeovers_total")
    found.load.append(meters.load_average())
    return found


async def _start(lane: Lane, flows: int, starts: float) -> None:
    began = time.monotonic()
    for number in range(flows):
        await lane.people.start()
        await asyncio.sleep(max(0.0, (number + 1) / starts - time.monotonic() + began))


def _look(lane: Lane, found: Readings) -> None:
    url = lane.world.urls.superuser
    found.in_flight = max(found.in_flight, lane.people.in_flight())
    live = "SELECT count(*) FROM phase_runs WHERE state IN ('Created', 'Launched', 'Running')"
    found.live = max(found.live, meters.rows(url, live)[0][0])
    for name, count in meters.rows(url, meters.CONNECTIONS):
        found.connections[name] = max(found.connections[name], count)


async def verdict(lane: Lane, flows: int) -> list[str]:
    """What is wrong with the end; nothing where all is well."""
    problems = [*lane.crews.errors[:5], *lane.people.errors[:5]]
    states = Counter(lane.people.states.values())
    if states != {"Succeeded": flows}:
        problems.append(f"the flows ended as {dict(states)}")
    seen = Expectations(
        resources=await lane.world.api.items(f"{FLOWS}/discoveryflows"),
        jobs=await lane.world.api.items("/apis/batch/v1/jobs"),
        settled=True,
        allow_automatic_approval=True,
    )
    try:
        await asyncio.to_thread(check, lane.world.urls.superuser, seen)
    except InvariantError as error:
        problems.append(str(error)[:2000])
    return problems


def report(lane: Lane, found: Readings, flows: int) -> None:
    """Prints the figures."""
    made = meters.rows(lane.world.urls.superuser, meters.TRANSITIONS, found.began)
    ((full_from, full_until),) = meters.rows(lane.world.urls.superuser, FULL)
    say = print
    say(f"\n{flows} flows; {'; '.join(found.load)} (before; after)")
    say(f"most in flight at once: {found.in_flight} flows, {found.live} attempts")
    say(f"took {found.took:.0f} s: {flows / found.took:.2f} flows/s, ", end="")
    say(f"{len(made) / found.took:.1f} transitions/s; longest queue {found.queue}")
    say("transitions, from the commit that made a phase ready:")
    say(f"  to its intent       {meters.percentiles(row[0] for row in made)}")
    say(f"  to its Job recorded {meters.percentiles(row[1] for row in made)}")
    whole = [row[1] for row in made if full_from <= row[2] <= full_until]
    say(f"  the same while all flows were in flight {meters.percentiles(whole)}")
    say("  to its Job created, starts of flows included (operator's histogram):")
    for limit, count in found.within.items():
        if limit in (0.05, 0.1, 0.25, 1.0, 5.0, float("inf")):
            say(f"    within {limit:5} s: {count}")
    say(f"reconciliations per flow {found.reconciled / flows:.1f}; ", end="")
    say(f"times that the operator became leader {found.takeovers}")
    say("writes to the API server per flow, the operator's:")
    for (verb, kind), count in sorted(found.writes.items()):
        if (verb, kind) in meters.OPERATORS:
            say(f"  {verb:6} {kind:24} {count / flows:6.2f}")
    cores = found.took + QUIET_SECONDS
    say(f"CPU seconds, of {cores:.0f} s of a core:")
    for name, used in found.cpu.items():
        say(f"  {name:16} {used:8.1f}  {used / flows * 1000:7.0f} ms per flow  ", end="")
        say(f"{used / found.cpu['whole machine'] * 100:5.1f} % of what the machine used")
    say(f"operator's peak memory {found.peak:.0f} MB")
    say(f"connections at most: {dict(found.connections)}")


async def measure(options: argparse.Namespace) -> int:
    """Runs and prints. Returns the exit code."""
    caps = options.running or options.flows
    load = Load(namespaces=options.namespaces, least=options.work[0], most=options.work[1])
    async with open_lane(load, max_running=caps, max_running_per_tenant=caps) as lane:
        operator = await lane.operator()
        print(f"operator {operator.process.pid}, log {lane.world.log}", flush=True)
        found = await run(lane, operator, options.flows, options.starts, options.limit)
        report(lane, found, options.flows)
        problems = await verdict(lane, options.flows)
        for problem in problems:
            print(f"WRONG: {problem}")
        if not problems:
            print("all succeeded, I1 to I10 hold")
        if options.keep_log:
            options.keep_log.write_bytes(lane.world.log.read_bytes())
    return 1 if problems else 0


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--flows", type=int, default=1000)
    parser.add_argument("--starts", type=float, default=STARTS_PER_SECOND, help="per second")
    parser.add_argument("--namespaces", type=int, default=10)
    parser.add_argument(
        "--work", type=float, nargs=2, default=(240.0, 360.0), help="seconds of a crew's work"
    )
    parser.add_argument("--running", type=int, help="cap on attempts, in all and per namespace")
    parser.add_argument("--limit", type=float, default=3600, help="seconds until it is given up")
    parser.add_argument("--keep-log", type=Path, help="copy the log of the operator to this file")
    sys.exit(termination.run(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
