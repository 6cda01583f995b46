"""Grid factors with the time in which they hold and the time since when they are known, and the documents they stand in.

A step once released is never edited: what changes later is a step of its own.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "factor_document",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("document", sa.String, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("licence", sa.String, nullable=False),
        sa.Column("attribution", sa.String, nullable=False),
        sa.Column("retrieved_at_seconds", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("source", "document", "sha256", "licence", "attribution"),
    )
    op.create_table(
        "factor",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("document_id", sa.Integer, sa.ForeignKey("factor_document.id"), nullable=False),
        sa.Column("zone", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("grams_per_kwh", sa.String, nullable=False),
        sa.Column("signal", sa.String, nullable=False),
        sa.Column("boundary", sa.String, nullable=False),
        sa.Column("gas", sa.String, nullable=False),
        sa.Column("basis", sa.String, nullable=False),
        sa.Column("gwp", sa.String, nullable=False),
        sa.Column("includes_td", sa.Boolean, nullable=False),
        sa.Column("valid_from_seconds", sa.BigInteger, nullable=False),
        sa.Column("valid_to_seconds", sa.BigInteger, nullable=False),
        sa.Column("published", sa.String, nullable=False),
        sa.Column("recorded_at_seconds", sa.BigInteger, nullable=False),
        sa.Column("imported_at_seconds", sa.BigInteger, nullable=False),
        sa.Column("tier", sa.String, nullable=False),
        sa.Column("supersedes", sa.String, nullable=False),
        sa.Column("uncertainty_ratio", sa.String),
        sa.CheckConstraint("valid_from_seconds < valid_to_seconds", name="factor_has_a_span"),
    )
    op.create_index("factor_by_time", "factor", ["zone", "source", "valid_from_seconds"])
    op.create_table(
        "factor_revision",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1", name="one_factor_revision"), primary_key=True,
                  autoincrement=False),
        sa.Column("revision", sa.Integer, nullable=False),
    )  # fmt: skip
    op.execute("INSERT INTO factor_revision VALUES (1, 0)")
