"""Browsers' sessions that people have ended. The sessions themselves are in their cookies only."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base


class EndedSession(Base):
    """A session that is over before its time; `id` is a hash, `ends` when it would be over."""

    __tablename__ = "ended_sessions"
    id: Mapped[str] = mapped_column(primary_key=True)
    ends: Mapped[datetime]
    __table_args__ = (Index("ix_ended_sessions_ends", "ends"),)
