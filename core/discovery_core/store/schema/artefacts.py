"""Bytes: stored once per tenant, in pieces, and what refers to them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, now

CHUNK_BYTES = 1024 * 1024


class Artefact(Base):
    """An immutable blob. `digest` is set when it is sealed; until then nobody can read it."""

    __tablename__ = "artefacts"
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    digest: Mapped[str | None]
    size: Mapped[int] = mapped_column(server_default="0")
    media_type: Mapped[str]
    uploaded_by: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(server_default=now)
    sealed_at: Mapped[datetime | None]
    __table_args__ = (UniqueConstraint("tenant_id", "digest"),)


class ArtefactChunk(Base):
    """A piece of an artefact of at most 1 MiB, in order of `sequence` from 0."""

    __tablename__ = "artefact_chunks"
    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    artefact_id: Mapped[UUID] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[bytes]
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "artefact_id"],
            ["artefacts.tenant_id", "artefacts.id"],
            ondelete="CASCADE",
        ),
        CheckConstraint(f"octet_length(data) <= {CHUNK_BYTES}", name="chunk_size"),
    )


class Upload(Base):
    """A file that a person has uploaded (or is uploading: `digest` null) for a flow to come.

    `id` is the artefact's. It keeps the artefact until `expires_at`.
    """

    __tablename__ = "uploads"
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    digest: Mapped[str | None]
    name: Mapped[str]
    uploaded_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=now)
    expires_at: Mapped[datetime]


class FlowArtefact(Base):
    """What keeps an artefact: a flow uses it under a name. Without such a row it is collected."""

    __tablename__ = "flow_artefacts"
    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    flow_id: Mapped[UUID] = mapped_column(primary_key=True)
    run_id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str]
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "run_id"], ["phase_runs.tenant_id", "phase_runs.id"]),
        ForeignKeyConstraint(["tenant_id", "digest"], ["artefacts.tenant_id", "artefacts.digest"]),
        Index("ix_flow_artefacts_digest", "tenant_id", "digest"),
    )
