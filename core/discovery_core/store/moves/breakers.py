"""Circuit breakers: whether an attempt may ask a language model's endpoint, per tenant.

An endpoint that is down costs every attempt its time-outs, so after some failures in a row
nobody asks it for a while. Closed: attempts ask it, and consecutive failures are counted. Open:
nobody asks until `retry_at`. HalfOpen: one attempt, the probe, asks; its success closes the
breaker, its failure opens it for twice as long. A probe that ends without having heard from the
endpoint (its pod is lost, its file is empty) leaves its place to the next attempt.

Times are the database's. Callers hold the flow's lock, and take the breaker's after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy import case, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from ...errors import ErrorCode
from ...resource_llm import LLM
from ...states import Occurrence
from ..database import database_now
from ..ledger.snapshot import retry_after
from ..ledger.transition import append_event
from ..schema import LIVE_RUN_STATES, CircuitBreaker, DiscoveryFlowRow, PhaseRun

OPENAI_ENDPOINT = "https://api.openai.com/v1"
TRIPPING_CODES = frozenset({ErrorCode.LLM_UNAVAILABLE, ErrorCode.LLM_RATE_LIMITED})
LONGEST_COOL_DOWN = 16
_PROBE_POLL = timedelta(seconds=10)


class BreakerState(StrEnum):
    """Whether attempts may ask the endpoint: all, none, or one."""

    CLOSED = "Closed"
    OPEN = "Open"
    HALF_OPEN = "HalfOpen"


@dataclass(frozen=True)
class BreakerRules:
    """After how many failures in a row a breaker opens, and for how many seconds at first.

    The cool-down doubles with each failed probe, up to `LONGEST_COOL_DOWN` times the first.
    """

    failures: int = 2
    cool_down: float = 60.0

    def seconds_open(self, openings: int) -> float:
        """The cool-down of the `openings`-th opening in a row."""
        return float(self.cool_down * min(LONGEST_COOL_DOWN, 2 ** min(openings - 1, 30)))


@dataclass(frozen=True)
class Refusal:
    """An open breaker in words, and when to ask again."""

    endpoint: str
    since: datetime
    retry_at: datetime
    message: str


def endpoint_of(llm: LLM) -> str | None:
    """The address that a breaker guards; None for the built-in planner."""
    if llm.provider == "builtin":
        return None
    return (llm.base_url or OPENAI_ENDPOINT).rstrip("/")


async def admit(
    session: AsyncSession, flow: DiscoveryFlowRow, endpoint: str, run_id: UUID, *, actor: str
) -> Refusal | None:
    """Whether attempt `run_id` of a locked flow may ask the endpoint: None if so.

    The first attempt after the cool-down becomes the probe.
    """
    breaker = await _locked(session, flow.tenant_id, endpoint)
    if breaker is None or breaker.state == BreakerState.CLOSED or breaker.probe_run_id == run_id:
        return None
    now = await database_now(session)
    if breaker.state == BreakerState.OPEN:
        if breaker.retry_at is not None and breaker.retry_at > now:
            return _refusal(breaker, breaker.retry_at)
    elif await _is_live(session, breaker):
        return _refusal(breaker, now + _PROBE_POLL)
    breaker.state, breaker.probe_run_id = BreakerState.HALF_OPEN, run_id
    await _record(session, flow, breaker, Occurrence.CIRCUIT_PROBED, actor, "is tried again")
    return None


async def report_failure(
    session: AsyncSession, flow: DiscoveryFlowRow, run: PhaseRun, rules: BreakerRules
) -> None:
    """Takes note of a failed attempt of a locked flow; what was no fault of the endpoint is not.

    While the breaker is not closed only the probe is heard: others began before it opened.
    """
    if run.llm_endpoint is None or run.error_code not in TRIPPING_CODES:
        return
    await session.execute(
        insert(CircuitBreaker)
        .values(tenant_id=flow.tenant_id, endpoint=run.llm_endpoint)
        .on_conflict_do_nothing()
    )
    breaker = await _locked(session, flow.tenant_id, run.llm_endpoint)
    if breaker is None or not _is_heard(breaker, run):
        return
    breaker.failures += 1
    breaker.last_code = str(run.error_code)
    if breaker.state == BreakerState.CLOSED and breaker.failures < rules.failures:
        return
    now = await database_now(session)
    breaker.openings += 1
    breaker.opened_at = breaker.opened_at or now
    asked = retry_after(run) or 0.0
    breaker.retry_at = now + timedelta(seconds=max(rules.seconds_open(breaker.openings), asked))
    breaker.state, breaker.probe_run_id = BreakerState.OPEN, None
    await _record(
        session,
        flow,
        breaker,
        Occurrence.CIRCUIT_OPENED,
        "execution",
        f"has failed {breaker.failures} times in a row ({breaker.last_code}) and is not asked "
        f"until {_words(breaker.retry_at)}",
    )


async def report_success(session: AsyncSession, flow: DiscoveryFlowRow, run: PhaseRun) -> None:
    """Takes note that an attempt of a locked flow was answered; without a request it was not."""
    if run.llm_endpoint is None or not (run.usage or {}).get("llmRequests"):
        return
    breaker = await _locked(session, flow.tenant_id, run.llm_endpoint)
    if breaker is None or not _is_heard(breaker, run):
        return
    reopened = breaker.state != BreakerState.CLOSED
    breaker.state, breaker.failures, breaker.openings = BreakerState.CLOSED, 0, 0
    breaker.opened_at = breaker.retry_at = breaker.probe_run_id = None
    if reopened:
        await _record(
            session, flow, breaker, Occurrence.CIRCUIT_CLOSED, "execution", "answers again"
        )


async def breaker_counts(session: AsyncSession) -> dict[tuple[str, str], int]:
    """Breakers by endpoint and state, for metrics.

    One whose cool-down is over waits for a probe, and counts as HalfOpen: nothing is being spared
    any more, and where no flow is left that asks, it would stay Open for ever.
    """
    cooled_down = (CircuitBreaker.state == BreakerState.OPEN) & (
        CircuitBreaker.retry_at <= func.clock_timestamp()
    )
    state = case((cooled_down, str(BreakerState.HALF_OPEN)), else_=CircuitBreaker.state)
    rows = await session.execute(
        select(CircuitBreaker.endpoint, state.label("told"), func.count()).group_by(
            CircuitBreaker.endpoint, text("told")
        )
    )
    return {(endpoint, state): int(count) for endpoint, state, count in rows.tuples()}


def _is_heard(breaker: CircuitBreaker, run: PhaseRun) -> bool:
    if breaker.state == BreakerState.CLOSED:
        return True
    return breaker.state == BreakerState.HALF_OPEN and breaker.probe_run_id == run.id


async def _locked(session: AsyncSession, tenant_id: UUID, endpoint: str) -> CircuitBreaker | None:
    found: CircuitBreaker | None = await session.scalar(
        select(CircuitBreaker)
        .where(CircuitBreaker.tenant_id == tenant_id, CircuitBreaker.endpoint == endpoint)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return found


async def _is_live(session: AsyncSession, breaker: CircuitBreaker) -> bool:
    """Whether the probe is still at work."""
    found = await session.scalar(
        select(PhaseRun.id).where(
            PhaseRun.tenant_id == breaker.tenant_id,
            PhaseRun.id == breaker.probe_run_id,
            PhaseRun.state.in_(LIVE_RUN_STATES),
        )
    )
    return found is not None


def _refusal(breaker: CircuitBreaker, retry_at: datetime) -> Refusal:
    since = breaker.opened_at or retry_at
    return Refusal(
        breaker.endpoint,
        since,
        retry_at,
        f"the language model at {breaker.endpoint} has been unavailable since {_words(since)} "
        f"({breaker.last_code})",
    )


def _words(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


async def _record(
    session: AsyncSession,
    flow: DiscoveryFlowRow,
    breaker: CircuitBreaker,
    occurrence: Occurrence,
    actor: str,
    what: str,
) -> None:
    await session.flush()
    await append_event(
        session,
        flow,
        occurrence,
        actor=actor,
        from_state=flow.state,
        message=f"the language model at {breaker.endpoint} {what}",
        details={
            "endpoint": breaker.endpoint,
            "failures": breaker.failures,
            "openings": breaker.openings,
        },
    )
