"""Workloads: who they are, their energy and CPU time by interval, lifetime totals, and how far each epoch's are committed.

A step once released is never edited: what changes later is a step of its own.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_FITS_INT64 = "{} BETWEEN -9223372036854775807 AND 9223372036854775807"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "workload",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("host_id", sa.Integer, sa.ForeignKey("host.id"), nullable=False),
        sa.Column("recorded", sa.Boolean, nullable=False),
        sa.Column("kind", sa.Integer, nullable=False),
        sa.Column("namespace", sa.String, nullable=False),
        sa.Column("shown", sa.String, nullable=False),
        sa.Column("idle_policy", sa.Integer, nullable=False),
        sa.Column("workload", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("cpu_nanoseconds", sa.BigInteger, nullable=False),
        sa.Column("last_seen_utc_nanoseconds", sa.BigInteger, nullable=False),
        sa.CheckConstraint(_FITS_INT64.format("cpu_nanoseconds"), name="workload_cpu_fits"),
        sa.UniqueConstraint("host_id", "recorded", "kind", "namespace", "shown", "idle_policy", "workload", "name"),
    )
    op.create_table(
        "workload_energy",
        sa.Column("interval_start_seconds", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("workload_id", sa.Integer, sa.ForeignKey("workload.id"), primary_key=True, autoincrement=False),
        sa.Column("component", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("method", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("energy_microjoules", sa.BigInteger, nullable=False),
        sa.CheckConstraint(_FITS_INT64.format("energy_microjoules"), name="workload_energy_fits"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "workload_time",
        sa.Column("interval_start_seconds", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("workload_id", sa.Integer, sa.ForeignKey("workload.id"), primary_key=True, autoincrement=False),
        sa.Column("cpu_nanoseconds", sa.BigInteger, nullable=False),
        sa.CheckConstraint(_FITS_INT64.format("cpu_nanoseconds"), name="workload_time_fits"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "workload_total",
        sa.Column("workload_id", sa.Integer, sa.ForeignKey("workload.id"), primary_key=True, autoincrement=False),
        sa.Column("component", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("method", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("energy_microjoules", sa.BigInteger, nullable=False),
        sa.CheckConstraint(_FITS_INT64.format("energy_microjoules"), name="workload_total_fits"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "workload_cursor",
        sa.Column("cursor_id", sa.Integer, sa.ForeignKey("epoch_cursor.id"), primary_key=True, autoincrement=False),
        sa.Column("packed", sa.LargeBinary, nullable=False),
    )
    op.create_index("workload_by_time", "workload", ["host_id", "last_seen_utc_nanoseconds"])
