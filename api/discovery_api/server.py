"""What both APIs share as servers: TLS, health routes, request log, shutdown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog
import uvicorn
from discovery_core.store import Database
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from .settings import ServerSettings

log = structlog.get_logger(__name__)

READY_TIMEOUT = 5.0


async def not_ready(db: Database) -> str | None:
    """Why the process cannot serve now, or None."""
    try:
        async with asyncio.timeout(READY_TIMEOUT):
            if not await db.schema_is_current():
                return "the database schema is not current; the migration Job has to run"
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        return f"the database does not answer: {type(error).__name__}"
    return None


def add_health(app: FastAPI, db: Database) -> None:
    """/healthz: the process answers. /readyz: the database does, with the right schema."""

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> JSONResponse:
        reason = await not_ready(db)
        if reason is None:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "not ready", "reason": reason}, status_code=503)


def add_request_log(app: FastAPI) -> None:
    """One line per request, with whatever the route has bound (flow, phase, tenant)."""

    @app.middleware("http")
    async def log_request(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        structlog.contextvars.clear_contextvars()
        started = time.perf_counter()
        response = await call_next(request)
        if request.url.path not in ("/healthz", "/readyz"):
            log.info(
                "request",
                method=request.method,
                path=request.url.path,
                status=response.status_code,
                seconds=round(time.perf_counter() - started, 4),
                **getattr(request.state, "log", {}),
            )
        return response


def serve(app: FastAPI, settings: ServerSettings, port: int) -> None:
    """Serves until SIGTERM or SIGINT; requests under way get 20 seconds to end."""
    tls = {}
    if settings.tls_cert_file and settings.tls_key_file:
        tls = {
            "ssl_certfile": str(settings.tls_cert_file),
            "ssl_keyfile": str(settings.tls_key_file),
        }
    else:
        log.warning("serving without TLS: DISCOVERY_TLS_CERT_FILE is not set")
    uvicorn.run(
        app,
        host=settings.host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=20,
        **tls,  # type: ignore[arg-type]
    )
