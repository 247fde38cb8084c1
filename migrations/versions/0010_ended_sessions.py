"""Browsers' sessions that were ended by signing out.

They belong to no tenant: a session is a person's, and each person has one row, a hash and two times.

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
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("begun", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("person", name=op.f("pk_ended_sessions")),
    )
    op.create_index("ix_ended_sessions_ends", "ended_sessions", ["ends"])
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ended_sessions TO discovery_api")


def downgrade() -> None:
    op.drop_table("ended_sessions")
