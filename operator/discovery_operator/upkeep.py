"""The loops beside the workers: notifications, the sweep that repairs lost ones, and re-listing.

NOTIFY and watches are hints. The sweep compares the versions of what has changed lately with what
was reconciled last, and finds requests that expire, each by an index: flows that only wait cost
nothing. Once per resync all versions are compared, and all objects listed, which also finds watches
that have gone silent; the more objects, the less often. Everything is looked at only where
notifications may be lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from uuid import UUID

from discovery_core.logging import get_logger
from discovery_core.loops import set_aside
from discovery_core.store import OperatorStore
from discovery_core.store.operator import Version

from . import metrics
from .cache import ObjectCache
from .controller import LONGEST_TIMER, Controller
from .faults import FAULTS
from .health import Health
from .kube import Cluster
from .slim import Kind
from .tokens import TokenCount

log = get_logger(__name__)


# a change is committed after it has its time, but not much later
LATE_COMMIT_SECONDS = 60.0
FLOWS_PER_SECOND = 100.0


class Upkeep:
    """Feeds the queue from the database and from lists. Runs on every operator, leader or not."""

    def __init__(
        self,
        store: OperatorStore,
        cluster: Cluster,
        cache: ObjectCache,
        controller: Controller,
        *,
        health: Health,
        leads: asyncio.Event,
        sweep_seconds: float,
        resync_seconds: float,
        metrics_seconds: float,
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._cache = cache
        self._controller = controller
        self._health = health
        self._leads = leads
        self._sweep_seconds = sweep_seconds
        self._resync_seconds = resync_seconds
        self._metrics_seconds = metrics_seconds
        self._tokens = TokenCount(store)
        self._wake = asyncio.Event()
        self._full = True
        self._resynced_at = float("-inf")
        self._swept_at = time.monotonic()
        self._counted_at = float("-inf")
        self._unseen: dict[Kind, dict[str, int]] = {}

    def leadership_gained(self) -> None:
        """Have everything looked at, ended flows too: keys were dropped while another one led.

        What this process has reconciled when it led before says nothing about those: a change of a
        resource leaves its row's version as it was.
        """
        self._controller.reconciled.clear()
        self.rescan()

    def rescan(self) -> None:
        """Have everything looked at now: notifications may be lost."""
        self._full = True
        self._counted_at = float("-inf")
        self._wake.set()

    async def listen(self) -> None:
        """Puts notified flows into the queue, for ever.

        Not those whose reconciliation under way has made the change itself: it looks again before
        it ends.
        """
        async for flow_id in self._store.listen(self._controller.queue.is_processing):
            if flow_id is None:
                self.rescan()
            else:
                self._controller.queue.add(flow_id)

    async def run(self) -> None:
        """The sweep, for ever. A failure is logged and repaired by the next round."""
        while True:
            problem = await self._swept()
            self._health.waiting_for = problem
            if not problem:
                self._health.sweep_succeeded()
            self._health.sweep_progressed()
            try:
                async with asyncio.timeout(self._sweep_seconds):
                    await self._wake.wait()
            except TimeoutError:
                continue
            finally:
                self._wake.clear()

    async def _swept(self) -> str:
        """One round; why it has failed, or nothing."""
        with set_aside("sweep"):
            try:
                await self.sweep()
            except FAULTS as error:
                log.warning("sweep failed", error=str(error))
                return f"the sweep fails: {error}"
            return ""
        return "the sweep fails; the log says why"

    async def _beside(self, what: str, work: Callable[[], Awaitable[object]]) -> None:
        """What may fail without the sweep: no flow waits for it."""
        with set_aside("sweep", what=what):
            try:
                await work()
            except FAULTS as error:
                log.warning("waits for a later sweep", what=what, error=str(error))

    async def sweep(self) -> None:
        """One round."""
        now = time.monotonic()
        full, self._full = self._full, False
        pause = max(self._resync_seconds, len(self._cache) / FLOWS_PER_SECOND)
        resync = full or now - self._resynced_at >= pause
        try:
            if resync:
                await self._resync()
            metrics.QUEUE_LENGTH.set(len(self._controller.queue))
            metrics.TIMERS.set(self._controller.queue.timers)
            if self._leads.is_set():
                await self._enqueue(now, full=full, resync=resync)
        except BaseException:
            self._full = self._full or full
            raise
        if resync:
            self._resynced_at = time.monotonic()
        if self._leads.is_set() and now - self._counted_at >= self._metrics_seconds:
            self._counted_at = now
            await self._beside("figures", self._count)

    async def _enqueue(self, now: float, *, full: bool, resync: bool) -> None:
        if resync:
            await self._enqueue_open(full=full)
        else:
            await self._enqueue_changed(now - self._swept_at + LATE_COMMIT_SECONDS)
        await self._enqueue_expiring()
        self._swept_at = now

    async def _enqueue_open(self, *, full: bool) -> None:
        """Flows that have changed, all with `full`, and those without a resource or without a row.

        Ended ones without a resource are to be marked deleted.
        """
        known: set[UUID] = set()
        for flow in await self._store.open_flows():
            known.add(flow.flow_id)
            self._compare(flow, anyway=full)
        for flow in await self._store.undeleted_ended_flows():
            known.add(flow.flow_id)
            self._compare(flow, anyway=self._cache.flow(flow.flow_id) is None)
        for uid in self._cache.flows():
            if uid not in known:
                self._controller.queue.add(uid, hurry=False)

    async def _enqueue_changed(self, seconds: float) -> None:
        for flow in await self._store.changed_flows(seconds):
            self._compare(flow)

    def _compare(self, flow: Version, *, anyway: bool = False) -> None:
        if anyway or self._controller.reconciled.get(flow.flow_id) != flow.version:
            self._controller.queue.add(flow.flow_id, hurry=False)

    async def _enqueue_expiring(self) -> None:
        """Flows whose request expires before the longest timer: a look sets the timer."""
        queue = self._controller.queue
        for uid in await self._store.requests_expiring(LONGEST_TIMER):
            if not queue.has_timer(uid):
                queue.add(uid, hurry=False)

    async def _count(self) -> None:
        figures, tokens = await self._store.figures(), await self._tokens.count()
        if self._leads.is_set():
            metrics.FROM_DATABASE.take(figures, tokens)
            await self._count_breakers()

    async def _count_breakers(self) -> None:
        breakers = await self._store.breaker_counts()
        metrics.CIRCUIT_BREAKERS.clear()
        for (endpoint, breaker_state), count in breakers.items():
            metrics.CIRCUIT_BREAKERS.labels(endpoint=endpoint, state=breaker_state).set(count)

    async def _resync(self) -> None:
        """Takes over complete lists, and compares them with what the watches have delivered."""
        silent: list[str] = []
        for kind, lister in (
            (Kind.FLOW, self._cluster.list_flows),
            (Kind.JOB, self._cluster.list_jobs),
            (Kind.POD, self._cluster.list_pods),
        ):
            listed, version = await lister()
            if self._cache.still_unseen(self._unseen.get(kind, {})):
                silent.append(str(kind))
            else:
                metrics.WATCHES.alive(kind)
            self._unseen[kind] = self._cache.unseen(listed)
            for uid in self._cache.replace(kind, listed, version):
                self._controller.queue.add(uid)
        self._health.watches_checked(silent)
