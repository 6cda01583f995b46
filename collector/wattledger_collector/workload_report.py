"""A report by workload or namespace: energy and emissions of a period, with the site's factor and PUE of each interval.

Reads the store and rounds nothing; `workload_report_output.py` shows it. What no workload has (residuals, hosts that do not
divide their energy) is told beside it, so that the parts and the site's energy can be compared. Sources of truth: the rows
of the store, `accounting.py` for the arithmetic.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

from wattledger_collector.accounting import BasisFinder, Emissions, SiteBasis, emissions, total_emissions
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factors import FactorKind
from wattledger_collector.fleet_sites import SitePlan
from wattledger_collector.records import Method, Store
from wattledger_collector.report import Period, check_site
from wattledger_collector.workload_records import HostWorkloadRow, IdlePolicy, WorkloadKind

By = Literal["workload", "namespace"]


class WorkloadGroup(NamedTuple):
    """What is summed in one line. kind None, workload empty: all workloads of the namespace.

    Idle, unattributed and other energy has lines of its own either way, as it is nobody's. Different idle policies and
    methods never share a line.
    """

    site: str
    kind: WorkloadKind | None
    namespace: str
    workload: str
    idle_policy: IdlePolicy
    method: Method
    recorded: bool


@dataclass(frozen=True, slots=True)
class WorkloadLine:
    """Energy and exact emissions of a group. uncovered_microjoules: the part without a factor, which has no emissions."""

    group: WorkloadGroup
    energy_microjoules: int
    emissions: dict[FactorKind, Emissions]
    uncovered_microjoules: int


@dataclass(frozen=True, slots=True)
class SiteWorkloads:
    """One site's lines, the largest first. energy_microjoules: all IT energy of the site, divided or not."""

    site: str
    energy_microjoules: int
    lines: tuple[WorkloadLine, ...]

    @property
    def divided_microjoules(self) -> int:
        """What was divided over workloads, idle and unattributed energy included."""
        return sum(line.energy_microjoules for line in self.lines)


@dataclass(frozen=True, slots=True)
class WorkloadReport:
    """A report by workload or namespace; provisional, since no period can be closed yet."""

    period: Period
    by: By
    made_at_seconds: int
    sites: tuple[SiteWorkloads, ...]


def make_workload_report(
    store: Store, catalog: FactorCatalog, period: Period, *, by: By, now_seconds: int, site: str | None = None
) -> WorkloadReport:
    """Reckon it. site: that one alone. Raises ReportError if the store has no such site."""
    rows = store.sites()
    check_site(rows, site)
    plan, finder = SitePlan(), BasisFinder(rows, catalog)
    plan.replace(rows, store.assignments())
    energies: dict[WorkloadGroup, int] = {}
    # Energy x seconds, in whole numbers: a basis may hold for a part of an interval.
    sums: dict[tuple[WorkloadGroup, SiteBasis], int] = {}
    # Rows come by interval, for which the finder is quick.
    for row in store.workload_energy(period.from_seconds, period.to_seconds):
        name = plan.site_of(row.host, row.interval_start_seconds)
        if site is None or name == site:
            group, begin = _group(name, row, by), row.interval_start_seconds
            energies[group] = energies.get(group, 0) + row.energy_microjoules
            for basis, seconds in finder.split(name, begin, begin + store.interval_seconds):
                sums[group, basis] = sums.get((group, basis), 0) + row.energy_microjoules * seconds
    parts: dict[WorkloadGroup, list[tuple[SiteBasis, Fraction]]] = {}
    for (group, basis), energy in sums.items():
        parts.setdefault(group, []).append((basis, Fraction(energy, store.interval_seconds)))
    whole: dict[str, int] = {}
    for rollup in store.rollups(period.from_seconds, period.to_seconds, site):
        whole[rollup.site] = whole.get(rollup.site, 0) + rollup.energy_microjoules
    lines = [_line(group, energies[group], each) for group, each in parts.items()]
    lines.sort(key=lambda line: (-line.energy_microjoules, str(line.group)))
    names = sorted(whole.keys() | {line.group.site for line in lines})
    sites = tuple(
        SiteWorkloads(name, whole.get(name, 0), tuple(line for line in lines if line.group.site == name)) for name in names
    )
    return WorkloadReport(period, by, now_seconds, sites)


def _group(site: str, row: HostWorkloadRow, by: By) -> WorkloadGroup:
    workload = row.workload
    is_single = by == "workload" or not workload.kind.is_named
    return WorkloadGroup(
        site=site,
        kind=workload.kind if is_single else None,
        namespace=workload.namespace,
        workload=workload.shown_name if is_single else "",
        idle_policy=workload.idle_policy,
        method=row.method,
        recorded=row.recorded,
    )


def _line(group: WorkloadGroup, energy_microjoules: int, parts: list[tuple[SiteBasis, Fraction]]) -> WorkloadLine:
    """Summing first and multiplying once for each basis is exact."""
    covered = [(energy, basis.factor, basis.pue) for basis, energy in parts]
    return WorkloadLine(
        group=group,
        energy_microjoules=energy_microjoules,
        emissions=total_emissions(
            emissions(energy, factor, pue) for energy, factor, pue in covered if factor is not None and pue is not None
        ),
        uncovered_microjoules=round(sum(energy for energy, factor, pue in covered if factor is None or pue is None)),
    )
