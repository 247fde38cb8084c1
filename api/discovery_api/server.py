"""What both APIs share as servers: TLS, health routes, metrics, shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import structlog
import uvicorn
from discovery_core.loops import keep_on
from discovery_core.store import Database
from discovery_core.store.monitoring import DatabaseMonitor
from discovery_core.tasks import end
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from uvicorn.config import STARTUP_FAILURE
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from . import problems
from .connections import Connection, spare_buffers
from .door import Door, Places, as_many_as_fit, doors
from .metrics import ALIVE, RequestMetrics, readiness, serve_metrics
from .middleware import QUIET, BodyGuard, Bounds, RequestLog
from .settings import ServerSettings

log = structlog.get_logger(__name__)

SHUTDOWN_SECONDS = 20
SMALL_BYTES = 64 * 1024
# nobody has anything to say on a WebSocket; by default 32 messages of 16 MiB each would wait
SOCKET_MESSAGE_BYTES, SOCKET_MESSAGES = 4096, 1


def finish(
    app: FastAPI,
    db: Database,
    settings: ServerSettings,
    *,
    max_message_bytes: int,
    streamed: Collection[str] = (),
    small: Collection[str] = (),
) -> FastAPI:
    """Adds to an application what both have: problems, bounds, request log and health.

    Bodies are held in memory, but those of the paths `streamed`; those of `small` are short.
    """
    app.state.monitor = DatabaseMonitor(db)
    _add_health(app)
    app.add_middleware(
        BodyGuard,
        bounds=Bounds(max_message_bytes, settings.body_seconds),
        stall_seconds=settings.body_stall_seconds,
        rate=settings.body_bytes_per_second,
        special=dict.fromkeys(streamed, Bounds(None, settings.stream_seconds))
        | dict.fromkeys(small, Bounds(SMALL_BYTES, settings.body_seconds)),
    )
    app.add_middleware(RequestMetrics, quiet=QUIET)
    app.add_middleware(RequestLog)
    problems.install(app)
    return app


def _add_health(app: FastAPI) -> None:
    """/healthz: the process answers. /readyz: the database does, with the right schema."""

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return ALIVE

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> JSONResponse:
        status, said = await readiness(app.state.monitor)
        return JSONResponse(said, status_code=status)


class Server(uvicorn.Server):
    """Ends handshakes that take too long, and streams before it waits for requests under way."""

    def __init__(self, config: uvicorn.Config, on_exit: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_exit = on_exit

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn, whose own has no parameter for the time of a handshake: 60 seconds."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        config = self.config
        protocol = partial(
            Connection,
            config=config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        self.servers = [
            await asyncio.get_running_loop().create_server(
                protocol,
                sock=listening,
                ssl=config.ssl,
                backlog=config.backlog,
                ssl_handshake_timeout=config.timeout_keep_alive if config.ssl else None,
            )
            for listening in sockets or [config.bind_socket()]
        ]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        self._on_exit()
        await super().shutdown(sockets)


def serve(
    app: FastAPI, settings: ServerSettings, port: int, on_exit: Callable[[], None] = lambda: None
) -> None:
    """Serves until SIGTERM or SIGINT; requests under way get SHUTDOWN_SECONDS to end.

    The process then ends with 0: the server raises the signal again once it has ended well.
    """
    signal.signal(signal.SIGTERM, _end)
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
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_keep_alive=settings.head_seconds,
        ws_max_size=SOCKET_MESSAGE_BYTES,
        ws_max_queue=SOCKET_MESSAGES,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        log.error("the certificate cannot be used", certificate=str(cert), error=str(error))  # noqa: TRY400 - the message says all
        raise SystemExit(2) from None
    spare_buffers()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(
            _run(Server(config, on_exit), _doors(app, settings, port), app.state.monitor, settings)
        )


def _doors(app: Any, settings: ServerSettings, port: int) -> list[Door]:
    """Where the server listens. Ends the process where it cannot."""
    proxies = ProxyHeadersMiddleware(app, settings.trusted_proxies).trusted_hosts
    most = as_many_as_fit(settings.max_connections)
    places = Places(most, settings.connections_per_address, proxies.__contains__)
    try:
        return doors(settings.host, port, places)
    except OSError as error:
        log.error("cannot listen", host=settings.host, port=port, error=str(error))  # noqa: TRY400 - the message says all
        raise SystemExit(2) from None


def _end(number: int, frame: object) -> NoReturn:
    del number, frame
    raise SystemExit(0)


async def _run(
    server: Server, listening: list[Door], monitor: DatabaseMonitor, settings: ServerSettings
) -> None:
    follower = metrics = None
    if settings.metrics_port is not None:
        metrics = await serve_metrics(settings.host, settings.metrics_port, monitor)
    if server.config.ssl is not None and settings.tls_cert_file and settings.tls_key_file:
        follow = partial(
            follow_certificate,
            server.config.ssl,
            settings.tls_cert_file,
            settings.tls_key_file,
            every=settings.tls_reload_seconds,
        )
        follower = asyncio.create_task(keep_on("certificate", follow))
    try:
        await server.serve([*listening])
    finally:
        if follower is not None:
            await end(follower)
        if metrics is not None:
            await metrics.cleanup()


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
