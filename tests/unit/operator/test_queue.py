"""The keyed queue: nothing twice at a time, nothing lost."""

from __future__ import annotations

import asyncio

import pytest
from discovery_operator.queue import KeyedQueue


async def quick_get(queue: KeyedQueue[str]) -> str:
    return await asyncio.wait_for(queue.get(), 1)


async def nothing_ready(queue: KeyedQueue[str]) -> bool:
    try:
        await asyncio.wait_for(queue.get(), 0.02)
    except TimeoutError:
        return True
    return False


async def test_keys_come_in_order_and_once() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    for key in ("a", "b", "a", "a"):
        queue.add(key)
    assert len(queue) == 2
    assert [await quick_get(queue), await quick_get(queue)] == ["a", "b"]
    assert await nothing_ready(queue)


async def test_a_key_added_while_processed_is_processed_again_and_not_before() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    queue.add("a")
    assert await quick_get(queue) == "a"
    queue.add("a")
    assert await nothing_ready(queue)
    queue.done("a")
    assert await quick_get(queue) == "a"
    queue.done("a")
    assert await nothing_ready(queue)


async def test_many_workers_never_share_a_key_and_miss_no_addition() -> None:
    queue: KeyedQueue[int] = KeyedQueue()
    added = dict.fromkeys(range(10), 0)
    seen = dict.fromkeys(range(10), 0)
    busy: set[int] = set()

    async def worker() -> None:
        while True:
            key = await queue.get()
            assert key not in busy
            busy.add(key)
            noted = added[key]
            await asyncio.sleep(0.001)
            seen[key] = max(seen[key], noted)
            busy.discard(key)
            queue.done(key)

    workers = [asyncio.create_task(worker()) for _ in range(4)]
    for step in range(300):
        key = step * 7 % 10
        added[key] = step
        queue.add(key)
        if step % 5 == 0:
            await asyncio.sleep(0)
    for _ in range(500):
        if seen == added:
            break
        await asyncio.sleep(0.01)
    assert seen == added
    for task in workers:
        task.cancel()
    assert not any(task.done() and task.exception() for task in workers if not task.cancelled())


async def test_a_cancelled_worker_takes_no_wake_up_with_it() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    first, second = (asyncio.create_task(queue.get()) for _ in range(2))
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await asyncio.wait_for(second, 1) == "a"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_the_earliest_timer_wins_unless_it_is_replaced() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    queue.add_after("a", 0.03)
    queue.add_after("a", 30)
    assert queue.timers == 1
    assert await quick_get(queue) == "a"
    queue.done("a")
    queue.add_after("a", 0.01)
    queue.set_timer("a", 30)
    assert await nothing_ready(queue)
    queue.set_timer("a", None)
    assert queue.timers == 0
    queue.close()


async def test_failures_back_off_with_jitter_up_to_a_limit() -> None:
    queue: KeyedQueue[str] = KeyedQueue(first_backoff=1.0, longest_backoff=60.0, jitter=lambda: 1.0)
    assert [queue.failed("a") for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    queue.succeeded("a")
    assert queue.failed("a") == 1
    least = KeyedQueue[str](first_backoff=1.0, jitter=lambda: 0.0)
    assert least.failed("a") == 0.5
    queue.close()
    least.close()


async def test_a_key_is_failing_from_its_failure_to_its_next_success() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    assert queue.failing == frozenset()
    queue.failed("a")
    queue.failed("b")
    assert queue.failing == {"a", "b"}
    queue.succeeded("a")
    assert queue.failing == {"b"}
    queue.close()


async def test_a_failed_key_comes_back_by_itself() -> None:
    queue: KeyedQueue[str] = KeyedQueue(first_backoff=0.01)
    queue.add("a")
    key = await quick_get(queue)
    queue.failed(key)
    queue.done(key)
    assert await quick_get(queue) == "a"


async def test_it_rests_when_every_key_was_given_back() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    await asyncio.wait_for(queue.rest(), 1)
    for key in ("a", "b"):
        queue.add(key)
        await queue.get()
    resting = asyncio.create_task(queue.rest())
    queue.done("a")
    await asyncio.sleep(0)
    assert not resting.done()
    queue.done("b")
    await asyncio.wait_for(resting, 1)


async def test_what_happened_goes_before_what_is_looked_at_again() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    for number in range(3):
        queue.add(f"again {number}", hurry=False)
    queue.add_after("timer", 0)
    queue.add("news")
    queue.add("again 2")
    await asyncio.sleep(0.01)
    assert len(queue) == 5
    order = [await quick_get(queue) for _ in range(5)]
    assert order == ["news", "again 2", "again 0", "again 1", "timer"]
    assert await nothing_ready(queue)


async def test_a_key_that_began_to_hurry_is_never_processed_twice_at_a_time() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    queue.add("a", hurry=False)
    queue.add("a")
    assert await quick_get(queue) == "a"
    queue.add("a", hurry=False)
    assert await nothing_ready(queue)
    queue.done("a")
    assert await quick_get(queue) == "a"
    queue.done("a")
    assert await nothing_ready(queue)


async def test_what_is_looked_at_again_gets_its_turn_however_much_happens() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    queue.add("again", hurry=False)
    taken = []
    for number in range(20):
        queue.add(f"news {number}")
        queue.add(f"more {number}")
        taken.append(await quick_get(queue))
    assert "again" in taken
