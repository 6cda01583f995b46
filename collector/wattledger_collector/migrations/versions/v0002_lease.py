"""Leases, by which collectors on one database share out what only one of them may show.

A step once released is never edited: what changes later is a step of its own.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "lease",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("collector", sa.String, nullable=False),
        sa.Column("until_seconds", sa.Float, nullable=False),
        sqlite_with_rowid=False,
    )
