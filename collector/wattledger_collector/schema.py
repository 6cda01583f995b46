"""The tables of the ledger's database, as SQLAlchemy metadata.

Holds no query and opens no database. Tables are made by the migrations alone; a test compares the two. Energy is integer
microjoules, times are integer nanoseconds or, for intervals and dated rows, seconds since 1970-01-01 UTC.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

# The newest migration: what this program reads and writes.
REVISION: Final = "0010"

# An SQLite addition that passes 2^63 turns into a floating point number without a word; this check makes it an error.
_FITS_INT64 = "{} BETWEEN -9223372036854775807 AND 9223372036854775807"

metadata = MetaData()

database_info = Table(
    "database_info",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="one_row"), primary_key=True, autoincrement=False),
    Column("database_id", String, nullable=False),
    Column("interval_seconds", Integer, nullable=False),
    Column("created_utc_nanoseconds", BigInteger, nullable=False),
    # Raised with each change of assignments or closures, so that a collector knows when its copy of them is old.
    Column("assignments_revision", Integer, nullable=False),
)

hosts = Table(
    "host",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("host", String, nullable=False, unique=True),
    # A records.Host in msgpack; compared byte by byte.
    Column("packed", LargeBinary, nullable=False),
)

host_events = Table(
    "host_event",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("host", String, nullable=False, index=True),
    Column("at_utc_nanoseconds", BigInteger, nullable=False),
    Column("event", String, nullable=False),
    Column("detail", String, nullable=False),
)

cursors = Table(
    "epoch_cursor",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("host_id", Integer, ForeignKey("host.id"), nullable=False),
    Column("epoch", LargeBinary, nullable=False),
    Column("recorded", Boolean, nullable=False),
    # A records.Cursor in msgpack; compared byte by byte.
    Column("packed", LargeBinary, nullable=False),
    UniqueConstraint("host_id", "epoch"),
)

channels = Table(
    "channel",
    metadata,
    # cursor id x 2^32 + the channel's number in its epoch: rows of one host lie together, and no look-up is needed.
    # SQLite keeps a table in order of its key only where the type is called INTEGER, which holds 64 bits there.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("cursor_id", Integer, ForeignKey("epoch_cursor.id"), nullable=False),
    Column("channel", BigInteger, nullable=False),
    Column("device", String, nullable=False),
    Column("component", Integer, nullable=False),
    Column("domain", String, nullable=False),
    Column("source", String, nullable=False),
    Column("method", Integer, nullable=False),
    Column("role", Integer, nullable=False),
    Column("parent_channel", BigInteger, nullable=False),
    Column("opening_boot_id", LargeBinary, nullable=False),
    Column("opening_boottime_nanoseconds", BigInteger, nullable=False),
    Column("opening_realtime_nanoseconds", BigInteger, nullable=False),
    Column("opening_synchronised", Boolean, nullable=False),
    Column("closed", Boolean, nullable=False),
    Column("power_bound_milliwatts", BigInteger, nullable=False),
    Column("uncertainty_lower_ratio", Float, nullable=False),
    Column("uncertainty_upper_ratio", Float, nullable=False),
    Column("model", String, nullable=False),
)

# The key begins with the interval: all rows that are being added to lie in few pages, however long the history.
energy = Table(
    "energy",
    metadata,
    Column("interval_start_seconds", BigInteger, primary_key=True, autoincrement=False),
    Column("channel_id", BigInteger, ForeignKey("channel.id"), primary_key=True, autoincrement=False),
    Column("quality", Integer, primary_key=True, autoincrement=False),
    Column("edition", Integer, primary_key=True, autoincrement=False),
    Column("energy_microjoules", BigInteger, nullable=False),
    Column("covered_nanoseconds", BigInteger, nullable=False),
    CheckConstraint(_FITS_INT64.format("energy_microjoules"), name="energy_fits"),
    CheckConstraint(_FITS_INT64.format("covered_nanoseconds"), name="covered_fits"),
    sqlite_with_rowid=False,
)

rollups = Table(
    "rollup",
    metadata,
    Column("interval_start_seconds", BigInteger, primary_key=True, autoincrement=False),
    Column("site", String, primary_key=True),
    Column("component", Integer, primary_key=True, autoincrement=False),
    Column("quality", Integer, primary_key=True, autoincrement=False),
    Column("recorded", Boolean, primary_key=True, autoincrement=False),
    Column("edition", Integer, primary_key=True, autoincrement=False),
    Column("energy_microjoules", BigInteger, nullable=False),
    Column("covered_nanoseconds", BigInteger, nullable=False),
    CheckConstraint(_FITS_INT64.format("energy_microjoules"), name="rollup_energy_fits"),
    CheckConstraint(_FITS_INT64.format("covered_nanoseconds"), name="rollup_covered_fits"),
    sqlite_with_rowid=False,
)

utilization = Table(
    "utilization",
    metadata,
    Column("interval_start_seconds", BigInteger, primary_key=True, autoincrement=False),
    Column("host_id", Integer, ForeignKey("host.id"), primary_key=True, autoincrement=False),
    Column("device", String, primary_key=True),
    Column("kind", Integer, primary_key=True, autoincrement=False),
    Column("busy_nanoseconds", BigInteger, nullable=False),
    CheckConstraint(_FITS_INT64.format("busy_nanoseconds"), name="busy_fits"),
    sqlite_with_rowid=False,
)

gaps = Table(
    "gap",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("cursor_id", Integer, ForeignKey("epoch_cursor.id"), nullable=False, index=True),
    # 0: the whole host.
    Column("channel", BigInteger, nullable=False),
    Column("from_utc_nanoseconds", BigInteger, nullable=False),
    Column("to_utc_nanoseconds", BigInteger, nullable=False),
    Column("reason", String, nullable=False),
    Column("lower_microjoules", BigInteger, nullable=False),
    # NULL: unknown.
    Column("upper_microjoules", BigInteger),
    Index("gap_by_time", "from_utc_nanoseconds"),
)

evidence = Table(
    "evidence",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("cursor_id", Integer, ForeignKey("epoch_cursor.id"), nullable=False, index=True),
    Column("first_sequence", BigInteger, nullable=False),
    Column("last_sequence", BigInteger, nullable=False),
    Column("channel", BigInteger, nullable=False),
    Column("reason", String, nullable=False),
    Column("microjoules", BigInteger),
    Column("payload", LargeBinary, nullable=False),
)

sites = Table(
    "site",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("site", String, nullable=False),
    Column("valid_from_seconds", BigInteger, nullable=False),
    Column("zone", String),
    Column("pue", String, nullable=False),
    Column("assumed", Boolean, nullable=False),
    Column("recorded_at_seconds", BigInteger, nullable=False),
    # What a declared PUE rests on; empty: not stated.
    Column("pue_from", String, nullable=False, server_default=""),
    Column("pue_to", String, nullable=False, server_default=""),
    Column("pue_category", String, nullable=False, server_default=""),
    Column("pue_evidence", String, nullable=False, server_default=""),
)

assignments = Table(
    "assignment",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("host", String, nullable=False),
    Column("valid_from_seconds", BigInteger, nullable=False),
    Column("site", String, nullable=False),
    Column("recorded_at_seconds", BigInteger, nullable=False),
)

emission_bases = Table(
    "emission_basis",
    metadata,
    Column("site", String, primary_key=True),
    Column("interval_start_seconds", BigInteger, primary_key=True, autoincrement=False),
    Column("factor_grams_per_kwh", String, nullable=False),
    Column("factor", String, nullable=False),
    Column("pue", String, nullable=False),
    # Empty: as location based.
    Column("market_grams_per_kwh", String, nullable=False, server_default=""),
    Column("market_factor", String, nullable=False, server_default=""),
    # Of IT electricity and of overhead; empty: 2.
    Column("scope", String, nullable=False, server_default=""),
    Column("overhead_scope", String, nullable=False, server_default=""),
    # Empty: not kept.
    Column("factor_tier", String, nullable=False, server_default=""),
    sqlite_with_rowid=False,
)

# What tells the workloads of a host apart never changes in a row; workload_records.Workload says why.
workloads = Table(
    "workload",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("host_id", Integer, ForeignKey("host.id"), nullable=False),
    Column("recorded", Boolean, nullable=False),
    Column("kind", Integer, nullable=False),
    Column("namespace", String, nullable=False),
    # What its figures are shown under: a name, or the id.
    Column("shown", String, nullable=False),
    Column("idle_policy", Integer, nullable=False),
    # What names it on its host: pod uid, job id, unit.
    Column("workload", String, nullable=False),
    Column("name", String, nullable=False),
    # CPU time in its lifetime, and the time of the last sample that told of it.
    Column("cpu_nanoseconds", BigInteger, nullable=False),
    Column("last_seen_utc_nanoseconds", BigInteger, nullable=False),
    CheckConstraint(_FITS_INT64.format("cpu_nanoseconds"), name="workload_cpu_fits"),
    UniqueConstraint("host_id", "recorded", "kind", "namespace", "shown", "idle_policy", "workload", "name"),
    Index("workload_by_time", "host_id", "last_seen_utc_nanoseconds"),
)

workload_energy = Table(
    "workload_energy",
    metadata,
    Column("interval_start_seconds", BigInteger, primary_key=True, autoincrement=False),
    Column("workload_id", Integer, ForeignKey("workload.id"), primary_key=True, autoincrement=False),
    Column("component", Integer, primary_key=True, autoincrement=False),
    Column("method", Integer, primary_key=True, autoincrement=False),
    Column("energy_microjoules", BigInteger, nullable=False),
    CheckConstraint(_FITS_INT64.format("energy_microjoules"), name="workload_energy_fits"),
    sqlite_with_rowid=False,
)

workload_times = Table(
    "workload_time",
    metadata,
    Column("interval_start_seconds", BigInteger, primary_key=True, autoincrement=False),
    Column("workload_id", Integer, ForeignKey("workload.id"), primary_key=True, autoincrement=False),
    Column("cpu_nanoseconds", BigInteger, nullable=False),
    CheckConstraint(_FITS_INT64.format("cpu_nanoseconds"), name="workload_time_fits"),
    sqlite_with_rowid=False,
)

# Lifetime sums of workload_energy, so that counters are right after a restart without reading history.
workload_totals = Table(
    "workload_total",
    metadata,
    Column("workload_id", Integer, ForeignKey("workload.id"), primary_key=True, autoincrement=False),
    Column("component", Integer, primary_key=True, autoincrement=False),
    Column("method", Integer, primary_key=True, autoincrement=False),
    Column("energy_microjoules", BigInteger, nullable=False),
    CheckConstraint(_FITS_INT64.format("energy_microjoules"), name="workload_total_fits"),
    sqlite_with_rowid=False,
)

workload_cursors = Table(
    "workload_cursor",
    metadata,
    Column("cursor_id", Integer, ForeignKey("epoch_cursor.id"), primary_key=True, autoincrement=False),
    # A workload_records.WorkloadCursor in msgpack.
    Column("packed", LargeBinary, nullable=False),
)

# name: what is held; collector: who holds it; until_seconds: when it ends unless it is renewed.
leases = Table(
    "lease",
    metadata,
    Column("name", String, primary_key=True),
    Column("collector", String, nullable=False),
    Column("until_seconds", Float, nullable=False),
    sqlite_with_rowid=False,
)

# Where factors were read. sha256: of the very bytes, empty where they were not at hand.
factor_documents = Table(
    "factor_document",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("source", String, nullable=False),
    Column("document", String, nullable=False),
    Column("sha256", String, nullable=False),
    Column("licence", String, nullable=False),
    Column("attribution", String, nullable=False),
    Column("retrieved_at_seconds", BigInteger, nullable=False),
    UniqueConstraint("source", "document", "sha256", "licence", "attribution"),
)

# Rows are only added; factor_store.py says how a correction names what it supersedes.
factors = Table(
    "factor",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("document_id", Integer, ForeignKey("factor_document.id"), nullable=False),
    Column("zone", String, nullable=False),
    Column("name", String, nullable=False),
    Column("source", String, nullable=False),
    # A decimal with all its digits.
    Column("grams_per_kwh", String, nullable=False),
    Column("signal", String, nullable=False),
    Column("boundary", String, nullable=False),
    Column("gas", String, nullable=False),
    Column("basis", String, nullable=False),
    Column("gwp", String, nullable=False),
    Column("includes_td", Boolean, nullable=False),
    Column("valid_from_seconds", BigInteger, nullable=False),
    Column("valid_to_seconds", BigInteger, nullable=False),
    Column("published", String, nullable=False),
    # recorded: since when it counts as known; imported: when the row was written, which no import can choose.
    Column("recorded_at_seconds", BigInteger, nullable=False),
    Column("imported_at_seconds", BigInteger, nullable=False),
    Column("tier", String, nullable=False),
    # A factor's id; empty: the first of its key.
    Column("supersedes", String, nullable=False),
    Column("uncertainty_ratio", String),
    CheckConstraint("valid_from_seconds < valid_to_seconds", name="factor_has_a_span"),
    Index("factor_by_time", "zone", "source", "valid_from_seconds"),
)

# Raised with each change of factors, so that a collector knows when its copy of them is old.
factor_revisions = Table(
    "factor_revision",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="one_factor_revision"), primary_key=True, autoincrement=False),
    Column("revision", Integer, nullable=False),
)

# Energy of these intervals with an edition up to this one is frozen; site NULL: all of them. closures.py says which
# edition is open where.
closures = Table(
    "closure",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("from_seconds", BigInteger, nullable=False),
    Column("to_seconds", BigInteger, nullable=False),
    Column("site", String),
    Column("edition", Integer, nullable=False),
    Column("closed_at_seconds", BigInteger, nullable=False),
    CheckConstraint("from_seconds < to_seconds", name="closure_has_a_span"),
)

# canonical: the statement as it is hashed; gaps: the rows that it sums up, likewise. assignments_last_id: those known then.
# log_first: how many leaves the log had before; log_hashes: those of this statement, host-days first, 32 bytes each.
statements = Table(
    "statement",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("closure_id", Integer, ForeignKey("closure.id"), nullable=False),
    Column("sha256", String, nullable=False, unique=True),
    Column("canonical", LargeBinary, nullable=False),
    Column("gaps", LargeBinary, nullable=False),
    Column("assignments_last_id", Integer, nullable=False),
    Column("log_first", BigInteger, nullable=False),
    Column("log_hashes", LargeBinary, nullable=False),
)

# note: the checkpoint as it was signed. border: the roots of the log's complete subtrees at that size, largest first.
log_checkpoints = Table(
    "log_checkpoint",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("note", String, nullable=False),
    Column("border", LargeBinary, nullable=False),
)

# What time-stamping authorities answered (RFC 3161), as they sent it.
log_time_stamps = Table(
    "log_time_stamp",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("checkpoint_id", Integer, ForeignKey("log_checkpoint.id"), nullable=False),
    Column("answer", LargeBinary, nullable=False, unique=True),
)

# The public keys that checkpoints were signed with, in order.
log_keys = Table(
    "log_key",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("verifier_key", String, nullable=False, unique=True),
)

# What the salts of leaves are derived from, so that leaves can be made again and their salts not guessed.
leaf_secrets = Table(
    "leaf_secret",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="one_leaf_secret"), primary_key=True, autoincrement=False),
    Column("secret", LargeBinary, nullable=False),
)

# Series of other meters that were imported, each once; place: booked, beside or facility, as imports.py has them.
energy_imports = Table(
    "energy_import",
    metadata,
    Column("id", Integer, primary_key=True),
    # Names the file with all that was said of it.
    Column("digest", String, nullable=False, unique=True),
    Column("place", String, nullable=False),
    Column("host", String, nullable=False),
    Column("site", String, nullable=False),
    Column("component", Integer, nullable=False),
    Column("meter", String, nullable=False),
    Column("point", String, nullable=False),
    # A decimal; NULL: unstated.
    Column("uncertainty_ratio", String),
    Column("evidence", String, nullable=False),
    Column("file", String, nullable=False),
    Column("sha256", String, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("imported_at_seconds", BigInteger, nullable=False),
    Column("version", String, nullable=False),
    Column("form", String, nullable=False),
    Column("label", String, nullable=False),
    Column("time_zone", String, nullable=False),
    Column("value_column", String, nullable=False),
    Column("from_seconds", BigInteger, nullable=False),
    Column("to_seconds", BigInteger, nullable=False),
    # A whole number: a site's energy may pass 2^63.
    Column("energy_microjoules", String, nullable=False),
    Column("missing_seconds", BigInteger, nullable=False),
    # Those known then: by them the energy went to sites. NULL: an older program did not keep it.
    Column("assignments_last_id", Integer),
)

# Imports that count nowhere any more: what they had booked was undone by its opposite.
import_removals = Table(
    "import_removal",
    metadata,
    Column("import_id", Integer, ForeignKey("energy_import.id"), primary_key=True, autoincrement=False),
    Column("removed_at_seconds", BigInteger, nullable=False),
    Column("reason", String, nullable=False),
    # The digest of the import in its place; empty: none.
    Column("replacement", String, nullable=False),
    sqlite_with_rowid=False,
)

# Series that enter no sum of hosts: a site's meter, and meters beside energy that is booked already.
meter_energy = Table(
    "meter_energy",
    metadata,
    Column("import_id", Integer, ForeignKey("energy_import.id"), primary_key=True, autoincrement=False),
    Column("interval_start_seconds", BigInteger, primary_key=True, autoincrement=False),
    Column("quality", Integer, primary_key=True, autoincrement=False),
    Column("energy_microjoules", BigInteger, nullable=False),
    Column("covered_nanoseconds", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
