"""Which notifications reach the operator: all but the echo of what it is at work on."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any
from uuid import UUID

import pytest
from discovery_core import actions as act
from discovery_core.loops import LOOP_ERRORS
from discovery_core.store.ledger.transition import CHANNEL
from sqlalchemy import text

from tests.postgres import Stores
from tests.store.flows import Flow


async def test_only_own_changes_of_a_flow_that_is_looked_after_are_left_out(
    stores: Stores,
) -> None:
    mine, other = Flow(stores), Flow(stores, name="other")
    await mine.queue()
    await mine.start()
    heard: list[UUID | None] = []
    listening = asyncio.Event()

    async def listen() -> None:
        async for flow_id in stores.operator.listen(lambda flow_id: flow_id == mine.flow_id):
            heard.append(flow_id)
            listening.set()

    task = asyncio.create_task(listen())
    await listening.wait()
    await stores.operator.apply(mine.flow_id, act.Note("written by the operator itself"))
    await other.register()
    pod = await mine.claim()
    await pod.do_phase()
    async with asyncio.timeout(60):
        while mine.flow_id not in heard:  # noqa: ASYNC110 - the listener has no event for that
            await asyncio.sleep(0.01)
    task.cancel()
    assert heard == [None, other.flow_id, mine.flow_id]


async def test_the_connections_that_count_as_own_are_those_that_are_open(stores: Stores) -> None:
    async with stores.operator.db.engine.connect() as connection:
        raw = await connection.get_raw_connection()
        assert raw.driver_connection is not None
        pid = raw.driver_connection.info.backend_pid
        assert pid in stores.operator.db.backends
        assert pid not in stores.execution.db.backends
    await stores.operator.db.engine.dispose()
    assert stores.operator.db.backends == set()


@pytest.mark.parametrize("junk", ["", "junk", "{}", "é" * 300])
async def test_a_notification_of_nothing_is_passed_over(stores: Stores, junk: str) -> None:
    """Any role may notify anything."""
    flow = Flow(stores)
    counted = LOOP_ERRORS.labels(loop="listener")._value
    before = counted.get()
    heard: list[UUID | None] = []
    listening: Any = stores.api.listen()
    async with aclosing(listening), asyncio.timeout(60):
        async for flow_id in listening:
            heard.append(flow_id)
            if flow_id is not None:
                break
            async with stores.operator.db.engine.begin() as connection:
                say = text("SELECT pg_notify(:channel, :junk)")
                await connection.execute(say, {"channel": CHANNEL, "junk": junk})
            await flow.register()
    assert heard == [None, flow.flow_id]
    assert counted.get() == before + 1
