"""Who calls: a bearer token, or a browser's session. Nothing else is ever taken for a caller."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from .caller import acting_as
from .problems import unauthenticated
from .sessions import CSRF_HEADER, SAFE_METHODS, Sessions
from .settings import ApiSettings

_scheme = HTTPBearer(
    auto_error=False, description="A Kubernetes token, for example of `kubectl create token NAME`"
)


def _token(
    request: Request, found: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)]
) -> str:
    """The caller's token. Raises ProblemError 401, and 403 for a request that may be forged."""
    if found is not None and found.credentials.strip():
        return found.credentials.strip()
    sessions: Sessions = request.app.state.sessions
    session = sessions.of(request) if "authorization" not in request.headers else None
    if session is None:
        raise unauthenticated(
            "send Authorization: Bearer <token>; `kubectl create token NAME` makes one"
        )
    if request.method not in SAFE_METHODS:
        sessions.check_forgery(request, session, request.headers.get(CSRF_HEADER))
    return session.token


def token_of(connection: HTTPConnection) -> str:
    """The token of a connection: its `Authorization` header, or the session of our own page.

    Raises ProblemError 401 and 403.
    """
    kind, _, token = connection.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and token.strip():
        return token.strip()
    sessions: Sessions = connection.app.state.sessions
    session = sessions.of(connection)
    if session is None:
        raise unauthenticated(
            "send Authorization: Bearer <token>; `kubectl create token NAME` makes one"
        )
    sessions.check_origin(connection)
    return session.token


async def authenticate(request: Request) -> None:
    """Asks Kubernetes who calls, before the body is read. Raises ProblemError 401, 403 and 503."""
    settings: ApiSettings = request.app.state.settings
    async with acting_as(settings, token_of(request)) as caller:
        await caller.user_name()


Token = Annotated[str, Depends(_token)]
