"""Browsers' sessions that were ended by signing out.

They belong to no tenant: a session is a person's, and its row is a hash and a time.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ended_sessions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("ends", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ended_sessions")),
    )
    op.create_index("ix_ended_sessions_ends", "ended_sessions", ["ends"])
    op.execute("GRANT SELECT, INSERT, DELETE ON ended_sessions TO discovery_api")


def downgrade() -> None:
    op.drop_table("ended_sessions")
