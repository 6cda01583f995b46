"""Sums of workloads by pieces: what each interval's rows give, to the last digit, and few statements."""

from contextlib import closing
from dataclasses import replace
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st
from tests.bench.bulk import BEGIN_SECONDS, INTERVAL_SECONDS, WORKLOADS, Fleet, build_ledger
from tests.collector.fake_store import FakeStore

from wattledger_collector.accounting import BasisFinder, emissions
from wattledger_collector.database import connect
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factor_files import load_catalog
from wattledger_collector.factor_store import load_factors
from wattledger_collector.factors import FactorKind, Tier, seconds_of_day
from wattledger_collector.fleet_sites import SitePlan
from wattledger_collector.records import AssignmentRow, Component, Method, Piece, SiteRow, Store
from wattledger_collector.report import make_period
from wattledger_collector.store import open_store
from wattledger_collector.workload_columns import read_workload_sums
from wattledger_collector.workload_records import HostWorkloadRow, IdlePolicy, Workload, WorkloadKind
from wattledger_collector.workload_report import By, make_workload_report

DAY = 86_400
START = seconds_of_day(date(2023, 6, 1))
MODEL = load_catalog().default_series("DE")[-1]
POD = Workload(WorkloadKind.KUBERNETES_POD, "uid-1", "shop", "db-0", IdlePolicy.BY_USAGE)

# Site, namespace, shown name, method, recorded.
Name = tuple[str, str, str, Method, bool]
# Energy, what of it is uncovered, and grams by type of factor.
Figures = tuple[int, int, dict[FactorKind, Fraction]]


def by_rows(store: Store, catalog: FactorCatalog, begin: int, end: int, by: By) -> dict[Name, Figures]:
    """The plain way: every row of every interval is joined with its factor by itself."""
    plan, finder = SitePlan(), BasisFinder(store.sites(), catalog)
    plan.replace(store.sites(), store.assignments())
    sums: dict[Name, tuple[int, Fraction, dict[FactorKind, Fraction]]] = {}
    for row in store.workload_energy(begin, end):
        site, own = plan.site_of(row.host, row.interval_start_seconds), row.workload
        is_single = by == "workload" or not own.kind.is_named
        name = (site, own.namespace, own.shown_name if is_single else "", row.method, row.recorded)
        energy, uncovered, grams = sums.get(name, (0, Fraction(0), {}))
        at = row.interval_start_seconds
        for basis, seconds in finder.split(site, at, at + INTERVAL_SECONDS):
            part = Fraction(row.energy_microjoules * seconds, INTERVAL_SECONDS)
            if basis.factor is None or basis.pue is None:
                uncovered += part
            else:
                made = emissions(part, basis.factor, basis.pue)
                grams[made.kind] = grams.get(made.kind, Fraction(0)) + made.grams
        sums[name] = (energy + row.energy_microjoules, uncovered, grams)
    return {name: (energy, round(uncovered), grams) for name, (energy, uncovered, grams) in sums.items()}


def by_pieces(store: Store, catalog: FactorCatalog, begin: int, end: int, by: By) -> dict[Name, Figures]:
    """What the report says."""
    period = make_period(begin, end, ZoneInfo("UTC"), INTERVAL_SECONDS)
    found: dict[Name, Figures] = {}
    for site in make_workload_report(store, catalog, period, by=by, now_seconds=end).sites:
        for line in site.lines:
            group = line.group
            name = (group.site, group.namespace, group.workload, group.method, group.recorded)
            assert name not in found
            grams = {kind: each.grams for kind, each in line.emissions.items()}
            found[name] = (line.energy_microjoules, line.uncovered_microjoules, grams)
    return found


def test_a_ledger_gives_what_its_rows_give(tmp_path: Path) -> None:
    """Hosts that move within a day, factors of hours with a hole, idle energy and namespaces: equal to the last digit."""
    path, fleet = tmp_path / "ledger.sqlite", Fleet(30, 3, workload_days=3)
    build_ledger(path, fleet)
    with closing(open_store(path, create=False)) as store:
        catalog = load_catalog().with_recorded(load_factors(store))
        span = (BEGIN_SECONDS + 900, fleet.end_seconds - 1800)
        ways: tuple[By, By] = ("workload", "namespace")
        for by in ways:
            expected = by_rows(store, catalog, *span, by)
            assert by_pieces(store, catalog, *span, by) == expected
            assert len(expected) > 30


@given(
    st.lists(st.tuples(st.integers(0, 2 * DAY), st.sampled_from(["0", "12.5", "371.31064"])), max_size=6),
    st.lists(st.tuples(st.integers(0, DAY), st.sampled_from(["hall", "dark"])), max_size=3),
    st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=60),
)
def test_any_edges_give_what_the_rows_give(
    factors: list[tuple[int, str]], moves: list[tuple[int, str]], energies: list[int]
) -> None:
    """Factors that change within intervals, holes, and a host that moves at any second."""
    series = [
        replace(
            MODEL,
            value=Decimal(value),
            valid_from_seconds=START + at,
            valid_to_seconds=START + at + 5000,
            tier=Tier.F0_MEASURED,
        )
        for at, value in factors
    ]
    first = AssignmentRow("a", 0, "hall", 0)
    store = FakeStore(
        site_rows=[SiteRow("hall", 0, "DE", "1.25", False, 0), SiteRow("dark", 0, None, "1.2", False, 0)],
        assignment_rows=[first, *(AssignmentRow("a", START + at, to, 0) for at, to in sorted(moves))],
        workload_energy_rows=[
            HostWorkloadRow("a", False, POD, START + place * INTERVAL_SECONDS, Component.CPU, Method.COUNTER, energy)
            for place, energy in enumerate(energies)
        ],
    )
    catalog = FactorCatalog([series]) if series else FactorCatalog([])
    span = (START, START + len(energies) * INTERVAL_SECONDS)
    assert by_pieces(store, catalog, *span, "workload") == by_rows(store, catalog, *span, "workload")


def test_sums_may_pass_sixty_four_bits_and_are_added_in_parts(tmp_path: Path) -> None:
    """Of both components together, by workload and method, however few rows are held at a time."""
    path = tmp_path / "ledger.sqlite"
    fleet = Fleet(2, 1, workload_days=1)
    build_ledger(path, fleet)
    big = 2**63 - 1
    with closing(connect(path)) as connection:
        connection.execute("UPDATE workload_energy SET energy_microjoules = ? WHERE workload_id = 1", (big,))
        connection.execute("UPDATE workload_energy SET energy_microjoules = ? WHERE workload_id = 2", (-big,))
        rows = connection.execute("SELECT workload_id, method, energy_microjoules FROM workload_energy").fetchall()
        expected: dict[tuple[int, int], int] = {}
        for key, method, energy in rows:
            expected[key, method] = expected.get((key, method), 0) + energy
        whole = Piece(BEGIN_SECONDS, fleet.end_seconds)
        found = [list(read_workload_sums(connection, [whole], held)) for held in (1, 1000, 10**6)]
    assert max(expected.values()) == -min(expected.values()) > 2**64
    for sums in found:
        assert [(each.method, each.energy_microjoules) for each in sums] == [
            (Method(method), energy) for (_, method), energy in sorted(expected.items())
        ]
        assert {each.from_seconds for each in sums} == {BEGIN_SECONDS}


def test_statements_are_of_pieces_and_not_of_workloads(tmp_path: Path) -> None:
    """One for each piece and one for the names; a name is read once, and an empty piece costs nothing more."""
    path, fleet = tmp_path / "ledger.sqlite", Fleet(4, 3, workload_days=2)
    build_ledger(path, fleet)
    statements: list[str] = []
    with closing(connect(path)) as connection:
        connection.set_trace_callback(statements.append)
        pieces = [Piece(BEGIN_SECONDS + day * DAY, BEGIN_SECONDS + (day + 1) * DAY) for day in range(3)]
        sums = list(read_workload_sums(connection, pieces))
    assert len(statements) == len(pieces) + 1
    assert len(sums) == 2 * 4 * WORKLOADS
    assert len({each.source for each in sums}) == 4 * WORKLOADS
