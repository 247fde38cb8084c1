"""Indexes for what the operator asks again and again, so that it does not read what has ended.

When attempts ended (their tokens are counted every 15 s), and since when flows are as they are
(those whose retention is over are looked for every 10 s).

Writers of a table wait while its index is built, which takes a second per million rows. Building
beside them would spare that, and leave an invalid index behind where the migration is stopped.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # each in a transaction of its own: others may hold the two tables' locks in either order
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_phase_runs_finished_at",
            "phase_runs",
            ["finished_at"],
            postgresql_where=sa.text("usage IS NOT NULL"),
            if_not_exists=True,
        )
        op.create_index(
            "ix_discovery_flows_state_since",
            "discovery_flows",
            ["state_since"],
            postgresql_where=sa.text("purged_at IS NULL"),
            if_not_exists=True,
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(
            "ix_discovery_flows_state_since", table_name="discovery_flows", if_exists=True
        )
        op.drop_index("ix_phase_runs_finished_at", table_name="phase_runs", if_exists=True)
