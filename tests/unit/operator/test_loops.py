"""No loop of the operator ends by what goes wrong in it; each ends when it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from discovery_core import loops
from discovery_core.loops import LOOP_ERRORS
from discovery_core.store.maintenance.retention import KnownTenant, PurgeKey
from discovery_core.store.operator import Garbage
from discovery_core.tasks import end
from discovery_operator import main
from discovery_operator.cache import ObjectCache
from discovery_operator.controller import Controller
from discovery_operator.dispatch import Dispatcher
from discovery_operator.leader import Leadership
from discovery_operator.queue import KeyedQueue
from discovery_operator.retention import COLLECTIONS_PER_ROUND, Retention
from discovery_operator.settings import OperatorSettings
from discovery_operator.upkeep import Upkeep
from discovery_operator.webhook import Webhooks


class UnforeseenError(Exception):
    """What nobody has foreseen."""


class Faulty:
    """Fails when it is called first; says when it has been called again."""

    def __init__(self, answer: Any = None) -> None:
        self.calls = 0
        self.again = asyncio.Event()
        self.answer = answer

    async def __call__(self, *arguments: Any, **named: Any) -> Any:
        del arguments, named
        self.calls += 1
        if self.calls == 1:
            raise UnforeseenError
        self.again.set()
        return self.answer


def stub(**members: Any) -> Any:
    return SimpleNamespace(**members)


def leading() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


def errors(loop: str) -> float:
    """How often something was set aside there."""
    return float(LOOP_ERRORS.labels(loop=loop)._value.get())


@asynccontextmanager
async def running(loop: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """The loop in the background; it does not end by itself, and ends when it is cancelled."""
    task = asyncio.create_task(loop)
    try:
        async with asyncio.timeout(60):
            yield
        assert not task.done()
    finally:
        await end(task)
    assert task.cancelled()


async def test_a_loop_goes_on_after_whatever_ends_it() -> None:
    faulty, before = Faulty(), errors("some")
    async with running(loops.keep_on("some", faulty, pause=0)):
        await faulty.again.wait()
    assert errors("some") == before + 1


async def test_all_loops_of_the_operator_are_kept_on(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = OperatorSettings(
        database_url="postgresql://x/y", crew_image="c", execution_url="e", workers=3
    )
    names: list[str] = []

    async def together(*coroutines: Coroutine[Any, Any, None]) -> None:
        for coroutine in coroutines:
            names.append(coroutine.cr_frame.f_locals["loop"])  # type: ignore[attr-defined]
            assert coroutine.cr_code is loops.keep_on.__code__  # type: ignore[attr-defined]
            coroutine.close()

    async def known(_: main.Operator) -> UUID:
        return uuid4()

    async def nothing(*_: Any) -> None:
        return None

    monkeypatch.setattr(main, "_together", together)
    monkeypatch.setattr(main.Operator, "_cluster_id", known)
    monkeypatch.setattr(main.Operator, "_wait_for_database", nothing)
    await main.Operator(settings, stub())._run()
    assert names == [
        "leadership",
        "listener",
        "sweep",
        "dispatcher",
        "webhooks",
        "retention",
        *["worker"] * 3,
    ]


async def test_leadership_is_asked_for_again() -> None:
    asked = Faulty(answer=7)
    leadership = Leadership(
        stub(acquire_leadership=asked), holder="me", ttl=0.01, on_gain=lambda: None
    )
    async with running(leadership.run()):
        await leadership.leads.wait()
    assert asked.calls >= 2


async def test_a_worker_goes_on_with_the_next_flow() -> None:
    queue: KeyedQueue[UUID] = KeyedQueue()
    reconciled, seen = asyncio.Event(), []
    controller = Controller(stub(), stub(), stub(), ObjectCache(), queue, stub())
    bad, good = uuid4(), uuid4()

    async def reconcile(uid: UUID) -> None:
        seen.append(uid)
        if uid == bad:
            raise UnforeseenError
        reconciled.set()

    controller.reconcile = reconcile  # type: ignore[method-assign]
    queue.add(bad)
    queue.add(good)
    async with running(controller.work(leading())):
        await reconciled.wait()
        assert seen[:2] == [bad, good]
        assert queue.has_timer(bad) or bad in seen[2:]
    queue.close()


def upkeep(store: Any, queue: KeyedQueue[UUID], problems: list[str]) -> Upkeep:
    """One without objects, whose sweeps follow each other; `problems` are what /readyz says."""

    class Health:
        def __setattr__(self, name: str, value: str) -> None:
            problems.append(value)

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *_: None

    async def no_objects() -> tuple[list[dict[str, Any]], int]:
        return [], 1

    return Upkeep(
        store,
        stub(list_flows=no_objects, list_jobs=no_objects, list_pods=no_objects),
        ObjectCache(),
        stub(queue=queue, reconciled={}),
        health=Health(),  # type: ignore[arg-type]
        leads=leading(),
        sweep_seconds=0.001,
        resync_seconds=3600,
        metrics_seconds=0,
    )


async def nothing_found(*_: Any) -> list[Any]:
    return []


async def nothing(*_: Any) -> None:
    return None


async def test_a_sweep_is_followed_by_the_next() -> None:
    problems: list[str] = []
    swept = Faulty(answer=[])
    store = stub(
        open_flows=swept,
        undeleted_ended_flows=nothing_found,
        requests_expiring=nothing_found,
        figures=Faulty(),
    )
    async with running(upkeep(store, KeyedQueue(), problems).run()):
        await swept.again.wait()
    assert problems[0] == "the sweep fails; the log says why"


async def test_the_queue_is_asked_again() -> None:
    asked = Faulty(answer=[])
    dispatcher = Dispatcher(stub(startable=asked), KeyedQueue(), limits=(1, 1), poll_seconds=0.001)
    async with running(dispatcher.run(leading())):
        await asked.again.wait()


async def test_figures_that_cannot_be_had_are_no_failed_sweep() -> None:
    problems: list[str] = []
    figures = Faulty()
    store = stub(
        open_flows=nothing_found,
        undeleted_ended_flows=nothing_found,
        changed_flows=nothing_found,
        requests_expiring=nothing_found,
        figures=figures,
    )
    async with running(upkeep(store, KeyedQueue(), problems).run()):
        await figures.again.wait()
    assert set(problems) == {""}


async def test_the_listener_goes_on() -> None:
    queue: KeyedQueue[UUID] = KeyedQueue()
    flow, calls = uuid4(), []

    async def listen(_: Any) -> AsyncIterator[UUID | None]:
        calls.append(1)
        if len(calls) == 1:
            raise UnforeseenError
        yield flow
        await asyncio.Event().wait()

    listening = upkeep(stub(listen=listen), queue, []).listen
    async with running(loops.keep_on("listener", listening, pause=0)):
        assert await queue.get() == flow


async def test_webhooks_are_looked_at_again() -> None:
    due = Faulty(answer=[])
    webhooks = Webhooks(
        stub(due_notifications=due),
        stub(),
        leads=leading(),
        endpoints=(),
        public_url="",
        timeout=1,
        poll=0.001,
    )
    async with running(webhooks.run()):
        await due.again.wait()


async def test_s04_one_tenant_s_garbage_keeps_no_other_s_erasure_waiting() -> None:
    """However much there is, a round has so many steps, and each tenant its turn."""
    purged = [PurgeKey(uuid4(), uuid4()) for _ in range(2)]
    turns: list[UUID | None] = []

    async def collect_garbage(tenant_id: UUID | None, steps: int) -> Garbage:
        assert steps == 1
        turns.append(tenant_id)
        assert len(turns) < 1000
        return Garbage(20, left=tenant_id != purged[1].tenant_id)

    made = retention(stub(unfinished=nothing_found), lambda _: None)
    made._operator = stub(collect_garbage=collect_garbage)
    made._to_collect = {key.tenant_id: None for key in purged}
    await made.round()
    assert len(turns) == COLLECTIONS_PER_ROUND
    assert turns[1] == purged[1].tenant_id
    await made.round()
    assert len(turns) == 2 * COLLECTIONS_PER_ROUND


async def nothing_to_collect(tenant_id: UUID | None, steps: int) -> Garbage:
    del tenant_id, steps
    return Garbage(0, left=False)


def retention(store: Any, purged: Callable[[UUID], None]) -> Retention:
    made = Retention(
        stub(cluster_id=uuid4(), collect_garbage=nothing_to_collect),
        stub(),
        leads=leading(),
        purged=purged,
        finished_flows=None,
        deleted_namespaces=None,
        delete_resources=False,
        poll=0.001,
    )
    made._store = store
    store.deleted_flows = store.retire_flows = nothing_found
    store.begin_purge = nothing
    made._looked_at = made._collected_at = float("inf")
    return made


async def test_retention_comes_back() -> None:
    unfinished = Faulty(answer=[])
    async with running(retention(stub(unfinished=unfinished), lambda _: None).run()):
        await unfinished.again.wait()


async def test_s23_one_tenant_that_cannot_be_looked_for_hides_no_other() -> None:
    bad, good = (KnownTenant(uuid4(), name, None) for name in ("bad", "good"))
    gone: list[UUID] = []

    async def tenants() -> list[KnownTenant]:
        return [bad, good]

    async def namespace_uid(name: str) -> UUID | None:
        if name == "bad":
            raise UnforeseenError
        return None

    async def mark_gone(tenant_id: UUID, *, gone: bool) -> None:
        assert gone
        marked.append(tenant_id)

    marked = gone
    made = retention(stub(tenants=tenants, mark_gone=mark_gone), lambda _: None)

    async def namespaces() -> set[UUID]:
        return {made._cluster_id}

    made._cluster = stub(namespace_uid=namespace_uid, list_namespaces=namespaces)
    await made.look_for_namespaces()
    assert gone == [good.tenant_id]


async def test_one_purge_that_fails_keeps_no_other_waiting() -> None:
    bad, good = PurgeKey(uuid4(), uuid4()), PurgeKey(uuid4(), uuid4())
    gone: asyncio.Queue[UUID] = asyncio.Queue()

    async def unfinished(_: int) -> list[PurgeKey]:
        return [bad, good]

    async def purge_batch(key: PurgeKey) -> bool:
        if key == bad:
            raise UnforeseenError
        return True

    async def purge(purge_id: UUID) -> Any:
        return stub(
            flow_id=purge_id,
            reason="Command",
            outcome="Done",
            requested_by="ann",
            removed={},
            problem="",
        )

    store = stub(
        unfinished=unfinished,
        purge_batch=purge_batch,
        purge=purge,
    )
    async with running(retention(store, gone.put_nowait).run()):
        assert await gone.get() == good.purge_id
