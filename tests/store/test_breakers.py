"""Circuit breakers on a real PostgreSQL: when they open, whom they let through, what is told."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import psycopg
import pytest
from discovery_core import actions as act
from discovery_core.errors import ErrorCode
from discovery_core.phases import Phase
from discovery_core.resource import DiscoveryFlowSpec
from discovery_core.states import FlowState
from discovery_core.store.moves.breakers import BreakerRules
from discovery_core.wire.protocol import Complete, Fail, PinInputs, Usage

from tests.postgres import Stores
from tests.store.flows import RESULTS, SPEC, Flow, Pod

ENDPOINT = "https://llm.example.org/v1"
OTHER = "https://other.example.org/v1"


def flow_of(stores: Stores, tenant: Flow | None = None, **llm: Any) -> Flow:
    """A flow with a language model, in a tenant of its own or in that of another flow."""
    spec: dict[str, object] = {
        **SPEC,
        "llm": {"provider": "openaiCompatible", "baseUrl": ENDPOINT, "model": "m", **llm},
        "retries": {"maxAttempts": 10, "initialDelay": "1s", "maxDelay": "1s"},
    }
    flow = Flow(stores, spec=spec)
    if tenant is not None:
        flow.tenant_id, flow.name = tenant.tenant_id, f"flow-{flow.flow_id}"
    return flow


async def begin(flow: Flow) -> Pod:
    """The flow's next attempt, claimed."""
    await flow.start()
    return await flow.claim()


async def fail(
    flow: Flow,
    pod: Pod,
    code: ErrorCode = ErrorCode.LLM_UNAVAILABLE,
    retry_after: float | None = None,
) -> None:
    """The crew reports a failure, and the operator has the flow try again."""
    await flow.stores.execution.fail(
        tenant_id=pod.tenant_id,
        pod_uid=pod.pod_uid,
        message=Fail(
            fence=pod.claim.fence,
            code=code,
            message="status 500",
            retry_after_seconds=retry_after,
        ),
    )
    run = (await flow.load()).run
    assert run is not None
    await flow.stores.operator.apply(
        flow.flow_id, act.FailAttempt(run.run_id, code=code, message="status 500", retry_delay=0)
    )


async def succeed(pod: Pod, requests: int = 3) -> None:
    """The import phase ends well, after so many answers of the model."""
    source, records, profile = [await pod.upload(text) for text in (b"s", b"r", b"[]")]
    await pod.stores.execution.pin_inputs(
        tenant_id=pod.tenant_id,
        pod_uid=pod.pod_uid,
        pin=PinInputs(fence=pod.claim.fence, source=source),
    )
    await pod.stores.execution.complete(
        tenant_id=pod.tenant_id,
        pod_uid=pod.pod_uid,
        message=Complete(
            fence=pod.claim.fence,
            result=RESULTS[Phase.DATA_IMPORT],
            artefacts={"records": records, "profile": profile},
            usage=Usage(planner="m", llm_requests=requests),
        ),
    )


async def opened(stores: Stores, **llm: Any) -> Flow:
    """A flow whose two failures have opened its tenant's breaker."""
    flow = flow_of(stores, **llm)
    await flow.queue()
    for _ in range(2):
        await fail(flow, await begin(flow))
    return flow


async def sql(stores: Stores, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Looks into the database, or changes it, as its superuser."""
    connection = await psycopg.AsyncConnection.connect(stores.urls.superuser)
    async with connection:
        cursor = await connection.execute(statement, values)
        return await cursor.fetchall() if cursor.description else []


async def breaker(stores: Stores, tenant_id: UUID) -> tuple[Any, ...]:
    """State, failures, openings and cool-down in seconds of the tenant's only breaker."""
    (row,) = await sql(
        stores,
        "SELECT state, failures, openings, round(extract(epoch FROM retry_at - clock_timestamp()))"
        " FROM circuit_breakers WHERE tenant_id = %s",
        tenant_id,
    )
    return row


async def cool_down(stores: Stores) -> None:
    """Time passes."""
    await sql(stores, "UPDATE circuit_breakers SET retry_at = clock_timestamp()")
    await sql(stores, "UPDATE discovery_flows SET not_before = NULL")


async def told(flow: Flow) -> list[str]:
    """What the flow's history says of the breaker."""
    rows = await sql(
        flow.stores,
        "SELECT trigger FROM flow_events WHERE flow_id = %s AND (trigger LIKE 'Circuit%%' OR "
        "trigger = 'EndpointAwaited') ORDER BY sequence",
        flow.flow_id,
    )
    return [trigger for (trigger,) in rows]


async def test_failures_in_a_row_open_it(stores: Stores) -> None:
    flow = flow_of(stores)
    await flow.queue()
    await fail(flow, await begin(flow))
    assert (await breaker(stores, flow.tenant_id))[:3] == ("Closed", 1, 0)
    await fail(flow, await begin(flow), ErrorCode.LLM_RATE_LIMITED)
    state = await breaker(stores, flow.tenant_id)
    assert state[:3] == ("Open", 2, 1)
    assert 50 < state[3] <= 60
    assert await told(flow) == ["CircuitOpened"]


async def test_it_stays_open_for_as_long_as_the_endpoint_asks(stores: Stores) -> None:
    flow = flow_of(stores)
    await flow.queue()
    await fail(flow, await begin(flow))
    await fail(flow, await begin(flow), ErrorCode.LLM_RATE_LIMITED, retry_after=600)
    assert 590 < (await breaker(stores, flow.tenant_id))[3] <= 600


async def test_an_answer_in_between_starts_the_count_anew(stores: Stores) -> None:
    first, second = flow_of(stores), None
    await first.queue()
    await fail(first, await begin(first))
    await succeed(await begin(first))
    assert (await breaker(stores, first.tenant_id))[:3] == ("Closed", 0, 0)
    second = flow_of(stores, first)
    await second.queue()
    await fail(second, await begin(second))
    assert (await breaker(stores, first.tenant_id))[:3] == ("Closed", 1, 0)
    await succeed(await begin(second), requests=0)
    assert (await breaker(stores, first.tenant_id))[:3] == ("Closed", 1, 0)


async def test_failures_of_another_kind_do_not_count(stores: Stores) -> None:
    flow = flow_of(stores)
    await flow.queue()
    for code in (ErrorCode.LLM_BAD_OUTPUT, ErrorCode.CRASHED, ErrorCode.DEADLINE_EXCEEDED):
        await fail(flow, await begin(flow), code)
    assert await sql(stores, "SELECT * FROM circuit_breakers") == []


async def test_while_it_is_open_the_built_in_planner_judges(stores: Stores) -> None:
    flow = await opened(stores)
    pod = await begin(flow)
    assert (pod.claim.llm.provider, pod.claim.llm.base_url) == ("builtin", None)
    assert f"at {ENDPOINT} has been unavailable since" in pod.claim.llm.note
    run = (await flow.load()).run
    assert run is not None
    assert run.llm_fallback == pod.claim.llm.note
    again = await flow.claim(pod.pod_uid)
    assert again.claim.llm == pod.claim.llm
    # what it does says nothing about the endpoint
    await succeed(pod)
    assert (await breaker(stores, flow.tenant_id))[:3] == ("Open", 2, 1)


async def test_other_endpoints_and_other_tenants_are_not_touched(stores: Stores) -> None:
    flow = await opened(stores)
    for other in (flow_of(stores, flow, baseUrl=OTHER), flow_of(stores)):
        await other.queue()
        assert (await begin(other)).claim.llm.provider == "openaiCompatible"
    same = flow_of(stores, flow)
    await same.queue()
    assert (await begin(same)).claim.llm.provider == "builtin"


async def test_one_attempt_alone_tries_it_again(stores: Stores) -> None:
    flow = await opened(stores)
    flows = [flow, *(flow_of(stores, flow) for _ in range(4))]
    for other in flows[1:]:
        await other.queue()
    for other in flows:
        await other.start()
    await cool_down(stores)
    pods = await asyncio.gather(*(other.claim() for other in flows))
    providers = sorted(pod.claim.llm.provider for pod in pods)
    assert providers == ["builtin"] * 4 + ["openaiCompatible"]
    (probe,) = [pod for pod in pods if pod.claim.llm.provider != "builtin"]
    prober = flows[pods.index(probe)]
    assert (await breaker(stores, flow.tenant_id))[0] == "HalfOpen"
    await succeed(probe)
    assert (await breaker(stores, flow.tenant_id))[:3] == ("Closed", 0, 0)
    assert (await told(prober))[-2:] == ["CircuitProbed", "CircuitClosed"]


async def test_a_failed_try_doubles_the_cool_down_up_to_a_limit(stores: Stores) -> None:
    flow = await opened(stores)
    for openings, least, most in ((2, 110, 120), (3, 230, 240), (4, 470, 480)):
        await cool_down(stores)
        pod = await begin(flow)
        assert pod.claim.llm.provider == "openaiCompatible"
        await fail(flow, pod)
        state = await breaker(stores, flow.tenant_id)
        assert (state[0], state[2]) == ("Open", openings)
        assert least < state[3] <= most
    rules = BreakerRules(cool_down=60)
    assert [rules.seconds_open(n) for n in (1, 2, 5, 6, 1000)] == [60, 120, 960, 960, 960]


async def test_attempts_that_began_before_it_opened_do_not_count(stores: Stores) -> None:
    first, late = flow_of(stores), None
    await first.queue()
    late = flow_of(stores, first)
    await late.queue()
    old = await begin(late)
    for _ in range(2):
        await fail(first, await begin(first))
    await cool_down(stores)
    await begin(first)
    await fail(late, old)
    assert (await breaker(stores, first.tenant_id))[:3] == ("HalfOpen", 2, 1)


@pytest.mark.parametrize("code", [ErrorCode.POD_LOST, ErrorCode.EMPTY_FILE])
async def test_a_try_that_heard_nothing_leaves_its_place(stores: Stores, code: ErrorCode) -> None:
    flow = await opened(stores)
    await cool_down(stores)
    probe = await begin(flow)
    other = flow_of(stores, flow)
    await other.queue()
    assert (await begin(other)).claim.llm.provider == "builtin"
    await fail(flow, probe, code)
    assert (await breaker(stores, flow.tenant_id))[0] == "HalfOpen"
    assert (await begin(flow)).claim.llm.provider == "openaiCompatible"


async def test_a_flow_that_waits_stays_queued_and_uses_up_no_attempt(stores: Stores) -> None:
    flow = await opened(stores, onUnavailable="Wait")
    before = await flow.load()
    for _ in range(2):
        assert await start_quietly(flow) is None
    waiting = await flow.load()
    assert (waiting.state, waiting.last_attempt) == (FlowState.QUEUED, before.last_attempt)
    assert waiting.not_before is not None
    assert f"at {ENDPOINT} has been unavailable since" in waiting.message
    assert await told(flow) == ["CircuitOpened", "EndpointAwaited"]
    await cool_down(stores)
    other = flow_of(stores, flow, onUnavailable="Wait")
    await other.queue()
    assert sum(run is not None for run in [await start_quietly(f) for f in (flow, other)]) == 1
    assert (await flow.claim()).claim.llm.provider == "openaiCompatible"
    assert (await breaker(stores, flow.tenant_id))[0] == "HalfOpen"


async def test_a_changed_choice_ends_the_wait_at_once(stores: Stores) -> None:
    flow = await opened(stores, onUnavailable="Wait")
    assert await start_quietly(flow) is None
    spec = {**flow.spec, "llm": {**flow.spec["llm"], "onUnavailable": "Builtin"}}  # type: ignore[dict-item]
    await stores.operator.apply(
        flow.flow_id, act.UpdateSpec(DiscoveryFlowSpec.model_validate(spec), 2)
    )
    assert (await flow.load()).not_before is None
    assert (await begin(flow)).claim.llm.provider == "builtin"


async def start_quietly(flow: Flow) -> UUID | None:
    """The operator's intent to start an attempt, which the store may refuse."""
    snapshot = await flow.load()
    number = snapshot.last_attempt + 1
    run_id = await flow.stores.operator.start_attempt(
        flow.flow_id,
        act.StartAttempt(
            round=snapshot.round,
            phase=snapshot.phase,
            attempt=number,
            job_name=f"{flow.flow_id}-{number}",
            launch_timeout=600,
        ),
    )
    if run_id is not None:
        await flow.stores.operator.mark_launched(
            run_id, flow.flow_id, f"uid-{flow.flow_id}-{number}"
        )
    return run_id


async def test_the_operator_counts_them_by_endpoint_and_state(stores: Stores) -> None:
    await opened(stores)
    await opened(stores)
    other = flow_of(stores, baseUrl=OTHER)
    await other.queue()
    await fail(other, await begin(other))
    assert await stores.operator.breaker_counts() == {
        (ENDPOINT, "Open"): 2,
        (OTHER, "Closed"): 1,
    }
    await cool_down(stores)
    assert await stores.operator.breaker_counts() == {
        (ENDPOINT, "HalfOpen"): 2,
        (OTHER, "Closed"): 1,
    }, "what may be asked again is not open, even if nobody asks"
