"""Says in words how whole a report is, and what a site's own meter measured.

Reckons nothing but the rounding. Source of truth: `report.py`; the names of a PUE are those of `facility.py`.
"""

from fractions import Fraction

from wattledger_collector.declared_pue import CATEGORY_WORDS
from wattledger_collector.facility import MeasuredPue, Pue
from wattledger_collector.records import MICROJOULES_PER_KWH, NANOSECONDS_PER_SECOND
from wattledger_collector.report import Report, ReportError
from wattledger_collector.rounding import kwh, rounded


def require_complete(report: Report) -> None:
    """Raise ReportError unless nothing is missing in the period."""
    word, why = completeness(report)
    if word != "complete":
        raise ReportError(f"the report is {word}: {why}; leave out --complete to see what is missing")


def completeness(report: Report) -> tuple[str, str]:
    """`complete` only where all channel time has a figure, all energy a factor and no host is silent; else `partial`."""
    covered = sum(site.covered_nanoseconds for site in report.sites)
    missing = sum(site.missing_nanoseconds for site in report.sites)
    bare = sum(site.uncovered_microjoules for site in report.sites)
    silent = sum(len(site.silent) for site in report.sites)
    whole = covered + missing
    hours = f"{hours_text(covered)} of {hours_text(whole)} h of channel time have a figure"
    if not whole:
        return "partial", "nothing was metered"
    told = [hours]
    if bare:
        told.append(f"{_kwh_text(bare)} kWh have no factor")
    if silent:
        told.append(f"{silent} host{'' if silent == 1 else 's'} silent")
    return ("partial" if missing or bare or silent else "complete"), "; ".join(told)


def hours_text(nanoseconds: int) -> str:
    """Hours of some nanoseconds, without useless digits."""
    text = rounded(Fraction(nanoseconds, 3600 * NANOSECONDS_PER_SECOND), 3)
    return text.rstrip("0").rstrip(".")


def pue_figure(pue: Pue) -> str:
    """`1.31 (interim)`: two digits, and what it is if it is not of a whole year of a whole site."""
    extra = pue.name.removesuffix("PUE").removesuffix("p").strip()
    return f"{rounded(pue.ratio, 2)}{f' ({extra})' if extra else ''}"


def measured_sentence(measured: MeasuredPue) -> str:
    """What a site's own meter says, for people."""
    meters = ", ".join(measured.meters)
    if measured.pue is None:
        return f"Site {measured.site} has a meter of its own ({meters}), and no PUE: {measured.reason}."
    return (
        f"PUE of {measured.site} measured {pue_figure(measured.pue)}: the meter {meters} counted "
        f"{_kwh_text(measured.facility_microjoules)} kWh while the IT used {_kwh_text(measured.it_microjoules)} kWh, in "
        f"{hours_text(measured.measured_seconds * NANOSECONDS_PER_SECOND)} h, category {int(measured.pue.category)} "
        f"({CATEGORY_WORDS[measured.pue.category]}). Emissions are reckoned with the declared PUE."
    )


def _kwh_text(microjoules: int) -> str:
    return rounded(kwh(microjoules), 3 if abs(microjoules) >= MICROJOULES_PER_KWH else 6)
