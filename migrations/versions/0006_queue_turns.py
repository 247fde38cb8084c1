"""When a tenant was last served, read from an index: the queue hands slots out in turn.

Revision ID: 0006
Revises: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_phase_runs_created_at", "phase_runs", ["tenant_id", "created_at"])


def downgrade() -> None:
    op.drop_index("ix_phase_runs_created_at", table_name="phase_runs")
