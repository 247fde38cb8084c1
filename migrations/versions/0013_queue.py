"""Indexes for a queue that nobody looks through, and for what has changed or expires.

Who may start next is the oldest of each tenant; the sweep reads what has changed lately, and which
requests expire soon.

Writers of a table wait while its index is built, which takes a second per million rows.

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

INDEXES = (
    (
        "ix_discovery_flows_queued",
        "discovery_flows",
        ["tenant_id", "state_since", "flow_id"],
        "state = 'Queued'",
    ),
    ("ix_discovery_flows_updated_at", "discovery_flows", ["updated_at"], None),
    ("ix_approval_requests_expiring", "approval_requests", ["expires_at"], "state = 'Open'"),
)


def upgrade() -> None:
    # each in a transaction of its own: others may hold the two tables' locks in either order
    with op.get_context().autocommit_block():
        for name, table, columns, condition in INDEXES:
            op.create_index(
                name,
                table,
                columns,
                postgresql_where=None if condition is None else sa.text(condition),
                if_not_exists=True,
            )


def downgrade() -> None:
    for name, table, _, _ in INDEXES:
        op.drop_index(name, table)
