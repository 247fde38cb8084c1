"""Decisions about machines that share a key: whether they are the same.

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

TENANT = "nullif(current_setting('discovery.tenant_id', true), '')::uuid"
CLUSTER = "nullif(current_setting('discovery.cluster_id', true), '')::uuid"


def upgrade() -> None:
    op.create_table(
        "identity_decisions",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("engagement", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("machines", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("choice", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column(
            "decided_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "choice IN ('same', 'different')", name=op.f("ck_identity_decisions_choice")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_identity_decisions_tenant_id")
        ),
        sa.PrimaryKeyConstraint(
            "tenant_id", "engagement", "key", name=op.f("pk_identity_decisions")
        ),
    )
    op.execute("ALTER TABLE identity_decisions ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE identity_decisions FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON identity_decisions USING (tenant_id = {TENANT})")
    op.execute(
        "CREATE POLICY cluster ON identity_decisions TO discovery_operator USING "
        f"(tenant_id IN (SELECT id FROM tenants WHERE cluster_id = {CLUSTER}))"
    )
    op.execute("GRANT SELECT ON identity_decisions TO discovery_operator, discovery_execution")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON identity_decisions TO discovery_api")


def downgrade() -> None:
    op.drop_table("identity_decisions")
