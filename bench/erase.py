"""How long erasing a large inventory keeps others waiting: the longest transaction and lock.

A flow with a million inventory rows, an asset for each, is deleted, purged at a person's word, or
goes with its namespace, by the operator's own code. Meanwhile somebody takes the flow's lock and
starts another flow in the same namespace, again and again; printed is the longest that either
waited, and the longest transaction of each kind.

Usage: `python -m bench.erase [--rows 1000000] [--how deletion command namespace]`.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import psycopg
from discovery_core import actions as act
from discovery_core.store.inventory.assets import rebuild_assets
from discovery_core.store.maintenance import retention as maintenance
from discovery_core.store.maintenance.retention import RetentionStore
from discovery_core.store.operator import OperatorStore
from discovery_operator.retention import Retention

from tests.postgres import (
    Stores,
    close_stores,
    fresh_database,
    make_template,
    open_stores,
    running_server,
)
from tests.store.fake_cluster import FakeCluster
from tests.store.flows import Flow

TRANSACTIONS = (
    (RetentionStore, "purge_batch"),
    (RetentionStore, "release_batch"),
    (RetentionStore, "begin_purge"),
    (RetentionStore, "drop_assets_batch"),
    (OperatorStore, "collect_garbage"),
)
WAYS = ("deletion", "command", "namespace")
FILL = """
INSERT INTO records (tenant_id, run_id, row, identity, name, asset_type, identity_confidence, keys,
                     fields, originals, conversions, unmapped, problems)
SELECT r.tenant_id, r.id, n, 'hostname:host' || n, 'host' || n, 'server', 0.8,
       to_jsonb(ARRAY['name:host' || n]), jsonb_build_object('hostname', 'host' || n),
       '{}', '{}', '{}', '[]'
FROM phase_runs r, generate_series(10, %s) AS n
WHERE r.flow_id = %s AND r.phase = 'asset_inventory'
"""
ASSETS = """
INSERT INTO assets (tenant_id, engagement, identity, name, asset_type, fields, sources)
SELECT r.tenant_id, '', r.identity, r.name, r.asset_type, r.fields, to_jsonb(ARRAY[p.flow_id])
FROM records r JOIN phase_runs p ON p.id = r.run_id WHERE p.flow_id = %s ON CONFLICT DO NOTHING
"""


class Watch:
    """The longest run of each kind of work, in seconds."""

    def __init__(self) -> None:
        self.longest: dict[str, float] = {}
        self.times: dict[str, int] = {}

    async def timed(self, what: str, work: Callable[[], Awaitable[Any]]) -> Any:
        """Does the work and remembers how long it took."""
        started = time.perf_counter()
        try:
            return await work()
        finally:
            took = time.perf_counter() - started
            self.longest[what] = max(took, self.longest.get(what, 0.0))
            self.times[what] = self.times.get(what, 0) + 1


async def others(stores: Stores, flow: Flow, watch: Watch, *, starts: bool) -> None:
    """Takes the flow's lock and starts flows beside it, until cancelled."""
    number = 0
    async with await psycopg.AsyncConnection.connect(stores.urls.superuser) as connection:

        async def lock() -> None:
            await connection.execute(
                "SELECT 1 FROM discovery_flows WHERE flow_id = %s FOR UPDATE", [flow.flow_id]
            )
            await connection.rollback()

        while True:
            await watch.timed("somebody else takes the flow's lock", lock)
            if starts:
                number += 1
                beside = Flow(stores, tenant_id=flow.tenant_id, name=f"beside-{number}")
                await watch.timed("somebody else's flow begins", beside.register)
                await stores.operator.apply(beside.flow_id, act.Cancel())
            await asyncio.sleep(0.05)


def measured(watch: Watch) -> None:
    """Has the retention's transactions timed, whoever makes them."""
    for owner, name in TRANSACTIONS:
        genuine = getattr(owner, name)

        def timed(self: Any, *given: Any, of: Any = genuine, what: str = name, **named: Any) -> Any:
            return watch.timed(f"transaction: {what}", lambda: of(self, *given, **named))

        setattr(owner, name, timed)

    async def rebuild(*given: Any) -> Any:
        return await watch.timed(
            "transaction: inventory derived anew", lambda: rebuild_assets(*given)
        )

    setattr(maintenance, "rebuild_assets", rebuild)  # noqa: B010 - it is not exported


async def erase(stores: Stores, rows: int, how: str) -> None:
    """One way of erasing one flow, and what it cost others."""
    flow = Flow(stores, spec={"source": {"configMap": {"name": "a", "key": "b"}}})
    await flow.to_gate()
    await flow.answer()
    await flow.finish()
    async with await psycopg.AsyncConnection.connect(
        stores.urls.superuser, autocommit=True
    ) as connection:
        await connection.execute(FILL, [rows + 9, flow.flow_id])
        await connection.execute(ASSETS, [flow.flow_id])
        await connection.execute("VACUUM ANALYZE")
    cluster: Any = FakeCluster()
    cluster.namespaces = {"kube-system": stores.cluster_id, "migration": flow.tenant_id}
    if how == "namespace":
        del cluster.namespaces["migration"]
    elif how == "deletion":
        await stores.operator.apply(flow.flow_id, act.MarkDeleted())
    else:
        await stores.api.request_purge(flow.tenant_id, flow.flow_id, by="ann", inventory=True)
    retention = Retention(
        stores.operator,
        cluster,
        leads=asyncio.Event(),
        purged=lambda _: None,
        finished_flows=None,
        deleted_namespaces=timedelta(0),
        delete_resources=False,
        poll=1,
    )
    watch = Watch()
    measured(watch)
    beside = asyncio.create_task(others(stores, flow, watch, starts=how != "namespace"))
    started = time.perf_counter()
    await retention.round()
    took = time.perf_counter() - started
    beside.cancel()
    await asyncio.gather(beside, return_exceptions=True)
    print(f"{how}: {rows:,} rows, {took:.1f} s in all")
    for what, longest in sorted(watch.longest.items()):
        print(f"  {what}: longest of {watch.times[what]}: {longest * 1000:.0f} ms")


async def main() -> None:
    """Each way on a database of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--how", nargs="+", choices=WAYS, default=WAYS)
    arguments = parser.parse_args()
    with running_server() as postgres:
        template = make_template(postgres)
        for how in arguments.how:
            with fresh_database(postgres, template) as urls:
                stores = await open_stores(urls)
                await erase(stores, arguments.rows, how)
                await close_stores(stores)


if __name__ == "__main__":
    asyncio.run(main())
