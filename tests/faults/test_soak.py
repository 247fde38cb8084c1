"""The soak in short: flows come and go for 90 s, more of them, by the rule of the long run.

An operator that has just started grows without a leak: its pools fill, its HTTP connections open,
its allocator takes arenas. That was over after 25 s, in which about fifteen flows had ended; so the
first third does not count here, where in 30 minutes it is a fifth. What may be added is the same
5 % of the median. A reading comes every second, so that the slope is of some sixty readings.
"""

from __future__ import annotations

import pytest

from bench.lane import Load, open_lane
from bench.soak import WAYS, Traffic, decision, soak, verdicts
from tests.faults import leaks
from tests.faults.operator_process import Prepare

SECONDS = 90.0
WARM_UP = 1 / 3
RATE = 2.0

pytestmark = [pytest.mark.faults, pytest.mark.exhaustive, pytest.mark.timeout(600)]


async def _flat(prepare: Prepare | None) -> tuple[Traffic, dict[str, bool]]:
    async with open_lane(Load(namespaces=3, decision=decision)) as lane:
        operator = await lane.operator(prepare=prepare)
        traffic, found = await soak(lane, operator, RATE, SECONDS, warm_up=WARM_UP, every=1.0)
    made = verdicts(found)
    print(f"{traffic.ways}\n" + "\n".join(map(str, made)))
    return traffic, {verdict.name: verdict.flat for verdict in made}


async def test_the_operator_stays_as_it_is_while_flows_come_and_go() -> None:
    traffic, flat = await _flat(None)
    assert traffic.problems == []
    assert min(traffic.ways[way] for way in WAYS) >= 2
    assert flat == {"resident MB": True, "open files": True, "database connections": True}


async def test_an_operator_that_leaks_is_noticed() -> None:
    _, flat = await _flat(leaks.install)
    assert flat == {"resident MB": False, "open files": False, "database connections": True}
