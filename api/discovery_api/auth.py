"""Who calls: a bearer token, or a browser's session. Nothing else is ever taken for a caller."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, WebSocket
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from .problems import unauthenticated
from .sessions import CSRF_HEADER, SAFE_METHODS, Sessions

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


def socket_token(websocket: WebSocket) -> str:
    """The token of a WebSocket: its `Authorization` header, or the session of our own page.

    Raises ProblemError 401 and 403.
    """
    kind, _, token = websocket.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and token.strip():
        return token.strip()
    sessions: Sessions = websocket.app.state.sessions
    session = sessions.of(websocket)
    if session is None:
        raise unauthenticated("send Authorization: Bearer <token>")
    sessions.check_origin(websocket)
    return session.token


Token = Annotated[str, Depends(_token)]
