"""How much one caller, one address and one namespace may have, and what the next is told."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from discovery_api.callers import Callers
from discovery_api.limits import AtATime, Failures, Requests
from discovery_api.middleware import BodyGuard, Bounds
from discovery_api.problems import TooManyRequestsError, UnauthenticatedError, UnavailableError
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import Message, Receive, Scope, Send

from tests.api.desk import serving
from tests.api.kubernetes import FakeKubernetes
from tests.api.pods import POD, executing, launch
from tests.postgres import Stores
from tests.store.flows import Flow

MIB = 1024**2
BURST, FAILED = 5, 3


class Counted:
    """An application behind limits of 5 requests at once and 3 failed tokens, and its answers.

    Tokens are the names of those who have them, with a number that says which of theirs.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.revoked: set[str] = set()
        self.app = Callers(
            self._serve,
            token_of=lambda connection: connection.headers.get("authorization"),
            identify=self._identify,
            requests=Requests(0.001, BURST),
            failures=Failures(FAILED, 0.001),
            public=("/sign-in", "/static/"),
        )

    async def _identify(self, connection: HTTPConnection) -> str:
        token = connection.headers.get("authorization", "")
        self.asked.append(token)
        if token.startswith("away"):
            raise UnavailableError("nobody answers")
        if not token or token.startswith("guess") or token in self.revoked:
            raise UnauthenticatedError("no")
        return token.partition(" ")[0]

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        kind = "websocket.accept" if scope["type"] == "websocket" else "http.response.start"
        await send({"type": kind, "status": 200})

    async def ask(
        self,
        token: str = "",
        *,
        path: str = "/x",
        address: str = "192.0.2.1",
        kind: str = "http",
        body: bool = False,
    ) -> int | str:
        """The status of the answer, or what a socket is told. A body must not be read."""
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            return {"type": "http.request"}

        headers = [(b"authorization", token.encode())] if token else []
        headers += [(b"transfer-encoding", b"chunked")] if body else []
        scope: dict[str, Any] = {
            "type": kind,
            "method": "GET",
            "path": path,
            "headers": headers,
            "query_string": b"",
            "app": FastAPI(),
            "client": (address, 1),
        }
        await self.app(scope, receive, send)
        told: int | str = sent[0].get("status", sent[0]["type"])
        return told if kind == "http" else str(sent[0]["type"])


async def test_s07_a_caller_is_counted_whatever_token_it_comes_with() -> None:
    counted = Counted()
    statuses = [await counted.ask(f"ann {number}") for number in range(8)]
    assert statuses == [200] * BURST + [429] * 3
    assert await counted.ask("bob 1") == 200, "somebody else of the same address"


async def test_s07_a_caller_is_counted_wherever_it_comes_from() -> None:
    counted = Counted()
    statuses = [await counted.ask("ann", address=f"192.0.2.{n}") for n in range(8)]
    assert statuses == [200] * BURST + [429] * 3


async def test_s07_strangers_are_counted_by_address() -> None:
    counted = Counted()
    assert [await counted.ask() for _ in range(8)] == [200] * BURST + [429] * 3
    assert await counted.ask(address="192.0.2.2") == 200


@pytest.mark.parametrize("path", ["/sign-in", "/static/x"])
async def test_s07_where_nobody_need_be_known_an_unknown_token_counts_for_its_address(
    path: str,
) -> None:
    counted = Counted()
    statuses = [await counted.ask(f"guess {n}", path=path) for n in range(8)]
    assert statuses == [200] * BURST + [429] * 3
    assert counted.asked == []


async def test_s07_rotating_tokens_are_refused_before_kubernetes_is_asked() -> None:
    counted = Counted()
    statuses = [await counted.ask(f"guess {number}") for number in range(8)]
    assert statuses == [401] * FAILED + [429] * 5
    assert len(counted.asked) == FAILED
    assert await counted.ask("guess 9", address="192.0.2.2") == 401


def test_s07_beyond_the_limit_some_tokens_a_second_are_asked_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a guesser behind the same proxy would keep everybody out who is not known yet."""
    now = 1000.0
    monkeypatch.setattr("discovery_api.limits.time", SimpleNamespace(monotonic=lambda: now))
    failures = Failures(FAILED, 0.5)
    for number in range(FAILED):
        failures.count("192.0.2.1", f"guess {number}")
    with pytest.raises(TooManyRequestsError) as refused:
        failures.count("192.0.2.1", "ann")
    assert refused.value.headers["Retry-After"] == "2"
    now += 2.1
    failures.count("192.0.2.1", "ann")
    failures.forgive("192.0.2.1", "ann")
    failures.count("192.0.2.1", "bob")
    with pytest.raises(TooManyRequestsError):
        failures.count("192.0.2.1", "guess 9")


async def test_s07_a_host_has_no_fresh_address_for_each_token() -> None:
    counted = Counted()
    statuses = [await counted.ask(f"guess {n}", address=f"2001:db8::{n}") for n in range(6)]
    assert statuses == [401] * FAILED + [429] * 3
    assert await counted.ask("guess", address="2001:db8:0:1::1") == 401


async def test_s07_a_failed_token_counts_once_and_its_requests_for_the_address() -> None:
    counted = Counted()
    statuses = [await counted.ask("guess") for _ in range(8)]
    assert statuses == [401] * (1 + BURST) + [429] * 2
    assert await counted.ask("ann") == 200, "a new token has not failed"


async def test_s07_a_known_caller_is_not_locked_out_by_others_of_its_address() -> None:
    counted = Counted()
    assert await counted.ask("ann") == 200
    for number in range(5):
        await counted.ask(f"guess {number}")
    assert await counted.ask("ann") == 200
    assert await counted.ask("bob") == 429, "one who has not been seen"


async def test_s07_nobody_is_locked_out_by_successes_or_an_api_server_that_is_away() -> None:
    counted = Counted()
    assert [await counted.ask(f"away {n}") for n in range(5)] == [503] * 5
    assert [await counted.ask(f"person-{n}") for n in range(20)] == [200] * 20


async def test_s02_a_body_without_a_token_is_refused_before_it_is_read() -> None:
    counted = Counted()
    assert await counted.ask(body=True) == 401
    assert await counted.ask() == 200, "the route says what it thinks of it"
    assert await counted.ask(path="/sign-in", body=True) == 200, "where nobody is known yet"


async def test_s02_a_token_that_was_accepted_is_asked_about_before_each_body() -> None:
    counted = Counted()
    assert [await counted.ask("ann", body=True) for _ in range(2)] == [200, 200]
    assert await counted.ask("ann") == 200
    counted.revoked.add("ann")
    assert await counted.ask("ann", body=True) == 401
    assert counted.asked == ["ann"] * 3, "requests without a body are judged by Kubernetes later"


async def test_s07_sockets_are_counted_too() -> None:
    counted = Counted()
    told = [await counted.ask("ann", kind="websocket") for _ in range(7)]
    assert told == ["websocket.accept"] * BURST + ["websocket.close"] * 2


def test_s07_callers_are_forgotten_and_cost_no_memory_without_end() -> None:
    requests, failures = Requests(1, 5), Failures(3, 1)
    for number in range(10_050):
        requests.count(f"caller {number}")
        failures.count(f"address {number // 2}", f"guess {number}")
    assert (len(requests._buckets), len(failures._failed)) == (10_000, 10_000)


async def test_s07_the_execution_api_has_limits_too(
    stores: Stores, kubernetes: FakeKubernetes
) -> None:
    flow = Flow(stores)
    await flow.queue()
    await launch(flow, kubernetes)
    limits = {"requests_per_second": 0.001, "request_burst": 3, "failed_tokens": 2}
    limits["failed_tokens_per_second"] = 0.001
    async with executing(stores, kubernetes, **limits) as client:
        path = "/execution/v1/artefacts/sha256:" + "0" * 64
        own = [(await client.get(path, headers=POD)).status_code for _ in range(4)]
        assert own[-1] == 429
        assert 429 not in own[:-1]
        statuses = [
            (await client.get(path, headers={"Authorization": f"Bearer {n}"})).status_code
            for n in range(4)
        ]
        assert statuses == [401, 401, 429, 429]


def test_s07_what_is_held_is_given_back() -> None:
    held = AtATime(1, "things at a time")
    with held.one("ann"):
        with pytest.raises(TooManyRequestsError, match="at most 1 things"):
            held.require("ann")
        held.require("bob")
    held.require("ann")
    assert not held._held


# -- slow ones


async def test_s02_a_body_that_drips_is_not_waited_for_on_any_route() -> None:
    """A hundred bytes a second keep no upload open, however long it may take."""
    sent = 0

    async def receive() -> Message:
        nonlocal sent
        sent += 1
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    with pytest.raises(HTTPException) as refused:
        await read_all(receive, rate=1000)
    assert refused.value.status_code == 408
    assert "1000 bytes a second" in refused.value.detail
    assert sent > 1


async def test_s02_what_the_server_does_in_between_counts_for_nobody() -> None:
    """A body that comes at once is read to its end, however slowly that goes on here."""
    left = 30

    async def receive() -> Message:
        nonlocal left
        left -= 1
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"x", "more_body": left > 0}

    await read_all(receive, rate=1000, pause=0.02)
    assert left == 0


async def read_all(receive: Receive, *, rate: float, pause: float = 0) -> None:
    """Reads a body through the guard, which waits for a third of a second beyond the rate."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, send
        more = True
        while more:
            more = (await receive())["more_body"]
            await asyncio.sleep(pause)

    async def send(message: Message) -> None:
        del message

    guard = BodyGuard(app, bounds=Bounds(None, 60), stall_seconds=0.3, rate=rate, special={})
    await guard({"type": "http", "path": "/", "headers": []}, receive, send)


# -- health


async def test_s19_a_probe_costs_at_most_a_query_a_second(
    stores: Stores, kubernetes: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def count() -> bool:
        nonlocal asked
        asked += 1
        return True

    monkeypatch.setattr(stores.api.db, "schema_is_current", count)
    monkeypatch.setattr("discovery_core.store.monitoring.FRESH_SECONDS", 600)
    async with serving(stores, kubernetes) as client:
        answers = [(await client.get("/readyz")).status_code for _ in range(20)]
    assert answers == [200] * 20
    assert asked == 1
