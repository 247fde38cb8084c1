"""Which notifications reach the operator: all but the echo of what it is at work on."""

from __future__ import annotations

import asyncio
from uuid import UUID

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
    await stores.operator.note(mine.flow_id, "written by the operator itself")
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
