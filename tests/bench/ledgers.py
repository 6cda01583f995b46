"""Large ledgers for benchmarks, made by bulk load: the same rows as booking would leave, without the booking.

Measures nothing. The figures are made up, and differ by interval, host and channel, so that sums would show a slip.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

from wattledger_collector.records import AssignmentRow, Cursor, Host, HostState, SiteRow
from wattledger_collector.store import open_store

# 2026-01-01 UTC.
BEGIN_SECONDS = 1_767_225_600
DAY_SECONDS = 86_400
INTERVAL_SECONDS = 900
CHANNELS = 10
SITES = (("hall-north", "DE", "1.18"), ("hall-south", "FR", "1.31"), ("hall-west", "US-CAMX", "1.24"))
# Component and source by channel: two packages and their memory, four GPUs, the rest of the node, and an estimate.
_PARTS = ((1, "rapl"), (1, "rapl"), (2, "rapl"), (2, "rapl"), (3, "nvidia"), (3, "nvidia"), (3, "nvidia"), (3, "nvidia"),
          (5, "redfish"), (5, "redfish"))  # fmt: skip


def build_ledger(path: Path, hosts: int, days: int) -> int:
    """Make a ledger of `hosts` x ten channels x `days` of 15 minutes from 2026-01-01 on; returns its rows of energy."""
    store = open_store(path, create=True)
    store.add_sites([SiteRow(site, 0, zone, pue, False, BEGIN_SECONDS) for site, zone, pue in SITES])
    names = [f"server-{number:05d}" for number in range(1, hosts + 1)]
    store.add_assignments(
        [AssignmentRow(name, 0, SITES[place % len(SITES)][0], BEGIN_SECONDS) for place, name in enumerate(names)]
    )
    store.close()
    encode = msgspec.msgpack.encode
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        for number, name in enumerate(names, 1):
            epoch = number.to_bytes(16, "big")
            host = Host(name, 1, "m", HostState.RETIRED, {"hostname": name}, (), (), (epoch,), False, {}, "")
            connection.execute("INSERT INTO host VALUES (?, ?, ?)", (number, name, encode(host)))
            cursor = Cursor(name, epoch, 1, 1, False, "c", {})
            connection.execute("INSERT INTO epoch_cursor VALUES (?, ?, ?, 0, ?)", (number, number, epoch, encode(cursor)))
            for channel, (component, source) in enumerate(_PARTS, 1):
                values = (number << 32 | channel, number, channel, f"{source}/{channel}", component, "package", source, 1, 1)
                connection.execute(
                    f"INSERT INTO channel VALUES ({', '.join('?' * 9)}, 0, x'00', 0, 0, 1, 0, 1000000, 0.02, 0.03, '')",
                    values,
                )
        _insert_energy(connection, hosts, days)
        connection.execute("COMMIT")
        (rows,) = connection.execute("SELECT count(*) FROM energy").fetchone()
    return int(rows)


def _insert_energy(connection: sqlite3.Connection, hosts: int, days: int) -> None:
    end = BEGIN_SECONDS + days * DAY_SECONDS
    connection.execute(
        f"WITH RECURSIVE time (start) AS (SELECT {BEGIN_SECONDS} UNION ALL SELECT start + {INTERVAL_SECONDS} FROM time "
        f"WHERE start + {INTERVAL_SECONDS} < {end}), "
        f"machine (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM machine WHERE id < {hosts}), "
        f"part (channel) AS (SELECT 1 UNION ALL SELECT channel + 1 FROM part WHERE channel < {CHANNELS}) "
        "INSERT INTO energy SELECT start, id << 32 | channel, 1, 0, "
        "90000000000 + (start / 900 * 7919 + id * 104729 + channel * 1299709) % 40000000000, 900000000000 "
        "FROM time CROSS JOIN machine CROSS JOIN part"
    )
    connection.execute(
        "INSERT INTO rollup SELECT e.interval_start_seconds, a.site, n.component, e.quality, 0, 0, "
        "sum(e.energy_microjoules), sum(e.covered_nanoseconds) FROM energy AS e JOIN channel AS n ON n.id = e.channel_id "
        "JOIN host AS h ON h.id = n.cursor_id JOIN assignment AS a ON a.host = h.host GROUP BY 1, 2, 3"
    )
