"""The approval gate: requests, what was proposed and approved, and the lessons from it."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, now, one_of


class ApprovalRequestRow(Base):
    """A question to a person, bound to one artefact digest. The policy is frozen here."""

    __tablename__ = "approval_requests"
    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    flow_id: Mapped[UUID]
    round: Mapped[int]
    run_id: Mapped[UUID]
    artefact_digest: Mapped[str]
    state: Mapped[str]
    policy: Mapped[dict[str, Any]]
    targets: Mapped[list[Any]]
    fields: Mapped[list[Any]] = mapped_column(server_default=text("'[]'::jsonb"))
    opened_at: Mapped[datetime] = mapped_column(server_default=now)
    expires_at: Mapped[datetime]
    reminders: Mapped[int] = mapped_column(server_default="0")
    decided_at: Mapped[datetime | None]
    decided_by: Mapped[str | None]
    decided_via: Mapped[str | None]
    reason: Mapped[str] = mapped_column(server_default="")
    edits: Mapped[list[Any]] = mapped_column(server_default=text("'[]'::jsonb"))
    problems: Mapped[list[Any]] = mapped_column(server_default=text("'[]'::jsonb"))
    approved_digest: Mapped[str | None]
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "flow_id"], ["discovery_flows.tenant_id", "discovery_flows.flow_id"]
        ),
        ForeignKeyConstraint(["tenant_id", "run_id"], ["phase_runs.tenant_id", "phase_runs.id"]),
        one_of(
            "state",
            ["Open", "Approved", "Rejected", "AskedAgain", "Expired", "Refused", "Cancelled"],
            "state",
        ),
        CheckConstraint(
            "state NOT IN ('Approved', 'Rejected', 'AskedAgain') OR decided_by IS NOT NULL",
            name="attributable",
        ),
        Index(
            "ix_approval_requests_expiring",
            "expires_at",
            postgresql_where=text("state = 'Open'"),
        ),
        Index(
            "uq_approval_requests_open",
            "tenant_id",
            "flow_id",
            unique=True,
            postgresql_where=text("state = 'Open'"),
        ),
    )


class FieldMappingRow(Base):
    """One column of a request: what was proposed, and what was decided."""

    __tablename__ = "field_mappings"
    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    request_id: Mapped[UUID] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    source_column: Mapped[str]
    proposal: Mapped[dict[str, Any]]
    approved_target: Mapped[str | None]
    edited: Mapped[bool] = mapped_column(server_default=text("false"))
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "request_id"],
            ["approval_requests.tenant_id", "approval_requests.id"],
        ),
        UniqueConstraint("tenant_id", "request_id", "source_column"),
    )


class MappingMemory(Base):
    """What people of this tenant approved for a header: the lesson for next time.

    One that was taken back is not followed, until somebody approves the header anew.
    """

    __tablename__ = "mapping_memory"
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    header: Mapped[str] = mapped_column(primary_key=True)
    target: Mapped[str | None]
    transform: Mapped[str | None]
    approved_by: Mapped[str]
    approved_at: Mapped[datetime]
    flow_id: Mapped[UUID]
    removed_at: Mapped[datetime | None]
    removed_by: Mapped[str | None]
