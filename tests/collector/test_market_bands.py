"""The 95 % intervals of market-based totals: by hand, without instruments the location-based ones, and against forgers."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.collector.closed_ledgers import (
    BEGIN,
    CATALOG,
    DAY,
    INTERVAL,
    KIND,
    MWH,
    V20,
    Ledger,
    declare,
    factor,
    hall,
    make_template,
    row,
)
from tests.collector.two_sites import BERLIN

from wattledger_collector.closing import Closed
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factors import Basis
from wattledger_collector.log_border import split_hashes
from wattledger_collector.records import GapReason, GapRow
from wattledger_collector.report import make_period, make_report
from wattledger_collector.report_uncertainty import intervals_of, market_intervals_of, sensors_of, site_intervals_of
from wattledger_collector.statement_store import Draft, append
from wattledger_collector.verify import verify

YEAR = "2023-04-01T00:00Z,2024-04-01T00:00Z"
WIND = f"wind,GO,AIB,IN,{YEAR},1000000,0,Example,A,1,1\n"
MIX = '[[residual]]\nmarket = "IN"\ngrams_per_kwh = 800\nevidence = "table"\n'
RENTED = (
    '[[holding]]\nsite = "hall"\nsituation = "owned"\nevidence = "deed"\n'
    '[[holding]]\nsite = "rented"\nsituation = "leased"\nevidence = "lease"\n'
)
GAP = GapRow(1, BEGIN * 10**9, (BEGIN + INTERVAL) * 10**9, GapReason.REBOOT, 0, MWH // 10)
HALF_WIDTHS = ("lower_grams", "upper_grams")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database."""
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def ledger(tmp_path: Path, template: Path) -> Iterator[Ledger]:
    """An empty ledger with one site in India, PUE 1."""
    made = Ledger(tmp_path, template=template)
    yield made
    made.store.close()


def rows_of(closed: Closed) -> dict[str | None, Any]:
    """The market-based intervals by site; None: of all."""
    return {each["site"]: each for each in closed.statement.tree["market"]["uncertainty"]}


def test_without_instruments_the_interval_is_the_location_based_one(ledger: Ledger) -> None:
    """Sensors with and without bands, two sites, a gap: both methods, statement and report, tell one interval."""
    ledger.store.add_sites([hall("1.3", valid_from=1), hall("2", site="annex")])
    ledger.book("a", [row(3 * MWH)])
    ledger.book("b", [row(MWH)], site="annex", source="nvml", band=(0.0, 0.0))
    ledger.gaps("a", [GAP])
    closed = ledger.close()
    own = rows_of(closed)
    located = {each["site"]: each for each in closed.statement.tree["uncertainty"]}
    assert set(own) == set(located) == {None, "hall", "annex"}
    for site, each in located.items():
        assert {name: own[site][name] for name in each if name in own[site]} == {
            name: value for name, value in each.items() if name in own[site]
        }
    assert float(own["hall"]["upper_grams"]) > float(own["hall"]["lower_grams"]) + 90_000
    assert verify(ledger.bundle(closed)).problems == []

    made = make_report(ledger.store, CATALOG, make_period(BEGIN, BEGIN + DAY, BERLIN, 900), now_seconds=BEGIN + DAY)
    sensors = sensors_of(ledger.store, BEGIN)
    market = market_intervals_of(made, sensors)
    for site, found in ((None, intervals_of(made, sensors)), *site_intervals_of(made, sensors).items()):
        (location,), (of_market,) = found.values(), market[site].values()
        assert of_market.interval.grams == location.interval.grams
        assert of_market.interval.lower_grams == pytest.approx(location.interval.lower_grams)
        assert of_market.interval.upper_grams == pytest.approx(location.interval.upper_grams)
        assert of_market.factors_assumed_grams == pytest.approx(location.factors_assumed_grams)


def test_certificates_mixes_and_grid_factors_have_bands_of_their_own(ledger: Ledger) -> None:
    """Wind of 0 g covers 1 of 3 MWh, a declared mix counts 2, another's hall has 2 at the grid factor."""
    ledger.store.add_sites([hall("1.5", valid_from=1), hall("2", site="rented")])
    ledger.book("a", [row(2 * MWH)])
    ledger.book("b", [row(MWH)], site="rented")
    closed = ledger.close(declaration=declare(WIND, MIX, holdings=RENTED))
    own = rows_of(closed)
    mixed, grid = 2 * 800_000, 2 * 727_000
    for name, sensor in zip(HALF_WIDTHS, (0.02, 0.03), strict=True):
        whole = ((mixed + grid) * sensor) ** 2 + (mixed * 0.15) ** 2 + (grid * 0.15) ** 2
        assert float(own[None][name]) == pytest.approx(whole**0.5)
        assert float(own["hall"][name]) == pytest.approx(mixed * (sensor**2 + 0.15**2) ** 0.5)
        assert float(own["rented"][name]) == pytest.approx(grid * (sensor**2 + 0.15**2) ** 0.5)
    assert own[None]["assumed"]["factors"] == ["IN CEA", "IN residual mix declared"]
    assert float(own[None]["assumed"]["factor_grams"]) == pytest.approx(mixed + grid)
    assert verify(ledger.bundle(closed)).problems == []


def test_a_published_mix_has_the_band_that_its_row_states(ledger: Ledger) -> None:
    """8 %, and nothing of it is assumed; the grid factor has no part."""
    ledger.book("a", [row(MWH)])
    stated = factor("912.5", date(2024, 1, 1), uncertainty="0.08")
    residual = replace(stated, kind=replace(KIND, basis=Basis.RESIDUAL), source="mixes")
    closed = ledger.close(FactorCatalog([[V20], [residual]]))
    total = rows_of(closed)[None]
    assert float(total["lower_grams"]) == pytest.approx(912_500 * (0.02**2 + 0.08**2) ** 0.5)
    assert total["assumed"]["factors"] == []
    assert verify(ledger.bundle(closed)).problems == []


def test_a_contract_is_taken_as_it_stands_and_a_gap_at_the_mean_intensity(ledger: Ledger) -> None:
    """All of 2 MWh at PUE 1.5 is gas of 400 and 700 g: sensors are off, the rate is not, and 0.1 MWh may be missing."""
    ledger.store.add_sites([hall("1.5", valid_from=1)])
    ledger.book("a", [row(MWH)])
    ledger.book("b", [row(MWH)], source="nvml", band=(0.1, 0.1))
    ledger.gaps("a", [GAP])
    first = f"one,GO,AIB,IN,{YEAR},1000000,400,Example,A,1,1\n"
    second = f"two,GO,AIB,IN,{YEAR},2000000,700,Example,B,1,2\n"
    closed = ledger.close(declaration=declare(first + second))
    total, grams = rows_of(closed)[None], 1_800_000
    sensors = ((grams / 2 * 0.02) ** 2 + (grams / 2 * 0.1) ** 2) ** 0.5
    assert float(total["lower_grams"]) == pytest.approx(sensors)
    above = ((grams / 2 * 0.03) ** 2 + (grams / 2 * 0.1) ** 2) ** 0.5
    assert float(total["upper_grams"]) == pytest.approx(above + grams / 20)
    assert total["assumed"] == {"sensors": [], "sensor_grams": "0.000000", "factors": [], "factor_grams": "0.000000"}
    assert verify(ledger.bundle(closed)).problems == []


def test_what_nobody_knows_the_size_of_leaves_the_upper_end_open(ledger: Ledger) -> None:
    """A gap without a bound names its site, covered by certificates or not."""
    ledger.book("a", [row(MWH)])
    ledger.gaps("a", [replace(GAP, upper_microjoules=None)])
    closed = ledger.close(declaration=declare(WIND.replace("1000000,0,", "500000,0,")))
    assert [each["without_upper_bound"] for each in rows_of(closed).values()] == [["hall"], ["hall"]]
    assert verify(ledger.bundle(closed)).problems == []


def test_mixes_of_two_times_are_off_by_themselves(ledger: Ledger) -> None:
    """Of one source and market, each half of the year has its own mix."""
    ledger.book("a", [row(MWH), row(MWH, BEGIN + 300 * DAY)])
    halves = MIX + "from = 2023-01-01\nto = 2024-01-01\n" + MIX + "from = 2024-01-01\nto = 2025-01-01\n"
    closed = ledger.close(declaration=declare("", halves))
    lower = float(rows_of(closed)[None]["lower_grams"])
    assert lower == pytest.approx(800_000 * (2 * 0.15**2 + (2 * 0.02) ** 2) ** 0.5)
    assert verify(ledger.bundle(closed)).problems == []


def forged(ledger: Ledger, change: Callable[[Any], None]) -> list[str]:
    """What a check says of a statement whose market section was changed and which the log itself signed."""
    ledger.store.add_sites([hall(site="rented")])
    ledger.book("a", [row(3 * MWH)], source="nvml", band=(0.0, 0.0))
    ledger.book("b", [row(MWH)], site="rented")
    honest = ledger.close(declaration=declare(WIND, MIX, holdings=RENTED)).statement
    tree = honest.tree
    change(tree["market"])
    hashes = split_hashes(honest.log_hashes)[:-1]
    root = bytes.fromhex(tree["leaves"]["root"])
    draft = Draft(tree, honest.closure, honest.gaps, honest.assignments_last_id, hashes, root)
    with ledger.store.writing() as connection:
        connection.exec_driver_sql("DELETE FROM statement")
        connection.exec_driver_sql("DELETE FROM log_checkpoint")
    return verify(ledger.bundle(Closed(append(ledger.store, draft, ledger.key), is_new=True))).problems


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda market: market["uncertainty"][0].update(lower_grams="0.000000"), "lower_grams of all sites, market based"),
        (lambda market: market["uncertainty"][1].update(upper_grams="1.000000"), "upper_grams of site hall, market based"),
        (lambda market: market["uncertainty"][0].update(upper_grams="nan"), "upper_grams of all sites"),
        (lambda market: market["uncertainty"][0]["assumed"].update(factors=[]), "factors without a stated band are IN CEA"),
        (lambda market: market["uncertainty"][0]["assumed"].update(sensor_grams="0"), "sensors without a stated band"),
        (lambda market: market["uncertainty"][0]["grams"].update(exact="1"), "beside its uncertainty is another one"),
        (lambda market: market["uncertainty"][0].update(without_upper_bound=[]), "nobody knows what is missing at hall"),
        (lambda market: market["uncertainty"].pop(), "the uncertainties of market-based totals are not of the sites"),
        (lambda market: market.pop("uncertainty"), "the uncertainties of market-based totals are not of the sites"),
    ],
)  # fmt: skip
def test_a_false_interval_is_noticed_even_if_the_log_itself_signed_it(
    ledger: Ledger, change: Callable[[Any], None], words: str
) -> None:
    """Half-widths, what is assumed, totals, open ends and rows: each is reckoned again."""
    problems = forged(ledger, change)
    assert any(words in problem for problem in problems), problems
