"""What the operator asks every few seconds reads what is open, not what has ended.

Beside 10,000 finished flows, and with the very statements that the store sends. Not among them are
the counts by state (`test_figures.py`), which are one pass over one narrow table.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from discovery_core.store import Database
from discovery_core.store.maintenance.retention import RetentionStore
from sqlalchemy import event

from bench.finished import ROWS, TENANTS
from tests.postgres import Stores
from tests.store.flows import Flow

FLOWS = 10_000
MOST_ROWS = 500


@contextmanager
def explained(*databases: Database) -> Iterator[list[dict[str, Any]]]:
    """The plans of all statements in the block. Only those that read have actual rows."""
    plans: list[dict[str, Any]] = []

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        kind = statement.split(maxsplit=1)[0].upper()
        if kind in ("SELECT", "WITH", "UPDATE"):
            analyze = "" if kind == "UPDATE" else "ANALYZE, "
            cursor.execute(f"EXPLAIN ({analyze}FORMAT JSON) {statement}", parameters)
            plans.append(cursor.fetchone()[0][0]["Plan"])

    engines = [database.engine.sync_engine for database in databases]
    for engine in engines:
        event.listen(engine, "before_cursor_execute", explain)
    try:
        yield plans
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", explain)


def most_rows(plan: dict[str, Any]) -> int:
    """Rows that the busiest step of a plan has looked at, those it passed over included."""
    rows, loops = plan.get("Actual Rows", 0), plan.get("Actual Loops", 0)
    own = (rows + plan.get("Rows Removed by Filter", 0)) * loops
    return max([int(own), *(most_rows(step) for step in plan.get("Plans", ()))])


def fill(stores: Stores) -> None:
    """Finished flows, whose messages have been delivered."""
    values = {"flows": FLOWS, "tenants": TENANTS, "cluster": stores.cluster_id}
    with psycopg.connect(stores.urls.superuser, autocommit=True) as connection:
        psycopg.ClientCursor(connection).execute(ROWS, values)
        connection.execute(
            "INSERT INTO notifications (tenant_id, flow_id, sequence, kind, state) SELECT "
            "tenant_id, flow_id, n, 'flow.ended', 'Delivered' FROM discovery_flows, "
            "generate_series(1, 3) AS n WHERE state IN ('Succeeded', 'Failed')"
        )
        connection.execute("ANALYZE")


@pytest.mark.slow
async def test_what_is_asked_again_and_again_passes_over_what_has_ended(stores: Stores) -> None:
    store, retention = stores.operator, RetentionStore(stores.operator)
    waiting, running = Flow(stores, name="waiting"), Flow(stores, name="running")
    for flow in (waiting, running):
        await flow.queue()
    await running.start()
    fill(stores)
    since = await store.now() - timedelta(minutes=2)
    keep, limits = timedelta(days=90), (20, 5)
    reads: dict[str, Callable[[], Awaitable[Any]]] = {
        "the sweep": lambda: store.changed_flows(65),
        "requests that expire": lambda: store.requests_expiring(300),
        "who may start": lambda: store.startable(limits, {running.flow_id}),
        "a resync": store.open_flows,
        "tokens": lambda: store.tokens_since(since),
        "circuit breakers": store.breaker_counts,
        "messages": lambda: store.due_notifications(20),
        "a queued flow's turn": lambda: store.look(waiting.flow_id, limits, {running.flow_id}),
        "a running flow": lambda: store.look(running.flow_id, limits),
        "flows to retire": lambda: retention.retire_flows(keep, 50),
        "namespaces to retire": lambda: retention.gone_tenants(keep),
        "purges": lambda: retention.unfinished(50),
        "purged resources": lambda: retention.purged_resources(50),
    }
    looked_at = {}
    for name, read in reads.items():
        with explained(store.db) as plans:
            await read()
        looked_at[name] = max(most_rows(plan) for plan in plans)
    assert {name: rows for name, rows in looked_at.items() if rows > MOST_ROWS} == {}
