"""Circuit breakers, and which endpoint an attempt asks or why it asks none.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TENANT = "nullif(current_setting('discovery.tenant_id', true), '')::uuid"
CLUSTER = "nullif(current_setting('discovery.cluster_id', true), '')::uuid"


def upgrade() -> None:
    op.add_column("phase_runs", sa.Column("llm_endpoint", sa.Text(), nullable=True))
    op.add_column(
        "phase_runs", sa.Column("llm_fallback", sa.Text(), server_default="", nullable=False)
    )
    time = sa.DateTime(timezone=True)
    op.create_table(
        "circuit_breakers",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="Closed", nullable=False),
        sa.Column("failures", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("openings", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("last_code", sa.Text(), server_default="", nullable=False),
        sa.Column("opened_at", time, nullable=True),
        sa.Column("retry_at", time, nullable=True),
        sa.Column("probe_run_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint(
            "state IN ('Closed', 'Open', 'HalfOpen')", name=op.f("ck_circuit_breakers_state")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_circuit_breakers_tenant_id")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "endpoint", name=op.f("pk_circuit_breakers")),
    )
    op.execute("ALTER TABLE circuit_breakers ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE circuit_breakers FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON circuit_breakers USING (tenant_id = {TENANT})")
    op.execute(
        "CREATE POLICY cluster ON circuit_breakers TO discovery_operator USING "
        f"(tenant_id IN (SELECT id FROM tenants WHERE cluster_id = {CLUSTER}))"
    )
    op.execute("GRANT SELECT, INSERT, UPDATE ON circuit_breakers TO discovery_execution")
    op.execute("GRANT SELECT, UPDATE, DELETE ON circuit_breakers TO discovery_operator")


def downgrade() -> None:
    op.drop_table("circuit_breakers")
    op.drop_column("phase_runs", "llm_fallback")
    op.drop_column("phase_runs", "llm_endpoint")
