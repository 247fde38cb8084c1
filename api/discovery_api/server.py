"""What both APIs share as servers: TLS, health routes, shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Collection
from pathlib import Path

import structlog
import uvicorn
from discovery_core.store import Database
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from . import problems
from .middleware import BodyGuard, RequestLog
from .settings import ServerSettings

log = structlog.get_logger(__name__)

# shorter than the probe's own timeout, so that the reason is told
READY_TIMEOUT = 4.0
SHUTDOWN_SECONDS = 20


async def not_ready(db: Database) -> str | None:
    """Why the process cannot serve now, or None."""
    try:
        async with asyncio.timeout(READY_TIMEOUT):
            if not await db.schema_is_current():
                return "the database schema is not current; the migration Job has to run"
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        log.warning("database does not answer", error=str(error).splitlines()[:1])
        return f"the database does not answer: {type(error).__name__}; see the log"
    return None


def finish(
    app: FastAPI,
    db: Database,
    settings: ServerSettings,
    *,
    max_message_bytes: int,
    streamed: Collection[str] = (),
) -> FastAPI:
    """Adds to an application what both have: problems, bounds, request log and health."""
    _add_health(app, db)
    app.add_middleware(
        BodyGuard,
        max_bytes=max_message_bytes,
        stall_seconds=settings.body_stall_seconds,
        streamed=frozenset(streamed),
    )
    app.add_middleware(RequestLog)
    problems.install(app)
    return app


def _add_health(app: FastAPI, db: Database) -> None:
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


class Server(uvicorn.Server):
    """Tells whoever streams that the end has come, before it waits for requests under way."""

    def __init__(self, config: uvicorn.Config, on_exit: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_exit = on_exit

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        self._on_exit()
        await super().shutdown(sockets)


def serve(
    app: FastAPI, settings: ServerSettings, port: int, on_exit: Callable[[], None] = lambda: None
) -> None:
    """Serves until SIGTERM or SIGINT; requests under way get SHUTDOWN_SECONDS to end."""
    cert, key = settings.tls_cert_file, settings.tls_key_file
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        ssl_certfile=cert,
        ssl_keyfile=key,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        log.error("the certificate cannot be used", certificate=str(cert), error=str(error))  # noqa: TRY400 - the message says all
        raise SystemExit(2) from None
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(Server(config, on_exit), settings))


async def _run(server: uvicorn.Server, settings: ServerSettings) -> None:
    follower = None
    if server.config.ssl is not None and settings.tls_cert_file and settings.tls_key_file:
        follower = asyncio.create_task(
            follow_certificate(
                server.config.ssl,
                settings.tls_cert_file,
                settings.tls_key_file,
                every=settings.tls_reload_seconds,
            )
        )
    try:
        await server.serve()
    finally:
        if follower is not None:
            follower.cancel()


async def follow_certificate(
    context: ssl.SSLContext, cert: Path, key: Path, *, every: float
) -> None:
    """Loads the certificate again when its files have changed; new connections get the new one.

    A pair that does not fit together (half of it written) is tried again at the next look.
    """
    loaded = await asyncio.to_thread(_bytes_of, cert, key)
    while True:
        await asyncio.sleep(every)
        try:
            found = await asyncio.to_thread(_bytes_of, cert, key)
            if found == loaded:
                continue
            context.load_cert_chain(cert, key)
        except (OSError, ssl.SSLError) as error:
            log.warning("the new certificate cannot be used yet", error=str(error))
            continue
        loaded = found
        log.info("certificate loaded again", certificate=str(cert))


def _bytes_of(cert: Path, key: Path) -> tuple[bytes, bytes]:
    return cert.read_bytes(), key.read_bytes()
