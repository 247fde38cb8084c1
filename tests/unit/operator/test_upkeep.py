"""What the sweep looks at: what has changed, what nobody else comes back to, or everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from discovery_core.store.operator import Version
from discovery_operator.cache import ObjectCache
from discovery_operator.controller import LONGEST_TIMER
from discovery_operator.queue import KeyedQueue
from discovery_operator.slim import Kind
from discovery_operator.upkeep import LATE_COMMIT_SECONDS, Upkeep

LONG = 3600.0


class Store:
    """Open flows, all at version 1. `changed` have changed lately, `expiring` are asked in time."""

    def __init__(self, flows: list[UUID]) -> None:
        self.flows = flows
        self.changed: list[Version] = []
        self.expiring: list[UUID] = []
        self.windows: list[float] = []

    async def open_flows(self) -> list[Version]:
        return [Version(flow, 1) for flow in self.flows]

    async def undeleted_ended_flows(self) -> list[Version]:
        return []

    async def changed_flows(self, seconds: float) -> list[Version]:
        self.windows.append(seconds)
        return self.changed

    async def requests_expiring(self, seconds: float) -> list[UUID]:
        assert seconds == LONGEST_TIMER
        return self.expiring


class Cluster:
    """Has no objects; `fails` while it does not answer."""

    fails = False

    async def _list(self) -> tuple[list[dict[str, Any]], int]:
        if self.fails:
            raise TimeoutError
        return [], 1

    list_flows = list_jobs = list_pods = _list


class World:
    """An Upkeep of a leader that has reconciled three flows: two have a timer."""

    def __init__(self) -> None:
        self.flows = [uuid4() for _ in range(3)]
        self.queue: KeyedQueue[UUID] = KeyedQueue()
        self.controller = SimpleNamespace(queue=self.queue, reconciled=dict.fromkeys(self.flows, 1))
        self.store, self.cluster = Store(self.flows), Cluster()
        leads = asyncio.Event()
        leads.set()
        self.upkeep = Upkeep(
            self.store,  # type: ignore[arg-type]
            self.cluster,  # type: ignore[arg-type]
            ObjectCache(),
            self.controller,  # type: ignore[arg-type]
            health=SimpleNamespace(watches_checked=lambda silent: None),  # type: ignore[arg-type]
            leads=leads,
            sweep_seconds=LONG,
            resync_seconds=LONG,
            metrics_seconds=LONG,
        )
        for flow in self.flows[1:]:
            self.queue.set_timer(flow, LONG)

    async def swept(self) -> set[UUID]:
        """What a sweep has put into the queue."""
        self.upkeep._counted_at = float("inf")
        await self.upkeep.sweep()
        found = set()
        while len(self.queue):
            key = await self.queue.get()
            self.queue.done(key)
            found.add(key)
        return found


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    made.queue.close()


async def test_where_notifications_may_be_lost_everything_is_looked_at(world: World) -> None:
    assert await world.swept() == set(world.flows)


async def test_later_only_what_has_changed(world: World) -> None:
    await world.swept()
    world.controller.reconciled[world.flows[1]] = 0
    world.controller.reconciled[world.flows[2]] = 0
    assert await world.swept() == set()
    world.store.changed = [Version(world.flows[0], 1), Version(world.flows[1], 1)]
    assert await world.swept() == {world.flows[1]}
    assert all(
        LATE_COMMIT_SECONDS <= asked < LATE_COMMIT_SECONDS + 60 for asked in world.store.windows
    )


async def test_a_sweep_that_failed_is_made_up_for_by_the_next(world: World) -> None:
    await world.swept()
    world.upkeep._swept_at -= 500
    await world.swept()
    assert world.store.windows[-1] >= 500 + LATE_COMMIT_SECONDS


async def test_once_per_resync_all_versions_are_compared(world: World) -> None:
    await world.swept()
    world.controller.reconciled[world.flows[1]] = 0
    world.upkeep._resynced_at = float("-inf")
    assert await world.swept() == {world.flows[1]}


async def test_the_more_flows_there_are_the_less_often_all_are_listed(world: World) -> None:
    await world.swept()
    world.upkeep._resync_seconds = 60
    world.upkeep._resynced_at -= 90
    world.controller.reconciled[world.flows[1]] = 0
    for number in range(10_000):
        metadata = {"uid": str(UUID(int=number)), "resourceVersion": "1"}
        world.upkeep._cache.put(Kind.FLOW, {"metadata": metadata})
    assert await world.swept() == set()
    world.upkeep._resynced_at -= 90
    assert world.flows[1] in await world.swept()


async def test_a_request_gets_its_timer_when_it_expires_soon(world: World) -> None:
    await world.swept()
    world.store.expiring = world.flows[:2]
    assert await world.swept() == {world.flows[0]}, "the other one has its timer"


async def test_a_look_at_everything_that_failed_is_made_up_for(world: World) -> None:
    world.cluster.fails = True
    with pytest.raises(TimeoutError):
        await world.swept()
    world.cluster.fails = False
    assert await world.swept() == set(world.flows)


async def test_a_look_at_everything_is_made_up_for_where_the_database_fails(world: World) -> None:
    asked = world.store.open_flows

    async def away() -> list[Version]:
        raise TimeoutError

    world.store.open_flows = away  # type: ignore[method-assign]
    with pytest.raises(TimeoutError):
        await world.swept()
    world.store.open_flows = asked  # type: ignore[method-assign]
    assert await world.swept() == set(world.flows)
