"""Every error as an RFC 9457 problem, made in one place.

A client decides by `type`, a person reads `title` and `detail`; neither ever gets a stack trace
or a plain-text body.
"""

from __future__ import annotations

from types import MappingProxyType

import structlog
from discovery_core.errors import ErrorCode, ProblemError
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


class InvalidRequestError(ProblemError):
    """What is asked for makes no sense."""

    status = 422
    kind = "invalid-request"
    title = "The request is not valid"


class UnreadableRequestError(ProblemError):
    """A body or a sign-in that cannot be read."""

    status = 400
    kind = "invalid-request"
    title = "The request is not valid"


class DisconnectedError(ProblemError):
    """Nobody waits for the answer."""

    status = 400
    kind = "disconnected"
    title = "The client went away"


class UnauthenticatedError(ProblemError):
    """No token, or one that Kubernetes does not accept."""

    status = 401
    kind = "unauthenticated"
    title = "Not authenticated"
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class ForbiddenError(ProblemError):
    """The caller is known and may not do that."""

    status = 403
    kind = "forbidden"
    title = "Not allowed"


class ForgedError(ProblemError):
    """Another site's page, or one that is out of date, has sent the request."""

    status = 403
    kind = "forged"
    title = "The request is not accepted"


class NotVisibleError(ProblemError):
    """The same for what does not exist and for what the caller may not see."""

    status = 404
    kind = "not-found"
    title = "Not found"


class ConflictError(ProblemError):
    """It is there already, or somebody else was faster."""

    status = 409
    kind = "conflict"
    title = "Changed by somebody else"


class AnsweredError(ProblemError):
    """The question is not open (any more)."""

    status = 409
    kind = "answered"
    title = "Answered already"


class GoneError(ProblemError):
    """A cursor of an old list."""

    status = 410
    kind = "gone"
    title = "The cursor is too old; list from the beginning"


class TooLargeError(ProblemError):
    """More bytes than are taken, or shown."""

    status = 413
    kind = "too-large"
    title = "The request is too large"


class RefusedError(ProblemError):
    """Kubernetes does not take what is written in the caller's name."""

    status = 422
    kind = "invalid-answer"
    title = "The answer was refused"


class TooManyRequestsError(ProblemError):
    """Try again after `seconds`."""

    status = 429
    kind = "too-many-requests"
    title = "Too many requests"

    def __init__(self, detail: str, seconds: float, *, title: str | None = None) -> None:
        wait = str(max(1, round(seconds)))
        super().__init__(detail, title=title, headers={"Retry-After": wait})


class UnavailableError(ProblemError):
    """What this API needs is away; trying again helps."""

    status = 503
    kind = "unavailable"
    title = "Not available now"
    headers = MappingProxyType({"Retry-After": "2"})


def respond(problem: ProblemError) -> JSONResponse:
    """The HTTP answer that a problem is."""
    content: dict[str, object] = {
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
        headers=dict(problem.headers),
    )


def problem_of(error: Exception) -> ProblemError:
    """The answer to an exception: its own, or what the framework's and the database's mean."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, RequestValidationError | HTTPException | ClientDisconnect):
        return _of_framework(error)
    if isinstance(error, SQLAlchemyError | TimeoutError | OSError):
        return _of_database(error)
    return _internal()


def _of_framework(error: RequestValidationError | HTTPException | ClientDisconnect) -> ProblemError:
    if isinstance(error, HTTPException):
        found = ProblemError(title=str(error.detail), headers=error.headers)
        found.status, found.kind = error.status_code, _HTTP_KINDS.get(error.status_code, "http")
        return found
    if isinstance(error, ClientDisconnect):
        return DisconnectedError()
    problems = [
        f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()
    ]
    return InvalidRequestError("; ".join(problems), problems=problems)


def _of_database(error: SQLAlchemyError | TimeoutError | OSError) -> ProblemError:
    """503 where waiting helps, 422 for values that Postgres cannot hold, else 500."""
    if isinstance(error, DataError):
        return InvalidRequestError(
            f"the database cannot hold a value: {str(error.orig).splitlines()[0]}",
            code=str(ErrorCode.INVALID_RESULT),
        )
    if isinstance(error, ProgrammingError):
        state = getattr(error.orig, "sqlstate", None)
        return UnavailableError(NOT_CURRENT) if state in _SCHEMA_STATES else _internal()
    if isinstance(
        error, OperationalError | InterfaceError | PoolTimeoutError | TimeoutError | OSError
    ):
        return UnavailableError("the database does not answer; try again")
    return _internal()


def _internal() -> ProblemError:
    return ProblemError("see the server's log")


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
        RequestValidationError,
        HTTPException,
        ClientDisconnect,
        SQLAlchemyError,
        TimeoutError,
        OSError,
        Exception,
    ):
        app.add_exception_handler(kind, handle)
