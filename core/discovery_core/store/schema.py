"""The tables, as SQLAlchemy models.

Every tenant table carries `tenant_id` first in its primary key and in its foreign keys, so that a
row of one tenant can never point at another's and row-level security has one column to look at.
Policies, grants and functions stand in the migrations, beside the tables that they guard.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ..states import FlowState, RunState

SCHEMA_REVISION = "0009"
CHUNK_BYTES = 1024 * 1024
LIVE_RUN_STATES = (RunState.CREATED, RunState.LAUNCHED, RunState.RUNNING)

_LIVE = ", ".join(f"'{state}'" for state in LIVE_RUN_STATES)


def _one_of(column: str, values: list[str], name: str) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=name)


class Base(DeclarativeBase):
    """Names every constraint, so that migrations can refer to them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own convention
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[Any]: JSONB,
        str: Text,
        int: BigInteger,
        float: Double,
        bytes: LargeBinary,
    }


_now = func.clock_timestamp()


class Cluster(Base):
    """A Kubernetes cluster that uses this database; `id` is the UID of kube-system."""

    __tablename__ = "clusters"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=_now)


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
    created_at: Mapped[datetime] = mapped_column(server_default=_now)
    gone_since: Mapped[datetime | None]
    purged_at: Mapped[datetime | None]


class MasterFlow(Base):
    """The register of every flow of every kind. It holds no state, so it cannot disagree."""

    __tablename__ = "master_flows"
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    flow_id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(server_default="discovery")
    name: Mapped[str]
    engagement: Mapped[str | None]
    requested_by: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=_now)
    deleted_at: Mapped[datetime | None]
    __table_args__ = (UniqueConstraint("flow_id"),)


class DiscoveryFlowRow(Base):
    """Where a discovery flow stands. Changed only by `store.transition`, under its row lock.

    `round_info` says how the round began: `fromPhase`, `hint`, `by`, `trigger`. `rerun_ids` are
    the ids of spec.rerun that were followed or refused. `purged_at`: the flow's data is gone, and
    the row stays so that its resource is not taken for a new flow.
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
    state_since: Mapped[datetime] = mapped_column(server_default=_now)
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
    updated_at: Mapped[datetime] = mapped_column(server_default=_now)
    purged_at: Mapped[datetime | None]
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "flow_id"], ["master_flows.tenant_id", "master_flows.flow_id"]
        ),
        _one_of("state", [str(s) for s in FlowState], "state"),
        Index("ix_discovery_flows_state", "state"),
        Index(
            "ix_discovery_flows_state_since",
            "state_since",
            postgresql_where=text("purged_at IS NULL"),
        ),
    )


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
    created_at: Mapped[datetime] = mapped_column(server_default=_now)
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
        _one_of("state", [str(s) for s in RunState], "state"),
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
    __table_args__ = (_one_of("state", ["Closed", "Open", "HalfOpen"], "state"),)


class Artefact(Base):
    """An immutable blob. `digest` is set when it is sealed; until then nobody can read it."""

    __tablename__ = "artefacts"
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    digest: Mapped[str | None]
    size: Mapped[int] = mapped_column(server_default="0")
    media_type: Mapped[str]
    uploaded_by: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(server_default=_now)
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
    created_at: Mapped[datetime] = mapped_column(server_default=_now)
    expires_at: Mapped[datetime]


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
    next_try: Mapped[datetime] = mapped_column(server_default=_now)
    problem: Mapped[str] = mapped_column(server_default="")
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "flow_id"], ["discovery_flows.tenant_id", "discovery_flows.flow_id"]
        ),
        _one_of("state", ["Pending", "Delivered", "Skipped", "Failed"], "state"),
        Index("ix_notifications_pending", "next_try", postgresql_where=text("state = 'Pending'")),
    )


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
    opened_at: Mapped[datetime] = mapped_column(server_default=_now)
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
        _one_of(
            "state",
            ["Open", "Approved", "Rejected", "AskedAgain", "Expired", "Refused", "Cancelled"],
            "state",
        ),
        CheckConstraint(
            "state NOT IN ('Approved', 'Rejected', 'AskedAgain') OR decided_by IS NOT NULL",
            name="attributable",
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
    approved_by: Mapped[str]
    approved_at: Mapped[datetime]
    flow_id: Mapped[UUID]
    removed_at: Mapped[datetime | None]
    removed_by: Mapped[str | None]


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
    updated_at: Mapped[datetime] = mapped_column(server_default=_now)


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
    decided_at: Mapped[datetime] = mapped_column(server_default=_now)
    __table_args__ = (_one_of("choice", ["keep", "replace", "merge"], "choice"),)


class SourcePrecedence(Base):
    """Whose values count first in an engagement: flows by name, position 0 above all."""

    __tablename__ = "source_precedence"
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    engagement: Mapped[str] = mapped_column(primary_key=True)
    flow: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]


class FlowEventRow(Base):
    """The history. Application roles may insert and read, nothing else."""

    __tablename__ = "flow_events"
    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    flow_id: Mapped[UUID] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=_now)
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
    requested_at: Mapped[datetime] = mapped_column(server_default=_now)
    inventory: Mapped[bool] = mapped_column(server_default=text("false"))
    outcome: Mapped[str] = mapped_column(server_default="Running")
    problem: Mapped[str] = mapped_column(server_default="")
    finished_at: Mapped[datetime | None]
    removed: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    summary: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    __table_args__ = (
        _one_of("reason", ["Command", "Retention", "NamespaceDeleted"], "reason"),
        _one_of("outcome", ["Running", "Done", "Refused"], "outcome"),
        CheckConstraint("(flow_id IS NULL) = (reason = 'NamespaceDeleted')", name="of_what"),
        Index(
            "uq_purges_unfinished",
            "tenant_id",
            "flow_id",
            unique=True,
            postgresql_where=text("finished_at IS NULL"),
        ),
    )


TENANT_TABLES = tuple(
    table.name for table in Base.metadata.sorted_tables if "tenant_id" in table.columns
)
