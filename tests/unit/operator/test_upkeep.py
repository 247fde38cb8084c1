"""What the sweep looks at: what has changed, what nobody else comes back to, or everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from discovery_core.store.operator import OpenFlow
from discovery_operator.cache import ObjectCache
from discovery_operator.queue import KeyedQueue
from discovery_operator.upkeep import Upkeep

LONG = 3600.0


class Store:
    """Open flows, all at version 1."""

    def __init__(self, flows: list[UUID]) -> None:
        self.flows = flows

    async def open_flows(self) -> list[OpenFlow]:
        return [OpenFlow(flow, "a", "f", version=1) for flow in self.flows]

    async def undeleted_ended_flows(self) -> list[OpenFlow]:
        return []


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
        self.controller = SimpleNamespace(
            queue=self.queue, reconciled=dict.fromkeys(self.flows, 1), wake_next=lambda: None
        )
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
    assert await world.swept() == set()
    world.controller.reconciled[world.flows[1]] = 0
    assert await world.swept() == {world.flows[1]}


async def test_once_per_resync_also_what_has_no_timer(world: World) -> None:
    """With a thousand flows, all at once would make what has just happened wait."""
    await world.swept()
    world.upkeep._resynced_at = float("-inf")
    assert await world.swept() == {world.flows[0]}


async def test_a_look_at_everything_that_failed_is_made_up_for(world: World) -> None:
    world.cluster.fails = True
    with pytest.raises(TimeoutError):
        await world.swept()
    world.cluster.fails = False
    assert await world.swept() == set(world.flows)
