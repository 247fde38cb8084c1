"""Which browsers' sessions were ended by signing out, for every process that may see their cookie.

Rows live as long as the session would have: after that its cookie says itself that it is over.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from .schema import EndedSession


async def end_session(session: AsyncSession, key: str, ends: float) -> None:
    """Ends one that would be over at `ends` (seconds since 1970); again changes nothing."""
    await session.execute(delete(EndedSession).where(EndedSession.ends <= func.clock_timestamp()))
    await session.execute(
        insert(EndedSession)
        .values(id=key, ends=datetime.fromtimestamp(ends, UTC))
        .on_conflict_do_nothing()
    )


async def ended_sessions(session: AsyncSession) -> dict[str, float]:
    """Those that were ended before their time, and when that is (seconds since 1970)."""
    rows = await session.execute(
        select(EndedSession.id, EndedSession.ends).where(EndedSession.ends > func.clock_timestamp())
    )
    return {key: ends.timestamp() for key, ends in rows.tuples()}
