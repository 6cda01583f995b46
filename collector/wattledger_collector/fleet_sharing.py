"""Keeps a fleet view right where several collectors share a database: one of them shows the sites, each host is shown once.

Holds no lease of its own and no figure: lease.py has the rows, the view the figures. Wall time is an argument; the clock is
only for how long reading took.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from wattledger_collector.fleet import FleetView
from wattledger_collector.lease import NO_STANDING, read_snapshot, release, renew
from wattledger_collector.store import SqliteStore

# Reading all totals takes about a second for each year of a large fleet, and bookings are counted after it. It takes at
# most a twentieth of the time.
_PAUSE_RATIO: Final = 20.0


class FleetSharing:
    """One collector's part in it. `start` before the view is loaded, then `renew` every lease.RENEWAL_SECONDS."""

    def __init__(self, view: FleetView, store: SqliteStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._view = view
        self._store = store
        self._clock = clock
        self._next_whole = 0.0
        # Whether another collector may have booked since all was read.
        self._is_behind = False
        view.set_standing(NO_STANDING)

    def start(self, now_seconds: float) -> None:
        """Take the lease if it is free; what the view shows is read after this. StoreError."""
        standing = renew(self._store, self._view.collector, now_seconds)
        self._is_behind = bool(standing.collectors - {self._view.collector})
        self._view.set_standing(standing)

    def renew(self, now_seconds: float) -> None:
        """Take or keep the lease, and read what other collectors did. StoreError: the lease ends if that lasts."""
        view = self._view
        standing = renew(self._store, view.collector, now_seconds)
        others = standing.collectors - {view.collector}
        is_gained = standing.is_site_exposer and not view.is_site_exposer(now_seconds)
        is_owed = self._is_behind and self._clock() >= self._next_whole
        self._is_behind = self._is_behind or bool(others)
        # Before it is shown: totals of a collector that did not show them lack what others have booked.
        whole = is_gained or (standing.is_site_exposer and is_owed)
        if others or whole:
            started = self._clock()
            view.refresh(partial(read_snapshot, self._store.path), now_seconds, whole=whole)
            if whole:
                self._is_behind = bool(others)
                self._next_whole = self._clock() + _PAUSE_RATIO * (self._clock() - started)
        view.set_standing(standing)

    def stop(self) -> None:
        """Give the lease back; another collector takes it at its next renewal. StoreError."""
        self._view.set_standing(NO_STANDING)
        release(self._store, self._view.collector)
