"""Whatever a namespace writes into its webhook's Secret, the others are told, and nothing ends."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import psycopg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from discovery_core.tasks import end
from discovery_operator.kube import Cluster
from discovery_operator.webhook import Webhooks
from kubernetes_asyncio import client

from tests.postgres import Stores
from tests.store.flows import Flow

Secret = dict[str, bytes | str]


@dataclass
class World:
    """An API server with Secrets, a receiver, and two namespaces that have something to be told."""

    stores: Stores
    webhooks: Webhooks
    secrets: dict[str, Secret] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    receiver: str = ""

    async def serve(self, request: web.Request) -> web.Response:
        """A Secret for the operator, or a message that arrives."""
        if request.method == "POST":
            self.told.append((await request.json())["namespace"])
            return web.Response()
        data = {
            key: base64.b64encode(value).decode() if isinstance(value, bytes) else value
            for key, value in self.secrets[request.path.split("/")[4]].items()
        }
        return web.json_response({"metadata": {"name": "discoveryflow-webhook"}, "data": data})

    async def outbox(self, namespace: str) -> tuple[str, int, str]:
        """What became of the namespace's message: state, tries, problem."""
        connection = await psycopg.AsyncConnection.connect(self.stores.urls.superuser)
        async with connection:
            found = await connection.execute(
                "SELECT n.state, n.tries, n.problem FROM notifications n JOIN tenants t"
                " ON t.id = n.tenant_id WHERE t.namespace = %s",
                (namespace,),
            )
            ((state, tries, problem),) = await found.fetchall()
        return state, tries, problem

    async def settled(self) -> None:
        """Until the good message is delivered, and the bad one was tried."""
        while True:
            if (await self.outbox("good"))[0] == "Delivered" and (await self.outbox("bad"))[1]:
                return
            await asyncio.sleep(0.05)


@pytest.fixture
async def world(stores: Stores) -> AsyncIterator[World]:
    made: World

    async def serve(request: web.Request) -> web.Response:
        return await made.serve(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", serve)
    async with TestServer(app) as running:
        address = str(running.make_url("")).rstrip("/")
        settings = client.Configuration(host=address)
        cluster = Cluster(client.ApiClient(settings), request_timeout=5)
        leads = asyncio.Event()
        leads.set()
        webhooks = Webhooks(
            stores.operator,
            cluster,
            leads=leads,
            endpoints=(address,),
            public_url="",
            timeout=5,
            poll=0.01,
        )
        made = World(stores, webhooks, receiver=address)
        made.secrets["good"] = {"url": f"{address}/in".encode(), "key": b"secret"}
        for namespace in ("bad", "good"):
            flow = Flow(stores, namespace=namespace, name=namespace)
            await flow.to_gate()
        yield made
        await cluster.close()


def secrets(address: str) -> dict[str, Secret]:
    url, key = f"{address}/in".encode(), b"secret"
    return {
        "url-no-text": {"url": b"\xff\xfe", "key": key},
        "key-no-text": {"url": url, "key": b"\x80"},
        "not-base64": {"url": "%", "key": "%"},
        "key-not-base64": {"url": url, "key": b"whsec_***"},
        "key-not-ascii": {"url": url, "key": "whsec_\u00e9".encode()},
        "url-with-nul": {"url": url + b"\0", "key": key},
        "url-without-sense": {"url": b"http://[", "key": key},
        "empty": {},
    }


@pytest.mark.parametrize("kind", [*secrets(""), "a-bug"])
async def test_one_namespaces_secret_is_no_reason_not_to_tell_another(
    world: World, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.secrets["bad"] = secrets(world.receiver).get(kind, world.secrets["good"])
    if kind == "a-bug":
        payload = world.webhooks._payload

        def fails(message: Any) -> dict[str, Any]:
            return {} if message.namespace == "bad" and 1 / 0 else payload(message)

        monkeypatch.setattr(world.webhooks, "_payload", fails)
    running = asyncio.create_task(world.webhooks.run())
    async with asyncio.timeout(60):
        await world.settled()
    assert not running.done()
    await end(running)
    assert running.cancelled()
    if kind != "url-with-nul":
        assert world.told == ["good"]
        state, tries, problem = await world.outbox("bad")
        assert (state, tries) == ("Pending", 1)
        assert problem


async def test_what_the_database_cannot_hold_is_written_without_it(world: World) -> None:
    messages = await world.stores.operator.due_notifications(10)
    (bad,) = [message for message in messages if message.namespace == "bad"]
    await world.stores.operator.settle_notification(
        bad, state="Failed", problem="a\0b\ud800c", retry_seconds=None
    )
    assert await world.outbox("bad") == ("Failed", 1, "ab?c")


async def test_a_secret_that_is_text_counts(world: World) -> None:
    world.secrets["bad"] = world.secrets["good"] | {"ca.der": b"\xff\x00"}
    async with aiohttp.ClientSession() as http:
        assert await world.webhooks.deliver(http) == 2
    assert sorted(world.told) == ["bad", "good"]
