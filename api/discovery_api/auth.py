"""Who calls: the bearer token of a request."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, WebSocket
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from .problems import unauthenticated

_scheme = HTTPBearer(
    auto_error=False, description="A Kubernetes token, for example of `kubectl create token NAME`"
)


def _bearer_token(found: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)]) -> str:
    """The token of the `Authorization` header. Raises ProblemError 401."""
    if found is None or not found.credentials.strip():
        raise unauthenticated(
            "send Authorization: Bearer <token>; `kubectl create token NAME` makes one"
        )
    return found.credentials.strip()


def socket_token(websocket: WebSocket) -> str:
    """The token of a WebSocket's `Authorization` header. Raises ProblemError 401."""
    kind, _, token = websocket.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise unauthenticated("send Authorization: Bearer <token>")
    return token.strip()


Token = Annotated[str, Depends(_bearer_token)]
