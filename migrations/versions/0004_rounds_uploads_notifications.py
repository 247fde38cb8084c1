"""Rounds, target fields of requests, people's uploads, and the webhook's outbox.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = ("uploads", "notifications")
TENANT = "nullif(current_setting('discovery.tenant_id', true), '')::uuid"
CLUSTER = "nullif(current_setting('discovery.cluster_id', true), '')::uuid"
STATES = "'Open', 'Approved', 'Rejected', 'AskedAgain', 'Expired', 'Refused', 'Cancelled'"


def _json(name: str, default: str) -> sa.Column:
    return sa.Column(
        name,
        postgresql.JSONB(astext_type=sa.Text()),
        server_default=sa.text(f"'{default}'::jsonb"),
        nullable=False,
    )


def upgrade() -> None:
    op.add_column("discovery_flows", _json("round_info", "{}"))
    op.add_column("discovery_flows", _json("rerun_ids", "[]"))
    op.add_column("approval_requests", _json("fields", "[]"))
    op.drop_constraint(op.f("ck_approval_requests_state"), "approval_requests")
    op.create_check_constraint(
        op.f("ck_approval_requests_state"), "approval_requests", f"state IN ({STATES})"
    )
    op.drop_constraint(op.f("ck_approval_requests_attributable"), "approval_requests")
    op.create_check_constraint(
        op.f("ck_approval_requests_attributable"),
        "approval_requests",
        "state NOT IN ('Approved', 'Rejected', 'AskedAgain') OR decided_by IS NOT NULL",
    )
    _uploads()
    _notifications()
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {table} USING (tenant_id = {TENANT})")
        op.execute(
            f"CREATE POLICY cluster ON {table} TO discovery_operator USING "
            f"(tenant_id IN (SELECT id FROM tenants WHERE cluster_id = {CLUSTER}))"
        )
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON uploads TO discovery_api")
    op.execute("GRANT SELECT, DELETE ON uploads TO discovery_operator")
    op.execute("GRANT SELECT ON uploads TO discovery_execution")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON notifications TO discovery_operator")
    op.execute("GRANT INSERT ON notifications TO discovery_execution")
    op.execute("GRANT SELECT ON notifications TO discovery_api")
    # a person's upload
    op.execute(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON artefacts, artefact_chunks TO discovery_api"
    )
    # a new round takes an inventory back, which is derived anew
    op.execute("GRANT INSERT, UPDATE ON assets TO discovery_operator")
    _functions()


def _uploads() -> None:
    op.create_table(
        "uploads",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("uploaded_by", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_uploads_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_uploads")),
    )


def _notifications() -> None:
    op.create_table(
        "notifications",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("flow_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="Pending", nullable=False),
        sa.Column("tries", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "next_try",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("problem", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint(
            "state IN ('Pending', 'Delivered', 'Skipped', 'Failed')",
            name=op.f("ck_notifications_state"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "flow_id"],
            ["discovery_flows.tenant_id", "discovery_flows.flow_id"],
            name=op.f("fk_notifications_tenant_id_flow_id"),
        ),
        sa.PrimaryKeyConstraint(
            "tenant_id", "flow_id", "sequence", "kind", name=op.f("pk_notifications")
        ),
    )
    op.create_index(
        "ix_notifications_pending",
        "notifications",
        ["next_try"],
        postgresql_where=sa.text("state = 'Pending'"),
    )


def _functions() -> None:
    """What the user API may ask before it knows a tenant; Kubernetes authorises what it shows."""
    asked = "nullif(current_setting('discovery.asked', true), '')"
    op.execute(
        f"CREATE POLICY asked ON tenants FOR SELECT TO discovery_owner USING ({asked} IS NOT NULL)"
    )
    op.execute(
        "CREATE POLICY offered ON tenants FOR INSERT TO discovery_owner WITH CHECK "
        f"({asked} IS NOT NULL)"
    )
    op.execute(
        """
        CREATE FUNCTION known_namespaces() RETURNS SETOF text
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
        BEGIN
            PERFORM set_config('discovery.asked', 'namespaces', true);
            RETURN QUERY SELECT DISTINCT t.namespace FROM tenants t ORDER BY 1;
            PERFORM set_config('discovery.asked', '', true);
        END $$
        """
    )
    # a namespace whose first flow is about to be uploaded; null where the cluster is not clear
    op.execute(
        """
        CREATE FUNCTION offer_tenant(wanted uuid, named text, cluster uuid) RETURNS uuid
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
        DECLARE chosen uuid;
        BEGIN
            PERFORM set_config('discovery.asked', 'tenant', true);
            SELECT t.cluster_id INTO chosen FROM tenants t WHERE t.id = wanted;
            IF chosen IS NULL THEN
                chosen := coalesce(cluster, (SELECT min(c.id::text)::uuid FROM clusters c
                                             HAVING count(*) = 1));
                IF chosen IS NOT NULL THEN
                    INSERT INTO tenants (id, cluster_id, namespace) VALUES (wanted, chosen, named)
                    ON CONFLICT DO NOTHING;
                END IF;
            END IF;
            PERFORM set_config('discovery.asked', '', true);
            RETURN chosen;
        END $$
        """
    )
    for signature in ("known_namespaces()", "offer_tenant(uuid, text, uuid)"):
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO discovery_api")


def downgrade() -> None:
    op.execute("DROP FUNCTION known_namespaces()")
    op.execute("DROP FUNCTION offer_tenant(uuid, text, uuid)")
    op.execute("DROP POLICY asked ON tenants")
    op.execute("DROP POLICY offered ON tenants")
    op.execute("REVOKE INSERT, UPDATE ON assets FROM discovery_operator")
    op.execute("REVOKE INSERT, UPDATE, DELETE ON artefacts, artefact_chunks FROM discovery_api")
    for table in TABLES:
        op.drop_table(table)
    op.execute(
        "DELETE FROM field_mappings m USING approval_requests r WHERE r.id = m.request_id "
        "AND r.state = 'AskedAgain'"
    )
    op.execute("DELETE FROM approval_requests WHERE state = 'AskedAgain'")
    op.drop_constraint(op.f("ck_approval_requests_attributable"), "approval_requests")
    op.create_check_constraint(
        op.f("ck_approval_requests_attributable"),
        "approval_requests",
        "state NOT IN ('Approved', 'Rejected') OR decided_by IS NOT NULL",
    )
    op.drop_constraint(op.f("ck_approval_requests_state"), "approval_requests")
    op.create_check_constraint(
        op.f("ck_approval_requests_state"),
        "approval_requests",
        "state IN ('Open', 'Approved', 'Rejected', 'Expired', 'Refused', 'Cancelled')",
    )
    op.drop_column("approval_requests", "fields")
    op.drop_column("discovery_flows", "rerun_ids")
    op.drop_column("discovery_flows", "round_info")
