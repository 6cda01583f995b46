"""The first schema.

A step once released is never edited: what changes later is a step of its own.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_FITS_INT64 = "{} BETWEEN -9223372036854775807 AND 9223372036854775807"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "database_info",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1", name="one_row"), primary_key=True, autoincrement=False),
        sa.Column("database_id", sa.String, nullable=False),
        sa.Column("interval_seconds", sa.Integer, nullable=False),
        sa.Column("created_utc_nanoseconds", sa.BigInteger, nullable=False),
        sa.Column("assignments_revision", sa.Integer, nullable=False),
    )
    op.create_table(
        "host",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("host", sa.String, nullable=False, unique=True),
        sa.Column("packed", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "host_event",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("host", sa.String, nullable=False, index=True),
        sa.Column("at_utc_nanoseconds", sa.BigInteger, nullable=False),
        sa.Column("event", sa.String, nullable=False),
        sa.Column("detail", sa.String, nullable=False),
    )
    op.create_table(
        "epoch_cursor",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("host_id", sa.Integer, sa.ForeignKey("host.id"), nullable=False),
        sa.Column("epoch", sa.LargeBinary, nullable=False),
        sa.Column("recorded", sa.Boolean, nullable=False),
        sa.Column("packed", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("host_id", "epoch"),
    )
    op.create_table(
        "channel",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
        sa.Column("cursor_id", sa.Integer, sa.ForeignKey("epoch_cursor.id"), nullable=False),
        sa.Column("channel", sa.BigInteger, nullable=False),
        sa.Column("device", sa.String, nullable=False),
        sa.Column("component", sa.Integer, nullable=False),
        sa.Column("domain", sa.String, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("method", sa.Integer, nullable=False),
        sa.Column("role", sa.Integer, nullable=False),
        sa.Column("parent_channel", sa.BigInteger, nullable=False),
        sa.Column("opening_boot_id", sa.LargeBinary, nullable=False),
        sa.Column("opening_boottime_nanoseconds", sa.BigInteger, nullable=False),
        sa.Column("opening_realtime_nanoseconds", sa.BigInteger, nullable=False),
        sa.Column("opening_synchronised", sa.Boolean, nullable=False),
        sa.Column("closed", sa.Boolean, nullable=False),
        sa.Column("power_bound_milliwatts", sa.BigInteger, nullable=False),
        sa.Column("uncertainty_lower_ratio", sa.Float, nullable=False),
        sa.Column("uncertainty_upper_ratio", sa.Float, nullable=False),
        sa.Column("model", sa.String, nullable=False),
    )
    op.create_table(
        "energy",
        sa.Column("interval_start_seconds", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("channel_id", sa.BigInteger, sa.ForeignKey("channel.id"), primary_key=True, autoincrement=False),
        sa.Column("quality", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("edition", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("energy_microjoules", sa.BigInteger, nullable=False),
        sa.Column("covered_nanoseconds", sa.BigInteger, nullable=False),
        sa.CheckConstraint(_FITS_INT64.format("energy_microjoules"), name="energy_fits"),
        sa.CheckConstraint(_FITS_INT64.format("covered_nanoseconds"), name="covered_fits"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rollup",
        sa.Column("interval_start_seconds", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("site", sa.String, primary_key=True),
        sa.Column("component", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("quality", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("recorded", sa.Boolean, primary_key=True, autoincrement=False),
        sa.Column("edition", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("energy_microjoules", sa.BigInteger, nullable=False),
        sa.Column("covered_nanoseconds", sa.BigInteger, nullable=False),
        sa.CheckConstraint(_FITS_INT64.format("energy_microjoules"), name="rollup_energy_fits"),
        sa.CheckConstraint(_FITS_INT64.format("covered_nanoseconds"), name="rollup_covered_fits"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "utilization",
        sa.Column("interval_start_seconds", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("host_id", sa.Integer, sa.ForeignKey("host.id"), primary_key=True, autoincrement=False),
        sa.Column("device", sa.String, primary_key=True),
        sa.Column("kind", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("busy_nanoseconds", sa.BigInteger, nullable=False),
        sa.CheckConstraint(_FITS_INT64.format("busy_nanoseconds"), name="busy_fits"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "gap",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("cursor_id", sa.Integer, sa.ForeignKey("epoch_cursor.id"), nullable=False, index=True),
        sa.Column("channel", sa.BigInteger, nullable=False),
        sa.Column("from_utc_nanoseconds", sa.BigInteger, nullable=False),
        sa.Column("to_utc_nanoseconds", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("lower_microjoules", sa.BigInteger, nullable=False),
        sa.Column("upper_microjoules", sa.BigInteger),
    )
    op.create_table(
        "evidence",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("cursor_id", sa.Integer, sa.ForeignKey("epoch_cursor.id"), nullable=False, index=True),
        sa.Column("first_sequence", sa.BigInteger, nullable=False),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
        sa.Column("channel", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("microjoules", sa.BigInteger),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "site",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("site", sa.String, nullable=False),
        sa.Column("valid_from_seconds", sa.BigInteger, nullable=False),
        sa.Column("zone", sa.String),
        sa.Column("pue", sa.String, nullable=False),
        sa.Column("assumed", sa.Boolean, nullable=False),
        sa.Column("recorded_at_seconds", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "assignment",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("valid_from_seconds", sa.BigInteger, nullable=False),
        sa.Column("site", sa.String, nullable=False),
        sa.Column("recorded_at_seconds", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "emission_basis",
        sa.Column("site", sa.String, primary_key=True),
        sa.Column("interval_start_seconds", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("factor_grams_per_kwh", sa.String, nullable=False),
        sa.Column("factor", sa.String, nullable=False),
        sa.Column("pue", sa.String, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("gap_by_time", "gap", ["from_utc_nanoseconds"])
