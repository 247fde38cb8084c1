"""Each invariant holds of a sound database, and finds the row that is broken on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from discovery_core import actions as act
from discovery_core.states import FlowState
from discovery_operator.manifests.names import FLOW_UID_LABEL
from sqlalchemy.engine import URL

from tests.faults.invariant_queries import INVARIANTS
from tests.faults.invariants import (
    Expectations,
    InvariantError,
    check,
    describe,
    violations,
)
from tests.postgres import DatabaseUrls, Stores, close_stores, fresh_database, open_stores
from tests.store.flows import Flow

# longer than the tests here take on a busy machine, shorter than what they move back in time
SETTLED = Expectations(grace=30, settled=True, limits=(20, 5))


@dataclass
class Scene:
    """One database with an ended, a running, an asking, a suspended and a queued flow."""

    url: str
    flows: dict[str, Flow]
    expected: Expectations

    def broken(self, statements: str) -> dict[str, list[dict[str, Any]]]:
        """Violations after statements without foreign keys; nothing of it stays."""
        ids = {name: flow.flow_id for name, flow in self.flows.items()}
        tenants = {f"{name}_tenant": flow.tenant_id for name, flow in self.flows.items()}
        with psycopg.connect(self.url) as connection:
            connection.execute("SET session_replication_role = replica")
            for statement in statements.split(";"):
                connection.execute(statement, {**ids, **tenants})
            found = violations(connection, self.expected)
            connection.rollback()
        return found


def job(flow: Flow, name: str, uid: str, **meta: Any) -> dict[str, Any]:
    labels = {FLOW_UID_LABEL: str(flow.flow_id)}
    return {
        "metadata": {"name": name, "namespace": "n", "uid": uid, "labels": labels, **meta},
        "status": {},
    }


async def resource(flow: Flow) -> dict[str, Any]:
    row = await flow.load()
    asked = row.request if row.state is FlowState.AWAITING_APPROVAL else None
    return {
        "metadata": {"uid": str(flow.flow_id), "name": flow.name},
        "status": {
            "state": str(row.state),
            "phase": str(row.phase),
            "round": row.round,
            "rowVersion": row.version,
            **({"approvalRequest": {"requestId": str(asked.request_id)}} if asked else {}),
        },
    }


@pytest.fixture(scope="module")
def scene(postgres: URL, template: str) -> Iterator[Scene]:
    """One for all tests: none of them leaves anything behind."""

    async def make(urls: DatabaseUrls) -> Scene:
        stores = await open_stores(urls)
        try:
            return await _scene(stores)
        finally:
            await close_stores(stores)

    with fresh_database(postgres, template) as urls:
        yield asyncio.run(make(urls))


async def _scene(stores: Stores) -> Scene:
    tenant = uuid4()
    flows = {
        name: Flow(stores, tenant_id=tenant, name=name)
        for name in ("done", "running", "asking", "suspended", "queued", "waiting")
    }
    flows["other"] = Flow(stores, name="other")
    await flows["done"].to_gate()
    await flows["done"].answer()
    await flows["done"].finish()
    await flows["asking"].to_gate()
    for name in ("running", "queued", "waiting", "other"):
        await flows[name].queue()
    await stores.operator.apply(flows["waiting"].flow_id, act.ReferenceMissing(("ConfigMap 'x'",)))
    await flows["running"].start()
    pod = await flows["running"].claim()
    flows["suspended"].spec["state"] = "Suspend"
    await flows["suspended"].queue()
    await stores.operator.apply(flows["suspended"].flow_id, act.Suspend())
    run = (await flows["running"].load()).run
    assert run is not None
    assert pod.claim.fence == 1
    jobs = [job(flows["running"], run.job_name, str(run.job_uid))]
    resources = [await resource(flow) for flow in flows.values()]
    return Scene(stores.urls.superuser, flows, replace(SETTLED, jobs=jobs, resources=resources))


def test_a_sound_database_violates_nothing(scene: Scene) -> None:
    check(scene.url, scene.expected)
    check(scene.url)


# statements without foreign keys and triggers; what breaks is told by the name
BROKEN = {
    "I1 ends twice": """
        INSERT INTO flow_events (tenant_id, flow_id, sequence, actor, trigger, from_state,
        to_state, phase, round) SELECT tenant_id, flow_id, event_sequence + 1, 'x', 'Cancelled',
        'Running', 'Cancelled', phase, round FROM discovery_flows WHERE flow_id = %(done)s
    """,
    "I1 left": """
        INSERT INTO flow_events (tenant_id, flow_id, sequence, actor, trigger, from_state,
        to_state, phase, round) SELECT tenant_id, flow_id, event_sequence + 1, 'x', 'Resumed',
        'Succeeded', 'Queued', phase, round FROM discovery_flows WHERE flow_id = %(done)s
    """,
    "I2 gap": "DELETE FROM flow_events WHERE flow_id = %(done)s AND sequence = 4",
    "I2 illegal": """
        UPDATE flow_events SET trigger = 'Resumed' WHERE flow_id = %(done)s AND sequence = 3
    """,
    "I2 row": "UPDATE discovery_flows SET state = 'Waiting' WHERE flow_id = %(queued)s",
    "I2 phase back": """
        UPDATE flow_events SET phase = 'data_import' WHERE flow_id = %(done)s AND trigger =
        'AttemptStarted' AND phase = 'migration_strategy'
    """,
    "I2 skipped": """
        UPDATE flow_events SET phase = 'data_cleansing' WHERE flow_id = %(running)s AND trigger
        = 'AttemptStarted'
    """,
    "I3 no approval": """
        UPDATE flow_events SET trigger = 'AskedAgain' WHERE flow_id = %(done)s AND trigger =
        'Approved'
    """,
    "I3 not approved": """
        UPDATE approval_requests SET state = 'Cancelled' WHERE flow_id = %(done)s
    """,
    "I3 late": """
        UPDATE approval_requests SET decided_at = now() + interval '1 day' WHERE flow_id =
        %(done)s
    """,
    "I3 other bytes": """
        UPDATE approval_requests SET artefact_digest = 'sha256:0' WHERE flow_id = %(done)s
    """,
    "I3 unsealed": """
        UPDATE approval_requests SET artefact_digest = 'sha256:0' WHERE flow_id = %(asking)s
    """,
    "I4 two results": """
        DROP INDEX uq_phase_runs_accepted;
        INSERT INTO phase_runs (tenant_id, id, flow_id, round, phase, attempt, state, job_name,
        deadline) SELECT tenant_id, gen_random_uuid(), flow_id, round, phase, 9, 'Succeeded',
        'again', now() FROM phase_runs WHERE flow_id = %(done)s AND phase = 'data_import'
    """,
    "I4 accepted twice": """
        UPDATE flow_events SET phase = 'data_import' WHERE flow_id = %(done)s AND trigger =
        'PhaseSucceeded' AND phase = 'data_cleansing'
    """,
    "I4 two live": """
        DROP INDEX uq_phase_runs_live;
        INSERT INTO phase_runs (tenant_id, id, flow_id, round, phase, attempt, state, job_name,
        deadline) SELECT tenant_id, gen_random_uuid(), flow_id, round, phase, 9, 'Created',
        'again', now() + interval '1 h' FROM phase_runs WHERE flow_id = %(running)s
    """,
    "I4 one fence": "UPDATE phase_runs SET fence = 1 WHERE flow_id = %(done)s",
    "I4 fence": "UPDATE phase_runs SET fence = 9 WHERE flow_id = %(running)s",
    "I4 one Job": """
        ALTER TABLE phase_runs DROP CONSTRAINT uq_phase_runs_tenant_id_job_name;
        UPDATE phase_runs SET job_name = 'x' WHERE flow_id = %(done)s
    """,
    "I4 two requests": """
        DROP INDEX uq_approval_requests_open;
        INSERT INTO approval_requests (tenant_id, id, flow_id, round, run_id, artefact_digest,
        state, policy, targets, expires_at) SELECT tenant_id, gen_random_uuid(), flow_id, round,
        run_id, artefact_digest, state, policy, targets, expires_at FROM approval_requests WHERE
        flow_id = %(asking)s
    """,
    "I5 no master": "DELETE FROM master_flows WHERE flow_id = %(queued)s",
    "I5 no flow": """
        INSERT INTO master_flows (tenant_id, flow_id, name) VALUES (%(done_tenant)s,
        gen_random_uuid(), 'lost')
    """,
    "I6 behind": "UPDATE discovery_flows SET version = version + 1 WHERE flow_id = %(queued)s",
    "I6 ahead": "UPDATE discovery_flows SET version = version - 1 WHERE flow_id = %(queued)s",
    "I6 another state": "UPDATE discovery_flows SET round = 3 WHERE flow_id = %(asking)s",
    "I6 deleted": "UPDATE master_flows SET deleted_at = now() WHERE flow_id = %(asking)s",
    "I7 pending": """
        UPDATE discovery_flows SET state = 'Pending', state_since = now() - interval '1 min'
        WHERE flow_id = %(queued)s
    """,
    "I7 starving": """
        UPDATE discovery_flows SET state_since = now() - interval '1 min' WHERE flow_id =
        %(queued)s
    """,
    "I7 barred": "UPDATE discovery_flows SET state = 'Queued' WHERE flow_id = %(running)s",
    "I7 far timer": """
        UPDATE discovery_flows SET not_before = now() + interval '1 day' WHERE flow_id =
        %(queued)s
    """,
    "I7 no attempt": "DELETE FROM phase_runs WHERE flow_id = %(running)s",
    "I7 ended attempt": "UPDATE phase_runs SET state = 'Superseded' WHERE flow_id = %(running)s",
    "I7 unheard failure": """
        UPDATE phase_runs SET state = 'Failed', finished_at = now() - interval '1 min' WHERE
        flow_id = %(running)s
    """,
    "I7 overdue": """
        UPDATE phase_runs SET deadline = now() - interval '1 min' WHERE flow_id = %(running)s
    """,
    "I7 silent": """
        UPDATE phase_runs SET heartbeat_at = now() - interval '2 min' WHERE flow_id =
        %(running)s
    """,
    "I7 no Job": "UPDATE phase_runs SET job_uid = 'gone' WHERE flow_id = %(running)s",
    "I7 waits for nothing": """
        UPDATE discovery_flows SET missing = '[]' WHERE flow_id = %(waiting)s
    """,
    "I7 nothing asked": """
        UPDATE approval_requests SET state = 'Cancelled', decided_at = now() WHERE flow_id =
        %(asking)s
    """,
    "I7 expired": """
        UPDATE approval_requests SET expires_at = now() - interval '1 min' WHERE flow_id =
        %(asking)s
    """,
    "I7 unwanted suspension": """
        UPDATE discovery_flows SET spec = spec - 'state', updated_at = now() - interval '1 min'
        WHERE flow_id = %(suspended)s
    """,
    "I8 no attempt": "UPDATE phase_runs SET job_name = 'x' WHERE flow_id = %(running)s",
    "I8 no flow": """
        DELETE FROM discovery_flows WHERE flow_id = %(running)s;
        DELETE FROM master_flows WHERE flow_id = %(running)s
    """,
    "I8 ended": """
        UPDATE phase_runs SET state = 'Failed' WHERE flow_id = %(running)s;
        UPDATE discovery_flows SET state_since = now() - interval '1 h' WHERE flow_id =
        %(running)s
    """,
    "I8 stopped": "UPDATE discovery_flows SET state = 'Cancelled' WHERE flow_id = %(running)s",
    "I9 request": """
        UPDATE approval_requests SET tenant_id = %(other_tenant)s WHERE flow_id = %(done)s
    """,
    "I9 event": "UPDATE flow_events SET tenant_id = %(other_tenant)s WHERE flow_id = %(done)s",
    "I9 records": "UPDATE records SET tenant_id = %(other_tenant)s",
    "I9 chunks": "UPDATE artefact_chunks SET tenant_id = %(other_tenant)s",
    "I9 mappings": "UPDATE field_mappings SET tenant_id = %(other_tenant)s",
    "I9 digest": """
        UPDATE discovery_flows SET source_digest = 'sha256:0' WHERE flow_id = %(asking)s
    """,
    "I10 nobody": "UPDATE approval_requests SET decided_by = '' WHERE flow_id = %(done)s",
    "I10 somebody else": """
        UPDATE approval_requests SET decided_by = 'eve' WHERE flow_id = %(done)s
    """,
    "I10 no door": "UPDATE approval_requests SET decided_via = NULL WHERE flow_id = %(done)s",
    "I10 policy": """
        UPDATE approval_requests SET decided_by = 'policy' WHERE flow_id = %(done)s;
        UPDATE flow_events SET actor = 'policy' WHERE flow_id = %(done)s
    """,
    "I10 unknown request": """
        UPDATE flow_events SET details = '{}' WHERE flow_id = %(done)s AND trigger = 'Approved'
    """,
    "I10 open and decided": """
        UPDATE approval_requests SET decided_by = 'ann' WHERE flow_id = %(asking)s
    """,
    "I10 no actor": "UPDATE flow_events SET actor = '' WHERE flow_id = %(queued)s",
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(BROKEN))
def test_a_broken_row_is_found(scene: Scene, case: str) -> None:
    found = scene.broken(BROKEN[case])
    name = case.split(maxsplit=1)[0]
    assert name in found, found
    assert all(row["problem"] for row in found[name])
    assert f"{name} does not hold" in describe(found)


def test_a_violation_is_raised(scene: Scene) -> None:
    assert scene.expected.resources is not None
    lost = replace(scene.expected, resources=scene.expected.resources[:-1])
    with pytest.raises(InvariantError, match=r"I6 does not hold(?s:.*)the resource is gone"):
        check(scene.url, lost)


def test_every_invariant_is_tried() -> None:
    assert {case.split()[0] for case in BROKEN} == {i.name for i in INVARIANTS}
    assert {i.name for i in INVARIANTS} == {f"I{number}" for number in range(1, 11)}


def test_what_is_given_is_compared(scene: Scene) -> None:
    """Jobs and resources that are not in the database."""
    stray = job(scene.flows["done"], "stray", "u")
    ended = {**stray, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    deleting = job(scene.flows["done"], "stray", "u", deletionTimestamp="now")
    jobs, resources = scene.expected.jobs, scene.expected.resources
    assert jobs is not None
    assert resources is not None

    def found(**changes: Any) -> dict[str, list[dict[str, Any]]]:
        with psycopg.connect(scene.url) as connection:
            return violations(connection, replace(scene.expected, **changes))

    assert set(found(jobs=[*jobs, stray])) == {"I8"}
    assert found(jobs=[*jobs, ended, deleting]) == {}
    assert set(found(jobs=[])) == {"I7"}
    assert found(jobs=[], settled=False) == {}
    assert set(found(resources=resources[1:])) == set()
    assert {row["flow_id"] for row in found(resources=resources[:-1])["I6"]} == {
        scene.flows["other"].flow_id
    }
    extra = {"metadata": {"uid": str(UUID(int=1)), "name": "new"}}
    assert set(found(resources=[*resources, extra])) == {"I6"}
    assert found(resources=[*resources, extra], settled=False) == {}
