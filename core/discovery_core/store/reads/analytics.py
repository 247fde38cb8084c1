"""Figures about a tenant's flows: what takes long, what people change, what it costs.

Everything is counted from rows that are there anyway (attempts, requests, mappings), so that a
figure can be traced to them. Times are seconds.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_OF = """
    SELECT f.* FROM discovery_flows f JOIN master_flows m USING (tenant_id, flow_id)
    WHERE CAST(:engagement AS text) IS NULL OR coalesce(m.engagement, '') = :engagement
"""
_FLOWS = f"WITH flows AS ({_OF}) SELECT state, count(*) AS flows FROM flows GROUP BY state"  # noqa: S608
_PHASES = f"""
    WITH flows AS ({_OF}), runs AS (
        SELECT r.*, extract(epoch FROM r.finished_at - r.claimed_at) AS seconds,
               extract(epoch FROM r.claimed_at - r.created_at) AS waited
        FROM phase_runs r JOIN flows USING (tenant_id, flow_id)
    )
    SELECT phase, count(*) AS attempts,
           count(*) FILTER (WHERE state IN ('Succeeded', 'Superseded') AND result IS NOT NULL)
               AS succeeded,
           count(*) FILTER (WHERE state = 'Failed') AS failed,
           avg(seconds) FILTER (WHERE result IS NOT NULL) AS mean_seconds,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds)
               FILTER (WHERE result IS NOT NULL) AS median_seconds,
           percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds)
               FILTER (WHERE result IS NOT NULL) AS p95_seconds,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY waited) AS median_start_seconds,
           coalesce(sum((usage->>'promptTokens')::bigint), 0) AS prompt_tokens,
           coalesce(sum((usage->>'completionTokens')::bigint), 0) AS completion_tokens,
           sum((usage->>'cost')::numeric) AS cost
    FROM runs GROUP BY phase ORDER BY min(created_at)
"""  # noqa: S608
_FAILURES = f"""
    WITH flows AS ({_OF})
    SELECT r.error_code AS code, r.phase, count(*) AS attempts
    FROM phase_runs r JOIN flows USING (tenant_id, flow_id)
    WHERE r.error_code IS NOT NULL GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 50
"""  # noqa: S608
_APPROVALS = f"""
    WITH flows AS ({_OF})
    SELECT q.state, count(*) AS requests,
           count(*) FILTER (WHERE q.decided_via = 'policy') AS by_policy,
           percentile_cont(0.5) WITHIN GROUP (
               ORDER BY extract(epoch FROM q.decided_at - q.opened_at)) AS median_seconds,
           percentile_cont(0.95) WITHIN GROUP (
               ORDER BY extract(epoch FROM q.decided_at - q.opened_at)) AS p95_seconds
    FROM approval_requests q JOIN flows USING (tenant_id, flow_id)
    GROUP BY q.state ORDER BY q.state
"""  # noqa: S608
# of the columns that a person decided on: how sure the proposal was, and whether it was changed
_CONFIDENCE = f"""
    WITH flows AS ({_OF})
    SELECT least(floor((p.proposal->>'confidence')::float * 10), 9)::int AS tenth,
           count(*) AS columns, count(*) FILTER (WHERE p.edited) AS edited
    FROM field_mappings p
    JOIN approval_requests q ON q.tenant_id = p.tenant_id AND q.id = p.request_id
    JOIN flows f ON f.tenant_id = q.tenant_id AND f.flow_id = q.flow_id
    WHERE q.state = 'Approved' GROUP BY 1 ORDER BY 1
"""  # noqa: S608


async def of(session: AsyncSession, engagement: str | None) -> dict[str, Any]:
    """The figures of the tenant in scope, of one engagement or of all (None)."""

    async def rows(query: str) -> list[dict[str, Any]]:
        found = await session.execute(text(query), {"engagement": engagement})
        return [dict(row._mapping) for row in found]  # noqa: SLF001 - SQLAlchemy's documented name

    approvals = await rows(_APPROVALS)
    confidence = await rows(_CONFIDENCE)
    return {
        "flows": {row["state"]: row["flows"] for row in await rows(_FLOWS)},
        "phases": [_plain(row) for row in await rows(_PHASES)],
        "failures": await rows(_FAILURES),
        "approvals": [_plain(row) for row in approvals],
        "confidence": [
            {
                "from": row["tenth"] / 10,
                "to": (row["tenth"] + 1) / 10,
                "columns": row["columns"],
                "edited": row["edited"],
            }
            for row in confidence
        ],
    }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Decimals as numbers, seconds with three digits."""
    return {
        key: round(float(value), 3)
        if value is not None and (key.endswith("_seconds") or key == "cost")
        else int(value)
        if value is not None and key.endswith("_tokens")
        else value
        for key, value in row.items()
    }
