"""Headers that keep browsers safe, and a limit on how often one caller may ask."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .middleware import QUIET
from .problems import TooManyRequestsError, respond

CONTENT_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_MOST_CALLERS = 10_000


class SecurityHeaders:
    """Adds the headers to every answer.

    Browsers are told to come back by TLS only under the public name: through a port-forward the
    name is `localhost`, which other programs of that machine have as well.
    """

    def __init__(self, app: ASGIApp, *, public_url: str) -> None:
        self._app = app
        public = urlsplit(public_url)
        self._strict_host = public.netloc if public.scheme == "https" else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        strict = self._strict_host and Headers(scope=scope).get("host") == self._strict_host

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if strict:
                    headers["Strict-Transport-Security"] = "max-age=31536000"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, with_headers)


class RateLimit:
    """So many requests a second for each caller, and some more at once. Counted per process."""

    def __init__(self, app: ASGIApp, *, per_second: float, burst: int, session_cookie: str) -> None:
        self._app = app
        self._session_cookie = session_cookie
        self._rate = per_second
        self._burst = float(burst)
        # tokens left and when they were counted, by caller; the longest unheard of goes first
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        counted = scope["type"] in ("http", "websocket") and scope["path"] not in QUIET
        wait = self.take(self._caller(scope)) if counted and self._rate > 0 else 0.0
        if wait > 0 and scope["type"] == "websocket":
            # not accepted yet, so this is an HTTP answer 403
            await send({"type": "websocket.close", "code": 1013, "reason": "too many requests"})
            return
        if wait > 0:
            refused = TooManyRequestsError(
                f"at most {self._rate:g} a second; try again in {wait:.1f} seconds", wait
            )
            await respond(refused)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def take(self, caller: str) -> float:
        """Counts one request; seconds to wait where there are too many, else 0."""
        now = time.monotonic()
        left, since = self._buckets.pop(caller, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        allowed = left >= 1
        self._buckets[caller] = (left - 1 if allowed else left, now)
        if len(self._buckets) > _MOST_CALLERS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self._rate

    def _caller(self, scope: Scope) -> str:
        """Whom a request is counted for: its token, its session, or else its address.

        Of the cookies only the session's counts: with any other one anybody could be many.
        """
        connection = HTTPConnection(scope)
        given = connection.headers.get("authorization") or connection.cookies.get(
            self._session_cookie
        )
        if given:
            return hashlib.sha256(given.encode()).hexdigest()
        client = scope.get("client") or ("",)
        return str(client[0])
