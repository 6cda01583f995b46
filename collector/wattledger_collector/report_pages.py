"""Gathers what a report's page shows, and writes it into a file.

Reckons nothing. Source of truth: the ledger, by `report.py`, `report_figures.py`, `report_uncertainty.py` and
`workload_report.py`.
"""

import os
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path

from wattledger_collector.books import Equivalence
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.html_parts import Page
from wattledger_collector.progress import Work
from wattledger_collector.report import Period, Report, ReportError, make_report
from wattledger_collector.report_figures import days_of
from wattledger_collector.report_uncertainty import intervals_of, market_intervals_of, sensors_of
from wattledger_collector.store import SqliteStore
from wattledger_collector.workload_report import make_workload_report

# The constants of the two published years that come with Wattledger, here told by the single car.
CARS = Equivalence(
    unit="cars driven for a year",
    kilometres=Decimal(12_000),
    kilograms_per_kilometre=Decimal("0.203"),
    step=1,
    evidence="12,000 km a year and 0.203 kg CO2e/km, 2.436 t a car, as in the published years that come with Wattledger",
)


def make_page(store: SqliteStore, catalog: FactorCatalog, report: Report, *, site: str | None, work: Work) -> Page:
    """All that the page of a report shows. Raises ReportError and StoreError."""
    period = report.period
    sensors = work.do("sensors", lambda: sensors_of(store, period.from_seconds))
    return Page(
        report=replace(report, market_intervals=market_intervals_of(report, sensors)),
        days=work.do("days", lambda: days_of(report, store, catalog, site)),
        intervals=intervals_of(report, sensors),
        sensors=sensors,
        workloads=work.do(
            "workloads",
            lambda: make_workload_report(
                store, catalog, period, by="workload", now_seconds=report.made_at_seconds, site=site
            ),
        ),
        before=work.do("the year before", lambda: _year_before(store, catalog, report, site)),
        equivalences=(CARS,),
        version=version("wattledger"),
    )


def _year_before(store: SqliteStore, catalog: FactorCatalog, report: Report, site: str | None) -> Report | None:
    """The same civil period a year earlier; None if nothing was booked in it."""
    period = report.period
    begin, end = (_year_earlier(seconds, period) for seconds in (period.from_seconds, period.to_seconds))
    if begin < 0 or end <= begin or begin % store.interval_seconds or end % store.interval_seconds:
        return None
    earlier = Period(begin, end, period.time_zone)
    made = make_report(store, catalog, earlier, now_seconds=report.made_at_seconds, site=site)
    return made if any(reported.lines for reported in made.sites) else None


def _year_earlier(seconds: int, period: Period) -> int:
    local = datetime.fromtimestamp(seconds, period.time_zone)
    # A 29 February has the 1 March of the year before as the first instant after its 28.
    day = local.replace(year=local.year - 1, month=3, day=1) if (local.month, local.day) == (2, 29) else local
    return int(day.replace(year=local.year - 1).astimezone(UTC).timestamp())


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all. Raises ReportError."""
    try:
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise ReportError(f"cannot write {path}: {error.strerror}; name a file in a folder that you may write to") from error
