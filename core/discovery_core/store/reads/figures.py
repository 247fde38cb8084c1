"""What one look at the database tells for metrics.

Every figure but the counts by state comes from a partial index that holds only what is open, so
that finished flows cost nothing; flows by state is one pass over one narrow table. Tokens are
read by when an attempt ended, so that each attempt is read once and not at every look.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_FIGURES = text(
    """
    SELECT
      (SELECT coalesce(jsonb_object_agg(state, number), '{}')
         FROM (SELECT state, count(*) AS number FROM discovery_flows GROUP BY state) AS f),
      (SELECT coalesce(jsonb_object_agg(state, number), '{}')
         FROM (SELECT state, count(*) AS number FROM phase_runs
                WHERE state IN ('Created', 'Launched', 'Running') GROUP BY state) AS r),
      waiting.number, waiting.seconds, asked.number, asked.overdue, asked.seconds,
      told.number, told.seconds
    FROM
      (SELECT count(*) AS number,
              extract(epoch FROM clock_timestamp() - min(greatest(state_since, not_before)))
                AS seconds
         FROM discovery_flows
        WHERE state = 'Queued' AND (not_before IS NULL OR not_before <= clock_timestamp()))
        AS waiting,
      (SELECT count(*) AS number,
              count(*) FILTER (WHERE a.reminders > 0 OR a.expires_at <= clock_timestamp())
                AS overdue,
              extract(epoch FROM clock_timestamp() - min(a.opened_at)) AS seconds
         FROM approval_requests AS a
         JOIN discovery_flows AS d ON d.tenant_id = a.tenant_id AND d.flow_id = a.flow_id
        WHERE a.state = 'Open' AND d.state = 'AwaitingApproval') AS asked,
      (SELECT count(*) AS number,
              greatest(0, extract(epoch FROM clock_timestamp() - min(next_try))) AS seconds
         FROM notifications WHERE state = 'Pending') AS told
    """
)
_TOKENS = """
    coalesce((usage->>'promptTokens')::bigint, 0),
    coalesce((usage->>'completionTokens')::bigint, 0)
    """
_TOKENS_UNTIL = text(
    "SELECT coalesce(sum((usage->>'promptTokens')::bigint), 0), "
    "coalesce(sum((usage->>'completionTokens')::bigint), 0) "
    "FROM phase_runs WHERE finished_at <= :until AND usage IS NOT NULL"
)
_TOKENS_SINCE = text(
    f"SELECT id, finished_at, {_TOKENS} FROM phase_runs "  # noqa: S608 - our own constants
    "WHERE finished_at > :since AND usage IS NOT NULL"
)


@dataclass(frozen=True)
class Figures:
    """Counts and ages (seconds, 0 where there is none) of what is open now.

    `slot_waiters` are flows that are due and wait for a free slot; `requests` are approval
    requests that a person can answer now, `requests_overdue` those of them past their deadline:
    each reminder of a request that is on hold sets the next one, so having been reminded counts.
    """

    flows: dict[str, int] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    slot_waiters: int = 0
    slot_seconds: float = 0.0
    requests: int = 0
    requests_overdue: int = 0
    request_seconds: float = 0.0
    notifications: int = 0
    notification_seconds: float = 0.0


class TokenUse(NamedTuple):
    """What one ended attempt has used of a language model."""

    run_id: UUID
    finished_at: datetime
    prompt: int
    completion: int


async def read_figures(session: AsyncSession) -> Figures:
    """One look, for all tenants of the session's scope."""
    row = (await session.execute(_FIGURES)).one()
    flows, attempts, *rest = row
    numbers = [float(value or 0) for value in rest]
    return Figures(
        flows=dict(flows),
        attempts=dict(attempts),
        slot_waiters=int(numbers[0]),
        slot_seconds=numbers[1],
        requests=int(numbers[2]),
        requests_overdue=int(numbers[3]),
        request_seconds=numbers[4],
        notifications=int(numbers[5]),
        notification_seconds=numbers[6],
    )


async def tokens_until(session: AsyncSession, until: datetime) -> tuple[int, int]:
    """Prompt and completion tokens of all attempts that had ended by then. Reads every attempt."""
    prompt, completion = (await session.execute(_TOKENS_UNTIL, {"until": until})).one()
    return int(prompt), int(completion)


async def tokens_since(session: AsyncSession, since: datetime) -> list[TokenUse]:
    """Attempts that ended after that moment."""
    rows = await session.execute(_TOKENS_SINCE, {"since": since})
    return [TokenUse(*row) for row in rows.tuples()]
