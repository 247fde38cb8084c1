"""Who calls: a bearer token, or a browser's session. Nothing else is ever taken for a caller."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from .caller import acting_as
from .problems import UnauthenticatedError
from .sessions import CSRF_HEADER, SAFE_METHODS, Session, Sessions
from .settings import ApiSettings

_scheme = HTTPBearer(
    auto_error=False, description="A Kubernetes token, for example of `kubectl create token NAME`"
)


def _credentials(connection: HTTPConnection) -> tuple[str, Session | None]:
    """The token of a connection, and the session that it is from. Raises ProblemError 401."""
    kind, _, token = connection.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and token.strip():
        return token.strip(), None
    sessions: Sessions = connection.app.state.sessions
    session = sessions.of(connection)
    if session is not None:
        return session.token, session
    raise _unknown()


def _unknown() -> UnauthenticatedError:
    return UnauthenticatedError(
        "send Authorization: Bearer <token>; `kubectl create token NAME` makes one"
    )


def token_of(connection: HTTPConnection) -> str:
    """The token of a bearer, or of a session that one of our own pages has sent.

    Raises ProblemError 401 and 403.
    """
    token, session = _credentials(connection)
    if session is not None:
        sessions: Sessions = connection.app.state.sessions
        sessions.check_origin(connection)
    return token


def _token(
    request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)]
) -> str:
    """The caller's token. Raises ProblemError 401, and 403 for a request that may be forged."""
    token, session = _credentials(request)
    if session is not None and "authorization" in request.headers:
        # whoever sends credentials of another kind to the API does not mean the session
        raise _unknown()
    if session is not None and request.method not in SAFE_METHODS:
        sessions: Sessions = request.app.state.sessions
        sessions.check_forgery(request, session, request.headers.get(CSRF_HEADER))
    return token


def given_token(connection: HTTPConnection) -> str | None:
    """The token that a connection comes with, whatever it is worth."""
    try:
        return _credentials(connection)[0]
    except UnauthenticatedError:
        return None


async def identify(connection: HTTPConnection) -> str:
    """Asks Kubernetes who calls. Raises ProblemError 401, 403 and 503.

    What it says of the token is kept in `state.known`, so that a request asks once.
    """
    settings: ApiSettings = connection.app.state.settings
    changes = connection.scope.get("method", "GET") not in SAFE_METHODS
    token = token_of(connection) if changes else _credentials(connection)[0]
    async with acting_as(settings, token) as caller:
        user = await caller.user()
    connection.state.known = (token, user)
    return user.name


Token = Annotated[str, Depends(_token)]
