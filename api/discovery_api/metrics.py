"""What both APIs count, for Prometheus, and the port where it and the probes' answers are read.

The port is its own, without TLS, and serves nothing else: the public one would need a caller's
token or would tell everybody how busy the installation is, and whoever fills its places with
connections would have the kubelet restart the pod. A NetworkPolicy keeps it to those who scrape,
and lets the node in. Routes are counted by their template, so that no id ever becomes a label.
"""

from __future__ import annotations

import time

from aiohttp import web
from discovery_core.store.monitoring import DatabaseMonitor
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .door import Places, doors

REQUESTS = Counter(
    "discoveryflow_api_requests",
    "Answered requests by route template, method and class of status.",
    ["route", "method", "status"],
)
SECONDS = Histogram(
    "discoveryflow_api_request_seconds",
    "Time until the last byte of an answer; streams of events are left out.",
    ["route", "method"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120),
)
IN_PROGRESS = Gauge("discoveryflow_api_requests_in_progress", "Requests that are being answered.")
LISTENERS = Gauge(
    "discoveryflow_api_listeners",
    "Open streams of events (SSE and WebSocket): of one flow, or of all.",
    ["about"],
)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNMATCHED = "unmatched"
ALIVE = {"status": "ok"}
_CONNECTIONS, _CONNECTIONS_PER_ADDRESS = 200, 50


class RequestMetrics:
    """Counts every request but the probes'."""

    def __init__(self, app: ASGIApp, *, quiet: tuple[str, ...]) -> None:
        self._app = app
        self._quiet = quiet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] != "http" or scope["path"] in self._quiet:
            await self._app(scope, receive, send)
            return
        started, status, streams = time.perf_counter(), 500, False

        async def observed(message: Message) -> None:
            nonlocal status, streams
            if message["type"] == "http.response.start":
                status = message["status"]
                kind = Headers(raw=message.get("headers", [])).get("content-type", "")
                streams = kind.startswith("text/event-stream")
            await send(message)

        with IN_PROGRESS.track_inprogress():
            try:
                await self._app(scope, receive, observed)
            finally:
                route, method = route_of(scope), scope["method"]
                method = method if method in _METHODS else "other"
                REQUESTS.labels(route=route, method=method, status=f"{status // 100}xx").inc()
                if not streams:
                    taken = time.perf_counter() - started
                    SECONDS.labels(route=route, method=method).observe(taken)


def route_of(scope: Scope) -> str:
    """The template of the route that a request was matched to."""
    path: str = getattr(scope.get("route"), "path", "") or UNMATCHED
    return path


async def readiness(monitor: DatabaseMonitor) -> tuple[int, dict[str, str]]:
    """Status and answer of /readyz."""
    reason = await monitor.recent()
    return (200, ALIVE) if reason is None else (503, {"status": "not ready", "reason": reason})


async def serve_metrics(host: str, port: int, monitor: DatabaseMonitor) -> web.AppRunner:
    """Serves /metrics, /healthz and /readyz; `cleanup` of the result stops it.

    Raises OSError for a port in use.
    """

    async def metrics(request: web.Request) -> web.Response:
        del request
        await monitor.measure()
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(request: web.Request) -> web.Response:
        del request
        return web.json_response(ALIVE)

    async def readyz(request: web.Request) -> web.Response:
        del request
        status, said = await readiness(monitor)
        return web.json_response(said, status=status)

    app = web.Application()
    app.add_routes(
        [web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    for door in doors(host, port, Places(_CONNECTIONS, _CONNECTIONS_PER_ADDRESS)):
        await web.SockSite(runner, door).start()
    return runner
