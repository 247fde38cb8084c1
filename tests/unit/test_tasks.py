"""Ending tasks, above all those that lose a cancellation."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from discovery_core.tasks import end
from discovery_operator.main import _together


async def loses_one_cancellation(ended: list[str]) -> None:
    """As a library does that swallows a cancellation and goes on."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(3600)
    try:
        await asyncio.sleep(3600)
    finally:
        ended.append("for certain")


async def test_a_task_that_loses_a_cancellation_is_ended_too() -> None:
    ended: list[str] = []
    task = asyncio.create_task(loses_one_cancellation(ended))
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await end(task, ask_again=0.05)
    assert task.cancelled()
    assert ended == ["for certain"]


async def test_a_task_may_tidy_up_before_it_is_asked_again() -> None:
    tidied = asyncio.Event()

    async def tidies() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.05)
            tidied.set()

    task = asyncio.create_task(tidies())
    await asyncio.sleep(0)
    await end(task)
    assert tidied.is_set()


async def test_tasks_that_ended_are_no_matter() -> None:
    async def fails() -> None:
        raise ValueError("long ago")

    task = asyncio.create_task(fails())
    await asyncio.wait([task])
    await end(task)
    await end()
    assert isinstance(task.exception(), ValueError)


async def test_loops_that_run_together_end_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discovery_core.tasks.ASK_AGAIN_SECONDS", 0.05)
    ended: list[str] = []
    together = asyncio.create_task(_together(loses_one_cancellation(ended), asyncio.sleep(3600)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    together.cancel()
    async with asyncio.timeout(20):
        await asyncio.wait([together])
    assert together.cancelled()
    assert ended == ["for certain"]


async def test_one_loop_that_fails_stops_the_others_and_is_told() -> None:
    stopped = asyncio.Event()

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("a defect")

    async def other() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            stopped.set()

    with pytest.raises(ValueError, match="a defect"):
        await _together(other(), fails())
    assert stopped.is_set()
