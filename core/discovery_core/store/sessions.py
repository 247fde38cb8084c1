"""Whose browsers' sessions were ended by signing out, for every process that may see their cookies.

One row per person, however often they sign out: all of their sessions that had begun by then are
over. Rows live as long as such a session could: after that its cookie says itself that it is over.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from .schema import EndedSessions


async def end_sessions(session: AsyncSession, person: str, begun: float, longest: float) -> None:
    """Ends a person's sessions that have begun by `begun` (seconds since 1970).

    None lasts longer than `longest` seconds.
    """
    await session.execute(delete(EndedSessions).where(EndedSessions.ends <= func.clock_timestamp()))
    by = datetime.fromtimestamp(begun, UTC)
    row = insert(EndedSessions).values(
        person=person, begun=by, ends=by + timedelta(seconds=longest)
    )
    later = {
        name: func.greatest(getattr(EndedSessions, name), getattr(row.excluded, name))
        for name in ("begun", "ends")
    }
    await session.execute(row.on_conflict_do_update(index_elements=["person"], set_=later))


async def ended_sessions(session: AsyncSession) -> dict[str, float]:
    """By person when (seconds since 1970) the last of their sessions began that is over."""
    rows = await session.execute(
        select(EndedSessions.person, EndedSessions.begun).where(
            EndedSessions.ends > func.clock_timestamp()
        )
    )
    return {person: begun.timestamp() for person, begun in rows.tuples()}
