"""Series of other meters: where they come from, and the energy of those that are kept beside the ledger.

A step once released is never edited: what changes later is a step of its own.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "energy_import",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("digest", sa.String, nullable=False, unique=True),
        sa.Column("place", sa.String, nullable=False),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("site", sa.String, nullable=False),
        sa.Column("component", sa.Integer, nullable=False),
        sa.Column("meter", sa.String, nullable=False),
        sa.Column("point", sa.String, nullable=False),
        sa.Column("uncertainty_ratio", sa.String),
        sa.Column("evidence", sa.String, nullable=False),
        sa.Column("file", sa.String, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("imported_at_seconds", sa.BigInteger, nullable=False),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("form", sa.String, nullable=False),
        sa.Column("label", sa.String, nullable=False),
        sa.Column("time_zone", sa.String, nullable=False),
        sa.Column("value_column", sa.String, nullable=False),
        sa.Column("from_seconds", sa.BigInteger, nullable=False),
        sa.Column("to_seconds", sa.BigInteger, nullable=False),
        sa.Column("energy_microjoules", sa.String, nullable=False),
        sa.Column("missing_seconds", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "meter_energy",
        sa.Column("import_id", sa.Integer, sa.ForeignKey("energy_import.id"), primary_key=True, autoincrement=False),
        sa.Column("interval_start_seconds", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("quality", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("energy_microjoules", sa.BigInteger, nullable=False),
        sa.Column("covered_nanoseconds", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
