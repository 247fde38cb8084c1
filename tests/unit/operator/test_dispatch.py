"""When the queue is asked who may start, and what for."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from uuid import UUID, uuid4

import psycopg
import pytest
from discovery_core.tasks import end
from discovery_operator.dispatch import Dispatcher
from discovery_operator.observed import LOOKS_PER_SECOND, Rules
from discovery_operator.queue import KeyedQueue

LONG = 3600.0


class Store:
    """Knows who may start."""

    def __init__(self, *flows: UUID) -> None:
        self.flows = list(flows)
        self.asked: list[tuple[tuple[int, int], frozenset[UUID]]] = []
        self.away = False

    async def startable(self, limits: tuple[int, int], passed_over: Collection[UUID]) -> list[UUID]:
        self.asked.append((limits, frozenset(passed_over)))
        if self.away:
            raise psycopg.OperationalError
        return self.flows


def dispatcher(store: Store, queue: KeyedQueue[UUID], poll: float = LONG) -> Dispatcher:
    return Dispatcher(store, queue, limits=(7, 3), poll_seconds=poll)  # type: ignore[arg-type]


@pytest.mark.parametrize("gave_up", [True, False])
async def test_a_slot_that_was_given_up_is_handed_on_at_once(gave_up: bool) -> None:
    first, next_one, failing = uuid4(), uuid4(), uuid4()
    store, queue = Store(next_one), KeyedQueue[UUID]()
    queue.failed(failing)
    dispatching, leads = dispatcher(store, queue), asyncio.Event()
    leads.set()
    dispatching.took(first)
    assert dispatching.taken == 1
    # whoever has no slot cannot give one up
    dispatching.gave_up(first if gave_up else next_one)
    running = asyncio.create_task(dispatching.run(leads))
    if gave_up:
        assert await queue.get() == next_one
        assert store.asked == [((7, 3), frozenset({failing}))]
        dispatching.gave_up(first)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(store.asked) == int(gave_up)
    await end(running)
    queue.close()


async def test_it_asks_from_time_to_time_and_only_while_it_leads() -> None:
    store, queue, leads = Store(), KeyedQueue[UUID](), asyncio.Event()
    running = asyncio.create_task(dispatcher(store, queue, poll=0.001).run(leads))
    await asyncio.sleep(0.05)
    assert store.asked == []
    leads.set()
    while len(store.asked) < 3:  # noqa: ASYNC110 - the store has no event for it
        await asyncio.sleep(0.001)
    await end(running)


async def test_a_database_that_is_away_is_asked_again() -> None:
    flow = uuid4()
    store, queue = Store(flow), KeyedQueue[UUID]()
    store.away = True
    await dispatcher(store, queue).dispatch()
    assert len(queue) == 0
    store.away = False
    await dispatcher(store, queue).dispatch()
    assert len(queue) == 1


def test_the_more_flows_are_at_work_the_less_often_each_is_looked_at() -> None:
    rules = Rules()
    assert rules.eased(1) == rules
    eased = rules.eased(1000)
    assert eased.progress_poll == 1000 / LOOKS_PER_SECOND
    assert (eased.slot_poll, eased.stray_grace) == (rules.slot_poll, rules.stray_grace)
