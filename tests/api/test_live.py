"""Live updates over real connections: nothing is missed, repeated, or foreign."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import uvicorn
import websockets
from discovery_api.app import create_app
from discovery_api.server import Server
from discovery_api.settings import ApiSettings
from discovery_core.store.database import database_url
from sqlalchemy import create_engine, text

from tests.api.desk import ANN, API, BOB, EVE, resource, url
from tests.api.kubernetes import FakeKubernetes
from tests.postgres import Stores
from tests.store.flows import Flow

SECONDS = 15.0


@pytest.fixture
def kubernetes() -> FakeKubernetes:
    return FakeKubernetes(cluster_viewers={"ann"})


@pytest.fixture
async def address(
    stores: Stores, kubernetes: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """The API on a port of loopback, with short beats."""
    monkeypatch.setattr("discovery_api.routes.live.BEAT_SECONDS", 0.5)
    monkeypatch.setattr("discovery_api.routes.live.PROGRESS_SECONDS", 0.3)
    settings = ApiSettings(
        host="127.0.0.1",
        database_url=stores.urls.api,
        kubernetes_url=await kubernetes.start(),
        streams_per_person=2,
    )
    app = create_app(stores.api.db, settings)
    server = Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=3),
        app.state.live.close,
    )
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started, "the server")
    (listening,) = server.servers[0].sockets
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    await serving
    await kubernetes.stop()


@dataclass
class Stream:
    """What a client of a stream has received."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    beats: int = 0

    def read(self, lines: list[str]) -> None:
        """One block of lines, up to an empty one."""
        fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
        self.beats += any(line.startswith(":") for line in lines)
        if "event" in fields:
            message = {"event": fields["event"], "id": fields.get("id")}
            self.messages.append(message | {"data": json.loads(fields["data"])})

    def entries(self) -> list[int]:
        """Numbers of the history entries so far."""
        return [m["data"]["sequence"] for m in self.messages if m["event"] == "entry"]


@asynccontextmanager
async def listening(address: str, path: str, headers: dict[str, str]) -> AsyncIterator[Stream]:
    """Reads a stream in the background."""
    stream = Stream()

    async def read() -> None:
        block: list[str] = []
        async for line in response.aiter_lines():
            if line:
                block.append(line)
            else:
                stream.read(block)
                block = []

    async with (
        httpx.AsyncClient(base_url=address, timeout=SECONDS) as client,
        client.stream("GET", path, headers=headers) as response,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        reader = asyncio.create_task(read())
        try:
            yield stream
        finally:
            reader.cancel()
            await asyncio.wait([reader])


async def until(true: Any, what: str) -> None:
    """Waits until something holds."""
    deadline = asyncio.get_running_loop().time() + SECONDS
    while not true():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.05)


@pytest.fixture
async def flow(stores: Stores, kubernetes: FakeKubernetes) -> Flow:
    flow = Flow(stores)
    await flow.queue()
    kubernetes.flow_uid = str(flow.flow_id)
    kubernetes.resources = [resource(flow)]
    return flow


async def test_entries_come_as_they_are_written(address: str, flow: Flow) -> None:
    async with listening(address, url(flow, "/events"), ANN) as stream:
        await until(lambda: stream.entries() == [1, 2], "what had happened before")
        await flow.run_phase()
        await until(lambda: stream.entries() == [1, 2, 3, 4], "what happens now")

        def stands() -> tuple[str, str]:
            last = [m for m in stream.messages if m["event"] == "progress"][-1]["data"]
            return last["state"], last["phase"]

        # how a flow stands is read before its entries, and follows where those were newer
        await until(lambda: stands() == ("Queued", "data_cleansing"), "how it stands now")
        await until(lambda: stream.beats > 0, "a sign of life")


async def test_after_a_reconnect_nothing_is_missed_or_repeated(address: str, flow: Flow) -> None:
    async with listening(address, url(flow, "/events"), ANN) as stream:
        await until(lambda: stream.entries() == [1, 2], "the first entries")
        last = str(stream.messages[-2]["id"] or stream.messages[-1]["id"])
    await flow.run_phase()
    async with listening(address, url(flow, "/events"), ANN | {"Last-Event-ID": last}) as again:
        await until(lambda: again.entries() == [3, 4], "only what is new")


async def test_a_lost_listener_costs_time_and_no_entry(
    address: str, flow: Flow, stores: Stores
) -> None:
    async with listening(address, url(flow, "/events"), ANN) as stream:
        await until(lambda: stream.entries() == [1, 2], "the first entries")
        engine = create_engine(database_url(stores.urls.superuser))
        with engine.begin() as connection:
            ended = connection.scalar(
                text(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                    "WHERE application_name = 'discoveryflow-listener'"
                )
            )
        engine.dispose()
        assert ended
        await flow.run_phase()
        await until(lambda: stream.entries() == [1, 2, 3, 4], "entries without the listener")


async def test_progress_is_shown_while_a_crew_works(address: str, flow: Flow) -> None:
    from discovery_core.wire.protocol import Heartbeat

    await flow.start()
    pod = await flow.claim()
    async with listening(address, url(flow, "/events"), ANN) as stream:
        await until(lambda: stream.messages, "the beginning")
        await flow.stores.execution.heartbeat(
            tenant_id=flow.tenant_id,
            pod_uid=pod.pod_uid,
            beat=Heartbeat(fence=pod.claim.fence, done=7, total=9, message="reading"),
        )
        await until(
            lambda: any(m["data"].get("rows_done") == 7 for m in stream.messages), "progress"
        )


async def test_a_stream_ends_when_the_flow_may_not_be_seen_any_more(
    address: str, flow: Flow, kubernetes: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("discovery_api.routes.live.RECHECK_SECONDS", 0.2)
    async with listening(address, url(flow, "/events"), ANN) as stream:
        await until(lambda: stream.messages, "the beginning")
        kubernetes.viewers = set()
        await until(lambda: stream.messages[-1]["event"] == "gone", "the end")


async def test_all_flows_begin_with_where_they_stand(
    address: str, flow: Flow, stores: Stores
) -> None:
    foreign = Flow(stores, name="foreign")
    await foreign.queue()
    async with listening(address, f"{API}/events", ANN) as stream:
        await until(lambda: stream.messages, "the first state")
        await flow.run_phase()
        await foreign.run_phase()
        await until(
            lambda: any(m["data"]["phase"] == "data_cleansing" for m in stream.messages),
            "the next state",
        )
        await asyncio.sleep(1)
        assert {m["data"]["flow_id"] for m in stream.messages} == {str(flow.flow_id)}


async def test_a_socket_says_the_same(address: str, flow: Flow) -> None:
    ws = address.replace("http", "ws")
    async with websockets.connect(
        f"{ws}{API}/ws?flow_id={flow.flow_id}&after=1", additional_headers=ANN
    ) as socket:
        first = json.loads(await socket.recv())
        assert (first["event"], first["data"]["sequence"]) == ("entry", 2)
    async with websockets.connect(f"{ws}{API}/ws", additional_headers=ANN) as socket:
        assert json.loads(await socket.recv())["data"]["name"] == "servers"


@pytest.mark.parametrize("headers", [EVE, {}, {"Authorization": "Bearer nobody"}])
async def test_strangers_hear_nothing(address: str, flow: Flow, headers: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=address) as client:
        answer = await client.get(url(flow, "/events"), headers=headers)
        assert answer.status_code in (401, 404)
    ws = address.replace("http", "ws")
    with pytest.raises(websockets.InvalidStatus):
        async with websockets.connect(
            f"{ws}{API}/ws?flow_id={flow.flow_id}", additional_headers=headers
        ) as socket:
            await socket.recv()


async def test_streams_end_before_the_process_does(
    stores: Stores, kubernetes: FakeKubernetes, flow: Flow
) -> None:
    settings = ApiSettings(
        host="127.0.0.1", database_url=stores.urls.api, kubernetes_url=await kubernetes.start()
    )
    app = create_app(stores.api.db, settings)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None)
    server = Server(config, app.state.live.close)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started, "the server")
    port = server.servers[0].sockets[0].getsockname()[1]
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS) as client,
        client.stream("GET", url(flow, "/events"), headers=ANN) as response,
    ):
        lines = response.aiter_lines()
        await anext(lines)
        server.should_exit = True
        # the stream comes to its end, and is not broken off
        assert [line async for line in lines]
    await asyncio.wait_for(serving, SECONDS)
    await kubernetes.stop()


async def test_s07_a_person_has_so_many_streams(
    address: str, flow: Flow, kubernetes: FakeKubernetes
) -> None:
    """Whatever tokens they come with, and whatever kind the streams are of."""
    kubernetes.identify = lambda token: "bob" if token == "token-bob" else "ann"
    again = {"Authorization": "Bearer another-of-ann"}
    socket = f"{address.replace('http', 'ws')}{API}/ws"
    path = url(flow, "/events")
    async with listening(address, path, ANN), listening(address, f"{API}/events", again) as second:
        await until(lambda: second.messages, "the second stream")
        async with httpx.AsyncClient(base_url=address) as client:
            refused = await client.get(path, headers=again)
            assert refused.status_code == 429
            assert "api.streamsPerPerson" in refused.json()["detail"]
        with pytest.raises(websockets.InvalidStatus):
            await websockets.connect(f"{socket}?flow_id={flow.flow_id}", additional_headers=ANN)
        async with listening(address, path, BOB) as other:
            await until(lambda: other.messages, "somebody else's stream")
    async with listening(address, path, ANN) as later:
        await until(lambda: later.messages, "one more when others have ended")


@pytest.mark.parametrize(
    ("headers", "heard"),
    [
        ({"Origin": "https://evil.example"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({}, True),
    ],
    ids=["origin", "fetch-site", "own"],
)
async def test_another_site_s_page_opens_no_socket_with_a_session(
    address: str, flow: Flow, headers: dict[str, str], heard: bool
) -> None:
    """A browser sends the session with it, where nothing forbids that."""
    async with httpx.AsyncClient(base_url=address) as client:
        begun = await client.post("/sign-in", data={"token": "token-ann"})
    session = {"Cookie": begun.headers["set-cookie"].split(";")[0]}
    socket = f"{address.replace('http', 'ws')}{API}/ws?flow_id={flow.flow_id}"
    try:
        async with websockets.connect(socket, additional_headers=session | headers) as opened:
            told = json.loads(await opened.recv())["event"] == "entry"
    except websockets.InvalidStatus:
        told = False
    assert told is heard
