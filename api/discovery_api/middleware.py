"""What stands before every route: a log line per request, and bounds on what a body may do.

Plain ASGI, because bodies and answers are streams here: the log line is written when the last
byte has gone, and a client that stops sending, or sends without end, is cut off.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import ProblemError, respond

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


class BodyGuard:
    """Ends requests whose body is too large (413) or stops arriving (408).

    `max_bytes` bounds bodies that are held in memory as a whole; paths in `streamed` have bounds
    of their own. `stall_seconds` is how long the next piece may take. The framework's own limit
    is not used, because it answers in plain text.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        stall_seconds: float,
        streamed: Collection[str] = (),
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._stall = stall_seconds
        self._streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = None if scope["path"] in self._streamed else self._max_bytes
        declared = Headers(scope=scope).get("content-length", "")
        if limit is not None and declared.isdigit() and int(declared) > limit:
            await respond(_too_large(limit))(scope, receive, send)
            return
        await self._app(scope, self._guarded(receive, limit), send)

    def _guarded(self, receive: Receive, limit: int | None) -> Receive:
        received, complete = 0, False

        async def guarded() -> Message:
            nonlocal received, complete
            if complete:
                # what comes now is the end of the connection, which may take its time
                return await receive()
            try:
                async with asyncio.timeout(self._stall):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(408, f"no data for {self._stall:g} seconds") from error
            complete = not message.get("more_body", False)
            received += len(message.get("body", b""))
            if limit is not None and received > limit:
                raise HTTPException(413, _too_large(limit).detail)
            return message

        return guarded


def _too_large(limit: int) -> ProblemError:
    return ProblemError(
        413, "too-large", "The request is too large", f"a body here has at most {limit} bytes"
    )
