"""What the operator's metrics say of a database, and what it costs to find out."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import psycopg
from discovery_core import actions as act
from discovery_core.errors import ErrorCode
from discovery_core.store.reads.figures import Figures
from discovery_core.wire.protocol import Complete, Fail, Usage
from discovery_operator.tokens import OVERLAP, TokenCount
from sqlalchemy import text

from tests.postgres import Stores
from tests.store.flows import RESULTS, Flow, Pod

HOLD = {"approvalPolicy": {"mode": "Always", "timeout": "1h", "onTimeout": "Hold"}}
MINUTE = 60


def change(stores: Stores, statement: str, *values: object) -> None:
    """As superuser, behind everybody's back."""
    with psycopg.connect(stores.urls.superuser, autocommit=True) as connection:
        connection.execute(statement, values)


async def test_an_empty_database_has_nothing_open(stores: Stores) -> None:
    assert await stores.operator.figures() == Figures()


async def test_flows_and_attempts_are_counted_by_state(stores: Stores) -> None:
    await Flow(stores).register()
    await Flow(stores).queue()
    running, claimed = Flow(stores), Flow(stores)
    for flow in (running, claimed):
        await flow.queue()
        await flow.start()
    await claimed.claim()
    figures = await stores.operator.figures()
    assert figures.flows == {"Pending": 1, "Queued": 1, "Running": 2}
    assert figures.attempts == {"Launched": 1, "Running": 1}
    assert (figures.requests, figures.requests_overdue, figures.request_seconds) == (0, 0, 0)


async def test_only_flows_that_are_due_wait_for_a_slot(stores: Stores) -> None:
    due, later = Flow(stores), Flow(stores)
    for flow in (due, later):
        await flow.queue()
    set_back = "UPDATE discovery_flows SET state_since = now() - interval '10 min', not_before = "
    change(stores, set_back + "now() - interval '2 min' WHERE flow_id = %s", due.flow_id)
    change(stores, set_back + "now() + interval '2 min' WHERE flow_id = %s", later.flow_id)
    figures = await stores.operator.figures()
    assert figures.slot_waiters == 1
    assert 2 * MINUTE <= figures.slot_seconds < 3 * MINUTE, "a retry's delay is no waiting"


async def test_open_requests_are_those_that_a_person_can_answer(stores: Stores) -> None:
    flow, suspended = Flow(stores), Flow(stores)
    for each in (flow, suspended):
        await each.to_gate()
    await stores.operator.apply(suspended.flow_id, act.Suspend())
    opened = "UPDATE approval_requests SET opened_at = now() - interval '5 min'"
    change(stores, opened)
    figures = await stores.operator.figures()
    assert (figures.requests, figures.requests_overdue) == (1, 0)
    assert 5 * MINUTE <= figures.request_seconds < 6 * MINUTE
    change(stores, "UPDATE approval_requests SET expires_at = now() - interval '1 s'")
    assert (await stores.operator.figures()).requests_overdue == 1
    await flow.answer()
    assert (await stores.operator.figures()).requests == 0


async def test_a_request_on_hold_stays_overdue_after_its_reminder(stores: Stores) -> None:
    flow = Flow(stores, spec=Flow(stores).spec | HOLD)
    await flow.to_gate()
    request = (await flow.load()).request
    assert request is not None
    change(stores, "UPDATE approval_requests SET expires_at = now() - interval '1 s'")
    await stores.operator.apply(flow.flow_id, act.ExpireRequest(request.request_id))
    after = (await flow.load()).request
    assert after is not None
    assert after.expires_at > await stores.operator.now(), "the next reminder is set"
    assert (await stores.operator.figures()).requests_overdue == 1


async def test_messages_are_pending_until_they_are_delivered(stores: Stores) -> None:
    await Flow(stores).to_gate()
    change(stores, "UPDATE notifications SET next_try = now() - interval '5 min'")
    figures = await stores.operator.figures()
    assert figures.notifications == 1
    assert 5 * MINUTE <= figures.notification_seconds < 6 * MINUTE
    (message,) = await stores.operator.due_notifications(5)
    await stores.operator.settle_notification(message, state="Delivered")
    assert (await stores.operator.figures()).notifications == 0


async def test_another_cluster_s_flows_are_not_counted(stores: Stores) -> None:
    from discovery_core.store import OperatorStore

    await Flow(stores).to_gate()
    other = OperatorStore(stores.operator.db, uuid4())
    assert await other.figures() == Figures()
    assert await TokenCount(other).count() == (0, 0)


async def spend(flow: Flow, prompt: int, completion: int, *, fails: bool = False) -> Pod:
    """One attempt that uses so many tokens."""
    await flow.start()
    pod = await flow.claim()
    usage = Usage(planner="m", prompt_tokens=prompt, completion_tokens=completion)
    fence = pod.claim.fence
    execution, tenant = flow.stores.execution, flow.tenant_id
    if fails:
        message = Fail(fence=fence, code=ErrorCode.CRASHED, message="no", usage=usage)
        await execution.fail(tenant_id=tenant, pod_uid=pod.pod_uid, message=message)
        return pod
    names = ("records", "profile")
    artefacts = {name: await pod.upload(b"[]") for name in names}
    done = Complete(fence=fence, result=RESULTS[pod.claim.phase], artefacts=artefacts, usage=usage)
    await execution.complete(tenant_id=tenant, pod_uid=pod.pod_uid, message=done)
    # a lost answer is asked for again
    await execution.complete(tenant_id=tenant, pod_uid=pod.pod_uid, message=done)
    return pod


async def test_each_attempt_s_tokens_count_once_whoever_counts(stores: Stores) -> None:
    count = TokenCount(stores.operator)
    assert await count.count() == (0, 0)
    flow, other = Flow(stores), Flow(stores)
    for each in (flow, other):
        await each.queue()
    await spend(flow, 100, 10)
    assert await count.count() == (100, 10)
    assert await count.count() == (100, 10)
    await spend(other, 5, 1, fails=True)
    assert await count.count() == (105, 11), "a failed attempt has used them too"
    assert await TokenCount(stores.operator).count() == (105, 11), "after a restart"


async def test_an_attempt_that_ended_long_ago_counts_once_too(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.queue()
    count = TokenCount(stores.operator)
    await count.count()
    await spend(flow, 7, 3)
    assert await count.count() == (7, 3)
    # time passes: the attempt leaves the stretch that every look reads again
    change(stores, "UPDATE phase_runs SET finished_at = finished_at - %s", 2 * OVERLAP)
    assert await count.count() == (7, 3)
    assert await TokenCount(stores.operator).count() == (7, 3)


async def test_a_commit_that_comes_late_is_counted(stores: Stores) -> None:
    """The moment of the end is written before the commit, which another look may come between."""
    flow = Flow(stores)
    await flow.queue()
    count = TokenCount(stores.operator)
    await count.count()
    await spend(flow, 7, 3)
    change(stores, "UPDATE phase_runs SET finished_at = finished_at - %s", timedelta(seconds=60))
    assert await count.count() == (7, 3)


async def test_what_is_open_is_found_by_index_beside_many_finished_flows(stores: Stores) -> None:
    """10,000 finished flows with three attempts each: no figure but the states reads them."""
    flow = Flow(stores)
    await flow.to_gate()
    change(
        stores,
        """
        WITH made AS (
          INSERT INTO master_flows (tenant_id, flow_id, name)
          SELECT %(tenant)s, gen_random_uuid(), 'old' FROM generate_series(1, 10000)
          RETURNING tenant_id, flow_id),
        flows AS (
          INSERT INTO discovery_flows
            (tenant_id, flow_id, spec, generation, phase, state, reason)
          SELECT m.tenant_id, m.flow_id, d.spec, 1, 'migration_strategy', 'Succeeded', 'Done'
            FROM made AS m, discovery_flows AS d WHERE d.flow_id = %(flow)s
          RETURNING tenant_id, flow_id)
        SELECT count(*) FROM flows
        """.replace("%(tenant)s", f"'{flow.tenant_id}'").replace("%(flow)s", f"'{flow.flow_id}'"),
    )
    change(
        stores,
        f"""
        INSERT INTO phase_runs (tenant_id, id, flow_id, round, phase, attempt, state, job_name,
                                deadline, finished_at, usage)
        SELECT tenant_id, gen_random_uuid(), flow_id, 1, 'p' || n, 1, 'Succeeded',
               flow_id || '-' || n, now(), now() - interval '1 day',
               '{{"promptTokens": 2, "completionTokens": 1}}'
          FROM discovery_flows, generate_series(1, 3) AS n
         WHERE state = 'Succeeded' AND tenant_id = '{flow.tenant_id}'
        """,
    )
    change(
        stores,
        f"""
        INSERT INTO approval_requests (tenant_id, id, flow_id, round, run_id, artefact_digest,
                                       state, policy, targets, expires_at, decided_by)
        SELECT tenant_id, gen_random_uuid(), flow_id, 1, id, 'd', 'Approved', '{{}}', '[]', now(),
               'ann'
          FROM phase_runs WHERE phase = 'p3' AND tenant_id = '{flow.tenant_id}'
        """,
    )
    change(
        stores,
        "INSERT INTO notifications (tenant_id, flow_id, sequence, kind, state) SELECT tenant_id, "
        "flow_id, 1, 'flow.ended', 'Delivered' FROM discovery_flows WHERE state = 'Succeeded'",
    )
    change(stores, "ANALYZE")
    figures = await stores.operator.figures()
    assert (figures.flows["Succeeded"], figures.requests) == (10_000, 1)
    assert await TokenCount(stores.operator).count() == (60_000, 30_000)
    plan = await _plan(stores)
    for index in ("uq_phase_runs_live", "ix_notifications_pending", "uq_approval_requests_open"):
        assert index in plan, plan
    assert plan.count("Seq Scan on discovery_flows") <= 1, plan
    assert "Seq Scan on phase_runs" not in plan, plan
    assert "Seq Scan on approval_requests" not in plan, plan


async def _plan(stores: Stores) -> str:
    from discovery_core.store.database import ClusterScope
    from discovery_core.store.reads.figures import _FIGURES

    async with stores.operator.db.transaction(ClusterScope(stores.cluster_id)) as session:
        rows = await session.execute(text(f"EXPLAIN (ANALYZE) {_FIGURES.text}"))
        return "\n".join(row[0] for row in rows)
