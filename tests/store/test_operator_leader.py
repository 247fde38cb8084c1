"""Leadership between two operators on one database."""

from __future__ import annotations

import asyncio

from discovery_core.store import OperatorStore
from discovery_operator.leader import Leadership

from tests.postgres import Stores


def candidate(stores: Stores, name: str, gained: list[str]) -> Leadership:
    store = OperatorStore(stores.operator.db, stores.cluster_id)
    return Leadership(store, holder=name, ttl=2.0, on_gain=lambda: gained.append(name))


async def test_a_standby_takes_over_as_soon_as_the_leader_releases(stores: Stores) -> None:
    await stores.operator.release_leadership("test")
    gained: list[str] = []
    first, second = candidate(stores, "first", gained), candidate(stores, "second", gained)
    await first.step()
    await second.step()
    assert (first.leads.is_set(), second.leads.is_set()) == (True, False)
    await first.release()
    assert not first.leads.is_set()
    await second.step()
    assert second.leads.is_set()
    assert gained == ["first", "second"]


async def test_a_leader_that_vanishes_is_succeeded_when_its_time_is_over(stores: Stores) -> None:
    await stores.operator.release_leadership("test")
    gained: list[str] = []
    first, second = candidate(stores, "first", gained), candidate(stores, "second", gained)
    await first.step()
    standby = asyncio.create_task(second.run())
    await asyncio.wait_for(second.leads.wait(), 5)
    await first.step()
    assert not first.leads.is_set()
    standby.cancel()
