"""What the operator keeps beside flows: breakers, messages to send, removals of data."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, now, one_of


class CircuitBreaker(Base):
    """Whether a tenant's attempts may ask an endpoint. Changed only by `store.breakers`.

    `failures` in a row, `openings` since it was last closed; while it is not closed `opened_at`
    is since when, and `probe_run_id` the one attempt that may ask.
    """

    __tablename__ = "circuit_breakers"
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    endpoint: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(server_default="Closed")
    failures: Mapped[int] = mapped_column(server_default="0")
    openings: Mapped[int] = mapped_column(server_default="0")
    last_code: Mapped[str] = mapped_column(server_default="")
    opened_at: Mapped[datetime | None]
    retry_at: Mapped[datetime | None]
    probe_run_id: Mapped[UUID | None]
    __table_args__ = (one_of("state", ["Closed", "Open", "HalfOpen"], "state"),)


class Notification(Base):
    """A message to a tenant's webhook about an event of the history, written together with it.

    Pending until it is delivered or given up; `next_try` is when to try (again).
    """

    __tablename__ = "notifications"
    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    flow_id: Mapped[UUID] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(server_default="Pending")
    tries: Mapped[int] = mapped_column(server_default="0")
    next_try: Mapped[datetime] = mapped_column(server_default=now)
    problem: Mapped[str] = mapped_column(server_default="")
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "flow_id"], ["discovery_flows.tenant_id", "discovery_flows.flow_id"]
        ),
        one_of("state", ["Pending", "Delivered", "Skipped", "Failed"], "state"),
        Index("ix_notifications_pending", "next_try", postgresql_where=text("state = 'Pending'")),
    )


class Purge(Base):
    """A removal of a flow's data, or of a whole tenant's (`flow_id` null), and what became of it.

    The record stays for good: `removed` counts rows by table, `summary` says what there was and
    who had decided what. Only functions of the owner write more than a person's request.
    """

    __tablename__ = "purges"
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))
    flow_id: Mapped[UUID | None]
    flow_name: Mapped[str] = mapped_column(server_default="")
    reason: Mapped[str] = mapped_column(server_default="Command")
    requested_by: Mapped[str]
    requested_at: Mapped[datetime] = mapped_column(server_default=now)
    inventory: Mapped[bool] = mapped_column(server_default=text("false"))
    outcome: Mapped[str] = mapped_column(server_default="Running")
    problem: Mapped[str] = mapped_column(server_default="")
    finished_at: Mapped[datetime | None]
    removed: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    summary: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    __table_args__ = (
        one_of("reason", ["Command", "Retention", "NamespaceDeleted"], "reason"),
        one_of("outcome", ["Running", "Done", "Refused"], "outcome"),
        CheckConstraint("(flow_id IS NULL) = (reason = 'NamespaceDeleted')", name="of_what"),
        Index(
            "uq_purges_unfinished",
            "tenant_id",
            "flow_id",
            unique=True,
            postgresql_where=text("finished_at IS NULL"),
        ),
    )
