"""Every error as an RFC 9457 problem, made in one place.

A client decides by `type`, a person reads `title` and `detail`; neither ever gets a stack trace
or a plain-text body.
"""

from __future__ import annotations

from typing import Any

import structlog
from discovery_core.errors import (
    DiscoveryError,
    ErrorCode,
    IllegalTransitionError,
    InvalidAnswerError,
    NotFoundError,
    NotLaunchedError,
    SupersededError,
)
from discovery_core.store.monitoring import NOT_CURRENT
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import (
    DataError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

log = structlog.get_logger(__name__)

BASE = "https://discoveryflow.dev/problems/"
MEDIA_TYPE = "application/problem+json"
_HTTP_KINDS = {
    400: "invalid-request",
    404: "not-found",
    405: "method-not-allowed",
    408: "stalled",
    413: "too-large",
}
_SCHEMA_STATES = {"42P01", "42703", "42883", "3F000"}  # undefined table, column, function, schema


class Problem(BaseModel):
    """An error (RFC 9457). Programs decide by `type`, people read `title` and `detail`."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description=f"What went wrong; starts with {BASE}")
    title: str
    status: int
    detail: str = ""
    problems: list[str] = Field(default=[], description="Each fault of an invalid request")


class ProblemError(Exception):
    """An answer that is an error. `kind` ends the problem's type URI."""

    def __init__(
        self,
        status: int,
        kind: str,
        title: str,
        detail: str = "",
        *,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail or title)
        self.status = status
        self.kind = kind
        self.title = title
        self.detail = detail
        self.headers = headers or {}
        self.more = more


def respond(problem: ProblemError) -> JSONResponse:
    """The HTTP answer that a problem is."""
    content = {
        "type": BASE + problem.kind,
        "title": problem.title,
        "status": problem.status,
    }
    if problem.detail:
        content["detail"] = problem.detail
    return JSONResponse(
        content | problem.more,
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=problem.headers,
    )


def unauthenticated(detail: str) -> ProblemError:
    """401: no token, or one that Kubernetes does not accept."""
    return ProblemError(
        401,
        "unauthenticated",
        "Not authenticated",
        detail,
        headers={"WWW-Authenticate": "Bearer"},
    )


def unavailable(detail: str) -> ProblemError:
    """503: what this API needs is away; trying again helps."""
    return ProblemError(
        503, "unavailable", "Not available now", detail, headers={"Retry-After": "2"}
    )


def problem_of(error: Exception) -> ProblemError:
    """The answer to an exception of the store, the framework or the database."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, SupersededError):
        return ProblemError(409, "superseded", "Superseded", str(error))
    if isinstance(error, NotLaunchedError):
        return ProblemError(
            425, "not-launched", "Not launched yet", str(error), headers={"Retry-After": "1"}
        )
    if isinstance(error, NotFoundError):
        return ProblemError(404, "not-found", "Not found", str(error))
    if isinstance(error, InvalidAnswerError):
        return ProblemError(
            422, "invalid-answer", "The answer was refused", str(error), problems=error.problems
        )
    if isinstance(error, IllegalTransitionError):
        return ProblemError(409, "conflict", "Not possible in this state", str(error))
    if isinstance(error, DiscoveryError):
        status = 413 if error.code is ErrorCode.LIMIT_EXCEEDED else 422
        return ProblemError(status, "refused", "Refused", error.message, code=str(error.code))
    if isinstance(error, RequestValidationError | HTTPException | ClientDisconnect):
        return _of_framework(error)
    if isinstance(error, SQLAlchemyError | TimeoutError | OSError):
        return _of_database(error)
    return _INTERNAL


def _of_framework(error: RequestValidationError | HTTPException | ClientDisconnect) -> ProblemError:
    if isinstance(error, HTTPException):
        kind = _HTTP_KINDS.get(error.status_code, "http")
        return ProblemError(
            error.status_code, kind, str(error.detail), headers=dict(error.headers or {})
        )
    if isinstance(error, ClientDisconnect):
        return ProblemError(400, "disconnected", "The client went away")
    problems = [
        f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()
    ]
    return ProblemError(
        422, "invalid-request", "The request is not valid", "; ".join(problems), problems=problems
    )


def _of_database(error: SQLAlchemyError | TimeoutError | OSError) -> ProblemError:
    """503 where waiting helps, 422 for values that Postgres cannot hold, else 500."""
    if isinstance(error, DataError):
        return ProblemError(
            422,
            "invalid-request",
            "The request is not valid",
            f"the database cannot hold a value: {str(error.orig).splitlines()[0]}",
            code=str(ErrorCode.INVALID_RESULT),
        )
    if isinstance(error, ProgrammingError):
        state = getattr(error.orig, "sqlstate", None)
        if state in _SCHEMA_STATES:
            return unavailable(NOT_CURRENT)
        return _INTERNAL
    if isinstance(
        error, OperationalError | InterfaceError | PoolTimeoutError | TimeoutError | OSError
    ):
        return unavailable("the database does not answer; try again")
    return _INTERNAL


_INTERNAL = ProblemError(500, "internal", "Internal error", "see the server's log")


def _short(error: Exception) -> str:
    """The first line of an error, which names no parameters of a statement."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _wants_page(request: Request) -> bool:
    """Whether a person looks at the answer."""
    accepts = request.headers.get("accept", "")
    return not request.url.path.startswith("/api/") and "text/html" in accepts


def answer_to(request: Request, error: Exception) -> Response:
    """The answer to a request that has failed: a problem, or a page where a person looks."""
    problem = problem_of(error)
    where = {"method": request.method, "path": request.url.path}
    if problem.status == 503:
        log.warning("not available", **where, reason=problem.detail, error=_short(error))
    elif problem.status >= 500:
        log.error("request failed", **where, exc_info=error)
    as_page = getattr(request.app.state, "page_errors", None)
    if as_page is not None and _wants_page(request):
        page: Response = as_page(request, problem)
        return page
    return respond(problem)


def install(app: FastAPI) -> None:
    """Makes every error of `app` a problem."""

    async def handle(request: Request, error: Exception) -> Response:
        return answer_to(request, error)

    for kind in (
        ProblemError,
        SupersededError,
        NotLaunchedError,
        NotFoundError,
        InvalidAnswerError,
        IllegalTransitionError,
        DiscoveryError,
        RequestValidationError,
        HTTPException,
        ClientDisconnect,
        SQLAlchemyError,
        TimeoutError,
        OSError,
        Exception,
    ):
        app.add_exception_handler(kind, handle)
