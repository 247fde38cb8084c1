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
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

log = structlog.get_logger(__name__)

BASE = "https://discoveryflow.dev/problems/"
MEDIA_TYPE = "application/problem+json"


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


def _respond(problem: ProblemError) -> JSONResponse:
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


def _unavailable(detail: str) -> ProblemError:
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
    if isinstance(error, RequestValidationError):
        problems = [
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors()
        ]
        return ProblemError(
            422,
            "invalid-request",
            "The request is not valid",
            "; ".join(problems),
            problems=problems,
        )
    if isinstance(error, HTTPException):
        return ProblemError(
            error.status_code, "http", str(error.detail), headers=dict(error.headers or {})
        )
    if isinstance(error, SQLAlchemyError | TimeoutError | OSError):
        return _unavailable("the database does not answer; try again")
    return ProblemError(500, "internal", "Internal error", "see the server's log")


def install(app: FastAPI) -> None:
    """Makes every error of `app` a problem."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        problem = problem_of(error)
        if problem.status >= 500:
            log.error(
                "request failed", method=request.method, path=request.url.path, exc_info=error
            )
        return _respond(problem)

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
        SQLAlchemyError,
        TimeoutError,
        OSError,
        Exception,
    ):
        app.add_exception_handler(kind, handle)
