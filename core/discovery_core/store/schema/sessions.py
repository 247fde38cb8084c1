"""Browsers' sessions that people have ended. The sessions themselves are in their cookies only."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base


class EndedSessions(Base):
    """Those of a person that had begun by `begun`; `person` is a hash.

    The last of them would be over at `ends`.
    """

    __tablename__ = "ended_sessions"
    person: Mapped[str] = mapped_column(primary_key=True)
    begun: Mapped[datetime]
    ends: Mapped[datetime]
    __table_args__ = (Index("ix_ended_sessions_ends", "ends"),)
