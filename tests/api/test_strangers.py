"""What both APIs as processes take from whoever is not known, or sends little, slowly or much."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
import websockets
from discovery_api.app import STRANGERS, create_app
from discovery_api.execution.app import create_app as create_execution_app
from discovery_api.settings import ApiSettings, ExecutionSettings
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from tests.api.desk import API
from tests.api.kubernetes import FakeKubernetes
from tests.api.processes import ANN, NOBODY, Process, chunk, head, running
from tests.postgres import Stores

pytestmark = pytest.mark.slow

MIB = 1024**2
CHANGES = {"POST", "PUT", "PATCH", "DELETE"}
FORM = "Content-Type: multipart/form-data; boundary=b\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"


@pytest.fixture
def kubernetes() -> FakeKubernetes:
    return FakeKubernetes(namespaces={"migration": str(uuid4())}, cluster_viewers={"ann"})


@pytest.fixture
async def api(stores: Stores, kubernetes: FakeKubernetes, tmp_path: Path) -> AsyncIterator[Process]:
    limits = {"requests_per_second": "0", "body_stall_seconds": "5"}
    async with running("discovery_api", stores.urls.api, kubernetes, tmp_path, **limits) as process:
        yield process


@pytest.fixture
async def execution(
    stores: Stores, kubernetes: FakeKubernetes, tmp_path: Path
) -> AsyncIterator[Process]:
    module, url = "discovery_api.execution", stores.urls.execution
    async with running(module, url, kubernetes, tmp_path, body_stall_seconds="5") as process:
        yield process


def changing(app: FastAPI) -> list[tuple[str, str]]:
    """Every route that may be sent a body."""
    found = []
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, APIRoute):
            path = re.sub(r"\{[^}]*\}", str(uuid4()), str(context.path))
            found += [(method, path) for method in sorted(CHANGES & (context.methods or set()))]
    return found


def user_routes(stores: Stores) -> list[tuple[str, str]]:
    settings = ApiSettings(host="127.0.0.1", database_url=stores.urls.api)
    return changing(create_app(stores.api.db, settings))


def execution_routes(stores: Stores) -> list[tuple[str, str]]:
    settings = ExecutionSettings(host="127.0.0.1", database_url=stores.urls.execution)
    return changing(create_execution_app(stores.execution.db, settings))


async def test_the_user_api_asks_who_calls_before_it_takes_a_byte(
    api: Process, stores: Stores
) -> None:
    routes = user_routes(stores)
    assert {("POST", f"{API}/flows"), ("POST", f"{API}/uploads")} < set(routes)
    assert len(routes) > 15
    for method, path in routes:
        for length in ("Content-Length: 9\r\n", CHUNKED):
            if path not in STRANGERS:
                assert await api.status_of(method, path, length) == 401, path
    for path in STRANGERS:
        assert await api.status_of("POST", path, "Content-Length: 65537\r\n") == 413


async def test_the_execution_api_asks_who_calls_before_it_takes_a_byte(
    execution: Process, stores: Stores
) -> None:
    routes = execution_routes(stores)
    assert len(routes) == 8
    for method, path in routes:
        for length in ("Content-Length: 9\r\n", CHUNKED):
            assert await execution.status_of(method, path, length) == 401, path


async def fill(api: Process, path: str, kind: str, piece: bytes, most: int, token: str) -> int:
    """Sends up to `most` bytes of a body without an end, and stops; the status where one came."""
    async with api.connected() as (reader, writer):
        writer.write(head("POST", path, f"{kind}{CHUNKED}", token))
        with contextlib.suppress(ConnectionError):
            for _ in range(most // len(piece)):
                writer.write(chunk(piece))
                await writer.drain()
        return int((await reader.readline()).split()[1])


@pytest.mark.parametrize(("token", "status"), [(NOBODY, 401), (ANN, 413)])
async def test_a_form_without_end_costs_no_memory(api: Process, token: str, status: int) -> None:
    field = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n%s\r\n' % (b"x" * 60_000)
    before = api.most_memory()
    assert await fill(api, f"{API}/flows", FORM, field, 64 * MIB, token) == status
    assert api.most_memory() - before < 24 * MIB


async def test_strangers_bodies_are_not_kept_in_memory(execution: Process) -> None:
    """Ten of nearly the largest size at once."""
    before = execution.most_memory()
    path, json = "/execution/v1/complete", "Content-Type: application/json\r\n"
    sent = (fill(execution, path, json, b" " * MIB, 15 * MIB, NOBODY) for _ in range(10))
    assert await asyncio.gather(*sent) == [401] * 10
    assert execution.most_memory() - before < 40 * MIB


async def test_a_head_has_so_many_bytes_and_no_more(api: Process) -> None:
    before = api.most_memory()
    async with api.connected() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionError):
            for number in range(64):
                writer.write(b"X-%d: %s\r\n" % (number, b"x" * MIB))
                await writer.drain()
            assert (await reader.readline()).split()[1] == b"400"
    assert api.most_memory() - before < 24 * MIB


async def test_nobody_fills_the_memory_through_a_socket(api: Process) -> None:
    credentials = {"Authorization": f"Bearer {ANN}"}
    address = f"wss://{api.address}{API}/ws"
    async with websockets.connect(address, ssl=api.trust, additional_headers=credentials) as client:
        with contextlib.suppress(websockets.ConnectionClosed):
            await client.send("x" * 5000)
        async with asyncio.timeout(60):
            await client.wait_closed()
    assert client.close_code == 1009


async def test_s02_connections_are_so_many_and_no_more(
    stores: Stores, kubernetes: FakeKubernetes, tmp_path: Path
) -> None:
    """Those who came first stay; the next is told nothing, until one of them goes."""
    url, few = stores.urls.api, {"max_connections": "10", "head_seconds": "60"}
    async with (
        running("discovery_api", url, kubernetes, tmp_path, **few) as api,
        contextlib.AsyncExitStack() as stack,
    ):
        sources = [f"127.0.0.{number}" for number in range(2, 12)]
        first = [await stack.enter_async_context(api.connected(source)) for source in sources]
        assert await is_refused(api, "127.0.0.12")
        for reader, writer in first:
            writer.write(head("GET", "/healthz", "Connection: close\r\n", NOBODY))
            assert (await reader.readline()).split()[1] == b"200"
            await reader.read()
            writer.close()
        assert await api.status_of("GET", "/healthz", "") == 200


async def is_refused(api: Process, source: str) -> bool:
    """Whether a connection is closed before its handshake."""
    try:
        async with api.connected(source, handshake=False) as (reader, _):
            return await reader.read() == b""
    except ConnectionError:
        return True


async def test_s02_connections_count_before_their_handshake(
    stores: Stores, kubernetes: FakeKubernetes, tmp_path: Path
) -> None:
    """One address takes all that it can, in silence; another one gets in."""
    url, few = stores.urls.api, {"connections_per_address": "5", "head_seconds": "60"}
    async with (
        running("discovery_api", url, kubernetes, tmp_path, **few) as api,
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(5):
            await stack.enter_async_context(api.connected("127.0.0.2", handshake=False))
        assert await is_refused(api, "127.0.0.2")
        assert await api.status_of("GET", "/healthz", "") == 200


async def test_s02_a_connection_costs_little_before_its_handshake(api: Process) -> None:
    """Asyncio alone would take 256 KiB for each."""
    async with contextlib.AsyncExitStack() as stack:
        before = api.begin_to_measure()
        for _ in range(200):
            await stack.enter_async_context(api.connected("127.0.0.2", handshake=False))
        assert await api.status_of("GET", "/healthz", "") == 200
        assert api.most_memory() - before < 200 * 128 * 1024


@pytest.mark.parametrize(("trusted", "last"), [("", 429), ("127.0.0.1", 401)])
async def test_s07_nobody_says_from_where_it_comes(
    stores: Stores, kubernetes: FakeKubernetes, tmp_path: Path, trusted: str, last: int
) -> None:
    """A header names the address that failed tokens count for, where a proxy of ours wrote it."""
    settings = {
        "failed_tokens": "2", "failed_tokens_per_second": "0.001", "trusted_proxies": trusted
    }  # fmt: skip
    url = stores.urls.api
    async with running("discovery_api", url, kubernetes, tmp_path, **settings) as api:
        statuses = [
            await api.status_of(
                "GET", f"{API}/me", f"X-Forwarded-For: 192.0.2.{n}\r\n", f"guess-{n}"
            )
            for n in range(3)
        ]
    assert statuses == [401, 401, last]


# -- slow ones


@pytest.fixture
async def hasty(
    stores: Stores, kubernetes: FakeKubernetes, tmp_path: Path
) -> AsyncIterator[Process]:
    """One that gives a second for everything, but a minute for the next piece of a body."""
    limits = {"head_seconds": "1", "body_seconds": "1", "body_stall_seconds": "60"}
    async with running("discovery_api", stores.urls.api, kubernetes, tmp_path, **limits) as process:
        yield process


@pytest.mark.parametrize("begun", [b"", b"GET /healthz HTTP/1.1\r\nHost:"])
async def test_a_head_that_does_not_come_ends_the_connection(hasty: Process, begun: bytes) -> None:
    async with hasty.connected() as (reader, writer):
        writer.write(begun)
        assert await reader.read() == b""


async def test_s02_a_handshake_that_does_not_come_ends_the_connection(hasty: Process) -> None:
    async with asyncio.timeout(40), hasty.connected(handshake=False) as (reader, _):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""


async def test_the_next_head_has_to_come_too(hasty: Process) -> None:
    async with hasty.connected() as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: api\r\n\r\nGET /hea")
        assert (await reader.read()).count(b"HTTP/1.1 200") == 1


async def drip(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """Sends a little, often, for ever."""
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("path", "kind", "begin"),
    [
        (f"{API}/flows/{uuid4()}/reject-mappings", "Content-Type: application/json\r\n", b" "),
        (f"{API}/flows", FORM, b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n'),
        ("/sign-in", "Content-Type: application/x-www-form-urlencoded\r\n", b"token=x"),
    ],
    ids=["json", "form", "sign-in"],
)
async def test_a_body_that_drips_is_cut_off(
    hasty: Process, path: str, kind: str, begin: bytes
) -> None:
    async with hasty.connected() as (reader, writer):
        writer.write(head("POST", path, f"{kind}{CHUNKED}", ANN) + chunk(begin))
        dripping = asyncio.create_task(drip(writer, chunk(b" ")))
        answer = await reader.readline()
        assert answer.split()[1] == b"408"
        # what goes on coming after the answer is not taken for ever either
        while await reader.read(MIB):
            pass
        dripping.cancel()
