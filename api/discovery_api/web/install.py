"""Adds the pages to the application: routes, static files, and errors as pages."""

from __future__ import annotations

from urllib.parse import quote

from discovery_core.errors import ProblemError
from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response

from ..sessions import Sessions
from . import account, actions, oidc, pages
from .account import safe_target
from .assets import PLACE, Assets
from .templating import page


def install_pages(app: FastAPI) -> None:
    """Adds everything below `/` that is not `/api`."""
    app.mount(PLACE, Assets(), name="static")
    for routes in (account, oidc, pages, actions):
        app.include_router(routes.router)
    app.state.page_errors = error_page


def _signed_out(request: Request) -> Response:
    """To the sign-in page, and back; but whoever follows a link of another site may be signed in.

    A browser keeps the Strict cookie from such a request, and sends it as soon as a page of ours
    goes to the same place.
    """
    sessions: Sessions = request.app.state.sessions
    target = "/"
    if request.method == "GET":
        target = safe_target(
            request.url.path + (f"?{request.url.query}" if request.url.query else "")
        )
    linked = (
        request.headers.get("sec-fetch-site") == "cross-site"
        and request.headers.get("sec-fetch-mode") == "navigate"
    )
    if linked and not sessions.sent(request):
        return page(request, "arrived.html", None, target=target, title="One moment")
    answer = RedirectResponse(f"/sign-in?next={quote(target)}", status_code=303)
    if sessions.sent(request):
        sessions.end(answer)
    return answer


def error_page(request: Request, problem: ProblemError) -> Response:
    """An error of a page, as a page: what happened, and the way on."""
    if problem.status == 401:
        return _signed_out(request)
    session = request.app.state.sessions.of(request)
    return page(
        request,
        "error.html",
        session,
        status_code=problem.status,
        title=problem.title,
        detail=problem.detail,
        problems=problem.more.get("problems", []),
        status=problem.status,
    )
