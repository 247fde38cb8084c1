"""The first schema: tables, history guard, row-level security and grants.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TENANT_TABLES = (
    "master_flows",
    "discovery_flows",
    "phase_runs",
    "artefacts",
    "artefact_chunks",
    "flow_artefacts",
    "approval_requests",
    "field_mappings",
    "mapping_memory",
    "records",
    "assets",
    "flow_events",
)

TENANT = "nullif(current_setting('discovery.tenant_id', true), '')::uuid"
CLUSTER = "nullif(current_setting('discovery.cluster_id', true), '')::uuid"

# What each role may do, table by table. flow_events is append-only for all of them, and the api
# role only reads.
GRANTS = {
    "discovery_operator": {
        "SELECT, INSERT": ("clusters", "tenants", "flow_events"),
        "SELECT, INSERT, UPDATE": (
            "leader",
            "master_flows",
            "discovery_flows",
            "phase_runs",
            "approval_requests",
            "field_mappings",
            "mapping_memory",
        ),
        "SELECT, INSERT, UPDATE, DELETE": ("artefacts", "artefact_chunks", "flow_artefacts"),
        "SELECT, DELETE": ("records", "assets"),
    },
    "discovery_execution": {
        "SELECT": ("tenants", "master_flows", "mapping_memory"),
        "SELECT, UPDATE": ("discovery_flows", "phase_runs"),
        "SELECT, INSERT": ("approval_requests", "field_mappings", "flow_events"),
        "SELECT, INSERT, UPDATE": ("flow_artefacts",),
        "SELECT, INSERT, UPDATE, DELETE": ("artefacts", "artefact_chunks"),
        "SELECT, INSERT, DELETE": ("records", "assets"),
    },
    "discovery_api": {
        "SELECT": (
            "tenants",
            "master_flows",
            "discovery_flows",
            "phase_runs",
            "artefacts",
            "artefact_chunks",
            "flow_artefacts",
            "approval_requests",
            "field_mappings",
            "mapping_memory",
            "records",
            "assets",
            "flow_events",
        ),
    },
}


def _row_level_security() -> None:
    for table in (*TENANT_TABLES, "tenants"):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON tenants USING (id = {TENANT})")
    op.execute(
        f"CREATE POLICY cluster ON tenants TO discovery_operator USING (cluster_id = {CLUSTER})"
    )
    for table in TENANT_TABLES:
        op.execute(f"CREATE POLICY tenant ON {table} USING (tenant_id = {TENANT})")
        op.execute(
            f"CREATE POLICY cluster ON {table} TO discovery_operator USING "
            f"(tenant_id IN (SELECT id FROM tenants WHERE cluster_id = {CLUSTER}))"
        )


def _locate_flow() -> None:
    """Whose a flow is. The owner sees the one row that it asks for, and nobody else asks."""
    located = "nullif(current_setting('discovery.located_flow', true), '')::uuid"
    op.execute(
        "CREATE POLICY locate ON master_flows FOR SELECT TO discovery_owner "
        f"USING (flow_id = {located})"
    )
    op.execute(
        "CREATE POLICY locate ON tenants FOR SELECT TO discovery_owner USING (id IN "
        f"(SELECT tenant_id FROM master_flows WHERE flow_id = {located}))"
    )
    op.execute(
        """
        CREATE FUNCTION locate_flow(wanted uuid)
        RETURNS TABLE (tenant_id uuid, cluster_id uuid, namespace text, name text)
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
        BEGIN
            PERFORM set_config('discovery.located_flow', wanted::text, true);
            RETURN QUERY
                SELECT t.id, t.cluster_id, t.namespace, m.name
                FROM master_flows m JOIN tenants t ON t.id = m.tenant_id
                WHERE m.flow_id = wanted;
            PERFORM set_config('discovery.located_flow', '', true);
        END $$
        """
    )
    op.execute("REVOKE ALL ON FUNCTION locate_flow(uuid) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION locate_flow(uuid) TO discovery_api")


def _grants() -> None:
    for role, rights in GRANTS.items():
        op.execute(f"GRANT USAGE ON SCHEMA public TO {role}")
        op.execute(f"GRANT SELECT ON alembic_version TO {role}")
        for right, tables in rights.items():
            op.execute(f"GRANT {right} ON {', '.join(tables)} TO {role}")


def upgrade() -> None:
    op.create_table(
        "clusters",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clusters")),
    )
    op.create_table(
        "leader",
        sa.Column("cluster_id", sa.Uuid(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["cluster_id"], ["clusters.id"], name=op.f("fk_leader_cluster_id")),
        sa.PrimaryKeyConstraint("cluster_id", name=op.f("pk_leader")),
        sa.UniqueConstraint("cluster_id", "epoch", name=op.f("uq_leader_cluster_id_epoch")),
    )
    op.create_table(
        "tenants",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("cluster_id", sa.Uuid(), nullable=False),
        sa.Column("namespace", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["cluster_id"], ["clusters.id"], name=op.f("fk_tenants_cluster_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
    )
    op.create_index(op.f("ix_tenants_cluster_id"), "tenants", ["cluster_id"], unique=False)
    op.create_table(
        "artefacts",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("size", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("uploaded_by", sa.Uuid(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_artefacts_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_artefacts")),
        sa.UniqueConstraint("tenant_id", "digest", name=op.f("uq_artefacts_tenant_id_digest")),
    )
    op.create_table(
        "assets",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("engagement", sa.Text(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("asset_type", sa.Text(), nullable=False),
        sa.Column("fields", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("sources", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_assets_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "engagement", "identity", name=op.f("pk_assets")),
    )
    op.create_table(
        "mapping_memory",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("header", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=True),
        sa.Column("approved_by", sa.Text(), nullable=False),
        sa.Column("approved_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("flow_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_mapping_memory_tenant_id")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "header", name=op.f("pk_mapping_memory")),
    )
    op.create_table(
        "master_flows",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("flow_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), server_default="discovery", nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("engagement", sa.Text(), nullable=True),
        sa.Column("requested_by", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_master_flows_tenant_id")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "flow_id", name=op.f("pk_master_flows")),
        sa.UniqueConstraint("flow_id", name=op.f("uq_master_flows_flow_id")),
    )
    op.create_table(
        "artefact_chunks",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("artefact_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint(
            "octet_length(data) <= 1048576", name=op.f("ck_artefact_chunks_chunk_size")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "artefact_id"],
            ["artefacts.tenant_id", "artefacts.id"],
            name=op.f("fk_artefact_chunks_tenant_id_artefact_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "tenant_id", "artefact_id", "sequence", name=op.f("pk_artefact_chunks")
        ),
    )
    op.create_table(
        "discovery_flows",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("flow_id", sa.Uuid(), nullable=False),
        sa.Column("spec", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("round", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("resume_state", sa.Text(), nullable=True),
        sa.Column(
            "state_since",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), server_default="", nullable=False),
        sa.Column("answer_note", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "missing",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'::jsonb"),
            nullable=False,
        ),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("event_sequence", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("last_fence", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("source_digest", sa.Text(), nullable=True),
        sa.Column("target_schema_digest", sa.Text(), nullable=True),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "state IN ('Pending', 'Queued', 'Running', 'AwaitingApproval', 'Suspended', 'Waiting', 'Succeeded', 'Failed', 'Rejected', 'Cancelled')",
            name=op.f("ck_discovery_flows_state"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "flow_id"],
            ["master_flows.tenant_id", "master_flows.flow_id"],
            name=op.f("fk_discovery_flows_tenant_id_flow_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "flow_id", name=op.f("pk_discovery_flows")),
    )
    op.create_index("ix_discovery_flows_state", "discovery_flows", ["state"], unique=False)
    op.create_table(
        "flow_events",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("flow_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("trigger", sa.Text(), nullable=False),
        sa.Column("from_state", sa.Text(), nullable=True),
        sa.Column("to_state", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=True),
        sa.Column("round", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=True),
        sa.Column("message", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "details",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "flow_id"],
            ["discovery_flows.tenant_id", "discovery_flows.flow_id"],
            name=op.f("fk_flow_events_tenant_id_flow_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "flow_id", "sequence", name=op.f("pk_flow_events")),
    )
    op.create_table(
        "phase_runs",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("flow_id", sa.Uuid(), nullable=False),
        sa.Column("round", sa.BigInteger(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("counted", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("job_name", sa.Text(), nullable=False),
        sa.Column("job_uid", sa.Text(), nullable=True),
        sa.Column("pod_uid", sa.Text(), nullable=True),
        sa.Column("pod_name", sa.Text(), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("launched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("progress_done", sa.BigInteger(), nullable=True),
        sa.Column("progress_total", sa.BigInteger(), nullable=True),
        sa.Column("progress_message", sa.Text(), server_default="", nullable=False),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("usage", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint(
            "state IN ('Created', 'Launched', 'Running', 'Succeeded', 'Failed', 'Superseded')",
            name=op.f("ck_phase_runs_state"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "flow_id"],
            ["discovery_flows.tenant_id", "discovery_flows.flow_id"],
            name=op.f("fk_phase_runs_tenant_id_flow_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_phase_runs")),
        sa.UniqueConstraint(
            "tenant_id",
            "flow_id",
            "round",
            "phase",
            "attempt",
            name=op.f("uq_phase_runs_tenant_id_flow_id_round_phase_attempt"),
        ),
        sa.UniqueConstraint("tenant_id", "job_name", name=op.f("uq_phase_runs_tenant_id_job_name")),
    )
    op.create_index("ix_phase_runs_pod_uid", "phase_runs", ["tenant_id", "pod_uid"], unique=False)
    op.create_index(
        "uq_phase_runs_accepted",
        "phase_runs",
        ["tenant_id", "flow_id", "round", "phase"],
        unique=True,
        postgresql_where=sa.text("state = 'Succeeded'"),
    )
    op.create_index(
        "uq_phase_runs_live",
        "phase_runs",
        ["tenant_id", "flow_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('Created', 'Launched', 'Running')"),
    )
    op.create_table(
        "approval_requests",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("flow_id", sa.Uuid(), nullable=False),
        sa.Column("round", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("artefact_digest", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("policy", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("targets", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "opened_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reminders", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("decided_via", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "edits",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "problems",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'::jsonb"),
            nullable=False,
        ),
        sa.Column("approved_digest", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('Open', 'Approved', 'Rejected', 'Expired', 'Refused', 'Cancelled')",
            name=op.f("ck_approval_requests_state"),
        ),
        sa.CheckConstraint(
            "state NOT IN ('Approved', 'Rejected') OR decided_by IS NOT NULL",
            name=op.f("ck_approval_requests_attributable"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "flow_id"],
            ["discovery_flows.tenant_id", "discovery_flows.flow_id"],
            name=op.f("fk_approval_requests_tenant_id_flow_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "run_id"],
            ["phase_runs.tenant_id", "phase_runs.id"],
            name=op.f("fk_approval_requests_tenant_id_run_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_approval_requests")),
    )
    op.create_index(
        "uq_approval_requests_open",
        "approval_requests",
        ["tenant_id", "flow_id"],
        unique=True,
        postgresql_where=sa.text("state = 'Open'"),
    )
    op.create_table(
        "flow_artefacts",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("flow_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "digest"],
            ["artefacts.tenant_id", "artefacts.digest"],
            name=op.f("fk_flow_artefacts_tenant_id_digest"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "run_id"],
            ["phase_runs.tenant_id", "phase_runs.id"],
            name=op.f("fk_flow_artefacts_tenant_id_run_id"),
        ),
        sa.PrimaryKeyConstraint(
            "tenant_id", "flow_id", "run_id", "name", name=op.f("pk_flow_artefacts")
        ),
    )
    op.create_index(
        "ix_flow_artefacts_digest", "flow_artefacts", ["tenant_id", "digest"], unique=False
    )
    op.create_table(
        "records",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("row", sa.BigInteger(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("asset_type", sa.Text(), nullable=False),
        sa.Column("fields", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("originals", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("unmapped", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("problems", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "run_id"],
            ["phase_runs.tenant_id", "phase_runs.id"],
            name=op.f("fk_records_tenant_id_run_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "run_id", "row", name=op.f("pk_records")),
    )
    op.create_table(
        "field_mappings",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("source_column", sa.Text(), nullable=False),
        sa.Column("proposal", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("approved_target", sa.Text(), nullable=True),
        sa.Column("edited", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "request_id"],
            ["approval_requests.tenant_id", "approval_requests.id"],
            name=op.f("fk_field_mappings_tenant_id_request_id"),
        ),
        sa.PrimaryKeyConstraint(
            "tenant_id", "request_id", "position", name=op.f("pk_field_mappings")
        ),
        sa.UniqueConstraint(
            "tenant_id",
            "request_id",
            "source_column",
            name=op.f("uq_field_mappings_tenant_id_request_id_source_column"),
        ),
    )
    _row_level_security()
    _locate_flow()
    _grants()


def downgrade() -> None:
    op.execute("DROP FUNCTION locate_flow(uuid)")
    op.execute("DROP POLICY locate ON tenants")
    op.execute("DROP POLICY locate ON master_flows")
    for table in TENANT_TABLES:
        op.execute(f"DROP POLICY cluster ON {table}")
    op.execute("DROP POLICY cluster ON tenants")
    op.drop_table("field_mappings")
    op.drop_table("records")
    op.drop_index("ix_flow_artefacts_digest", table_name="flow_artefacts")
    op.drop_table("flow_artefacts")
    op.drop_index(
        "uq_approval_requests_open",
        table_name="approval_requests",
        postgresql_where=sa.text("state = 'Open'"),
    )
    op.drop_table("approval_requests")
    op.drop_index(
        "uq_phase_runs_live",
        table_name="phase_runs",
        postgresql_where=sa.text("state IN ('Created', 'Launched', 'Running')"),
    )
    op.drop_index(
        "uq_phase_runs_accepted",
        table_name="phase_runs",
        postgresql_where=sa.text("state = 'Succeeded'"),
    )
    op.drop_index("ix_phase_runs_pod_uid", table_name="phase_runs")
    op.drop_table("phase_runs")
    op.drop_table("flow_events")
    op.drop_index("ix_discovery_flows_state", table_name="discovery_flows")
    op.drop_table("discovery_flows")
    op.drop_table("artefact_chunks")
    op.drop_table("master_flows")
    op.drop_table("mapping_memory")
    op.drop_table("assets")
    op.drop_table("artefacts")
    op.drop_index(op.f("ix_tenants_cluster_id"), table_name="tenants")
    op.drop_table("tenants")
    op.drop_table("leader")
    op.drop_table("clusters")
