"""Imports that were taken back, and the time that imports have booked in the rows of their hosts.

A step once released is never edited: what changes later is a step of its own.
"""

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

# Fields of a host's row before this step.
_HOST_FIELDS = 12
_NANOSECONDS_PER_SECOND = 1_000_000_000


def upgrade() -> None:
    """Add table and column. A host's row is compared byte by byte, so that all of them get the new field."""
    op.add_column("energy_import", sa.Column("assignments_last_id", sa.Integer))
    op.create_table(
        "import_removal",
        sa.Column("import_id", sa.Integer, sa.ForeignKey("energy_import.id"), primary_key=True, autoincrement=False),
        sa.Column("removed_at_seconds", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("replacement", sa.String, nullable=False),
        sqlite_with_rowid=False,
    )
    connection = op.get_bind()
    for key, name, packed in connection.exec_driver_sql("SELECT id, host, packed FROM host").fetchall():
        fields = [*msgspec.msgpack.decode(packed), ""][:_HOST_FIELDS]
        fields.append(_imported_spans(connection, key, name))
        connection.exec_driver_sql("UPDATE host SET packed = ? WHERE id = ?", (msgspec.msgpack.encode(fields), key))


def _imported_spans(connection: sa.Connection, host_id: int, name: str) -> list[list[int]]:
    """[component or 0 for all, from, to] of what imports have booked, in order; those that touch made one."""
    spans: list[list[int]] = []
    for component, point, digest, from_seconds, to_seconds in connection.exec_driver_sql(
        "SELECT component, point, digest, from_seconds, to_seconds FROM energy_import WHERE host = ? AND place = 'booked'",
        (name,),
    ).fetchall():
        holes = connection.exec_driver_sql(
            "SELECT g.from_utc_nanoseconds, g.to_utc_nanoseconds FROM gap AS g JOIN epoch_cursor AS c ON c.id = g.cursor_id "
            "WHERE c.host_id = ? AND c.epoch = ? AND g.reason = 'missing_in_recording' ORDER BY 1",
            (host_id, bytes.fromhex(digest)[:16]),
        ).fetchall()
        kept, at = component if point == "component" else 0, from_seconds
        for start, end in holes:
            spans.append([kept, at, start // _NANOSECONDS_PER_SECOND])
            at = end // _NANOSECONDS_PER_SECOND
        spans.append([kept, at, to_seconds])
    merged: list[list[int]] = []
    for kept, start, end in sorted(spans):
        if merged and merged[-1][0] == kept and start <= merged[-1][2]:
            merged[-1][2] = max(merged[-1][2], end)
        elif start < end:
            merged.append([kept, start, end])
    return merged
