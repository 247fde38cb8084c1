"""An operator without its watches, on a real PostgreSQL and an API server in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from discovery_core.snapshots import FlowSnapshot
from discovery_core.store.operator import OperatorStore
from discovery_operator.cache import ObjectCache
from discovery_operator.controller import Controller
from discovery_operator.dispatch import Dispatcher
from discovery_operator.execute import Executor
from discovery_operator.manifests.job import JobSettings
from discovery_operator.observe import Observer
from discovery_operator.observed import Policies, Rules
from discovery_operator.queue import KeyedQueue
from discovery_operator.slim import Kind

from tests.postgres import Stores
from tests.store.fake_cluster import FakeCluster
from tests.store.flows import Flow, Pod

NAMESPACE = "team-a"


@dataclass
class World:
    """An operator with its cluster and database, and one flow `servers`."""

    stores: Stores
    cluster: FakeCluster
    cache: ObjectCache
    queue: KeyedQueue[UUID]
    controller: Controller
    uid: UUID
    flow: Flow

    async def settle(self) -> FlowSnapshot:
        """Reconciles until nothing is left to do, as the workers would."""
        await self.controller.reconcile(self.uid)
        return await self.flow.load()

    async def work(self) -> Pod:
        """A crew pod claims the current attempt and completes its phase."""
        pod = await self.flow.claim()
        await pod.do_phase()
        return pod

    async def to_gate(self) -> FlowSnapshot:
        """Runs everything up to the approval request."""
        await self.settle()
        for _ in range(3):
            await self.work()
            snapshot = await self.settle()
        return snapshot

    async def sql(self, statement: str, **values: Any) -> None:
        """Changes the database behind the operator's back, as its superuser."""
        connection = await psycopg.AsyncConnection.connect(self.stores.urls.superuser)
        async with connection:
            await connection.execute(statement, values)

    def status(self) -> dict[str, Any]:
        """The resource's status."""
        return self.cluster.status(NAMESPACE, "servers")

    def condition(self, kind: str) -> dict[str, Any]:
        """One condition of the status."""
        (found,) = [c for c in self.status()["conditions"] if c["type"] == kind]
        return dict(found)

    def answer(self, **changes: Any) -> None:
        """Somebody answers the request that the status shows."""
        shown = self.status()["approvalRequest"]
        given = {
            "requestId": shown["requestId"],
            "artefactDigest": shown["artefactDigest"],
            "decision": "Approve",
            "decidedBy": "ann",
            **changes,
        }
        self.cluster.edit(NAMESPACE, "servers", approval=given)

    async def see(self) -> None:
        """The watches deliver what has changed."""
        for kind, lister in (
            (Kind.FLOW, self.cluster.list_flows),
            (Kind.JOB, self.cluster.list_jobs),
        ):
            listed, version = await lister()
            self.cache.replace(kind, listed, version)


def controller_of(
    store: OperatorStore,
    cluster: FakeCluster,
    cache: ObjectCache,
    queue: KeyedQueue[UUID],
    *,
    limits: tuple[int, int] = (20, 5),
    rules: Rules | None = None,
) -> Controller:
    api: Any = cluster
    observer = Observer(
        store,
        api,
        cache,
        rules=rules or Rules(),
        limits=limits,
        policies=Policies(),
    )
    settings = JobSettings(image="crews:test", execution_url="https://execution:8443")
    executor = Executor(store, api, cache, job_settings=settings, limits=limits)
    dispatcher = Dispatcher(store, queue, limits=limits, poll_seconds=60)
    return Controller(observer, executor, api, cache, queue, dispatcher)
