"""What must hold of a database whatever has gone wrong: ten invariants, each one SQL query.

A query returns the rows that offend, with a word on what is wrong with each, so that a violation
explains itself. All queries of one check read one snapshot. The connection must be one that
row-level security does not bind (a superuser's), else nothing could offend.

    python -m tests.faults.invariants postgresql://…    checks I1 to I10 over a database's rows
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from discovery_core.phases import PHASES
from discovery_core.states import STATES, TRANSITIONS, Occurrence, is_ended
from discovery_core.store.ledger.snapshot import HEARTBEAT_TIMEOUT
from discovery_core.store.schema import LIVE_RUN_STATES
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from tests.faults.invariant_queries import INVARIANTS

Raw = Mapping[str, Any]
Row = dict[str, Any]

GRACE_SECONDS = 30.0
STRAY_SECONDS = 60.0


class InvariantError(AssertionError):
    """At least one invariant does not hold. The text lists the rows that offend."""


@dataclass(frozen=True)
class Expectations:
    """What the rows are compared with, beside themselves.

    `grace` (seconds) is how long the operator may leave something that is due undone: the time
    that it needs to come back. `resources` and `jobs` are raw objects, complete for the open
    flows of the database; None leaves I6 and the part of I7 and I8 that needs them out. `settled`
    says that the operator has caught up: then statuses must equal rows and Jobs must be there.
    `limits` are the caps on live attempts, in all and per tenant; with them I7 also finds flows
    that starve. `stray` (seconds) is how long a Job that is no longer wanted may go on.
    """

    grace: float = GRACE_SECONDS
    resources: Sequence[Raw] | None = None
    jobs: Sequence[Raw] | None = None
    settled: bool = False
    limits: tuple[int, int] | None = None
    allow_automatic_approval: bool = False
    stray: float = STRAY_SECONDS


def check(url: str, expected: Expectations | None = None) -> None:
    """Checks I1 to I10 over the database at `url` (superuser). Raises InvariantError."""
    with psycopg.connect(url) as connection:
        found = violations(connection, expected)
    if found:
        raise InvariantError(describe(found))


def violations(
    connection: psycopg.Connection[Any], expected: Expectations | None = None
) -> dict[str, list[Row]]:
    """Offending rows by invariant ("I1" to "I10"); empty where all hold.

    Within a transaction that the caller has begun, they see what that transaction sees.
    """
    begins = connection.info.transaction_status is TransactionStatus.IDLE
    parameters = _parameters(expected or Expectations())
    found: dict[str, list[Row]] = {}
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        if begins:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for invariant in INVARIANTS:
            cursor.execute(invariant.sql, parameters)
            found.setdefault(invariant.name, []).extend(cursor.fetchall())
    return {name: rows for name, rows in found.items() if rows}


def describe(found: Mapping[str, Iterable[Row]]) -> str:
    """Violations as text, one row a line under the invariant's title."""
    titles = {invariant.name: invariant.title for invariant in INVARIANTS}
    lines: list[str] = []
    for name, rows in found.items():
        lines.append(f"{name} does not hold: {titles[name]}")
        lines += [f"  {json.dumps(row, default=str, sort_keys=True)}" for row in rows]
    return "\n".join(lines)


def _parameters(expected: Expectations) -> dict[str, Any]:
    resources, jobs = expected.resources, expected.jobs
    limits = expected.limits
    return {
        "ended": [str(state) for state in STATES if is_ended(state)],
        "live": [str(state) for state in LIVE_RUN_STATES],
        "occurrences": [str(occurrence) for occurrence in Occurrence],
        "steps": json.dumps(
            [{"source": t.source, "trigger": t.trigger, "target": t.target} for t in TRANSITIONS]
        ),
        "phases": [str(phase.name) for phase in PHASES],
        "gated": [str(phase.name) for phase in PHASES if phase.gated],
        "grace": expected.grace,
        "heartbeat": HEARTBEAT_TIMEOUT.total_seconds(),
        "stray": expected.stray,
        "settled": expected.settled,
        "know_jobs": jobs is not None,
        "know_resources": resources is not None,
        "jobs": json.dumps([_job_facts(raw) for raw in jobs or ()]),
        "resources": json.dumps([_resource_facts(raw) for raw in resources or ()]),
        "most": None if limits is None else limits[0],
        "most_of_tenant": None if limits is None else limits[1],
        "automatic": expected.allow_automatic_approval,
    }


def _job_facts(raw: Raw) -> dict[str, Any]:
    """A Job as the queries read it; one that is being deleted or has a verdict is not live."""
    meta = raw["metadata"]
    conditions = (raw.get("status") or {}).get("conditions") or []
    verdict = any(
        c.get("status") == "True"
        and c.get("type") in ("Complete", "SuccessCriteriaMet", "Failed", "FailureTarget")
        for c in conditions
    )
    return {
        "name": meta["name"],
        "namespace": meta["namespace"],
        "uid": meta["uid"],
        "flow_id": (meta.get("labels") or {}).get("discoveryflow.dev/flow-uid"),
        "live": not verdict and not meta.get("deletionTimestamp"),
    }


def _resource_facts(raw: Raw) -> dict[str, Any]:
    """A DiscoveryFlow as the queries read it."""
    meta, status = raw["metadata"], raw.get("status") or {}
    reasons = {c.get("reason") for c in status.get("conditions") or []}
    return {
        "flow_id": meta["uid"],
        "name": meta["name"],
        "deleting": bool(meta.get("deletionTimestamp")),
        "unreadable": "InvalidSpec" in reasons,
        "row_version": status.get("rowVersion"),
        "state": status.get("state"),
        "phase": status.get("phase"),
        "round": status.get("round"),
        "request_id": (status.get("approvalRequest") or {}).get("requestId"),
    }


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(str(__doc__))
    check(sys.argv[1])
    print("I1 to I10 hold")
