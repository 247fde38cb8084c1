"""What stands before every route: a log line per request, and bounds on what a body may do.

Plain ASGI, because bodies and answers are streams here: the log line is written when the last
byte has gone, and a client that stops sending, or sends without end, is cut off. Who calls is
asked before the first byte of a body is taken, because the framework reads a body first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

import structlog
from discovery_core.errors import ProblemError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import TooLargeError, answer_to, respond

log = structlog.get_logger(__name__)

QUIET = ("/healthz", "/readyz")


class RequestLog:
    """One line per request, with whatever the route has put into `request.state.log`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        structlog.contextvars.clear_contextvars()
        if scope["type"] != "http" or scope["path"] in QUIET:
            await self._app(scope, receive, send)
            return
        bound: dict[str, object] = {}
        scope.setdefault("state", {})["log"] = bound
        started, status = time.perf_counter(), 500

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                seconds=round(time.perf_counter() - started, 4),
                **bound,
            )


class KnownCallers:
    """Lets `authenticate` refuse (ProblemError) before any byte of a request's body is taken.

    Paths in `strangers` are for people who are not known yet.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        authenticate: Callable[[Request], Awaitable[None]],
        strangers: Collection[str] = (),
    ) -> None:
        self._app = app
        self._authenticate = authenticate
        self._strangers = frozenset(strangers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] == "http" and _has_body(scope) and scope["path"] not in self._strangers:
            request = Request(scope)
            try:
                await self._authenticate(request)
            except ProblemError as refused:
                await answer_to(request, refused)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0").strip() != "0"


@dataclass(frozen=True)
class Bounds:
    """What one request's body may be: bytes (None: the route counts), and seconds in all."""

    most_bytes: int | None
    seconds: float


class BodyGuard:
    """Ends requests whose body is too large (413), stops arriving or takes too long (408).

    `bounds` are those of every body, unless its path is in `special`. `stall_seconds` is how long
    the next piece may take. The framework's own limit is not used, because it answers in plain
    text.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        bounds: Bounds,
        stall_seconds: float,
        special: Mapping[str, Bounds],
    ) -> None:
        self._app = app
        self._bounds = bounds
        self._stall = stall_seconds
        self._special = special

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        bounds = self._special.get(scope["path"], self._bounds)
        limit = bounds.most_bytes
        declared = Headers(scope=scope).get("content-length", "")
        if limit is not None and declared.isdigit() and int(declared) > limit:
            await respond(_too_large(limit))(scope, receive, send)
            return
        await self._app(scope, self._guarded(receive, bounds), send)

    def _guarded(self, receive: Receive, bounds: Bounds) -> Receive:
        received, complete, limit = 0, False, bounds.most_bytes
        clock = asyncio.get_running_loop().time
        ends = clock() + bounds.seconds

        async def guarded() -> Message:
            nonlocal received, complete
            if complete:
                # what comes now is the end of the connection, which may take its time
                return await receive()
            try:
                async with asyncio.timeout_at(min(ends, clock() + self._stall)):
                    message = await receive()
            except TimeoutError as error:
                late = clock() >= ends
                why = (
                    f"not complete after {bounds.seconds:g} seconds"
                    if late
                    else (f"no data for {self._stall:g} seconds")
                )
                raise HTTPException(408, why) from error
            complete = not message.get("more_body", False)
            received += len(message.get("body", b""))
            if limit is not None and received > limit:
                raise HTTPException(413, _too_large(limit).detail)
            return message

        return guarded


def _too_large(limit: int) -> ProblemError:
    return TooLargeError(f"a body here has at most {limit} bytes")
