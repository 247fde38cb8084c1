"""Health over HTTP: /healthz, /readyz and /metrics on a port of their own.

Alive means that the loops make progress and the watches deliver; an outage of the database or of
the API server is no reason to be restarted. Ready tells in words what is still waited for, and
asks the database at every probe, on a standby too.
"""

from __future__ import annotations

import time

from aiohttp import web
from discovery_core.store.monitoring import DatabaseMonitor
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from . import metrics

SILENT_LIMIT = 2


class Health:
    """What the probes report. `sweep_limit` is the longest time between two sweeps, in seconds."""

    def __init__(self, monitor: DatabaseMonitor, *, sweep_limit: float) -> None:
        self._monitor = monitor
        self._sweep_limit = sweep_limit
        self._progress = self._succeeded = time.monotonic()
        self._silent: dict[str, int] = {}
        self.waiting_for = "starting"

    def sweep_progressed(self) -> None:
        """A sweep has ended, well or not."""
        self._progress = time.monotonic()

    def sweep_succeeded(self) -> None:
        """A sweep has ended well."""
        self._succeeded = time.monotonic()

    def watches_checked(self, silent: list[str]) -> None:
        """`silent` are the kinds whose watch has not delivered what a list shows."""
        self._silent = {kind: self._silent.get(kind, 0) + 1 for kind in silent}

    def problems(self) -> list[str]:
        """Why this process should be restarted; empty while it is alive."""
        found = [
            f"the watch of {kind} delivers nothing"
            for kind, times in self._silent.items()
            if times >= SILENT_LIMIT
        ]
        age = time.monotonic() - self._progress
        if age > self._sweep_limit:
            found.append(f"no sweep for {age:.0f} s")
        return found

    async def healthz(self, request: web.Request) -> web.Response:
        """200 while alive, else 500 with the reasons."""
        del request
        problems = self.problems()
        return web.Response(text="\n".join(problems) or "ok", status=500 if problems else 200)

    async def readyz(self, request: web.Request) -> web.Response:
        """200 while the database is there in the right version, else 503 with what is missing."""
        del request
        problem = self.waiting_for or await self._monitor.problem()
        return web.Response(text=problem or "ok", status=503 if problem else 200)

    async def metrics(self, request: web.Request) -> web.Response:
        """Prometheus text format."""
        del request
        problem = await self._monitor.measure()
        metrics.READY.set(not (self.waiting_for or problem))
        metrics.SWEEP_AGE.set(time.monotonic() - self._succeeded)
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def serve(self, host: str, port: int) -> web.AppRunner:
        """Starts the server; `cleanup` of the result stops it."""
        app = web.Application()
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/readyz", self.readyz)
        app.router.add_get("/metrics", self.metrics)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        return runner
