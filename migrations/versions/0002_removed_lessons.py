"""Lessons that people take back: marked, so that it stays known who did and when.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("mapping_memory", sa.Column("removed_at", sa.DateTime(timezone=True)))
    op.add_column("mapping_memory", sa.Column("removed_by", sa.Text()))
    # the one thing that the user API writes; what a lesson says stays out of its reach
    op.execute("GRANT UPDATE (removed_at, removed_by) ON mapping_memory TO discovery_api")


def downgrade() -> None:
    op.execute("REVOKE UPDATE (removed_at, removed_by) ON mapping_memory FROM discovery_api")
    op.drop_column("mapping_memory", "removed_by")
    op.drop_column("mapping_memory", "removed_at")
