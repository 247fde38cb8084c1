"""Whether the operator stays as it is while flows come and go for a long time.

Starts flows one after the other, at most `MOST` at once; people approve, reject, cancel or delete
each, and every resource is deleted once its flow has ended. Resident memory, open files and
database connections of the operator are sampled after a time to warm up. Each is called flat where
the slope by Theil and Sen, over the whole of the sampled time, would add less than `FLAT` of the
median. It exits with 1 where one is not, or where something went wrong on the way.

Usage: `python -m bench.soak [--minutes 30] [--rate 0.2]`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from discovery_core.states import FlowState, is_ended
from discovery_core.tasks import end

from bench import meters
from bench.lane import Lane, Load, open_lane
from tests.faults import termination
from tests.faults.control_plane import ApiError
from tests.faults.operator_process import OperatorProcess
from tests.faults.world import FLOWS

FLAT = 0.05
WARM_UP = 0.2
SAMPLE_SECONDS = 5.0
# more at once would be a queue that grows, and memory with it
MOST = 10
DECISIONS = ("Approve", "Approve", "Reject", "Cancel", "Delete")
WAYS = ("Succeeded", "Rejected", "Cancelled", "Deleted")
# what the operator calls its pool and the connection that listens
CONNECTIONS = ("discoveryflow-operator", "discoveryflow-listener")

Samples = dict[str, list[tuple[float, float]]]


def decision(name: str) -> str:
    """Every way to end, in turn."""
    return DECISIONS[int(name.rsplit("-", 1)[1]) % len(DECISIONS)]


def growth(points: list[tuple[float, float]]) -> float:
    """What the slope adds during the sampled time, as a share of the median."""
    hours = (points[-1][0] - points[0][0]) / 3600
    return meters.slope(points) * hours / max(1.0, statistics.median(at for _, at in points))


@dataclass
class Traffic:
    """Flows that come and go on a lane. `ended` is how each flow ended whose resource is gone."""

    lane: Lane
    rate: float
    ended: dict[str, str] = field(default_factory=dict)

    @property
    def ways(self) -> Counter[str]:
        """How many flows ended in each way; those that people deleted are not seen to end."""
        gone = (name for name, state in self.lane.people.states.items() if state == "Deleted")
        return Counter(self.ended.values()) + Counter(
            "Deleted" for name in gone if name not in self.ended
        )

    @property
    def problems(self) -> list[str]:
        """What people and crews could not do."""
        return [*self.lane.people.errors, *self.lane.crews.errors]

    async def run(self) -> None:
        """For ever."""
        while True:
            if self.lane.people.in_flight() < MOST:
                await self.lane.people.start()
            for raw in await self.lane.world.api.items(f"{FLOWS}/discoveryflows"):
                state = (raw.get("status") or {}).get("state")
                if state and is_ended(FlowState(state)):
                    meta = raw["metadata"]
                    self.ended[meta["name"]] = state
                    path = f"{FLOWS}/namespaces/{meta['namespace']}/discoveryflows/{meta['name']}"
                    with contextlib.suppress(ApiError):
                        await self.lane.world.api.call("DELETE", path)
            await asyncio.sleep(1 / self.rate)


@dataclass(frozen=True)
class Verdict:
    """Whether a reading is flat: where it was, its slope per hour, and what that adds in all."""

    name: str
    low: float
    high: float
    slope: float
    added: float
    flat: bool

    def __str__(self) -> str:
        return (
            f"{self.name:20} {self.low:7.1f} to {self.high:7.1f}, {self.slope:+8.2f} per hour, "
            f"{self.added * 100:+5.1f} % in the sampled time: {'flat' if self.flat else 'NOT flat'}"
        )


def verdicts(found: Samples, flat: float = FLAT) -> list[Verdict]:
    """Each reading by the rule; `flat` is the share of the median that may be added."""
    made = []
    for name, points in found.items():
        values, added = [at for _, at in points], growth(points)
        made.append(
            Verdict(name, min(values), max(values), meters.slope(points), added, added < flat)
        )
    return made


async def sample(
    lane: Lane,
    operator: OperatorProcess,
    seconds: float,
    *,
    warm_up: float = WARM_UP,
    every: float = SAMPLE_SECONDS,
) -> Samples:
    """Reads for so long, of which the share `warm_up` does not count."""
    found: Samples = defaultdict(list)
    began = time.monotonic()
    while (at := time.monotonic() - began) < seconds:
        read = meters.usage(operator.process.pid or 0)
        open_now = await asyncio.to_thread(
            meters.rows, lane.world.urls.superuser, meters.CONNECTIONS
        )
        if at >= seconds * warm_up:
            found["resident MB"].append((at, read.resident))
            found["open files"].append((at, read.files))
            mine = sum(count for name, count in open_now if name in CONNECTIONS)
            found["database connections"].append((at, mine))
        await asyncio.sleep(every)
    return found


async def soak(
    lane: Lane, operator: OperatorProcess, rate: float, seconds: float, **sampling: float
) -> tuple[Traffic, Samples]:
    """Has flows come and go while it samples. Raises what kept them from coming."""
    traffic = Traffic(lane, rate)
    async with asyncio.TaskGroup() as group:
        coming = group.create_task(traffic.run())
        found = await sample(lane, operator, seconds, **sampling)
        await end(coming)
    return traffic, found


async def measure(options: argparse.Namespace) -> int:
    """Runs and prints. Returns the exit code."""
    print(meters.load_average(), flush=True)
    async with open_lane(Load(namespaces=3, decision=decision)) as lane:
        operator = await lane.operator()
        traffic, found = await soak(lane, operator, options.rate, options.minutes * 60)
    ways = ", ".join(f"{traffic.ways[way]} {way}" for way in WAYS)
    print(f"{lane.people.created} flows in {options.minutes:g} minutes, of which ended: {ways}")
    print(meters.load_average())
    made = verdicts(found)
    for verdict in made:
        print(verdict)
    wrong = [*traffic.problems, *(f"no flow was {way}" for way in WAYS if not traffic.ways[way])]
    for problem in wrong[:10]:
        print(f"WRONG: {problem}")
    return 0 if not wrong and all(verdict.flat for verdict in made) else 1


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=0.2, help="flows per second")
    sys.exit(termination.run(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
