"""Who leads: one row per cluster, expiring on the database's clock.

A takeover increments the epoch. A transaction of the old leader that is under way holds the row
FOR KEY SHARE, so the takeover waits for it; every later one finds its epoch gone.

The first epoch is the seconds since 1970, as in a restored database: in one that was emptied no
leader of before holds an epoch that counts.

A renewal must not wait for the leader's own transactions. Postgres decides by the columns that a
statement names, not by their values: one that sets a key column locks the row against KEY SHARE.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

# a holder is one process, so that nobody has led in between where its name still stands there
_RENEW = text(
    """
    UPDATE leader SET expires_at = clock_timestamp() + make_interval(secs => :ttl)
    WHERE cluster_id = :cluster AND holder = :holder
    RETURNING epoch
    """
)
# an emptied database does not know the cluster either
_TAKE_OVER = text(
    """
    WITH known AS (INSERT INTO clusters (id) VALUES (:cluster) ON CONFLICT DO NOTHING)
    INSERT INTO leader AS l (cluster_id, holder, epoch, expires_at)
    VALUES (:cluster, :holder, CAST(extract(epoch FROM clock_timestamp()) AS bigint),
            clock_timestamp() + make_interval(secs => :ttl))
    ON CONFLICT (cluster_id) DO UPDATE SET
        epoch = l.epoch + 1,
        holder = excluded.holder,
        expires_at = excluded.expires_at
    WHERE l.expires_at <= clock_timestamp()
    RETURNING epoch
    """
)


async def acquire(session: AsyncSession, cluster_id: UUID, holder: str, ttl: float) -> int | None:
    """Takes or renews leadership for `ttl` seconds. Returns the epoch, or None."""
    wanted = {"cluster": cluster_id, "holder": holder, "ttl": ttl}
    epoch = await session.scalar(_RENEW, wanted)
    if epoch is None:
        epoch = await session.scalar(_TAKE_OVER, wanted)
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
