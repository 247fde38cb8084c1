"""Headers that keep browsers safe, and a limit on how often one caller may ask."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .middleware import QUIET
from .problems import ProblemError, respond

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
    """Adds the headers to every answer."""

    def __init__(self, app: ASGIApp, *, tls: bool) -> None:
        self._app = app
        self._headers = dict(_HEADERS)
        if tls:
            self._headers["Strict-Transport-Security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, with_headers)


class RateLimit:
    """So many requests a second for each caller, and some more at once. Counted per process."""

    def __init__(self, app: ASGIApp, *, per_second: float, burst: int) -> None:
        self._app = app
        self._rate = per_second
        self._burst = float(burst)
        # tokens left and when they were counted, by caller; the longest unheard of goes first
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] != "http" or scope["path"] in QUIET or self._rate <= 0:
            await self._app(scope, receive, send)
            return
        wait = self.take(caller_of(scope))
        if wait > 0:
            refused = ProblemError(
                429,
                "too-many-requests",
                "Too many requests",
                f"at most {self._rate:g} a second; try again in {wait:.1f} seconds",
                headers={"Retry-After": str(max(1, round(wait)))},
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


def caller_of(scope: Scope) -> str:
    """Whom a request is counted for: its token, its session, or else its address."""
    headers = Headers(scope=scope)
    for name in ("authorization", "cookie"):
        given = headers.get(name, "")
        if given:
            return hashlib.sha256(given.encode()).hexdigest()
    client = scope.get("client") or ("",)
    return str(client[0])
