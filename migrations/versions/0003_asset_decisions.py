"""Decisions about fields that sources disagree on, and whose values count first.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = ("asset_decisions", "source_precedence")
TENANT = "nullif(current_setting('discovery.tenant_id', true), '')::uuid"
CLUSTER = "nullif(current_setting('discovery.cluster_id', true), '')::uuid"


def upgrade() -> None:
    op.create_table(
        "asset_decisions",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("engagement", sa.Text(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("choice", sa.Text(), nullable=False),
        sa.Column("value", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column(
            "decided_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "choice IN ('keep', 'replace', 'merge')", name=op.f("ck_asset_decisions_choice")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_asset_decisions_tenant_id")
        ),
        sa.PrimaryKeyConstraint(
            "tenant_id", "engagement", "identity", "field", name=op.f("pk_asset_decisions")
        ),
    )
    op.create_table(
        "source_precedence",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("engagement", sa.Text(), nullable=False),
        sa.Column("flow", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_source_precedence_tenant_id")
        ),
        sa.PrimaryKeyConstraint(
            "tenant_id", "engagement", "flow", name=op.f("pk_source_precedence")
        ),
    )
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {table} USING (tenant_id = {TENANT})")
        op.execute(
            f"CREATE POLICY cluster ON {table} TO discovery_operator USING "
            f"(tenant_id IN (SELECT id FROM tenants WHERE cluster_id = {CLUSTER}))"
        )
        op.execute(f"GRANT SELECT ON {table} TO discovery_operator, discovery_execution")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO discovery_api")
    # the inventory is derived, and whoever accepts a result or takes a decision derives it anew
    op.execute("GRANT UPDATE ON assets TO discovery_execution")
    op.execute("GRANT INSERT, UPDATE, DELETE ON assets TO discovery_api")


def downgrade() -> None:
    op.execute("REVOKE INSERT, UPDATE, DELETE ON assets FROM discovery_api")
    op.execute("REVOKE UPDATE ON assets FROM discovery_execution")
    for table in TABLES:
        op.drop_table(table)
