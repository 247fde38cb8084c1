"""What finished flows cost an operator that has nothing to do with them any more.

Compares an operator on an empty database with one on a database that holds 10,000 finished flows
(their attempts, history, answers, mappings and artefacts; their resources are deleted): CPU
seconds while idle, and transitions of a few flows. The two take turns, so that whatever else the
machine does falls on both; every run and the medians are printed.

Usage: `python -m bench.finished [--finished 10000] [--runs 5] [--idle 30] [--flows 2]`.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
from sqlalchemy.engine import URL

from bench import meters
from bench.lane import Lane, Load, lane_on
from tests.faults import termination
from tests.faults.control_plane import ControlPlane
from tests.faults.world import StuckError
from tests.postgres import fresh_database, make_template, running_server

TENANTS = 20
# seconds until the first sweep, the first count of the database and the first lists are over
SETTLE_SECONDS = 10.0
PATIENCE = 600.0

# flows of six attempts each, which ended one after the other during the last thirty days
ROWS = """
CREATE TEMP TABLE made AS
SELECT number, gen_random_uuid() AS flow_id, gen_random_uuid() AS request_id,
       ('00000000-0000-4000-8000-' || lpad((number %% %(tenants)s)::text, 12, '0'))::uuid
         AS tenant_id,
       clock_timestamp() - number * interval '4 minutes' - interval '1 hour' AS ended
FROM generate_series(1, %(flows)s) AS number;
CREATE TEMP TABLE ran AS
SELECT made.*, gen_random_uuid() AS run_id, phase, position FROM made,
  unnest(ARRAY['data_import', 'data_cleansing', 'field_mapping', 'asset_inventory',
               'dependency_analysis', 'migration_strategy']) WITH ORDINALITY AS p(phase, position);
INSERT INTO clusters (id) VALUES (%(cluster)s) ON CONFLICT DO NOTHING;
INSERT INTO tenants (id, cluster_id, namespace)
SELECT DISTINCT tenant_id, %(cluster)s::uuid, 'team-' || right(tenant_id::text, 3) FROM made;
INSERT INTO master_flows (tenant_id, flow_id, name, engagement, created_at, deleted_at,
       released_at)
SELECT tenant_id, flow_id, 'flow-' || number, 'group-' || number / 50,
       ended - interval '1 hour', ended + interval '1 minute', ended + interval '1 minute'
FROM made;
INSERT INTO discovery_flows (tenant_id, flow_id, spec, generation, phase, state, state_since,
       reason, message, version, event_sequence, last_fence, source_digest, updated_at)
SELECT tenant_id, flow_id, '{"source": {"configMap": {"name": "servers", "key": "servers.csv"}}}',
       2, 'migration_strategy', CASE WHEN number %% 10 = 0 THEN 'Failed' ELSE 'Succeeded' END,
       ended, 'FlowSucceeded', 'all servers have a strategy', 20, 20, 6,
       'sha256:' || encode(sha256((flow_id || 'source')::bytea), 'hex'), ended FROM made;
INSERT INTO phase_runs (tenant_id, id, flow_id, round, phase, attempt, state, job_name, job_uid,
       pod_uid, pod_name, fence, created_at, launched_at, claimed_at, finished_at, deadline,
       heartbeat_at, result, usage)
SELECT tenant_id, run_id, flow_id, 1, phase, 1, 'Succeeded', 'job-' || number || '-' || position,
       gen_random_uuid(), gen_random_uuid(), 'pod-' || number || '-' || position, position,
       ended - (7 - position) * interval '1 minute', ended - (7 - position) * interval '59 seconds',
       ended - (7 - position) * interval '58 seconds', ended - (6 - position) * interval '1 minute',
       ended, ended - (6 - position) * interval '1 minute',
       jsonb_build_object('kind', phase, 'summary', repeat('a summary of the result ', 8)),
       '{"planner": "builtin", "promptTokens": 900, "completionTokens": 80}' FROM ran;
INSERT INTO flow_events (tenant_id, flow_id, sequence, at, actor, trigger, from_state, to_state,
       phase, round, attempt, message)
SELECT tenant_id, flow_id, step, ended - (20 - step) * interval '20 seconds', 'operator',
       'AttemptStarted', 'Queued', 'Running', 'data_import', 1, 1, repeat('what happened ', 5)
FROM made, generate_series(1, 20) AS step;
INSERT INTO approval_requests (tenant_id, id, flow_id, round, run_id, artefact_digest, state,
       policy, targets, opened_at, expires_at, decided_at, decided_by, decided_via)
SELECT tenant_id, request_id, flow_id, 1, run_id, 'sha256:none', 'Approved', '{}', '[]',
       ended - interval '4 minutes', ended + interval '3 days', ended - interval '3 minutes',
       'ann', 'resource' FROM ran WHERE phase = 'field_mapping';
INSERT INTO field_mappings (tenant_id, request_id, position, source_column, proposal)
SELECT tenant_id, request_id, position, 'column ' || position,
       '{"target": "hostname", "confidence": 0.9}' FROM made, generate_series(0, 9) AS position;
INSERT INTO artefacts (tenant_id, id, digest, size, media_type, uploaded_by, sealed_at)
SELECT tenant_id, gen_random_uuid(),
       'sha256:' || encode(sha256((run_id || name)::bytea), 'hex'), 1000, 'text/plain', run_id,
       ended FROM ran, unnest(ARRAY['rows', 'report']) AS name;
INSERT INTO flow_artefacts (tenant_id, flow_id, run_id, name, digest)
SELECT tenant_id, flow_id, run_id, name,
       'sha256:' || encode(sha256((run_id || name)::bytea), 'hex')
FROM ran, unnest(ARRAY['rows', 'report']) AS name;
"""


@dataclass(frozen=True)
class Run:
    """One run: CPU seconds per minute while idle, and transitions in milliseconds."""

    operator: float
    database: float
    transitions: list[float]


def fill(server: URL, template: str, cluster: UUID, flows: int) -> str:
    """A copy of the template with finished flows; returns its name."""
    name = f"finished_{uuid4().hex[:12]}"
    url = server.set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    full = url.set(database=name).render_as_string(hide_password=False)
    values = {"flows": flows, "tenants": TENANTS, "cluster": cluster}
    with psycopg.connect(full) as connection:
        client = psycopg.ClientCursor(connection)
        client.execute(ROWS, values)
    with psycopg.connect(full, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    return name


async def run(plane: ControlPlane, server: URL, template: str, options: argparse.Namespace) -> Run:
    """One operator over a copy of that database."""
    with (
        tempfile.TemporaryDirectory(prefix="discovery-bench-") as folder,
        fresh_database(server, template) as urls,
    ):
        async with lane_on(plane, urls, Path(folder), Load(namespaces=1)) as lane:
            operator = await lane.operator()
            await asyncio.sleep(SETTLE_SECONDS)
            before = lane.cpu(operator)
            await asyncio.sleep(options.idle)
            after = lane.cpu(operator)
            began = time.time()
            await _flows(lane, options.flows)
            made = meters.rows(urls.superuser, meters.TRANSITIONS, began)
    minute = 60 / options.idle
    return Run(
        operator=(after["operator"] - before["operator"]) * minute,
        database=(after["PostgreSQL"] - before["PostgreSQL"]) * minute,
        transitions=[float(row[1]) for row in made],
    )


async def _flows(lane: Lane, count: int) -> None:
    """A few flows, one after the other."""
    for _ in range(count):
        name = await lane.people.start()
        deadline = time.monotonic() + PATIENCE
        while lane.people.states.get(name) != "Succeeded":
            if time.monotonic() > deadline:
                raise StuckError(f"{name} is {lane.people.states.get(name)}")
            await asyncio.sleep(0.05)


@asynccontextmanager
async def _plane() -> AsyncIterator[ControlPlane]:
    with tempfile.TemporaryDirectory(prefix="discovery-bench-") as folder:
        async with ControlPlane(Path(folder) / "plane") as plane:
            yield plane


async def measure(options: argparse.Namespace) -> None:
    """Runs and prints."""
    found: dict[str, list[Run]] = {"empty": [], f"{options.finished} finished": []}
    with running_server() as server:
        template = make_template(server)
        async with _plane() as plane:
            system = await plane.api.call("GET", "/api/v1/namespaces/kube-system")
            cluster = UUID(system["metadata"]["uid"])
            full = await asyncio.to_thread(fill, server, template, cluster, options.finished)
            for number in range(options.runs):
                for name, source in zip(found, (template, full), strict=True):
                    made = await run(plane, server, source, options)
                    found[name].append(made)
                    print(
                        f"run {number + 1} {name:16} idle: operator {made.operator:5.2f}, "
                        f"PostgreSQL {made.database:5.2f} CPU s a minute; transitions "
                        f"{meters.percentiles(made.transitions)}; {meters.load_average()}",
                        flush=True,
                    )
    print()
    for name, runs in found.items():
        print(
            f"median {name:16} idle: operator "
            f"{statistics.median(one.operator for one in runs):5.2f}, PostgreSQL "
            f"{statistics.median(one.database for one in runs):5.2f} CPU s a minute; transition "
            f"{statistics.median(value for one in runs for value in one.transitions):6.1f} ms"
        )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.finished", description=__doc__)
    parser.add_argument("--finished", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--idle", type=float, default=30, help="seconds")
    parser.add_argument("--flows", type=int, default=2, help="five transitions each")
    termination.run(measure(parser.parse_args()))
    sys.exit(0)


if __name__ == "__main__":
    main()
