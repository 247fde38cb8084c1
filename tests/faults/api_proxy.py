"""Stands between the operator and the API server, and lets a fault have its way with each request.

Plain HTTP on loopback towards the operator, TLS as the administrator towards the API server. Watch
streams are taken apart into their events. What may go wrong is `tests.faults.api_faults`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml
from aiohttp import web
from yarl import URL

from tests.faults.control_plane import ControlPlane

Raw = dict[str, Any]
Events = AsyncGenerator[Raw, None]

_OURS = {"discoveryflows", "jobs", "pods", "serviceaccounts"}
_WRITES = {"POST", "PUT", "PATCH", "DELETE"}
_KEPT = ("Accept", "Content-Type", "User-Agent")
_LONGEST_EVENT = 2**22


@dataclass(frozen=True)
class Call:
    """A request of the operator. `ours`: about objects of the product."""

    method: str
    target: str
    watch: bool
    ours: bool

    @property
    def write(self) -> bool:
        """Whether it changes an object of the product."""
        return self.ours and self.method in _WRITES

    @property
    def path(self) -> str:
        """Without the query, whose order and versions change."""
        return self.target.partition("?")[0]


@dataclass(frozen=True)
class Answer:
    """What the operator is given. `headers` are added."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class ResetError(Exception):
    """Raised by a fault that wants the connection reset."""


class ApiFault:
    """Lets everything pass. A fault overrides what it needs, and counts how often it struck.

    `broken` are rules that the operator has broken meanwhile; `noticed` is what its /healthz must
    come to say while there is a resource.
    """

    name = "none"
    noticed = ""

    def __init__(self) -> None:
        self.strikes = 0
        self.broken: list[str] = []

    async def before(self, call: Call) -> Answer | None:
        """An answer instead of the API server's, which then never hears of the request."""
        del call
        return None

    async def after(self, call: Call, answer: Answer) -> Answer:
        """The answer, once the API server has acted."""
        del call
        return answer

    def events(self, call: Call, events: Events) -> Events:
        """The events of a watch of an object of the product."""
        del call
        return events


class ApiProxy:
    """An asynchronous context manager; `kubeconfig` is for the operator."""

    def __init__(self, plane: ControlPlane, kubeconfig: Path, fault: ApiFault) -> None:
        self.kubeconfig = kubeconfig
        self._plane = plane
        self._fault = fault
        app = web.Application(client_max_size=_LONGEST_EVENT)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        authority = self._plane.authority
        tls = ssl.create_default_context(cafile=str(authority.certificate("ca")))
        tls.load_cert_chain(str(authority.certificate("operator")), str(authority.key("operator")))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=_LONGEST_EVENT,
            auto_decompress=False,
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        port = self._runner.addresses[0][1]
        await asyncio.to_thread(self.kubeconfig.write_text, _kubeconfig(port))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        call = Call(
            method=request.method,
            target=request.raw_path,
            watch="watch" in request.query,
            ours=not _OURS.isdisjoint(request.path.split("/")),
        )
        body = await request.read()
        try:
            answer = await self._fault.before(call)
            if answer is not None:
                return _response(answer)
            return await self._forward(request, call, body)
        except ResetError:
            _reset(request)
            return web.Response()

    async def _forward(self, request: web.Request, call: Call, body: bytes) -> web.StreamResponse:
        async with self._session.request(
            call.method,
            URL(self._plane.server + call.target, encoded=True),
            data=body or None,
            headers={name: request.headers[name] for name in _KEPT if name in request.headers},
        ) as answer:
            if call.watch and call.ours and answer.status == 200:
                return await self._stream(request, call, answer)
            if call.watch and answer.status == 200:
                return await _copy(request, answer)
            given = Answer(
                answer.status,
                await answer.read(),
                (("Content-Type", answer.headers.get("Content-Type", "application/json")),),
            )
        return _response(await self._fault.after(call, given))

    async def _stream(
        self, request: web.Request, call: Call, answer: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        async with (
            aclosing(_events(answer)) as events,
            aclosing(self._fault.events(call, events)) as told,
        ):
            async for event in told:
                await response.write(json.dumps(event).encode() + b"\n")
        await response.write_eof()
        return response


async def _events(answer: aiohttp.ClientResponse) -> Events:
    async for line in answer.content:
        event: Raw = json.loads(line)
        yield event


async def _copy(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    async for chunk in answer.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response


def _response(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, headers=dict(answer.headers))


def _reset(request: web.Request) -> None:
    """Closes the connection with RST, as a dead peer's kernel does."""
    transport = request.transport
    if transport is None:
        return
    raw = transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _kubeconfig(port: int) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        }
    )
