"""Why an asset is what it is: keys, conversions and class of rows; confidence and reason of assets.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TENANT = "nullif(current_setting('discovery.tenant_id', true), '')::uuid"
CLUSTER = "nullif(current_setting('discovery.cluster_id', true), '')::uuid"
JSONB = postgresql.JSONB(astext_type=sa.Text())


def upgrade() -> None:
    op.add_column("records", sa.Column("class_rule", sa.Text(), nullable=True))
    op.add_column("records", sa.Column("identity_confidence", sa.Double(), nullable=True))
    for name, default in (("keys", "[]"), ("conversions", "{}")):
        empty = sa.text(f"'{default}'::jsonb")
        op.add_column("records", sa.Column(name, JSONB, server_default=empty, nullable=False))
    op.add_column("assets", sa.Column("class_rule", sa.Text(), nullable=True))
    op.add_column("assets", sa.Column("identity_confidence", sa.Double(), nullable=True))
    op.add_column("assets", sa.Column("identity_reason", sa.Text(), nullable=True))
    op.create_table(
        "asset_aliases",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("engagement", sa.Text(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("strength", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_asset_aliases_tenant_id")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "engagement", "identity", name="pk_asset_aliases"),
    )
    op.execute("ALTER TABLE asset_aliases ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE asset_aliases FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON asset_aliases USING (tenant_id = {TENANT})")
    op.execute(
        "CREATE POLICY cluster ON asset_aliases TO discovery_operator USING "
        f"(tenant_id IN (SELECT id FROM tenants WHERE cluster_id = {CLUSTER}))"
    )
    op.execute(
        "GRANT SELECT, INSERT, DELETE ON asset_aliases "
        "TO discovery_api, discovery_execution, discovery_operator"
    )


def downgrade() -> None:
    op.drop_table("asset_aliases")
    for name in ("identity_reason", "identity_confidence", "class_rule"):
        op.drop_column("assets", name)
    for name in ("conversions", "keys", "identity_confidence", "class_rule"):
        op.drop_column("records", name)
