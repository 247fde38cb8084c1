"""Two operators, late crews and clocks that jump, on a real API server and database.

Whatever wakes late or reads a wrong clock, the flow ends as in the run without a fault.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from discovery_core.errors import ErrorCode
from discovery_core.phases import Phase
from sqlalchemy.engine import URL

from tests.faults import stepped_clock
from tests.faults.control_plane import ControlPlane
from tests.faults.crash_points import Lane
from tests.faults.effects import Fault, Mode
from tests.faults.operator_process import OperatorProcess
from tests.faults.outcome import Outcome, outcome_of
from tests.faults.rivals import leader, leads, rival
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.seeds import full, seed
from tests.faults.worker import Attempt, Failing, Script, always_succeeds, attempt_of
from tests.faults.world import World, open_world
from tests.postgres import fresh_database

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(1200),
    pytest.mark.asyncio(loop_scope="module"),
]
NAMED = {scenario.name: scenario for scenario in SCENARIOS}
# writes that come in every run of their scenario; how often a status is shown on the way differs
MOMENTS: list[tuple[str, str, Mode]] = [
    ("happy", "commit start_attempt #2", "paused at"),
    ("happy", "commit start_attempt #3", "paused before"),
    ("happy", "commit start_attempt #4", "paused after"),
    ("happy", "POST jobs data_cleansing/1 #1", "paused before"),
    ("happy", "POST jobs asset_inventory/1 #1", "paused after"),
    ("happy", "commit take_answer #1", "paused at"),
    ("crew retry", "commit fail_attempt #1", "paused at"),
    ("cancel", "commit cancel #1", "paused before"),
    ("delete midway", "commit mark_deleted #1", "paused at"),
    ("approval timeout", "commit expire_request #1", "paused at"),
    ("reject", "PATCH status AwaitingApproval/field_mapping #1", "paused before"),
    ("retry from a phase", "commit start_round #1", "paused at"),
]
CHOSEN = MOMENTS if full() else random.Random(seed()).sample(MOMENTS, 6)
ALWAYS = ("commit start_attempt", "commit mark_launched", "commit admit", "POST jobs")
DRAWN = 40 if full() else 2
LONG_LEASE = 60.0


@dataclass
class Lanes:
    """The control plane of all tests here, and what was learned on it."""

    lane: Lane
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    writes: dict[str, list[str]] = field(default_factory=dict)

    async def learn(self, scenario: Scenario) -> Outcome:
        """The outcome without a fault."""
        if scenario.name not in self.outcomes:
            outcome, writes, _ = await self.lane.run(scenario, None)
            self.outcomes[scenario.name], self.writes[scenario.name] = outcome, writes
        return self.outcomes[scenario.name]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lanes(
    postgres: URL, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Lanes]:
    folder = tmp_path_factory.mktemp("two-operators")
    async with ControlPlane(folder / "plane") as plane:
        yield Lanes(Lane(plane, postgres, template, folder / "worlds"))


async def _wakes_late(lanes: Lanes, scenario: Scenario, pause: Fault) -> int:
    """One run; returns how many late transactions were refused."""
    undisturbed = await lanes.learn(scenario)
    rivalry = await rival(lanes.lane, scenario, pause)
    assert rivalry.epoch > rivalry.before
    assert rivalry.late, "nothing was tried late"
    assert not rivalry.let_through
    if pause.write.startswith("commit ") and pause.mode != "paused after":
        assert pause.write.split(" #")[0] in {late.what for late in rivalry.refused}
    assert rivalry.outcome.differences(undisturbed) == []
    return len(rivalry.refused)


@pytest.mark.parametrize(("scenario", "write", "mode"), CHOSEN)
async def test_a_leader_that_wakes_late_changes_nothing(
    lanes: Lanes, scenario: str, write: str, mode: Mode
) -> None:
    refused = await _wakes_late(lanes, NAMED[scenario], Fault(write, mode))
    assert refused or write.startswith(("POST ", "PATCH "))


async def test_a_leader_that_wakes_late_anywhere_changes_nothing(lanes: Lanes) -> None:
    draw = random.Random(seed())
    for number in range(DRAWN):
        scenario = draw.choice(SCENARIOS)
        await lanes.learn(scenario)
        known = [name for name in lanes.writes[scenario.name] if name.startswith(ALWAYS)]
        modes: tuple[Mode, ...] = ("paused at", "paused before")
        pause = Fault(draw.choice(known), draw.choice(modes))
        print(f"{number}: {scenario.name}: {pause.mode} {pause.write}")
        refused = await _wakes_late(lanes, scenario, pause)
        assert refused or pause.write.startswith("POST ")


@dataclass
class Zombie:
    """A pod whose Job counts as lost, and that hands in its end while a newer attempt runs.

    With `speaks` false it never hands anything in: the run to compare with.
    """

    speaks: bool
    newer: asyncio.Event = field(default_factory=asyncio.Event)

    async def hold(self, world: World, attempt: Attempt) -> None:
        """Held up before its end: the first try until the second works, and the other way round."""
        if attempt.phase is not Phase.DATA_CLEANSING:
            return
        if attempt.attempt == 1:
            (job,) = [job for job in await world.jobs() if attempt_of(job) == attempt]
            await world.worker.end(job, "Failed", "BackoffLimitExceeded")
            await self.newer.wait()
            if not self.speaks:
                await asyncio.Event().wait()
        else:
            self.newer.set()
            first = replace(attempt, attempt=1)
            while self.speaks and first not in world.worker.answered:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


def _fails(attempt: Attempt) -> Failing | None:
    first = attempt.phase is Phase.DATA_CLEANSING and attempt.attempt == 1
    return Failing(ErrorCode.EMPTY_FILE, "too late") if first else None


async def _haunted(lanes: Lanes, script: Script, *, speaks: bool) -> tuple[Outcome, int]:
    lane = lanes.lane
    lane.count += 1
    zombie = Zombie(speaks)
    with fresh_database(lane.postgres, lane.template) as urls:
        folder = lane.folder / str(lane.count)
        async with open_world(lane.plane, urls, folder, script=script) as world:

            async def hold(attempt: Attempt) -> None:
                await zombie.hold(world, attempt)

            world.worker.before_end = hold
            world.operator()
            await world.apply()
            await NAMED["happy"].act(world)
            outcome = await outcome_of(world)
            assert world.worker.errors == []
            return outcome, world.worker.superseded


@pytest.mark.parametrize(
    ("script", "refusals"),
    [
        pytest.param(always_succeeds, 1, id="result"),
        # that it has failed is known, so that it is taken as said twice
        pytest.param(_fails, 0, id="failure"),
    ],
)
async def test_a_crew_that_hands_in_late_changes_nothing(
    lanes: Lanes, script: Script, refusals: int
) -> None:
    silent, refused = await _haunted(lanes, script, speaks=False)
    assert refused == 0
    late, refused = await _haunted(lanes, script, speaks=True)
    assert refused == refusals
    assert late.differences(silent) == []


def _times(log: Path) -> list[datetime]:
    """When the operator says that its lines were written, by its own clock."""
    text = log.read_text().splitlines()
    said = [json.loads(line) for line in text if line.startswith("{")]
    return [datetime.fromisoformat(line["time"]) for line in said if "time" in line]


async def _deadline(world: World) -> datetime:
    async with await psycopg.AsyncConnection.connect(world.urls.superuser) as connection:
        row = await (
            await connection.execute("SELECT expires_at FROM approval_requests WHERE state='Open'")
        ).fetchone()
    assert row is not None
    found: datetime = row[0]
    return found


async def _delays(world: World) -> list[float]:
    """Seconds between the end of an attempt and the next one of its phase, by the database."""
    query = """
        SELECT extract(epoch FROM n.created_at - r.finished_at)::float
        FROM phase_runs r JOIN phase_runs n
          ON n.flow_id = r.flow_id AND n.phase = r.phase AND n.attempt = r.attempt + 1
    """
    async with await psycopg.AsyncConnection.connect(world.urls.superuser) as connection:
        return [row[0] for row in await (await connection.execute(query)).fetchall()]


@dataclass
class Steps:
    """Sets the operator's clock: at the first phase, in the retry delay and at the next attempt."""

    operator: OperatorProcess
    first: signal.Signals
    second: signal.Signals
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def before(self, attempt: Attempt) -> None:
        """As a worker's hook."""
        if attempt.phase is Phase.DATA_IMPORT:
            self.operator.send(self.first)
        if attempt.phase is Phase.DATA_CLEANSING and attempt.attempt == 1:
            self.tasks.append(asyncio.create_task(self._later()))

    async def _later(self) -> None:
        await asyncio.sleep(1)
        self.operator.send(self.second)


FAST, SLOW = stepped_clock.FAST, stepped_clock.SLOW


@pytest.mark.parametrize(
    ("first", "second"), [(FAST, SLOW), (SLOW, FAST)], ids=["forward-first", "back-first"]
)
async def test_a_clock_that_jumps_ends_no_wait(
    lanes: Lanes, first: signal.Signals, second: signal.Signals
) -> None:
    """An hour to one side, two to the other, at work, in a retry delay and at the gate."""
    scenario, lane = NAMED["crew retry"], lanes.lane
    undisturbed = await lanes.learn(scenario)
    lane.count += 1
    with fresh_database(lane.postgres, lane.template) as urls:
        folder = lane.folder / str(lane.count)
        async with open_world(
            lane.plane, urls, folder, script=scenario.script, leader_ttl_seconds=LONG_LEASE
        ) as world:
            operator = world.operator(prepare=stepped_clock.install)
            await leads(world, operator)
            leading = await leader(world)
            steps = Steps(operator, first, second)
            world.worker.before = steps.before
            # the hours that the clock jumps by are longer than each of the waits
            await world.apply(
                phaseTimeout="30m",
                approvalPolicy={"timeout": "30m"},
                retries={"maxAttempts": 3, "initialDelay": "4s", "maxDelay": "4s"},
            )
            await world.until_state("AwaitingApproval")
            assert len(steps.tasks) == 1
            due = await _deadline(world)
            for number in (first, second, first):
                operator.send(number)
                await asyncio.sleep(2)  # several sweeps and a complete list
                assert (await world.until_state("AwaitingApproval")).get("approvalRequest")
                assert await _deadline(world) == due
            await world.answer()
            await world.until_state("Succeeded")
            assert (await outcome_of(world)).differences(undisturbed) == []
            assert await leader(world) == leading
            (delay,) = await _delays(world)
            assert delay >= 3.0
            now, times = datetime.now(UTC), _times(world.log)
    assert any(said > now + timedelta(minutes=45) for said in times)
    assert any(said < now - timedelta(minutes=45) for said in times)


@pytest.mark.parametrize("number", [FAST, SLOW], ids=["forward", "back"])
async def test_a_clock_that_jumps_keeps_no_deadline_from_coming(
    lanes: Lanes, number: signal.Signals
) -> None:
    scenario, lane = NAMED["approval timeout"], lanes.lane
    undisturbed = await lanes.learn(scenario)
    lane.count += 1
    with fresh_database(lane.postgres, lane.template) as urls:
        async with open_world(lane.plane, urls, lane.folder / str(lane.count)) as world:
            operator = world.operator(prepare=stepped_clock.install, leader_ttl_seconds=LONG_LEASE)
            await leads(world, operator)
            leading = await leader(world)
            await world.apply(**scenario.spec)
            await world.until_state("AwaitingApproval", "Rejected")
            operator.send(number)
            await scenario.act(world)
            assert (await outcome_of(world)).differences(undisturbed) == []
            assert await leader(world) == leading
