"""Puts the operator together and runs it until a signal comes.

It never gives up because something else is not there yet: while the database is away or its
schema is not the one this code was written for, it says so (log, /readyz) and keeps asking.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Coroutine
from functools import partial
from typing import Any
from uuid import UUID

import kopf
from discovery_core.logging import configure_logging, get_logger
from discovery_core.loops import keep_on
from discovery_core.store import Database, OperatorStore
from discovery_core.store.monitoring import NOT_CURRENT, DatabaseMonitor, explained
from discovery_core.tasks import end
from pydantic import ValidationError

from . import handlers, metrics
from .cache import ObjectCache
from .controller import Controller
from .dispatch import Dispatcher
from .execute import Executor
from .faults import CLUSTER_FAULTS, DATABASE_FAULTS
from .health import Health
from .intake import Intake
from .kube import PAGE, Cluster
from .leader import Leadership
from .manifests.names import SELECTOR
from .observe import Observer
from .queue import KeyedQueue
from .retention import Retention
from .settings import OperatorSettings
from .upkeep import Upkeep
from .webhook import Webhooks

log = get_logger(__name__)

CLUSTER_NAMESPACE = "kube-system"
RETRY_SECONDS = 3.0
DRAIN_SECONDS = 8.0


def kopf_settings() -> kopf.OperatorSettings:
    """Kopf without events, peering and long silences."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    # it would also kill a process that starts over; the kubelet kills one that does not end
    settings.process.ultimate_exiting_timeout = None
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = (0.5, 1, 2, 4, 8, 8, 8)
    settings.watching.server_timeout = 300
    settings.watching.chunk_size = PAGE
    # it holds on to each object that long after its last event
    settings.queueing.idle_timeout = 0.5
    settings.watching.connect_timeout = 10
    settings.watching.label_selectors["batch", "v1", "jobs"] = SELECTOR
    settings.watching.label_selectors["", "v1", "pods"] = SELECTOR
    return settings


def _database(settings: OperatorSettings, purpose: str, pool_size: int) -> Database:
    return Database(
        settings.database_url,
        settings.database_password,
        application_name=f"discoveryflow-{purpose}",
        pool_size=pool_size,
    )


class WatchesFailedError(Exception):
    """Kopf has ended although nobody asked it to."""


class Operator:
    """The running process: its parts and its background tasks."""

    def __init__(self, settings: OperatorSettings, cluster: Cluster) -> None:
        self._settings = settings
        self._cluster = cluster
        self._cache = ObjectCache()
        self._queue: KeyedQueue[UUID] = KeyedQueue()
        self._database = _database(settings, "operator", settings.database_pool_size)
        self._leadership_database = _database(settings, "leadership", 1)
        self._monitor = DatabaseMonitor(self._database)
        self._health = Health(self._monitor, sweep_limit=settings.sweep_seconds * 3 + 120)
        self._told: tuple[str, str | None] | None = None
        self._leadership: Leadership | None = None
        self._upkeep: Upkeep | None = None
        self.intake = Intake(self._cache, self._queue, metrics.WATCHES.alive)

    async def drain(self) -> None:
        """Begins nothing new, and waits a little for the reconciliations under way."""
        if self._leadership is not None:
            self._leadership.retire()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._queue.rest()

    async def run(self) -> None:
        """Everything but kopf, until cancelled."""
        server = await self._health.serve(self._settings.health_host, self._settings.health_port)
        try:
            await self._run()
        finally:
            self._queue.close()
            if self._leadership is not None:
                self._leadership.retire()
                await self._leadership.release()
            self._monitor.close()
            await self._leadership_database.close()
            await self._database.close()
            await server.cleanup()

    async def _run(self) -> None:
        cluster_id = await self._cluster_id()
        await self._wait_for_database()
        store = OperatorStore(self._database, cluster_id, self._leadership_database)
        settings = self._settings
        dispatcher = Dispatcher(
            store,
            self._queue,
            limits=settings.limits(),
            poll_seconds=settings.rules().slot_poll,
        )
        controller = self._controller(store, dispatcher)
        leadership = Leadership(
            store,
            holder=settings.holder(),
            ttl=settings.leader_ttl_seconds,
            on_gain=self._look_at_everything,
        )
        upkeep = Upkeep(
            store,
            self._cluster,
            self._cache,
            controller,
            health=self._health,
            leads=leadership.leads,
            sweep_seconds=settings.sweep_seconds,
            resync_seconds=settings.resync_seconds,
            metrics_seconds=settings.metrics_seconds,
        )
        webhooks = Webhooks(
            store,
            self._cluster,
            leads=leadership.leads,
            endpoints=settings.webhook_endpoints,
            public_url=settings.public_url,
            timeout=settings.webhook_timeout_seconds,
            poll=settings.webhook_poll_seconds,
            tls=settings.webhook_tls(),
        )
        retention = self._retention(store, leadership.leads)
        self._leadership, self._upkeep = leadership, upkeep
        self._health.waiting_for = "the first sweep"
        await _together(
            keep_on("leadership", leadership.run),
            keep_on("listener", upkeep.listen),
            keep_on("sweep", upkeep.run),
            keep_on("dispatcher", partial(dispatcher.run, leadership.leads)),
            keep_on("webhooks", webhooks.run),
            keep_on("retention", retention.run),
            *(
                keep_on("worker", partial(controller.work, leadership.leads))
                for _ in range(settings.workers)
            ),
        )

    def _look_at_everything(self) -> None:
        if self._upkeep is not None:
            self._upkeep.leadership_gained()

    def _retention(self, store: OperatorStore, leads: asyncio.Event) -> Retention:
        finished_flows, deleted_namespaces = self._settings.kept()
        return Retention(
            store,
            self._cluster,
            leads=leads,
            purged=self._queue.add,
            finished_flows=finished_flows,
            deleted_namespaces=deleted_namespaces,
            delete_resources=self._settings.retention_delete_resources,
            poll=self._settings.retention_poll_seconds,
        )

    def _controller(self, store: OperatorStore, dispatcher: Dispatcher) -> Controller:
        settings = self._settings
        observer = Observer(
            store,
            self._cluster,
            self._cache,
            rules=settings.rules(),
            limits=settings.limits(),
            policies=settings.policies(),
        )
        executor = Executor(
            store,
            self._cluster,
            self._cache,
            job_settings=settings.job_settings(),
            limits=settings.limits(),
        )
        return Controller(observer, executor, self._cluster, self._cache, self._queue, dispatcher)

    async def _cluster_id(self) -> UUID:
        while True:
            try:
                found = await self._cluster.namespace_uid(CLUSTER_NAMESPACE)
            except CLUSTER_FAULTS as error:
                await self._wait(f"the Kubernetes API does not answer: {error}")
                continue
            if found is not None:
                return found
            await self._wait(f"there is no namespace {CLUSTER_NAMESPACE}")

    async def _wait_for_database(self) -> None:
        while True:
            try:
                if await self._database.schema_is_current():
                    return
            except DATABASE_FAULTS as error:
                await self._wait(explained(error), str(error))
                continue
            await self._wait(NOT_CURRENT)

    async def _wait(self, reason: str, error: str | None = None) -> None:
        """Says once what is waited for, keeps it for /readyz, and waits a little."""
        if self._told != (reason, error):
            log.warning("waiting", reason=reason, error=error)
        self._told = reason, error
        self._health.waiting_for = reason
        self._health.sweep_progressed()
        await asyncio.sleep(RETRY_SECONDS)


async def _together(*loops: Coroutine[Any, Any, None]) -> None:
    """Runs loops that never end, until cancelled."""
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        await end(*tasks)


async def run(settings: OperatorSettings) -> None:
    """The operator, until SIGTERM or SIGINT (kopf listens for them).

    Kopf ends with the first watch that fails in a way that it does not know: a 410 as status, any
    ERROR event but a 410. A fresh start heals all of these, and it is made here, because Kubernetes
    waits for minutes before it starts a container again that keeps ending.
    """
    assert handlers.__all__  # noqa: S101 - importing registers them with kopf
    stop = asyncio.Event()
    while True:
        try:
            await _run_once(settings, stop)
            break
        except WatchesFailedError as error:
            log.warning("starting over", delay=RETRY_SECONDS, error=str(error))
        stop = asyncio.Event()
        await _pause(stop)
        if stop.is_set():
            break
    log.info("stopped")


async def _pause(stop: asyncio.Event) -> None:
    """Waits a little. Signals set `stop`, as kopf does not listen for them now."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RETRY_SECONDS):
            await stop.wait()


async def _run_once(settings: OperatorSettings, stop: asyncio.Event) -> None:
    """The operator until `stop`, a signal, or a failure.

    Raises WatchesFailedError where kopf has ended by itself, and what our own loops raise.
    """
    cluster = await Cluster.connect(request_timeout=settings.request_timeout_seconds)
    operator = Operator(settings, cluster)
    background = asyncio.create_task(operator.run(), name="operator")
    background.add_done_callback(lambda _: stop.set())

    async def stop_background() -> None:
        if not background.done():
            await operator.drain()
        await end(background)

    failure: Exception | None = None
    try:
        await kopf.operator(
            settings=kopf_settings(),
            # without one, kopf asks for a login name, which a container's user has not
            identity=settings.holder(),  # type: ignore[arg-type]
            standalone=True,
            clusterwide=True,
            stop_flag=stop,
            memo=kopf.Memo(intake=operator.intake, stop=stop_background),
        )
    except Exception as error:  # noqa: BLE001 - kopf's own errors are not public
        failure = error
    finally:
        await stop_background()
        await cluster.close()
    if not background.cancelled():
        background.result()
    if failure is not None:
        raise WatchesFailedError(f"{type(failure).__name__}: {failure}") from failure


def main() -> None:
    """Entry point of `python -m discovery_operator`. Exits with 2 where a setting is wrong."""
    try:
        settings = OperatorSettings()
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False):
            name = f"DISCOVERY_{'_'.join(str(part) for part in item['loc'])}".upper()
            print(f"{name}: {item['msg']}", file=sys.stderr)  # noqa: T201 - no logging yet
        sys.exit(2)
    configure_logging("operator", settings.log_level)
    # kopf says of every watch event that its handler has succeeded
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    asyncio.run(run(settings))
