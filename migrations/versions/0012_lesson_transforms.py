"""A lesson keeps how a column's values were read: their unit, and how they write decimals.

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("mapping_memory", sa.Column("transform", sa.Text(), nullable=True))
