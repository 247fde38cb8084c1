"""Leadership between two operators on one database."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from discovery_core.errors import SupersededError
from discovery_core.store import Database, OperatorStore, leadership
from discovery_core.store.database import ClusterScope
from discovery_operator import leader
from discovery_operator.leader import STANDBY_SECONDS, Leadership
from discovery_operator.settings import OperatorSettings
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

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
    first.retire()
    await first.step()
    assert not first.leads.is_set(), "it does not come back while it ends"
    await first.release()
    assert not first.leads.is_set()
    await second.step()
    assert second.leads.is_set()
    assert gained == ["first", "second"]


def test_a_killed_leader_is_succeeded_within_five_seconds() -> None:
    settings = OperatorSettings(database_url="postgresql://x/y", crew_image="c", execution_url="e")
    query = 0.5
    assert settings.leader_ttl_seconds + STANDBY_SECONDS + query < 5


async def test_a_leader_that_vanishes_is_succeeded_when_its_time_is_over(stores: Stores) -> None:
    await stores.operator.release_leadership("test")
    gained: list[str] = []
    first, second = candidate(stores, "first", gained), candidate(stores, "second", gained)
    await first.step()
    standby = asyncio.create_task(second.run())
    async with asyncio.timeout(10):
        await second.leads.wait()
    await first.step()
    assert not first.leads.is_set()
    standby.cancel()


class Clock:
    """A monotonic clock that stands still, and a database that answers what it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.answers: list[int | None] = []
        self.gained: list[float] = []
        monkeypatch.setattr(leader, "time", self)
        self.leadership = Leadership(
            self,  # type: ignore[arg-type]
            holder="me",
            ttl=3.0,
            on_gain=lambda: self.gained.append(self.now),
        )

    def monotonic(self) -> float:
        return self.now

    async def acquire_leadership(self, holder: str, ttl: float) -> int | None:
        del holder, ttl
        if not self.answers:
            raise TimeoutError
        return self.answers.pop()

    async def step(self, at: float, *answers: int | None) -> bool:
        """A step at that second; returns whether it leads then."""
        self.now, self.answers = 100.0 + at, list(answers)
        await self.leadership.step()
        return self.leadership.leads.is_set()


async def test_a_leader_whose_renewal_is_late_works_on_while_nobody_else_leads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    assert await clock.step(0, 7)
    assert await clock.step(4)
    assert await clock.step(5.9)
    # its lease had run out, and it was the next to take it: nothing was missed
    assert await clock.step(5.95, 8)
    assert clock.gained == [100.0]
    assert await clock.step(11.9)
    assert not await clock.step(12)
    assert await clock.step(13, 9)
    assert clock.gained == [100.0, 113.0]


async def test_a_leader_that_another_one_succeeded_looks_at_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    assert await clock.step(0, 7)
    # the other one led with 8
    assert await clock.step(5, 9)
    assert clock.gained == [100.0, 105.0]
    assert not await clock.step(6, None)


async def test_a_leader_looks_at_everything_where_the_database_was_emptied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    assert await clock.step(0, 7)
    assert await clock.step(5, 1)
    assert clock.gained == [100.0, 105.0]


async def test_an_emptied_database_gives_no_epoch_of_before(stores: Stores) -> None:
    """A leader of before would pass for the new one, and miss that everything is unknown."""
    gained: list[str] = []
    first = candidate(stores, "first", gained)
    await stores.operator.release_leadership("test")
    await first.step()
    async with await psycopg.AsyncConnection.connect(stores.urls.superuser) as connection:
        await connection.execute("DELETE FROM leader")
        # sooner an emptied database is not back
        await asyncio.sleep(3)
    await first.step()
    assert gained == ["first", "first"]


async def test_a_frozen_leader_is_succeeded_in_seconds(stores: Stores) -> None:
    """Its transaction is open and holds the epoch; the database ends it, and the lease too."""
    operator = stores.operator
    await operator.release_leadership("test")
    epoch = await operator.acquire_leadership("frozen", 0.1)
    heir = OperatorStore(operator.db, operator.cluster_id)
    tries = 0

    async def freeze(session: AsyncSession) -> None:
        nonlocal tries
        tries += 1
        limit = await session.scalar(text("SHOW idle_in_transaction_session_timeout"))
        assert limit == "5s"
        await session.execute(text("SET LOCAL idle_in_transaction_session_timeout = '200ms'"))
        assert await heir.acquire_leadership("heir", 60) == (epoch or 0) + 1
        await session.execute(text("SELECT 1"))

    with pytest.raises(SupersededError, match="leader epoch"):
        await operator.db.run(ClusterScope(operator.cluster_id, epoch), freeze)
    assert tries == 1


async def at_once(stores: Stores, holder: str) -> int | None:
    """The epoch of a holder that does not wait for any lock. Raises OperationalError for one."""

    async def work(session: AsyncSession) -> int | None:
        await session.execute(text("SET LOCAL lock_timeout = '100ms'"))
        return await leadership.acquire(session, stores.cluster_id, holder, 600)

    async with stores.operator.db.transaction(ClusterScope(stores.cluster_id)) as session:
        return await work(session)


async def expire(stores: Stores) -> None:
    """The lease is over, and the leader's name still stands there."""
    async with stores.operator.db.transaction(ClusterScope(stores.cluster_id)) as session:
        await session.execute(text("SET LOCAL lock_timeout = '100ms'"))
        await session.execute(text("UPDATE leader SET expires_at = clock_timestamp()"))


async def test_a_renewal_does_not_wait_for_the_leaders_own_writes(stores: Stores) -> None:
    writing = ClusterScope(stores.cluster_id, stores.operator.epoch)
    async with stores.operator.db.transaction(writing):
        assert await at_once(stores, "test") == stores.epoch
        # nor one that comes late, while nobody else has led
        await expire(stores)
        assert await at_once(stores, "test") == stores.epoch


async def test_a_write_does_not_wait_for_a_renewal(stores: Stores) -> None:
    renewing = ClusterScope(stores.cluster_id)
    writing = ClusterScope(stores.cluster_id, stores.epoch)
    async with stores.operator.db.transaction(renewing) as renewal:
        assert await leadership.acquire(renewal, stores.cluster_id, "test", 600) == stores.epoch
        async with stores.operator.db.engine.connect() as connection:
            await connection.execute(text("SET lock_timeout = '100ms'"))
            scope = {"cluster": str(stores.cluster_id)}
            await connection.execute(
                text("SELECT set_config('discovery.cluster_id', :cluster, false)"), scope
            )
            fence = "SELECT epoch FROM leader WHERE cluster_id = :cluster FOR KEY SHARE"
            assert await connection.scalar(text(fence), scope) == writing.epoch


async def test_a_takeover_waits_for_a_write_and_ends_all_later_ones(stores: Stores) -> None:
    writing = ClusterScope(stores.cluster_id, stores.epoch)
    async with stores.operator.db.transaction(writing):
        await expire(stores)
        with pytest.raises(OperationalError, match="lock timeout"):
            await at_once(stores, "heir")
    assert await at_once(stores, "heir") == stores.epoch + 1
    assert await at_once(stores, "test") is None
    with pytest.raises(SupersededError, match=f"epoch {stores.epoch} is over"):
        async with stores.operator.db.transaction(writing):
            pass


async def test_a_renewal_does_not_wait_for_a_connection_that_others_have(stores: Stores) -> None:
    busy = Database(stores.urls.operator, application_name="busy", pool_size=1)
    own = Database(stores.urls.operator, application_name="own", pool_size=1)
    store = OperatorStore(busy, stores.cluster_id, own)
    try:
        async with busy.engine.connect(), asyncio.timeout(20):
            assert await store.acquire_leadership("test", 600) == stores.epoch
            await store.release_leadership("test")
            assert await store.acquire_leadership("next", 600) == stores.epoch + 1
    finally:
        await busy.close()
        await own.close()
