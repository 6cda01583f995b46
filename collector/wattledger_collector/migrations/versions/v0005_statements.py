"""Closed periods, their statements, and the log that the statements are leaves of.

A step once released is never edited: what changes later is a step of its own.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "closure",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("from_seconds", sa.BigInteger, nullable=False),
        sa.Column("to_seconds", sa.BigInteger, nullable=False),
        sa.Column("site", sa.String),
        sa.Column("edition", sa.Integer, nullable=False),
        sa.Column("closed_at_seconds", sa.BigInteger, nullable=False),
        sa.CheckConstraint("from_seconds < to_seconds", name="closure_has_a_span"),
    )
    op.create_table(
        "statement",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("closure_id", sa.Integer, sa.ForeignKey("closure.id"), nullable=False),
        sa.Column("sha256", sa.String, nullable=False, unique=True),
        sa.Column("canonical", sa.LargeBinary, nullable=False),
        sa.Column("gaps", sa.LargeBinary, nullable=False),
        sa.Column("assignments_last_id", sa.Integer, nullable=False),
        sa.Column("log_first", sa.BigInteger, nullable=False),
        sa.Column("log_hashes", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "log_checkpoint",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("note", sa.String, nullable=False),
        sa.Column("border", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "log_key",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("verifier_key", sa.String, nullable=False, unique=True),
    )
    op.create_table(
        "leaf_secret",
        sa.Column(
            "id", sa.Integer, sa.CheckConstraint("id = 1", name="one_leaf_secret"), primary_key=True, autoincrement=False
        ),
        sa.Column("secret", sa.LargeBinary, nullable=False),
    )
