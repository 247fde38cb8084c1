"""Clusters, tenants and flows: who works, what is to be done, how it stands, and its history."""

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

from ...states import FlowState, RunState
from .base import Base, now, one_of

LIVE_RUN_STATES = (RunState.CREATED, RunState.LAUNCHED, RunState.RUNNING)

_LIVE = ", ".join(f"'{state}'" for state in LIVE_RUN_STATES)


class Cluster(Base):
    """A Kubernetes cluster that uses this database; `id` is the UID of kube-system."""

    __tablename__ = "clusters"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=now)


class Leader(Base):
    """The one leading operator per cluster. A takeover increments `epoch`.

    (cluster_id, epoch) is unique so that Postgres treats `epoch` as a key: a transaction that
    holds FOR KEY SHARE on the row blocks a takeover, but not the leader's own renewal.
    """

    __tablename__ = "leader"
    cluster_id: Mapped[UUID] = mapped_column(ForeignKey("clusters.id"), primary_key=True)
    holder: Mapped[str]
    epoch: Mapped[int]
    expires_at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("cluster_id", "epoch"),)


class SchemaSupport(Base):
    """The oldest code that this schema still serves, by the revision that it was written for."""

    __tablename__ = "schema_support"
    singleton: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    minimum_code_revision: Mapped[str]
    __table_args__ = (CheckConstraint("singleton", name="singleton"),)


class Tenant(Base):
    """A namespace by its UID: a re-created namespace of the same name is another tenant.

    `gone_since` is when the namespace was first missed, `purged_at` when its data was removed.
    """

    __tablename__ = "tenants"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    cluster_id: Mapped[UUID] = mapped_column(ForeignKey("clusters.id"), index=True)
    namespace: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=now)
    gone_since: Mapped[datetime | None]
    purged_at: Mapped[datetime | None]


class MasterFlow(Base):
    """The register of every flow of every kind. It holds no state, so it cannot disagree.

    `retired_at` is when the retention had the resource deleted: the inventory keeps such a flow's
    rows, which it loses with a flow that people delete. `released_at` is when nothing of a deleted
    flow was left but its history.
    """

    __tablename__ = "master_flows"
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    flow_id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(server_default="discovery")
    name: Mapped[str]
    engagement: Mapped[str | None]
    requested_by: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=now)
    deleted_at: Mapped[datetime | None]
    retired_at: Mapped[datetime | None]
    released_at: Mapped[datetime | None]
    __table_args__ = (
        UniqueConstraint("flow_id"),
        Index(
            "ix_master_flows_unreleased",
            "deleted_at",
            postgresql_where=text("deleted_at IS NOT NULL AND released_at IS NULL"),
        ),
    )


class DiscoveryFlowRow(Base):
    """Where a discovery flow stands. Changed only by `store.transition`, under its row lock.

    `round_info` says how the round began: `fromPhase`, `hint`, `by`, `trigger`. `rerun_ids` are
    the ids of spec.rerun that were followed or refused. `purged_at`: the flow's data is gone, and
    the row stays so that its resource is not taken for a new flow. `purging`: that has begun, and
    nothing more happens to the flow. `retention_seconds` is spec.retention.
    """

    __tablename__ = "discovery_flows"
    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    flow_id: Mapped[UUID] = mapped_column(primary_key=True)
    spec: Mapped[dict[str, Any]]
    generation: Mapped[int]
    round: Mapped[int] = mapped_column(server_default="1")
    phase: Mapped[str]
    state: Mapped[str]
    resume_state: Mapped[str | None]
    state_since: Mapped[datetime] = mapped_column(server_default=now)
    reason: Mapped[str]
    message: Mapped[str] = mapped_column(server_default="")
    answer_note: Mapped[str] = mapped_column(server_default="")
    missing: Mapped[list[Any]] = mapped_column(server_default=text("'[]'::jsonb"))
    not_before: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(server_default="1")
    event_sequence: Mapped[int] = mapped_column(server_default="0")
    last_fence: Mapped[int] = mapped_column(server_default="0")
    round_info: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    rerun_ids: Mapped[list[Any]] = mapped_column(server_default=text("'[]'::jsonb"))
    source_digest: Mapped[str | None]
    target_schema_digest: Mapped[str | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=now)
    purged_at: Mapped[datetime | None]
    purging: Mapped[bool] = mapped_column(server_default=text("false"))
    retention_seconds: Mapped[float | None]
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "flow_id"], ["master_flows.tenant_id", "master_flows.flow_id"]
        ),
        one_of("state", [str(s) for s in FlowState], "state"),
        Index("ix_discovery_flows_state", "state"),
        Index("ix_discovery_flows_updated_at", "updated_at"),
        Index(
            "ix_discovery_flows_queued",
            "tenant_id",
            "state_since",
            "flow_id",
            postgresql_where=text("state = 'Queued'"),
        ),
        Index(
            "ix_discovery_flows_state_since",
            "state_since",
            postgresql_where=text("purged_at IS NULL"),
        ),
        Index(
            "ix_discovery_flows_own_retention",
            "state_since",
            postgresql_where=text("purged_at IS NULL AND retention_seconds IS NOT NULL"),
        ),
    )

    @property
    def is_purged(self) -> bool:
        """Whether nothing more happens to the flow: its data is gone, or on its way."""
        return self.purging or self.purged_at is not None


class PhaseRun(Base):
    """One attempt of a phase. At most one per flow is live, at most one per phase accepted.

    `llm_endpoint` is the language model that it may ask; `llm_fallback` is why the built-in
    planner judges although the spec names one.
    """

    __tablename__ = "phase_runs"
    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    flow_id: Mapped[UUID]
    round: Mapped[int]
    phase: Mapped[str]
    attempt: Mapped[int]
    state: Mapped[str]
    counted: Mapped[bool] = mapped_column(server_default=text("true"))
    job_name: Mapped[str]
    job_uid: Mapped[str | None]
    pod_uid: Mapped[str | None]
    pod_name: Mapped[str | None]
    fence: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=now)
    launched_at: Mapped[datetime | None]
    claimed_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    deadline: Mapped[datetime]
    heartbeat_at: Mapped[datetime | None]
    progress_done: Mapped[int | None]
    progress_total: Mapped[int | None]
    progress_message: Mapped[str] = mapped_column(server_default="")
    result: Mapped[dict[str, Any] | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    usage: Mapped[dict[str, Any] | None]
    llm_endpoint: Mapped[str | None]
    llm_fallback: Mapped[str] = mapped_column(server_default="")
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "flow_id"], ["discovery_flows.tenant_id", "discovery_flows.flow_id"]
        ),
        UniqueConstraint("tenant_id", "flow_id", "round", "phase", "attempt"),
        UniqueConstraint("tenant_id", "job_name"),
        one_of("state", [str(s) for s in RunState], "state"),
        Index(
            "uq_phase_runs_accepted",
            "tenant_id",
            "flow_id",
            "round",
            "phase",
            unique=True,
            postgresql_where=text("state = 'Succeeded'"),
        ),
        Index(
            "uq_phase_runs_live",
            "tenant_id",
            "flow_id",
            unique=True,
            postgresql_where=text(f"state IN ({_LIVE})"),
        ),
        Index("ix_phase_runs_pod_uid", "tenant_id", "pod_uid"),
        Index("ix_phase_runs_created_at", "tenant_id", "created_at"),
        Index(
            "ix_phase_runs_finished_at",
            "finished_at",
            postgresql_where=text("usage IS NOT NULL"),
        ),
    )


class FlowEventRow(Base):
    """The history. Application roles may insert and read, nothing else."""

    __tablename__ = "flow_events"
    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    flow_id: Mapped[UUID] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=now)
    actor: Mapped[str]
    trigger: Mapped[str]
    from_state: Mapped[str | None]
    to_state: Mapped[str]
    phase: Mapped[str | None]
    round: Mapped[int]
    attempt: Mapped[int | None]
    message: Mapped[str] = mapped_column(server_default="")
    details: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "flow_id"], ["discovery_flows.tenant_id", "discovery_flows.flow_id"]
        ),
    )
