"""Whatever a namespace writes into its webhook's Secret, the others are told, and nothing ends."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import psycopg
import pytest
from aiohttp import web
from discovery_core.store.ledger import outbox
from discovery_core.store.ledger.outbox import Due
from discovery_core.tasks import end
from discovery_operator.kube import Cluster
from discovery_operator.webhook import Webhooks
from kubernetes_asyncio import client

from tests.postgres import Stores
from tests.store.flows import Flow
from tests.stubs.any_path import answering

Secret = dict[str, bytes | str]


@dataclass
class World:
    """An API server with Secrets, a receiver, and two namespaces that have something to be told."""

    stores: Stores
    webhooks: Webhooks
    secrets: dict[str, Secret] = field(default_factory=dict)
    namespaces: dict[str, UUID] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    receiver: str = ""

    async def serve(self, request: web.Request) -> web.Response:
        """A Secret for the operator, or a message that arrives."""
        if request.method == "POST":
            self.told.append((await request.json())["namespace"])
            return web.Response()
        if not request.path.endswith("/discoveryflow-webhook"):
            return web.json_response(
                {"metadata": {"uid": str(self.namespaces[request.path.split("/")[4]])}}
            )
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

    async def tried(self, namespace: str) -> None:
        """Until the namespace's message was tried."""
        while True:
            if (await self.outbox(namespace))[1]:
                return
            await asyncio.sleep(0.05)

    async def settled(self) -> None:
        """Until the good message is delivered, and the bad one was tried."""
        await self.tried("bad")
        await self.tried("good")


@pytest.fixture
async def world(stores: Stores) -> AsyncIterator[World]:
    made: World

    async def serve(request: web.Request) -> web.Response:
        return await made.serve(request)

    async with answering(serve) as address:
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
            made.namespaces[namespace] = flow.tenant_id
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
async def test_s23_one_namespaces_secret_is_no_reason_not_to_tell_another(
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


async def test_s23_a_row_of_which_nothing_can_be_told_keeps_none_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.secrets["bad"] = world.secrets["good"]
    payload = outbox._payload

    def fails(waiting: Any, event: Any, master: Any, namespace: str) -> dict[str, Any]:
        if namespace == "bad":
            raise ValueError("a row that nobody has foreseen")
        return payload(waiting, event, master, namespace)

    monkeypatch.setattr(outbox, "_payload", fails)
    async with aiohttp.ClientSession() as http:
        assert await world.webhooks.deliver(http) == 2
        # it waits for its next try, and is not the first of every round
        assert await world.webhooks.deliver(http) == 0
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


async def test_s13_an_address_that_is_not_allowed_is_told_nothing(world: World) -> None:
    world.webhooks._endpoints = (f"{world.receiver}/team-a",)
    world.secrets["bad"] = {"url": f"{world.receiver}/team-a/%2e%2e/in".encode(), "key": b"secret"}
    world.secrets["good"] = {"url": f"{world.receiver}/team-b".encode(), "key": b"secret"}
    async with aiohttp.ClientSession() as http:
        await world.webhooks.deliver(http)
    assert world.told == []
    for namespace in ("bad", "good"):
        state, tries, problem = await world.outbox(namespace)
        assert (state, tries) == ("Pending", 1)
        assert "notifications.allowedEndpoints" in problem


async def test_s14_a_namespace_made_anew_is_not_told_of_the_old_one(world: World) -> None:
    world.secrets["bad"] = world.secrets["good"]
    world.namespaces["bad"] = uuid4()
    async with aiohttp.ClientSession() as http:
        await world.webhooks.deliver(http)
    assert world.told == ["good"]
    assert await world.outbox("bad") == ("Skipped", 1, "")


async def test_s05_what_a_receiver_has_sent_is_not_told_on(world: World) -> None:
    """Neither a page nor garbage instead of HTTP."""
    page = "the-content-of-an-internal-page"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(f"{page} 200 OK\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1")
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    world.webhooks._endpoints = (address,)
    world.secrets["bad"] = {"url": address.encode(), "key": b"secret"}
    async with server, aiohttp.ClientSession() as http:
        await world.webhooks.deliver(http)
    state, tries, problem = await world.outbox("bad")
    assert (state, tries) == ("Pending", 1)
    assert problem
    assert page not in problem


async def test_s05_a_receiver_leads_nowhere(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by a redirect nor by a proxy of the environment is anything sent elsewhere."""
    asked: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        if request.path == "/in":
            raise web.HTTPTemporaryRedirect("/other")
        return web.Response()

    async with answering(elsewhere) as address:
        world.webhooks._endpoints = (address,)

        async def secret(message: Due) -> dict[str, str] | None:
            return {"url": f"{address}/in", "key": "k"} if message.namespace == "bad" else None

        # the client of Kubernetes may be behind a proxy, and is not what this is about
        monkeypatch.setattr(world.webhooks, "_secret", secret)
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        running = asyncio.create_task(world.webhooks.run())
        async with asyncio.timeout(60):
            await world.tried("bad")
        await end(running)
    assert asked == ["/in"]
    state, tries, problem = await world.outbox("bad")
    assert (state, tries, problem) == ("Pending", 1, "the receiver answered 307")


async def test_a_secret_that_is_text_counts(world: World) -> None:
    world.secrets["bad"] = world.secrets["good"] | {"ca.der": b"\xff\x00"}
    async with aiohttp.ClientSession() as http:
        assert await world.webhooks.deliver(http) == 2
    assert sorted(world.told) == ["bad", "good"]
