"""Who sends a request, asked before its body, and how often they may.

A caller is counted by the name that Kubernetes gives, whatever token it comes with; strangers and
tokens that are not accepted are counted by address. A token that was accepted is remembered by its
hash, for counting only: Kubernetes still judges each call. Plain ASGI, because the framework reads
a body before it asks anything.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

from discovery_core.errors import ProblemError
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from .addresses import counted_as
from .limits import Failures, Requests
from .middleware import QUIET
from .problems import ForgedError, answer_to
from .recent import remember


class Callers:
    """Lets `identify` refuse (ProblemError) before a byte of a body is taken, and counts requests.

    `token_of` tells the token of a request, if it has one, and `identify` whose it is; the name is
    left in `state.principal`. Who comes without a token is refused only where it sends a body, but
    not on the paths `public` (and all below those that end in a slash), where nobody is known yet.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token_of: Callable[[HTTPConnection], str | None],
        identify: Callable[[HTTPConnection], Awaitable[str]],
        requests: Requests,
        failures: Failures,
        public: Sequence[str] = (),
    ) -> None:
        self._app = app
        self._token_of = token_of
        self._identify = identify
        self._requests = requests
        self._failures = failures
        self._public = frozenset(public)
        self._folders = tuple(path for path in public if path.endswith("/"))
        # names by the hash of their tokens; the longest unheard of goes first
        self._known: OrderedDict[str, str] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] not in ("http", "websocket") or scope["path"] in QUIET:
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})
        connection = HTTPConnection(scope)
        try:
            scope["state"]["principal"] = await self._counted(connection)
        except ProblemError as refused:
            if scope["type"] == "websocket":
                # not accepted yet, so this is an HTTP answer 403
                await send({"type": "websocket.close", "code": 1008, "reason": refused.title})
                return
            await answer_to(Request(scope), refused)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _counted(self, connection: HTTPConnection) -> str:
        """Whom the request was counted for, "" for a stranger. Raises ProblemError."""
        address = address_of(connection)
        unasked = self._is_public(connection.scope["path"]) or not _has_body(connection)
        token = self._token_of(connection)
        if token is None:
            self._requests.count(f"address {address}")
            return "" if unasked else await self._identify(connection)
        key = hashed(token)
        name = self._known.get(key)
        if name is not None:
            self._requests.count(f"caller {name}")
            return name if unasked else await self._identified(connection, key, address)
        if self._is_public(connection.scope["path"]):
            self._requests.count(f"address {address}")
            return ""
        if self._failures.count(address, key):
            self._requests.count(f"address {address}")
        found = await self._identified(connection, key, address)
        self._requests.count(f"caller {found}")
        return found

    def _is_public(self, path: str) -> bool:
        return path in self._public or path.startswith(self._folders)

    async def _identified(self, connection: HTTPConnection, key: str, address: str) -> str:
        """Asks whose the token is; one that is accepted was no failure of its address."""
        try:
            name = await self._identify(connection)
        except ProblemError as refused:
            self._known.pop(key, None)
            if refused.status not in (401, 403) or isinstance(refused, ForgedError):
                self._failures.forgive(address, key)
            raise
        except BaseException:
            self._failures.forgive(address, key)
            raise
        self._failures.forgive(address, key)
        remember(self._known, key, name)
        return name


def hashed(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def address_of(connection: HTTPConnection) -> str:
    """The address that a request is counted for, in IPv6 its network."""
    return counted_as(connection.client.host) if connection.client is not None else ""


def _has_body(connection: HTTPConnection) -> bool:
    if connection.scope["type"] != "http":
        return False
    headers = Headers(scope=connection.scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0").strip() != "0"
