"""What runs behind the APIs' requests goes on whatever goes wrong, and ends when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from discovery_api import server
from discovery_api.live import Live
from discovery_api.routes import live as routes
from discovery_api.routes.live import Message, Seen
from discovery_core.errors import NotFoundError
from discovery_core.tasks import end


async def test_live_updates_go_on_after_whatever_a_listener_raises() -> None:
    flow, calls = uuid4(), []

    async def listen() -> AsyncIterator[UUID | None]:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("nobody has foreseen this")
        yield flow
        await asyncio.Event().wait()

    live = Live(SimpleNamespace(listen=listen))  # type: ignore[arg-type]
    listening = asyncio.create_task(live.run())
    with live.subscribed(flow) as subscription:
        assert await subscription.wait(60) == ({flow}, False)
    assert not listening.done()
    await end(listening)
    assert listening.cancelled()


async def test_certificates_are_followed_after_whatever_goes_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls, again = [], asyncio.Event()

    async def follow(*_: Any, **__: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("nobody has foreseen this")
        again.set()
        await asyncio.Event().wait()

    async def serve(_: Any) -> None:
        async with asyncio.timeout(60):
            await again.wait()

    monkeypatch.setattr(server, "follow_certificate", follow)
    settings: Any = SimpleNamespace(
        metrics_port=None, tls_cert_file="tls.crt", tls_key_file="tls.key", tls_reload_seconds=1
    )
    running: Any = SimpleNamespace(config=SimpleNamespace(ssl=object()), serve=serve)
    await server._run(running, [], SimpleNamespace(), settings)  # type: ignore[arg-type]
    assert len(calls) == 2


@pytest.mark.parametrize("error", [NotFoundError("purged"), ValueError("a bad row")])
async def test_a_flow_that_cannot_be_told_ends_no_stream_about_the_others(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    bad = uuid4()

    async def moved(context: Any, flow_id: UUID, seen: Seen) -> Message:
        del context, seen
        if flow_id == bad:
            raise error
        return Message("flow", {"flow_id": str(flow_id)})

    async def all_flows(*_: Any) -> list[dict[str, Any]]:
        return [{"metadata": {"uid": str(uid)}} for uid in (bad, good)]

    good = uuid4()
    live = Live(SimpleNamespace())  # type: ignore[arg-type]
    monkeypatch.setattr(routes, "_moved", moved)
    monkeypatch.setattr(routes, "all_flows", all_flows)
    context: Any = None
    monkeypatch.setattr(routes, "BEAT_SECONDS", 0.01)
    told = []
    stream: Any = routes.of_all(live, context, None)
    async with asyncio.timeout(60), aclosing(stream):
        # a beat comes when there is nothing more to tell
        while (message := await anext(stream)).event:
            told.append(message.data)
    assert told == [{"flow_id": str(good)}]
