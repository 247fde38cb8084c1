"""Adds the pages to the application: routes, static files, and errors as pages."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from fastapi.staticfiles import StaticFiles

from ..problems import ProblemError
from . import account, actions, oidc, pages
from .templating import page

STATIC = Path(__file__).parent / "static"


def install_pages(app: FastAPI) -> None:
    """Adds everything below `/` that is not `/api`."""
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    for routes in (account, oidc, pages, actions):
        app.include_router(routes.router)
    app.state.page_errors = error_page


def error_page(request: Request, problem: ProblemError) -> Response:
    """An error of a page, as a page: what happened, and the way on."""
    if problem.status == 401:
        target = quote(request.url.path) if request.method == "GET" else "/"
        answer = RedirectResponse(f"/sign-in?next={target}", status_code=303)
        request.app.state.sessions.end(answer)
        return answer
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
