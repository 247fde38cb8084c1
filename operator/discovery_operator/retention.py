"""Lets data go when its time is over: flows that ended or were deleted, deleted namespaces.

It runs on the leader beside everything else and in small steps, so that it never holds a lock for
long; what is broken off goes on at the next round. Files that nobody refers to are collected so
many steps a round, of each tenant in turn: one tenant's keep no other's erasure waiting. A
namespace counts as deleted only when a list that is certainly this cluster's lacks its UID and a
look by name confirms it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from uuid import UUID

from discovery_core.logging import get_logger
from discovery_core.loops import set_aside
from discovery_core.store import OperatorStore
from discovery_core.store.maintenance.deleted import Deleted, Inventory
from discovery_core.store.maintenance.retention import KnownTenant, PurgeKey, RetentionStore

from . import metrics
from .faults import FAULTS
from .kube import Cluster, KubernetesError

log = get_logger(__name__)

FLOWS_PER_ROUND = 50
NAMESPACES_SECONDS = 60.0
GARBAGE_SECONDS = 600.0
COLLECTIONS_PER_ROUND = 50
PAUSE_SECONDS = 0.02


async def _step_by_step(step: Callable[[], Awaitable[bool]]) -> None:
    """Until the step says that nothing is left; others get at the database in between."""
    finished = False
    while not finished:
        finished = await step()
        await asyncio.sleep(PAUSE_SECONDS)


class WrongClusterError(Exception):
    """The list of namespaces is not that of the cluster whose data this is."""


class Retention:
    """The loop. `finished_flows` and `deleted_namespaces` are how long to keep; None: for ever.

    `purged` is told each flow whose data has gone: its status has to say so.
    """

    def __init__(
        self,
        store: OperatorStore,
        cluster: Cluster,
        *,
        leads: asyncio.Event,
        purged: Callable[[UUID], None],
        finished_flows: timedelta | None,
        deleted_namespaces: timedelta | None,
        delete_resources: bool,
        poll: float,
    ) -> None:
        self._cluster_id = store.cluster_id
        self._operator = store
        self._store = RetentionStore(store)
        self._cluster = cluster
        self._leads = leads
        self._purged = purged
        self._finished_flows = finished_flows
        self._deleted_namespaces = deleted_namespaces
        self._delete_resources = delete_resources
        self._poll = poll
        self._looked_at = float("-inf")
        self._collected_at = time.monotonic()
        # tenants that have let go of something, and None for all, in turn
        self._to_collect: dict[UUID | None, None] = {}

    async def run(self) -> None:
        """For ever. What fails is logged and done at the next round."""
        while True:
            await self._leads.wait()
            with set_aside("retention"):
                try:
                    await self.round()
                except (*FAULTS, WrongClusterError) as error:
                    log.warning("retention waits", error=str(error) or type(error).__name__)
            await asyncio.sleep(self._poll)

    async def round(self) -> None:
        """Everything that is due now."""
        now = time.monotonic()
        if now - self._looked_at >= NAMESPACES_SECONDS:
            # erasure and garbage do not wait for a list of namespaces
            with set_aside("retention", known=(*FAULTS, WrongClusterError), step="namespaces"):
                await self.look_for_namespaces()
                self._looked_at = now
        await self._let_go_of_deleted()
        await self._store.retire_flows(self._finished_flows, FLOWS_PER_ROUND)
        await self._retire_namespaces()
        for key in await self._store.unfinished(FLOWS_PER_ROUND):
            with set_aside("retention", purge=str(key.purge_id), tenant=str(key.tenant_id)):
                await self._purge(key)
        if self._delete_resources:
            await self._remove_resources()
        if now - self._collected_at >= GARBAGE_SECONDS:
            self._collected_at = now
            self._to_collect[None] = None
        await self._collect()

    # -- namespaces ----------------------------------------------------------------------------

    async def look_for_namespaces(self) -> None:
        """Compares the tenants with the namespaces that there are.

        Raises WrongClusterError for a list without this cluster's own kube-system.
        """
        known = await self._store.tenants()
        present = await self._cluster.list_namespaces()
        if self._cluster_id not in present:
            raise WrongClusterError(
                f"the namespaces that Kubernetes lists are not those of cluster {self._cluster_id}"
            )
        for tenant in known:
            with set_aside("retention", known=FAULTS, tenant=str(tenant.tenant_id)):
                await self._look_for(tenant, present)

    async def _look_for(self, tenant: KnownTenant, present: set[UUID]) -> None:
        if tenant.tenant_id in present:
            if tenant.gone_since is not None:
                await self._store.mark_gone(tenant.tenant_id, gone=False)
        elif tenant.gone_since is None and await self._is_gone(tenant):
            log.info("a namespace is gone", namespace=tenant.namespace)
            await self._store.mark_gone(tenant.tenant_id, gone=True)

    async def _is_gone(self, tenant: KnownTenant) -> bool:
        """Asks by name: only 404 or another UID will do, a failed look raises."""
        found: UUID | None = await self._cluster.namespace_uid(tenant.namespace)
        return found != tenant.tenant_id

    async def _retire_namespaces(self) -> None:
        if self._deleted_namespaces is None:
            return
        for tenant in await self._store.gone_tenants(self._deleted_namespaces):
            with set_aside("retention", known=FAULTS, tenant=str(tenant.tenant_id)):
                if await self._is_gone(tenant):
                    await self._store.retire_tenant(tenant.tenant_id, self._deleted_namespaces)
                else:
                    await self._store.mark_gone(tenant.tenant_id, gone=False)

    # -- deleted flows -------------------------------------------------------------------------

    async def _let_go_of_deleted(self) -> None:
        """Their rows leave the inventories, each derived anew once, and then their data goes."""
        found: dict[Inventory, list[Deleted]] = {}
        for flow in await self._store.deleted_flows(FLOWS_PER_ROUND):
            found.setdefault(flow.inventory, []).append(flow)
        for inventory, flows in found.items():
            with set_aside("retention", tenant=str(inventory.tenant_id)):
                counted = [flow.flow_id for flow in flows if flow.counts]
                if counted:
                    await self._rebuild(inventory, counted)
                for flow in flows:
                    await _step_by_step(partial(self._store.release_batch, flow))
                self._to_collect[inventory.tenant_id] = None

    async def _rebuild(self, inventory: Inventory, without: list[UUID]) -> None:
        """What only these flows know goes in steps, so that the rebuild is short."""
        after: str | None = ""
        while after is not None:
            after = await self._store.drop_assets_batch(inventory, without, after)
            await asyncio.sleep(PAUSE_SECONDS)
        changes = await self._store.rebuild_inventory(inventory)
        log.info(
            "an inventory was derived anew without flows that are gone",
            tenant=str(inventory.tenant_id),
            engagement=inventory.engagement or "",
            result=str(changes),
        )

    # -- the removal ---------------------------------------------------------------------------

    async def _purge(self, key: PurgeKey) -> None:
        """One purge to its end, with a pause between the steps."""
        leaving = await self._store.begin_purge(key)
        if leaving is not None:
            await self._rebuild(leaving.inventory, [leaving.flow_id])
        await _step_by_step(lambda: self._store.purge_batch(key))
        self._to_collect[key.tenant_id] = None
        record = await self._store.purge(key.purge_id)
        if record.flow_id is not None:
            self._purged(record.flow_id)
        metrics.PURGES.labels(reason=record.reason, outcome=record.outcome).inc()
        log.info(
            "purged" if record.outcome == "Done" else "not purged",
            tenant=str(key.tenant_id),
            flow=str(record.flow_id or ""),
            reason=record.reason,
            requested_by=record.requested_by,
            removed=record.removed,
            problem=record.problem,
        )

    async def _collect(self) -> None:
        """Some of what nobody refers to any more, of each in turn; the rest is the next round's."""
        for _ in range(COLLECTIONS_PER_ROUND):
            if not self._to_collect:
                return
            tenant_id = next(iter(self._to_collect))
            found = await self._operator.collect_garbage(tenant_id, steps=1)
            del self._to_collect[tenant_id]
            if found.left:
                self._to_collect[tenant_id] = None
            await asyncio.sleep(PAUSE_SECONDS)

    async def _remove_resources(self) -> None:
        """Deletes the resources of flows whose retention is over; that very ones, by their uid."""
        for flow in await self._store.purged_resources(FLOWS_PER_ROUND):
            await self._store.mark_retired(flow.flow_id)
            try:
                await self._cluster.delete_flow(flow.namespace, flow.name, str(flow.flow_id))
            except KubernetesError as error:
                log.warning(
                    "a finished flow's resource cannot be deleted",
                    flow=str(flow.flow_id),
                    namespace=flow.namespace,
                    error=str(error),
                )
