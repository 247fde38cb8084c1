"""What is asked all the time finds its rows by an index, with ten thousand flows that wait.

With the very statements that the store sends, on each major version of PostgreSQL that is here: the
newest can use an index whose first column is not asked for, older ones read the whole table.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from discovery_core.wire.protocol import Heartbeat
from sqlalchemy.engine import URL

from tests.debian_postgres import debian_server, installed
from tests.postgres import Stores, close_stores, fresh_database, make_template, open_stores
from tests.store.flows import Flow
from tests.store.test_periodic_reads import explained

pytestmark = pytest.mark.slow

EMBEDDED, DEBIAN = 18, (15, 17)
# of 50 tenants in turn; the first half of each tenant's is parked, the other is queued
ROWS = """
CREATE TEMP TABLE made AS
SELECT number, gen_random_uuid() AS flow_id, gen_random_uuid() AS run_id,
       ('00000000-0000-4000-8000-' || lpad((number %% 50)::text, 12, '0'))::uuid AS tenant_id,
       CASE WHEN number %% 100 < 50 THEN 'AwaitingApproval' ELSE 'Queued' END AS state,
       clock_timestamp() - number * interval '1 minute' AS since
FROM generate_series(1, 10000) AS number;
INSERT INTO clusters (id) VALUES (%(cluster)s) ON CONFLICT DO NOTHING;
INSERT INTO tenants (id, cluster_id, namespace)
SELECT DISTINCT tenant_id, %(cluster)s::uuid, 'team-' || right(tenant_id::text, 3) FROM made;
INSERT INTO master_flows (tenant_id, flow_id, name, created_at)
SELECT tenant_id, flow_id, 'flow-' || number, since FROM made;
INSERT INTO discovery_flows (tenant_id, flow_id, spec, generation, phase, state, state_since,
       reason, message, version, event_sequence, last_fence, source_digest, updated_at)
SELECT tenant_id, flow_id, '{"source": {"configMap": {"name": "servers", "key": "servers.csv"}}}',
       2, 'field_mapping', state, since, 'Made', '', 20, 20, 6,
       'sha256:' || encode(sha256((flow_id || 'source')::bytea), 'hex'), since FROM made;
INSERT INTO phase_runs (tenant_id, id, flow_id, round, phase, attempt, state, job_name, job_uid,
       pod_uid, pod_name, fence, created_at, launched_at, claimed_at, finished_at, deadline,
       heartbeat_at, result, usage)
SELECT tenant_id, run_id, flow_id, 1, 'data_import', 1, 'Succeeded', 'job-' || number,
       gen_random_uuid(), gen_random_uuid(), 'pod-' || number, 1, since, since, since, since,
       since, since, '{}', '{"planner": "builtin"}' FROM made;
INSERT INTO approval_requests (tenant_id, id, flow_id, round, run_id, artefact_digest, policy,
       targets, state, opened_at, expires_at)
SELECT tenant_id, gen_random_uuid(), flow_id, 1, run_id, 'sha256:1', '{"timeout": "72h"}',
       '[]', 'Open', since, clock_timestamp() + interval '3 days' FROM made
 WHERE state = 'AwaitingApproval';
ANALYZE
"""
BIG = {"discovery_flows", "master_flows", "phase_runs", "approval_requests", "flow_events"}


@pytest.fixture(scope="module", params=[EMBEDDED, *filter(installed, DEBIAN)])
def server(request: pytest.FixtureRequest) -> Iterator[URL]:
    """A server of each version."""
    if request.param == EMBEDDED:
        yield request.getfixturevalue("postgres")
        return
    with debian_server(request.param) as url:
        yield url


@pytest.fixture
async def crowded(server: URL) -> AsyncIterator[Stores]:
    """Stores over a database with ten thousand flows that wait."""
    with fresh_database(server, make_template(server)) as urls:
        stores = await open_stores(urls)
        with psycopg.connect(urls.superuser, autocommit=True) as connection:
            psycopg.ClientCursor(connection).execute(ROWS, {"cluster": stores.cluster_id})
        yield stores
        await close_stores(stores)


def read_whole(plan: dict[str, Any]) -> set[str]:
    """Big tables that a step of the plan reads from the first row to the last."""
    found = {plan["Relation Name"]} if plan["Node Type"] == "Seq Scan" else set()
    return (found & BIG).union(*(read_whole(step) for step in plan.get("Plans", ())))


async def test_nothing_that_is_asked_all_the_time_reads_a_big_table(crowded: Stores) -> None:
    store = crowded.operator
    waiting, running = Flow(crowded, name="waiting"), Flow(crowded, name="running")
    for flow in (waiting, running):
        await flow.queue()
    await running.start()
    pod = await running.claim()
    limits, since = (20, 5), await store.now() - timedelta(minutes=2)
    failing: set[UUID] = {running.flow_id}
    asked: dict[str, Callable[[], Awaitable[Any]]] = {
        "who may start": lambda: store.startable(limits, failing),
        "a queued flow's turn": lambda: store.look(waiting.flow_id, limits, failing),
        "a running flow": lambda: store.look(running.flow_id, limits),
        "what has changed": lambda: store.changed_flows(65),
        "requests that expire": lambda: store.requests_expiring(300),
        "tokens": lambda: store.tokens_since(since),
        "messages": lambda: store.due_notifications(20),
        "a flow for the user API": lambda: crowded.api.locate(running.flow_id),
        "a heartbeat": lambda: crowded.execution.heartbeat(
            tenant_id=running.tenant_id, pod_uid=pod.pod_uid, beat=Heartbeat(fence=pod.claim.fence)
        ),
    }
    whole: dict[str, set[str]] = {}
    for name, ask in asked.items():
        with explained(*(s.db for s in (store, crowded.api, crowded.execution))) as plans:
            await ask()
        assert plans, name
        whole[name] = set().union(*map(read_whole, plans))
    assert {name: tables for name, tables in whole.items() if tables} == {}
    assert len(await store.startable(limits, failing)) == 19
