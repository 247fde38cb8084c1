"""Whose turn it is: the queue is what one statement finds, and nobody in it is looked at.

The tenant with the fewest live attempts is next, of several the one that has waited longest for
an attempt to start; within a tenant, flows come in the order in which they were queued. So a tenant
with one flow waits for one slot, however many flows others have queued.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, bindparam, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from ...snapshots import Capacity
from ..schema import LIVE_RUN_STATES, PhaseRun

_LIVE = ", ".join(f"'{state}'" for state in LIVE_RUN_STATES)
_DUE = """state = 'Queued' AND (not_before IS NULL OR not_before <= clock_timestamp())
      AND flow_id <> ALL(:passed_over)"""
_PASSED_OVER = bindparam("passed_over", type_=ARRAY(Uuid))
# each count ends where it is plain that there is not enough for all; in the order of an index, or
# the table would be read where few of its rows are due
_WAITING = text(
    f"""
    SELECT
      (SELECT count(*) FROM (
         SELECT FROM discovery_flows WHERE {_DUE} ORDER BY tenant_id, state_since LIMIT :most
       ) AS due),
      (SELECT count(*) FROM (
         SELECT FROM discovery_flows WHERE {_DUE} AND tenant_id = :tenant
          ORDER BY state_since LIMIT :most_of_tenant
       ) AS due)
    """  # noqa: S608 - our own constants
).bindparams(_PASSED_OVER)
# of each tenant as many as it could start, so that what it has queued beyond costs nothing
_STARTABLE = text(
    f"""
    WITH live AS (
      SELECT tenant_id, count(*) AS attempts FROM phase_runs
       WHERE state IN ({_LIVE}) GROUP BY tenant_id
    ), queued AS (
      SELECT DISTINCT tenant_id FROM discovery_flows WHERE state = 'Queued'
    ), turns AS (
      SELECT first.flow_id, first.state_since, served.at,
             coalesce(live.attempts, 0) + first.place - 1 AS turn
        FROM queued
        LEFT JOIN live USING (tenant_id)
        CROSS JOIN LATERAL (
          SELECT coalesce(max(created_at), to_timestamp(0)) AS at FROM phase_runs AS run
           WHERE run.tenant_id = queued.tenant_id
        ) AS served
        CROSS JOIN LATERAL (
          SELECT flow_id, state_since, row_number() OVER (ORDER BY state_since, flow_id) AS place
            FROM (
              SELECT flow_id, state_since FROM discovery_flows AS flow
               WHERE {_DUE} AND flow.tenant_id = queued.tenant_id
               ORDER BY state_since, flow_id
               LIMIT greatest(0, :most_of_tenant - coalesce(live.attempts, 0))
            ) AS oldest
        ) AS first
    )
    SELECT flow_id FROM turns ORDER BY turn, at, state_since, flow_id
     LIMIT greatest(0, :most - (SELECT coalesce(sum(attempts), 0) FROM live))
    """  # noqa: S608 - our own constants
).bindparams(_PASSED_OVER)


async def live_counts(session: AsyncSession, tenant_id: UUID) -> tuple[int, int]:
    """Live attempts in the cluster, and of one tenant."""
    row = (
        await session.execute(
            select(func.count(), func.count().filter(PhaseRun.tenant_id == tenant_id)).where(
                PhaseRun.state.in_(LIVE_RUN_STATES)
            )
        )
    ).one()
    return int(row[0]), int(row[1])


async def capacity(
    session: AsyncSession,
    tenant_id: UUID,
    flow_id: UUID,
    limits: tuple[int, int],
    passed_over: Collection[UUID] = (),
) -> Capacity:
    """Slots for a flow that is due, and whether it is its turn.

    Other flows that are `passed_over` have no turn before it: nobody waits for one that cannot be
    started.
    """
    running, mine = await live_counts(session, tenant_id)
    if running >= limits[0] or mine >= limits[1]:
        return Capacity(running, mine, *limits)
    others = [flow for flow in passed_over if flow != flow_id]
    waiting, waiting_mine = (
        await session.execute(
            _WAITING,
            {
                "passed_over": others,
                "tenant": tenant_id,
                "most": limits[0] + 1,
                "most_of_tenant": limits[1] + 1,
            },
        )
    ).one()
    enough_for_all = running + waiting <= limits[0] and mine + waiting_mine <= limits[1]
    turn = enough_for_all or flow_id in await startable(session, limits, others)
    return Capacity(running, mine, *limits, turn=turn)


async def startable(
    session: AsyncSession, limits: tuple[int, int], passed_over: Collection[UUID] = ()
) -> list[UUID]:
    """Who may start now, whose turn comes first, first; at most as many as there are slots."""
    found = await session.scalars(
        _STARTABLE,
        {"passed_over": list(passed_over), "most": limits[0], "most_of_tenant": limits[1]},
    )
    return list(found)
