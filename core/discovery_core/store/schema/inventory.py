"""Rows that crews have typed, the assets that they are about, and what people decided."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ForeignKey,
    ForeignKeyConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, now, one_of


class Record(Base):
    """A typed source row, staged by an attempt and visible once that attempt is accepted."""

    __tablename__ = "records"
    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    run_id: Mapped[UUID] = mapped_column(primary_key=True)
    row: Mapped[int] = mapped_column(primary_key=True)
    identity: Mapped[str]
    name: Mapped[str | None]
    asset_type: Mapped[str]
    class_rule: Mapped[str | None]
    identity_confidence: Mapped[float | None]
    keys: Mapped[list[Any]] = mapped_column(server_default=text("'[]'::jsonb"))
    fields: Mapped[dict[str, Any]]
    originals: Mapped[dict[str, Any]]
    conversions: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    unmapped: Mapped[dict[str, Any]]
    problems: Mapped[list[Any]]
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "run_id"], ["phase_runs.tenant_id", "phase_runs.id"]),
    )


class Asset(Base):
    """The merged inventory of a tenant's engagement, rebuilt from accepted records."""

    __tablename__ = "assets"
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    engagement: Mapped[str] = mapped_column(primary_key=True)
    identity: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    asset_type: Mapped[str]
    class_rule: Mapped[str | None]
    identity_confidence: Mapped[float | None]
    identity_reason: Mapped[str | None]
    fields: Mapped[dict[str, Any]]
    sources: Mapped[list[Any]]
    updated_at: Mapped[datetime] = mapped_column(server_default=now)


class AssetAlias(Base):
    """Which asset the identity that a flow gave belongs to, where that is another's.

    `strength` is the rank of the key that joined them (`store.asset_identity`); derived, like
    the assets.
    """

    __tablename__ = "asset_aliases"
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    engagement: Mapped[str] = mapped_column(primary_key=True)
    identity: Mapped[str] = mapped_column(primary_key=True)
    asset: Mapped[str]
    strength: Mapped[int]


class AssetDecision(Base):
    """What a person decided about a field that sources disagree on; applied at every rebuild."""

    __tablename__ = "asset_decisions"
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    engagement: Mapped[str] = mapped_column(primary_key=True)
    identity: Mapped[str] = mapped_column(primary_key=True)
    field: Mapped[str] = mapped_column(primary_key=True)
    choice: Mapped[str]
    value: Mapped[Any] = mapped_column(JSONB)
    decided_by: Mapped[str]
    decided_at: Mapped[datetime] = mapped_column(server_default=now)
    __table_args__ = (one_of("choice", ["keep", "replace", "merge"], "choice"),)


class IdentityDecision(Base):
    """Whether machines that share a key are the same, as a person decided; applied at rebuilds.

    `machines` are lists of names (identities where names are the same): those of one list are one
    machine, those of two are not.
    """

    __tablename__ = "identity_decisions"
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    engagement: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    machines: Mapped[list[Any]]
    choice: Mapped[str]
    decided_by: Mapped[str]
    decided_at: Mapped[datetime] = mapped_column(server_default=now)
    __table_args__ = (one_of("choice", ["same", "different"], "choice"),)


class SourcePrecedence(Base):
    """Whose values count first in an engagement: flows by name, position 0 above all."""

    __tablename__ = "source_precedence"
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    engagement: Mapped[str] = mapped_column(primary_key=True)
    flow: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
