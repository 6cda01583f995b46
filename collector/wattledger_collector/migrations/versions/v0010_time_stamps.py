"""Time stamps of the log's checkpoints.

A step once released is never edited: what changes later is a step of its own.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "log_time_stamp",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("checkpoint_id", sa.Integer, sa.ForeignKey("log_checkpoint.id"), nullable=False),
        sa.Column("answer", sa.LargeBinary, nullable=False, unique=True),
    )
