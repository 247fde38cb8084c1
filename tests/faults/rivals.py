"""Two operators at once: the leader is stopped at a named write and wakes when all is done.

A paused process is worse than a dead one: it goes on where it was, with its writes in hand and
without knowing that time has passed. What it writes late is recorded (`effects.py`).
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from tests.faults.crash_points import Lane
from tests.faults.effects import Fault
from tests.faults.operator_process import OperatorProcess
from tests.faults.outcome import Outcome, outcome_of
from tests.faults.scenarios import Scenario
from tests.faults.world import PATIENCE, StuckError, World, open_world
from tests.postgres import fresh_database

# what wakes late has nothing else to wait for than its own next tries, all shorter than this
TRIES_SECONDS = 3.0
LEADER = "SELECT holder, epoch FROM leader"
# longer than in other runs: on a busy machine the lease must not change hands before the pause
LEASE_SECONDS = 6.0


@dataclass(frozen=True)
class Late:
    """A write that was tried after waking: `result` is made, refused or an HTTP status."""

    what: str
    result: str
    epoch: int | None

    @property
    def to_database(self) -> bool:
        """Whether it was a transaction; else it was a request to Kubernetes."""
        return self.what.startswith("commit ")


@dataclass(frozen=True)
class Rivalry:
    """What came of one run.

    `epoch` is the successor's when the paused operator was woken, `before` that operator's own.
    """

    outcome: Outcome
    late: list[Late]
    before: int
    epoch: int

    @property
    def refused(self) -> list[Late]:
        """Late transactions that the epoch has refused."""
        return [one for one in self.late if one.result == "refused"]

    @property
    def let_through(self) -> list[Late]:
        """Late transactions that were committed under an epoch that was over: there are none."""
        return [
            one
            for one in self.late
            if one.to_database and one.result == "made" and (one.epoch or 0) < self.epoch
        ]


async def rival(lane: Lane, scenario: Scenario, pause: Fault) -> Rivalry:
    """One run with a leader that pauses there. Raises StuckError where it does not, or later."""
    lane.count += 1
    folder = lane.folder / str(lane.count)
    record = folder / "paused.jsonl"
    with fresh_database(lane.postgres, lane.template) as urls:
        async with open_world(
            lane.plane,
            urls,
            folder,
            script=scenario.script,
            leader_ttl_seconds=LEASE_SECONDS,
        ) as world:
            first = world.operator(record=record, fault=pause)
            await leads(world, first)
            before = (await leader(world))[1]
            second = world.operator()
            await world.apply(**scenario.spec)
            await scenario.act(world)
            await until_paused(record)
            await leads(world, second)
            epoch = (await leader(world))[1]
            first.send(signal.SIGCONT)
            late = await until_late(record)
            outcome = await outcome_of(world)
            if world.worker.errors:
                raise StuckError(f"the worker: {world.worker.errors}")
    return Rivalry(outcome, late, before, epoch)


async def leader(world: World) -> tuple[str, int]:
    """Holder and epoch; an empty holder before there was one."""
    async with await psycopg.AsyncConnection.connect(world.urls.superuser) as connection:
        row = await (await connection.execute(LEADER)).fetchone()
    return (str(row[0]), int(row[1])) if row else ("", 0)


async def leads(world: World, operator: OperatorProcess) -> None:
    """Waits until this operator leads. Raises StuckError."""
    deadline = time.monotonic() + PATIENCE
    while f"/{operator.process.pid}/" not in (await leader(world))[0]:
        if time.monotonic() > deadline:
            raise StuckError(
                f"operator {operator.process.pid} does not lead: {await leader(world)}"
            )
        await asyncio.sleep(0.05)


async def until_paused(record: Path) -> None:
    """Waits until the leader has stopped itself. Raises StuckError."""
    deadline = time.monotonic() + PATIENCE
    while not any("paused" in line for line in lines(record)):
        if time.monotonic() > deadline:
            raise StuckError(f"the leader did not come to its pause: {lines(record)}")
        await asyncio.sleep(0.05)


async def until_late(record: Path) -> list[Late]:
    """Waits until a late write was tried, and a little for those that follow it."""
    deadline = time.monotonic() + PATIENCE
    while not late_writes(record):
        if time.monotonic() > deadline:
            raise StuckError("the operator that was woken late has tried no write")
        await asyncio.sleep(0.05)
    await asyncio.sleep(TRIES_SECONDS)
    return late_writes(record)


def late_writes(record: Path) -> list[Late]:
    """What is recorded so far."""
    return [
        Late(line["late"], line["result"], line["epoch"])
        for line in lines(record)
        if "late" in line
    ]


def lines(record: Path) -> list[dict[str, Any]]:
    """The record; its last line may not be complete yet."""
    text = record.read_text() if record.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
