"""Guards of the rows that no history of a flow shows at work, each tried on its own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest
from discovery_core import actions as act
from discovery_core.errors import ErrorCode, SupersededError
from discovery_core.phases import Phase
from discovery_core.resource import DiscoveryFlowSpec
from discovery_core.resource_gate import ApprovalPolicy
from discovery_core.states import FlowState, RunState
from discovery_core.store import leadership
from discovery_core.store.database import ClusterScope
from discovery_core.wire.protocol import Fail
from discovery_operator.decide_gate import approves_itself
from discovery_operator.execute import LaunchRefusedError
from discovery_operator.observed import Rules
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from tests.faults.machine_world import Operator, SharedCluster
from tests.postgres import Stores
from tests.store.flows import RESULTS, SPEC, Flow
from tests.unit.operator.builders import request

COPY = {
    "uq_phase_runs_accepted": (
        "phase_runs",
        {"id": "gen_random_uuid()", "attempt": "99", "job_name": "'another'"},
        "state = 'Succeeded'",
    ),
    "uq_phase_runs_live": (
        "phase_runs",
        {"id": "gen_random_uuid()", "attempt": "99", "job_name": "'another'"},
        "state = 'Running'",
    ),
    "uq_phase_runs_tenant_id_flow_id_round_phase_attempt": (
        "phase_runs",
        {"id": "gen_random_uuid()", "job_name": "'another'", "state": "'Failed'"},
        "state = 'Running'",
    ),
    "uq_phase_runs_tenant_id_job_name": (
        "phase_runs",
        {"id": "gen_random_uuid()", "attempt": "99", "state": "'Failed'"},
        "state = 'Running'",
    ),
    "uq_approval_requests_open": (
        "approval_requests",
        {"id": "gen_random_uuid()"},
        "state = 'Open'",
    ),
    "uq_master_flows_flow_id": (
        "master_flows",
        {"tenant_id": "(SELECT id FROM tenants WHERE id <> '{tenant}' LIMIT 1)"},
        "flow_id = '{flow}'",
    ),
    "pk_flow_events": ("flow_events", {"actor": "'eve'"}, "sequence = 1"),
    "pk_discovery_flows": ("discovery_flows", {"state": "'Queued'"}, "flow_id = '{flow}'"),
    "uq_field_mappings_tenant_id_request_id_source_column": (
        "field_mappings",
        {"position": "99"},
        "position = 0",
    ),
    "uq_artefacts_tenant_id_digest": (
        "artefacts",
        {"id": "gen_random_uuid()"},
        "digest IS NOT NULL",
    ),
}


@pytest.mark.parametrize("key", sorted(COPY))
async def test_a_row_that_may_exist_once_cannot_be_written_twice(stores: Stores, key: str) -> None:
    flow, other = Flow(stores), Flow(stores)
    await flow.to_gate()
    await other.queue()
    await other.start()
    await other.claim()
    table, changed, where = COPY[key]
    names = {"tenant": flow.tenant_id, "flow": flow.flow_id}
    with psycopg.connect(stores.urls.superuser) as connection:
        columns = [
            name
            for (name,) in connection.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_name = %s", [table]
            )
        ]
        values = [changed.get(name, name).format(**names) for name in columns]
        with pytest.raises(psycopg.errors.UniqueViolation, match=key):
            connection.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)} "
                f"FROM {table} WHERE {where.format(**names)} LIMIT 1".encode()
            )


@pytest.mark.parametrize(
    "call",
    [
        "locate_flow(gen_random_uuid())",
        "known_namespaces()",
        "offer_tenant(gen_random_uuid(), 'n', gen_random_uuid())",
    ],
)
@pytest.mark.parametrize("role", ["operator", "execution"])
async def test_what_looks_over_all_tenants_is_for_the_user_api_only(
    stores: Stores, role: str, call: str
) -> None:
    with (
        psycopg.connect(getattr(stores.urls, role)) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(f"SELECT {call}".encode())


async def test_a_takeover_waits_for_the_old_leaders_transaction(stores: Stores) -> None:
    """Else the old leader could commit after the new one has begun to work."""
    database, cluster = stores.operator.db, stores.cluster_id
    await stores.operator.acquire_leadership("test", ttl=0)
    async with database.transaction(ClusterScope(cluster, stores.operator.epoch)):
        with pytest.raises(OperationalError, match="lock timeout"):
            await _take_over(stores)
    assert await _take_over(stores) == stores.epoch + 1


async def _take_over(stores: Stores) -> int | None:
    async with stores.operator.db.transaction(ClusterScope(stores.cluster_id)) as session:
        await session.execute(text("SET LOCAL lock_timeout = '200ms'"))
        return await leadership.acquire(session, stores.cluster_id, "next", 60)


async def test_an_attempt_that_has_ended_cannot_be_claimed(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.queue()
    run_id = await flow.start()
    run = (await flow.load()).run
    assert run is not None
    await stores.operator.apply(
        flow.flow_id,
        act.FailAttempt(run_id, code=ErrorCode.NOT_STARTED, message="x", retry_delay=0),
    )
    with pytest.raises(SupersededError, match="has ended"):
        await stores.execution.claim(
            tenant_id=flow.tenant_id,
            flow_id=flow.flow_id,
            job_name=run.job_name,
            job_uid=str(run.job_uid),
            pod_uid="late",
            pod_name="late",
        )


async def test_a_job_is_recorded_once(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.queue()
    run_id = await flow.start()
    pod = await flow.claim()
    await stores.operator.mark_launched(run_id, flow.flow_id, "another Job")
    run = (await flow.load()).run
    assert run is not None
    assert (run.state, run.job_uid) == (RunState.RUNNING, f"uid-{run.job_name}")
    await pod.upload(b"still its own")


async def test_an_older_spec_is_not_stored_over_a_newer_one(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.queue()
    suspended = DiscoveryFlowSpec.model_validate({**SPEC, "state": "Suspend"})
    await stores.operator.apply(flow.flow_id, act.UpdateSpec(suspended, 3))
    await stores.operator.apply(
        flow.flow_id, act.UpdateSpec(DiscoveryFlowSpec.model_validate(SPEC), 2)
    )
    now = await flow.load()
    assert (now.generation, now.spec.state) == (3, "Suspend")


async def test_a_request_does_not_expire_before_its_time(stores: Stores) -> None:
    flow = Flow(stores)
    opened = (await flow.to_gate()).request
    assert opened is not None
    await stores.operator.apply(flow.flow_id, act.ExpireRequest(opened.request_id))
    still = await flow.load()
    assert (still.state, still.request) == (FlowState.AWAITING_APPROVAL, opened)
    assert opened.expires_at - opened.opened_at > timedelta(hours=1)


async def test_a_request_ends_by_the_policy_that_it_was_opened_with(stores: Stores) -> None:
    """Whoever may edit the resource cannot loosen a question that is asked already."""
    flow = Flow(stores)
    opened = (await flow.to_gate()).request
    assert opened is not None
    loose = {"approvalPolicy": {"onTimeout": "Approve"}}
    changed = DiscoveryFlowSpec.model_validate(SPEC | loose)
    await stores.operator.apply(flow.flow_id, act.UpdateSpec(changed, generation=2))
    with psycopg.connect(stores.urls.superuser) as connection:
        connection.execute("UPDATE approval_requests SET expires_at = now()")
    await stores.operator.apply(flow.flow_id, act.ExpireRequest(opened.request_id))
    assert (await flow.load()).state is FlowState.REJECTED


@pytest.mark.parametrize(
    ("lacks", "rules", "changes"),
    [
        ("nothing", Rules(allow_automatic_approval=True), {}),
        ("the installation", Rules(), {}),
        ("confidence", Rules(allow_automatic_approval=True), {"lowest_confidence": 0.89}),
        ("a required field", Rules(allow_automatic_approval=True), {"required_unmapped": ("a",)}),
        ("the policy", Rules(allow_automatic_approval=True), {"policy": ApprovalPolicy()}),
    ],
    ids=["complete", "installation", "confidence", "required-field", "policy"],
)
def test_a_policy_approves_only_with_everything(
    lacks: str, rules: Rules, changes: dict[str, Any]
) -> None:
    policy = ApprovalPolicy(mode="AutoApprove", min_confidence=0.9)
    asked = request(**{"policy": policy, "lowest_confidence": 0.9} | changes)
    assert approves_itself(rules, asked) is (lacks == "nothing")


async def test_a_failure_of_an_attempt_that_was_accepted_is_not_written(stores: Stores) -> None:
    """The operator has seen the Job end, and the result came in between."""
    flow = Flow(stores)
    await flow.queue()
    run_id = await flow.start()
    pod = await flow.claim()
    await pod.do_phase()
    await flow.start()
    await stores.operator.apply(
        flow.flow_id, act.FailAttempt(run_id, code=ErrorCode.CRASHED, message="late", retry_delay=0)
    )
    now = await flow.load()
    assert (now.state, now.phase) == (FlowState.RUNNING, Phase.DATA_CLEANSING)
    results = await stores.api.results(flow.tenant_id, flow.flow_id)
    assert set(results) == {"data_import"}


async def test_a_pod_that_works_lacks_nothing(stores: Stores) -> None:
    """The operator has seen a pod that cannot start, and its claim came in between."""
    flow = Flow(stores)
    await flow.queue()
    await flow.start()
    pod = await flow.claim()
    await stores.operator.apply(flow.flow_id, act.ReferenceMissing(("Secret 'llm'",)))
    assert (await flow.load()).state is FlowState.RUNNING
    await pod.do_phase()
    assert (await flow.load()).phase is Phase.DATA_CLEANSING


@pytest.mark.parametrize("first", ["failed", "superseded"])
async def test_a_late_failure_of_an_older_attempt_is_not_written(
    stores: Stores, first: str
) -> None:
    """What an operator decided about one attempt must not end the next, which has failed too."""
    flow, operator = Flow(stores), stores.operator
    await flow.queue()
    older = await flow.start()
    if first == "failed":
        await operator.apply(
            flow.flow_id,
            act.FailAttempt(older, code=ErrorCode.CRASHED, message="first", retry_delay=0),
        )
    else:
        await operator.apply(flow.flow_id, act.Suspend())
        await operator.apply(flow.flow_id, act.Resume())
    await flow.start()
    pod = await flow.claim()
    await stores.execution.fail(
        tenant_id=flow.tenant_id,
        pod_uid=pod.pod_uid,
        message=Fail(fence=pod.claim.fence, code=ErrorCode.EMPTY_FILE, message="second"),
    )
    before = await flow.load()
    await operator.apply(
        flow.flow_id, act.FailAttempt(older, code=ErrorCode.CRASHED, message="late", retry_delay=0)
    )
    assert await flow.load() == before


async def _unrecorded(stores: Stores) -> tuple[Operator, SharedCluster, Flow, dict[str, Any]]:
    """A Job has been made and its uid was not written: what a kill between the two leaves."""
    cluster = SharedCluster()
    uid = cluster.apply("team-a", "servers", SPEC)
    operator = Operator("test", stores, cluster)
    assert await operator.lead()
    await operator.see()
    assert await operator.reconcile(uid) is None
    (job,) = cluster.jobs.values()
    with psycopg.connect(stores.urls.superuser) as connection:
        connection.execute("UPDATE phase_runs SET state = 'Created', job_uid = NULL")
    return operator, cluster, Flow(stores, tenant_id=cluster.namespaces["team-a"], flow_id=uid), job


async def test_a_cache_that_is_empty_proves_no_absence(stores: Stores) -> None:
    """A process that has just started has seen nothing; the Job is asked for by name."""
    operator, cluster, flow, _ = await _unrecorded(stores)
    assert await operator.reconcile(flow.flow_id) is None
    operator.die()
    assert await operator.lead()
    assert await operator.reconcile(flow.flow_id) is None
    now = await flow.load()
    assert now.run is not None
    assert (now.state, now.run.state, now.run.attempt) == (
        FlowState.RUNNING, RunState.LAUNCHED, 1,
    )  # fmt: skip
    assert len(cluster.jobs) == 1


@pytest.mark.parametrize("theirs", ["owner", "attempt", "round", "phase"])
async def test_only_the_attempts_own_job_is_adopted(stores: Stores, theirs: str) -> None:
    operator, _, flow, job = await _unrecorded(stores)
    if theirs == "owner":
        job["metadata"]["ownerReferences"][0]["uid"] = "somebody-else"
    else:
        job["metadata"]["labels"][f"discoveryflow.dev/{theirs}"] = "another"
    error = await operator.reconcile(flow.flow_id)
    assert isinstance(error, LaunchRefusedError)
    run = (await flow.load()).run
    assert run is not None
    assert (run.state, run.job_uid) == (RunState.CREATED, None)


async def test_s01_a_look_alike_in_an_attempts_place_is_removed_and_made_anew(
    stores: Stores,
) -> None:
    """Owner and labels as the operator writes them, and a pod that does something else."""
    operator, cluster, flow, job = await _unrecorded(stores)
    job["spec"]["template"]["spec"]["containers"][0]["image"] = "evil"
    error = await operator.reconcile(flow.flow_id)
    assert isinstance(error, LaunchRefusedError)
    assert "spec.template.spec.containers[0].image differs" in str(error)
    assert cluster.jobs == {}
    assert await operator.reconcile(flow.flow_id) is None
    (made,) = cluster.jobs.values()
    run = (await flow.load()).run
    assert run is not None
    assert (run.state, run.job_uid) == (RunState.LAUNCHED, made["metadata"]["uid"])
    assert made["spec"]["template"]["spec"]["containers"][0]["image"] != "evil"


async def test_s01_a_job_from_before_its_attempt_is_removed(stores: Stores) -> None:
    """Exactly the operator's, but made by somebody who was there first, with pods of their own."""
    operator, cluster, flow, job = await _unrecorded(stores)
    job["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
    error = await operator.reconcile(flow.flow_id)
    assert isinstance(error, LaunchRefusedError)
    assert "metadata.creationTimestamp differs" in str(error)
    assert cluster.jobs == {}


async def test_a_job_that_only_wears_our_label_is_left_alone(stores: Stores) -> None:
    operator, cluster, flow, job = await _unrecorded(stores)
    assert await operator.reconcile(flow.flow_id) is None
    foreign = {**job, "metadata": {**job["metadata"], "name": "theirs", "uid": "theirs"}}
    foreign["metadata"]["ownerReferences"] = [{"uid": "somebody-else", "controller": True}]
    cluster.jobs["team-a", "theirs"] = foreign
    cluster.edit("team-a", "servers", state="Cancel")
    await operator.see()
    assert await operator.reconcile(flow.flow_id) is None
    assert (await flow.load()).state is FlowState.CANCELLED
    assert set(cluster.jobs) == {("team-a", "theirs")}


async def test_the_wrong_phases_result_is_no_result(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.queue()
    await flow.start()
    pod = await flow.claim()
    with pytest.raises(Exception, match="cannot complete"):
        await pod.complete(RESULTS[Phase.FIELD_MAPPING])
    assert (await flow.load()).state is FlowState.RUNNING
