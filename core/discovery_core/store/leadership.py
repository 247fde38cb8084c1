"""Who leads: one row per cluster, expiring on the database's clock.

A takeover increments the epoch. A transaction of the old leader that is under way holds the row
FOR KEY SHARE, so the takeover waits for it; every later one finds its epoch gone.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_ACQUIRE = text(
    """
    INSERT INTO leader AS l (cluster_id, holder, epoch, expires_at)
    VALUES (:cluster, :holder, 1, clock_timestamp() + make_interval(secs => :ttl))
    ON CONFLICT (cluster_id) DO UPDATE SET
        epoch = CASE WHEN l.holder = excluded.holder AND l.expires_at > clock_timestamp()
                     THEN l.epoch ELSE l.epoch + 1 END,
        holder = excluded.holder,
        expires_at = excluded.expires_at
    WHERE l.holder = excluded.holder OR l.expires_at <= clock_timestamp()
    RETURNING epoch
    """
)


async def acquire(session: AsyncSession, cluster_id: UUID, holder: str, ttl: float) -> int | None:
    """Takes or renews leadership for `ttl` seconds. Returns the epoch, or None."""
    epoch = await session.scalar(_ACQUIRE, {"cluster": cluster_id, "holder": holder, "ttl": ttl})
    return None if epoch is None else int(epoch)


async def release(session: AsyncSession, cluster_id: UUID, holder: str) -> None:
    """Lets another holder take over at once."""
    await session.execute(
        text(
            "UPDATE leader SET expires_at = clock_timestamp() "
            "WHERE cluster_id = :cluster AND holder = :holder"
        ),
        {"cluster": cluster_id, "holder": holder},
    )
