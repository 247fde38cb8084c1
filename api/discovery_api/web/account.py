"""Sign in with a Kubernetes token, and sign out."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from typing import Annotated

from discovery_core.errors import ProblemError
from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from ..caller import acting_as
from ..context import settings_of
from ..problems import TooManyRequestsError
from ..sessions import Sessions
from .templating import page

router = APIRouter(include_in_schema=False)
ATTEMPTS, WINDOW_SECONDS = 20, 300.0
_MOST_ADDRESSES = 10_000
_TARGET_LENGTH = 1000


def safe_target(target: str) -> str:
    """A place of our own to go to after signing in; never another site's."""
    plain = target.startswith("/") and not target.startswith("//") and "\\" not in target
    return target if plain and target.isprintable() and len(target) <= _TARGET_LENGTH else "/"


@router.get("/sign-in")
async def sign_in_page(request: Request, next: str = "/") -> Response:  # noqa: A002 - the query's name
    """How to sign in."""
    settings = settings_of(request)
    return page(
        request,
        "sign_in.html",
        None,
        target=safe_target(next),
        oidc=bool(settings.oidc_issuer),
        problem="",
    )


@router.post("/sign-in")
async def sign_in(
    request: Request,
    token: Annotated[str, Form(max_length=16_000)] = "",
    target: Annotated[str, Form(max_length=1000)] = "/",
) -> Response:
    """Begins a session with a pasted token, if Kubernetes accepts it."""
    sessions: Sessions = request.app.state.sessions
    settings = settings_of(request)
    sessions.check_origin(request)
    attempts: Attempts = request.app.state.attempts
    address = request.client.host if request.client else ""
    attempts.count(address)
    pasted = "".join(token.split()).encode("ascii", "ignore").decode() or "none"
    try:
        async with acting_as(settings, pasted) as caller:
            user = await caller.user_name()
    except ProblemError as refused:
        if refused.status not in (401, 403):
            attempts.forgive(address)
        return page(
            request,
            "sign_in.html",
            None,
            status_code=refused.status,
            target=safe_target(target),
            oidc=bool(settings.oidc_issuer),
            problem=refused.detail,
        )
    attempts.forgive(address)
    request.state.log["user"] = user
    # a look before the redirect, because a browser sends a Strict cookie to our own pages only
    answer = RedirectResponse(safe_target(target), status_code=303)
    sessions.write(answer, sessions.begin(pasted, user))
    return answer


@router.post("/sign-out")
async def sign_out(request: Request, csrf: Annotated[str, Form(max_length=100)] = "") -> Response:
    """Ends the session."""
    sessions: Sessions = request.app.state.sessions
    session = sessions.of(request)
    if session is not None:
        sessions.check_forgery(request, session, csrf)
    answer = RedirectResponse("/sign-in", status_code=303)
    sessions.end(answer)
    return answer


class Attempts:
    """When each address has failed to sign in. Counted per process.

    Whoever gets in costs nobody an attempt, because many people may come from one address.
    """

    def __init__(self) -> None:
        # the address that has not failed for the longest time goes first
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def count(self, address: str) -> None:
        """Counts an attempt as failed. Raises ProblemError 429 where there were too many."""
        now = time.monotonic()
        times = self._failed.setdefault(address, deque())
        while times and times[0] < now - WINDOW_SECONDS:
            times.popleft()
        if len(times) >= ATTEMPTS:
            wait = int(times[0] + WINDOW_SECONDS - now) + 1
            raise TooManyRequestsError(
                f"try again in {wait} seconds", wait, title="Too many attempts"
            )
        times.append(now)
        self._failed.move_to_end(address)
        if len(self._failed) > _MOST_ADDRESSES:
            self._failed.popitem(last=False)

    def forgive(self, address: str) -> None:
        """Takes back the latest attempt: it did not fail, or for no fault of its token."""
        times = self._failed.get(address)
        if times:
            times.pop()
