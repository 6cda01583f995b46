"""Freezes an edition: one transaction that bookings wait for, and after which they open the next one.

Reads no energy and writes no statement: what is frozen can be read at leisure, since nothing changes it any more. Source of
truth: the rows of `closure`.
"""

from sqlalchemy import select

from wattledger_collector import schema
from wattledger_collector.closures import Closure, next_edition
from wattledger_collector.store import SqliteStore, raise_revision


def freeze(store: SqliteStore, from_seconds: int, to_seconds: int, site: str | None, *, now_seconds: int) -> Closure:
    """Freeze all energy of the intervals that start in [from, to) as it is booked now. StoreError.

    site: whose statement is to be made of it; None: that of all.
    """
    table = schema.closures
    columns = (
        table.c.id,
        table.c.from_seconds,
        table.c.to_seconds,
        table.c.site,
        table.c.edition,
        table.c.closed_at_seconds,
    )
    # The lock to write is taken at the transaction's beginning. A booking committed before has its energy in the frozen
    # edition; one that comes after reads the raised revision first.
    with store.writing() as connection:
        before = [Closure(*row) for row in connection.execute(select(*columns))]
        edition = next_edition(before, from_seconds, to_seconds)
        inserted = connection.execute(
            table.insert().values(
                from_seconds=from_seconds,
                to_seconds=to_seconds,
                site=site,
                edition=edition,
                closed_at_seconds=now_seconds,
            )
        )
        raise_revision(connection)
        (closure,) = inserted.inserted_primary_key or (0,)
    return Closure(int(closure), from_seconds, to_seconds, site, edition, now_seconds)
