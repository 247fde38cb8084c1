"""Sign in with a Kubernetes token, and sign out."""

from __future__ import annotations

import time
from typing import Annotated

from discovery_core.errors import ProblemError
from discovery_core.store import ApiStore
from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from ..caller import acting_as
from ..callers import address_of, hashed
from ..context import settings_of
from ..limits import Failures
from ..sessions import Sessions, person_of
from .templating import page

router = APIRouter(include_in_schema=False)
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
    failures: Failures = request.app.state.failures
    pasted = "".join(token.split()).encode("ascii", "ignore").decode() or "none"
    attempt = (address_of(request), hashed(pasted))
    failures.count(*attempt)
    try:
        async with acting_as(settings, pasted) as caller:
            user = await caller.user_name()
    except ProblemError as refused:
        if refused.status not in (401, 403):
            failures.forgive(*attempt)
        return page(
            request,
            "sign_in.html",
            None,
            status_code=refused.status,
            target=safe_target(target),
            oidc=bool(settings.oidc_issuer),
            problem=refused.detail,
        )
    failures.forgive(*attempt)
    request.state.log["user"] = user
    # a look before the redirect, because a browser sends a Strict cookie to our own pages only
    answer = RedirectResponse(safe_target(target), status_code=303)
    sessions.write(answer, sessions.begin(pasted, user))
    return answer


@router.post("/sign-out")
async def sign_out(request: Request, csrf: Annotated[str, Form(max_length=100)] = "") -> Response:
    """Ends the person's sessions for good: here at once, in other processes at their next look."""
    sessions: Sessions = request.app.state.sessions
    session = sessions.of(request)
    if session is not None:
        sessions.check_forgery(request, session, csrf)
        store: ApiStore = request.app.state.store
        # another process, whose clock is ahead, may have begun it
        begun = max(time.time(), session.began)
        longest = settings_of(request).session_seconds
        await store.end_sessions(person_of(session), begun, longest)
        sessions.learn({person_of(session): begun})
    answer = RedirectResponse("/sign-in", status_code=303)
    sessions.end(answer)
    return answer
