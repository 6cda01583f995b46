"""A report by workload or namespace: energy and emissions of a period, with the site's factor and PUE of each interval.

Reads the store and rounds nothing; `workload_report_output.py` shows it. What no workload has (residuals, hosts that do not
divide their energy) is told beside it, so that the parts and the site's energy can be compared. Sources of truth: the rows
of the store, `accounting.py` for the arithmetic.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Literal, NamedTuple

from wattledger_collector.accounting import BasisFinder, Emissions, SiteBasis, total_emissions
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factors import FactorKind
from wattledger_collector.fleet_sites import SitePlan
from wattledger_collector.pieces import basis_edges, cut_pieces
from wattledger_collector.records import MICROJOULES_PER_KWH, Method, Store
from wattledger_collector.report import Period, check_site
from wattledger_collector.workload_records import HostWorkload, IdlePolicy, WorkloadKind, WorkloadSum

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
    assignments = store.assignments()
    plan.replace(rows, assignments)
    # Pieces in which no host moves and no basis changes: what is read grows with the workloads, not with their rows.
    span = (period.from_seconds, period.to_seconds)
    edges = basis_edges(finder, {row.site for row in rows} if site is None else [site], *span)
    edges.update(row.valid_from_seconds for row in assignments)
    sums = _Sums(plan, finder, by, site, store.interval_seconds)
    for row in store.workload_sums(cut_pieces(*span, edges, store.interval_seconds)):
        sums.add(row)
    whole: dict[str, int] = {}
    for rollup in store.rollup_sums(cut_pieces(*span, (), store.interval_seconds), None if site is None else [site]):
        whole[rollup.site] = whole.get(rollup.site, 0) + rollup.energy_microjoules
    lines = sums.lines()
    lines.sort(key=lambda line: (-line.energy_microjoules, str(line.group)))
    names = sorted(whole.keys() | {line.group.site for line in lines})
    sites = tuple(
        SiteWorkloads(name, whole.get(name, 0), tuple(line for line in lines if line.group.site == name)) for name in names
    )
    return WorkloadReport(period, by, now_seconds, sites)


@dataclass(slots=True)
class _Sum:
    """Energy of a group, and energy x seconds by its basis' beginning, in whole numbers: a basis may hold for a part."""

    energy_microjoules: int = 0
    microjoule_seconds: dict[int, int] = field(default_factory=dict)


class _Sums:
    """Adds up sums of pieces by group and basis; of a site at one beginning there is one basis."""

    def __init__(self, plan: SitePlan, finder: BasisFinder, by: By, site: str | None, interval_seconds: int) -> None:
        self._plan = plan
        self._finder = finder
        self._by = by
        self._site = site
        self._interval_seconds = interval_seconds
        self._groups: dict[WorkloadGroup, _Sum] = {}
        self._bases: dict[tuple[str, int], SiteBasis] = {}
        # What is asked for again and again: of the latest piece, and of all.
        self._at_seconds = -1
        self._site_of_host: dict[str, str] = {}
        self._shares_of_site: dict[str, list[tuple[int, int]]] = {}
        self._sum_of: dict[tuple[HostWorkload, Method, str], _Sum] = {}

    def add(self, row: WorkloadSum) -> None:
        """Add one; pieces come in order of time."""
        if row.from_seconds != self._at_seconds:
            self._at_seconds = row.from_seconds
            self._site_of_host, self._shares_of_site = {}, {}
        host = row.source.host
        name = self._site_of_host.get(host)
        if name is None:
            name = self._site_of_host[host] = self._plan.site_of(host, row.from_seconds)
        if self._site is not None and name != self._site:
            return
        key = (row.source, row.method, name)
        total = self._sum_of.get(key)
        if total is None:
            total = self._sum_of[key] = self._groups.setdefault(_group(name, row, self._by), _Sum())
        total.energy_microjoules += row.energy_microjoules
        shares = total.microjoule_seconds
        for begin, seconds in self._shares(name):
            shares[begin] = shares.get(begin, 0) + row.energy_microjoules * seconds

    def _shares(self, site: str) -> list[tuple[int, int]]:
        """Bases of an interval of the latest piece, each with the seconds of it that it holds for."""
        shares = self._shares_of_site.get(site)
        if shares is None:
            at = self._at_seconds
            parts = self._finder.split(site, at, at + self._interval_seconds)
            self._bases.update(((site, basis.from_seconds), basis) for basis, _ in parts)
            shares = self._shares_of_site[site] = [(basis.from_seconds, seconds) for basis, seconds in parts]
        return shares

    def lines(self) -> list[WorkloadLine]:
        """A line for each group."""
        return [self._line(group, total) for group, total in self._groups.items()]

    def _line(self, group: WorkloadGroup, total: _Sum) -> WorkloadLine:
        """Summing first and multiplying once is exact; thousands of hours have a handful of denominators."""
        uncovered = 0
        by_denominator: dict[tuple[FactorKind, Decimal, int], int] = {}
        for begin, amount in total.microjoule_seconds.items():
            basis = self._bases[group.site, begin]
            if basis.factor is None or basis.pue is None:
                uncovered += amount
                continue
            numerator, denominator = basis.factor.value.as_integer_ratio()
            key = (basis.factor.kind, basis.pue, denominator)
            by_denominator[key] = by_denominator.get(key, 0) + amount * numerator
        unit = MICROJOULES_PER_KWH * self._interval_seconds
        return WorkloadLine(
            group=group,
            energy_microjoules=total.energy_microjoules,
            emissions=total_emissions(
                Emissions(Fraction(amount, denominator * unit) * Fraction(pue), kind)
                for (kind, pue, denominator), amount in by_denominator.items()
            ),
            uncovered_microjoules=round(Fraction(uncovered, self._interval_seconds)),
        )


def _group(site: str, row: WorkloadSum, by: By) -> WorkloadGroup:
    workload = row.source.workload
    is_single = by == "workload" or not workload.kind.is_named
    return WorkloadGroup(
        site=site,
        kind=workload.kind if is_single else None,
        namespace=workload.namespace,
        workload=workload.shown_name if is_single else "",
        idle_policy=workload.idle_policy,
        method=row.method,
        recorded=row.source.recorded,
    )
