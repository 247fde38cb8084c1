"""What stands before every route: a log line per request, and bounds on what a body may do.

Plain ASGI, because bodies and answers are streams here: the log line is written when the last
byte has gone, and a client that stops sending, or sends without end, is cut off. Not here: who
calls, which is asked before any of it (`callers.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from discovery_core.errors import ProblemError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import TooLargeError, respond

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


def declared_bytes(headers: Headers) -> int | None:
    """How many bytes a body says that it has; None where it says nothing that is a number."""
    declared = headers.get("content-length", "")
    return int(declared) if declared.isdecimal() else None


@dataclass(frozen=True)
class Bounds:
    """What one request's body may be: bytes (None: the route counts), and seconds in all."""

    most_bytes: int | None
    seconds: float


class BodyGuard:
    """Ends requests whose body is too large (413), stops arriving, drips or takes too long (408).

    `bounds` are those of every body, unless its path is in `special`. `stall_seconds` is how long
    the next piece may take, and how long a body may be waited for beyond what it takes at `rate`
    (bytes a second); what the server does in between counts for nobody. The framework's own limit
    is not used, because it answers in plain text.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        bounds: Bounds,
        stall_seconds: float,
        rate: float,
        special: Mapping[str, Bounds],
    ) -> None:
        self._app = app
        self._bounds = bounds
        self._stall = stall_seconds
        self._rate = rate
        self._special = special

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        bounds = self._special.get(scope["path"], self._bounds)
        limit = bounds.most_bytes
        declared = declared_bytes(Headers(scope=scope))
        if limit is not None and declared is not None and declared > limit:
            await respond(_too_large(limit))(scope, receive, send)
            return
        await self._app(scope, self._guarded(receive, bounds), send)

    def _guarded(self, receive: Receive, bounds: Bounds) -> Receive:
        received, waited, complete, limit = 0, 0.0, False, bounds.most_bytes
        clock = asyncio.get_running_loop().time
        ends = clock() + bounds.seconds

        async def guarded() -> Message:
            nonlocal received, waited, complete
            if complete:
                # what comes now is the end of the connection, which may take its time
                return await receive()
            began = clock()
            too_slow = began + self._stall + received / self._rate - waited
            try:
                async with asyncio.timeout_at(min(ends, began + self._stall, too_slow)):
                    message = await receive()
            except TimeoutError as error:
                if clock() >= ends:
                    why = f"not complete after {bounds.seconds:g} seconds"
                elif clock() >= too_slow and received:
                    why = f"fewer than {self._rate:g} bytes a second"
                else:
                    why = f"no data for {self._stall:g} seconds"
                raise HTTPException(408, why) from error
            waited += clock() - began
            complete = not message.get("more_body", False)
            received += len(message.get("body", b""))
            if limit is not None and received > limit:
                raise HTTPException(413, _too_large(limit).detail)
            return message

        return guarded


def _too_large(limit: int) -> ProblemError:
    return TooLargeError(f"a body here has at most {limit} bytes")
