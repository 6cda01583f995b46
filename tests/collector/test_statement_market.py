"""Statements tell scope 2 market based beside location based: by hand, in every case of a claim, and against forgers."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.collector.closed_ledgers import (
    BEGIN,
    DAY,
    END,
    INTERVAL,
    KIND,
    KWH,
    MWH,
    REVISED,
    V20,
    Ledger,
    declare,
    factor,
    hall,
    make_template,
    row,
)

from wattledger_collector.closing import Closed, leaves_of
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factors import Basis
from wattledger_collector.log_border import split_hashes
from wattledger_collector.statement import canonical, digest
from wattledger_collector.statement_store import Draft, OvertakenError, Stored, append
from wattledger_collector.verify import verify
from wattledger_collector.verify_figures import LeafSums, figure_problems

YEAR = "2023-04-01T00:00Z,2024-04-01T00:00Z"
WIND = f"wind,GO,AIB,IN,{YEAR},1000000,0,Example,A,1,1\n"

WIDE = "vintage_before_days = 366\nvintage_after_days = 366\n"


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


def grams(figure: Any, method: str = "market_based") -> Fraction:
    """The only sum of a figure."""
    (total,) = figure[method]
    return Fraction(total["grams"]["exact"])


def parts(figure: Any) -> dict[str, Fraction]:
    """A figure's megawatt-hours by part."""
    return {part["part"]: Fraction(part["microjoules"]) / MWH for part in figure["parts"]}


def test_without_a_declaration_both_methods_are_told_and_equal(ledger: Ledger) -> None:
    """No instrument and no residual mix: market based is location based, to the last digit, and it is said."""
    ledger.store.add_sites([hall("1.3", valid_from=1)])
    ledger.book("a", [row(MWH + 1)])
    closed = ledger.close()
    market = closed.statement.tree["market"]
    assert grams(market["all"]) == grams(market["all"], "location_based") == Fraction(MWH + 1, KWH) * 727 * Fraction("1.3")
    assert market["is_location_based"]
    assert parts(market["all"]) == {"stand_in": Fraction(MWH + 1, MWH) * Fraction("1.3")}
    assert "location based" in closed.statement.tree["boundary"]["text"]
    assert "market based" in closed.statement.tree["boundary"]["text"]
    assert verify(ledger.bundle(closed)).problems == []


def test_certificates_residual_mix_and_stand_ins_are_reckoned_again(ledger: Ledger) -> None:
    """3 MWh at 1.5: wind covers 1, the residual mix of 800 g counts the rest; another's hall is told apart."""
    ledger.store.add_sites([hall("1.5", valid_from=1), hall("2", site="rented")])
    ledger.book("a", [row(2 * MWH)])
    ledger.book("b", [row(MWH)], site="rented")
    residual = '[[residual]]\nmarket = "IN"\ngrams_per_kwh = 800\nevidence = "table"\n'
    holdings = (
        '[[holding]]\nsite = "hall"\nsituation = "owned"\nevidence = "deed"\n'
        '[[holding]]\nsite = "rented"\nsituation = "leased"\nevidence = "lease"\n'
    )
    closed = ledger.close(declaration=declare(WIND, residual, holdings=holdings))
    market = closed.statement.tree["market"]
    assert parts(market["all"]) == {"certificates": 1, "residual_mix": 2, "outside_scope_2": 2}
    assert grams(market["all"]) == 1000 * (2 * 800 + 2 * 727)
    assert grams(market["all"], "location_based") == 1000 * 5 * 727
    assert [each["site"] for each in market["sites"]] == ["hall", "rented"]
    assert not market["is_location_based"]
    assert verify(ledger.bundle(closed)).problems == []


def test_a_published_residual_mix_counts_market_based_alone(ledger: Ledger) -> None:
    """A factor row with basis residual is among the statement's rows, and in no location-based figure."""
    ledger.book("a", [row(MWH)])
    kind = replace(KIND, basis=Basis.RESIDUAL)
    residual = replace(factor("912.5", date(2024, 1, 1)), kind=kind, source="mixes")
    closed = ledger.close(FactorCatalog([[V20], [residual]]))
    market = closed.statement.tree["market"]
    assert grams(market["all"]) == 912_500
    assert grams(market["all"], "location_based") == 727_000
    assert {each["source"] for each in closed.statement.tree["factors"]["rows"]} == {"CEA", "mixes"}
    assert verify(ledger.bundle(closed)).problems == []


def test_hours_are_matched_with_what_was_generated_in_them(ledger: Ledger) -> None:
    """Two hours of load, sun in one of them: its surplus is lost, and the other hour has none."""
    ledger.book("a", [row(KWH, BEGIN), row(KWH, BEGIN + 3600)])
    sun = "sun,granular,grid,IN,2023-04-01T00:00Z,2023-04-01T01:00Z,5000,0,Example,,,\n"
    closed = ledger.close(declaration=declare(sun, matching="hourly"))
    market = closed.statement.tree["market"]
    assert grams(market["all"]) == 727
    assert [each["hour_seconds"] for each in market["load"]] == [BEGIN, BEGIN + 3600]
    assert [(each["certificate"], each["hour_seconds"]) for each in market["claimed"]] == [("sun", BEGIN)]
    assert verify(ledger.bundle(closed)).problems == []


def test_each_certificate_that_counts_for_nothing_is_told_with_its_code(ledger: Ledger) -> None:
    """Whatever is wrong with one: its code stands there, and verifying finds the same."""
    ledger.book("a", [row(9 * MWH)])
    closed = ledger.close(
        declaration=declare(
            WIND
            + f"again,GO,AIB,IN,{YEAR},1000000,0,Example,A,1,1\n"
            + f"free,GO,AIB,IN,{YEAR},1000000,0,,B,1,1\n"
            + f"theirs,GO,AIB,IN,{YEAR},1000000,0,Other,B,2,2\n"
            + f"abroad,GO,AIB,DE,{YEAR},1000000,0,Example,B,3,3\n"
            + "old,GO,AIB,IN,2022-01-01T00:00Z,2022-02-01T00:00Z,1000000,0,Example,B,4,4\n"
            + f"bare,GO,AIB,IN,{YEAR},1000000,,Example,B,5,5\n"
            + f"fat,GO,AIB,IN,{YEAR},1000001,0,Example,B,6,6\n"
        )
    )
    market = closed.statement.tree["market"]
    assert {each["certificate"]: each["code"] for each in market["refused"]} == {
        "wind": "serial_used_twice",
        "free": "not_retired",
        "theirs": "other_beneficiary",
        "abroad": "other_market",
        "old": "vintage_outside",
        "bare": "no_emission_rate",
        "fat": "volume_above_serials",
    }
    assert [each["certificate"] for each in market["claimed"]] == ["again"]
    assert verify(ledger.bundle(closed)).problems == []


# -- What other statements used


def test_a_certificate_is_not_claimed_twice_by_two_periods(ledger: Ledger) -> None:
    """3 MWh of wind: a day uses two, the next one has one left; a restatement of the first takes its own again."""
    ledger.book("a", [row(2 * MWH, BEGIN), row(2 * MWH, BEGIN + DAY)])
    declaration = declare(f"wind,GO,AIB,IN,{YEAR},3000000,0,Example,A,1,3\n", WIDE)
    first = ledger.close(end=BEGIN + DAY, declaration=declaration)
    second = ledger.close(begin=BEGIN + DAY, end=BEGIN + 2 * DAY, declaration=declaration)
    assert parts(second.statement.tree["market"]["all"]) == {"certificates": 1, "stand_in": 1}
    (before,) = second.statement.tree["market"]["used_before"]
    assert before["statements"] == [first.statement.number]
    assert Fraction(before["microjoules"]) == 2 * MWH
    ledger.book("a", [row(MWH, BEGIN)])
    again = ledger.close(end=BEGIN + DAY, declaration=declaration)
    # One MWh is the second day's, so that of three there are two left.
    assert parts(again.statement.tree["market"]["all"]) == {"certificates": 2, "stand_in": 1}
    assert again.statement.tree["market"]["used_before"][0]["statements"] == [second.statement.number]
    # The first statement was replaced, and takes nothing any more.
    ledger.book("a", [row(MWH, BEGIN + 2 * DAY)])
    third = ledger.close(begin=BEGIN + 2 * DAY, end=BEGIN + 3 * DAY, declaration=declaration)
    (before,) = third.statement.tree["market"]["used_before"]
    assert before["statements"] == [second.statement.number, again.statement.number]
    assert Fraction(before["microjoules"]) == 3 * MWH
    for closed, name in ((second, "second"), (again, "again")):
        assert verify(ledger.bundle(closed, name)).problems == []


def test_a_year_that_holds_a_stated_month_takes_the_months_certificates_anew(ledger: Ledger) -> None:
    """The same energy may be stated twice, and what covers it is the same."""
    ledger.book("a", [row(MWH, BEGIN)])
    declaration = declare(WIND, WIDE)
    ledger.close(end=BEGIN + DAY, declaration=declaration)
    year = ledger.close(declaration=declaration)
    assert parts(year.statement.tree["market"]["all"]) == {"certificates": 1}
    assert year.statement.tree["market"]["used_before"] == []


def test_two_sites_of_one_time_do_not_claim_the_same_volume(ledger: Ledger) -> None:
    """Statements of one site each: what the first used is gone for the second."""
    ledger.store.add_sites([hall(site="cellar")])
    ledger.book("a", [row(MWH)])
    ledger.book("b", [row(MWH)], site="cellar")
    ledger.close(declaration=declare(WIND), site="hall")
    second = ledger.close(declaration=declare(WIND), site="cellar")
    assert [each["code"] for each in second.statement.tree["market"]["refused"]] == ["used_up"]
    assert parts(second.statement.tree["market"]["all"]) == {"stand_in": 1}
    assert verify(ledger.bundle(second)).problems == []


def test_a_volume_is_not_claimed_by_two_closings_at_once(ledger: Ledger) -> None:
    """What others used was looked up before another statement came in: it is not appended, and the closing begins anew."""
    ledger.book("a", [row(MWH)])
    stated = ledger.close(declaration=declare(WIND)).statement
    tree = {**stated.tree, "replaces": None, "period": {**stated.tree["period"], "to_seconds": BEGIN + DAY}}
    root, hashes = bytes.fromhex(tree["leaves"]["root"]), split_hashes(stated.log_hashes)[:-1]
    draft = Draft(tree, stated.closure, stated.gaps, stated.assignments_last_id, hashes, root, claims_after=0)
    with pytest.raises(OvertakenError, match="may use the same certificates"):
        append(ledger.store, draft, ledger.key)
    assert append(ledger.store, replace(draft, claims_after=1), ledger.key).number == 2


def test_the_odd_microjoule_falls_to_the_largest_remainder(ledger: Ledger) -> None:
    """A Wh over two sites: a third and a bit less, two thirds and a bit more; verifying divides likewise."""
    ledger.store.add_sites([hall(site="cellar")])
    ledger.book("a", [row(7_200_000_001)])
    ledger.book("b", [row(3_600_000_001)], site="cellar")
    holdings = "".join(
        f'[[holding]]\nsite = "{site}"\nsituation = "owned"\nevidence = "deed"\n' for site in ("hall", "cellar")
    )
    one = f"one,GO,AIB,IN,{YEAR},1,0,Example,A,1,1\n"
    closed = ledger.close(declaration=declare(one, holdings=holdings))
    covered = {each["site"]: Fraction(each["parts"][0]["microjoules"]) for each in closed.statement.tree["market"]["sites"]}
    assert covered == {"cellar": 1_200_000_000, "hall": 2_400_000_000}
    assert verify(ledger.bundle(closed)).problems == []


# -- Restating


def test_each_cause_of_a_market_based_difference_is_told_apart(ledger: Ledger) -> None:
    """Late energy, a revised factor, a PUE of then and a second certificate: exact parts that add up."""
    ledger.book("a", [row(2 * MWH)])
    first = ledger.close(declaration=declare(WIND))
    ledger.book("a", [row(MWH)])
    ledger.store.add_sites([hall("1.5", valid_from=1)])
    sun = f"sun,GO,AIB,IN,{YEAR},1000000,0,Example,A,2,2\n"
    second = ledger.close(REVISED, declaration=declare(WIND + sun))
    (difference,) = second.statement.tree["replaces"]["market"]
    kilograms = {cause: Fraction(part["exact"]) / 1000 for cause, part in difference["causes"].items()}
    assert kilograms == {
        "method": 0,
        "activity": 727,
        "factor": 2 * 2,
        "boundary": Fraction("1.5") * 729,
        "instruments": -729,
    }
    assert Fraction(difference["before"]["exact"]) == 727_000
    assert Fraction(difference["after"]["exact"]) == Fraction("2.5") * 729_000
    # The volume that the first one claimed is the second one's, which takes its place.
    assert second.statement.tree["market"]["used_before"] == []
    for closed, name in ((first, "first"), (second, "second")):
        assert verify(ledger.bundle(closed, name)).problems == []


def test_hours_are_restated_as_hours(ledger: Ledger) -> None:
    """What was matched by hour is reckoned so again: nothing is the method's, and late energy of a dark hour is bare."""
    ledger.book("a", [row(KWH, BEGIN), row(KWH, BEGIN + 3600)])
    sun = "sun,granular,grid,IN,2023-04-01T00:00Z,2023-04-01T01:00Z,5000,0,Example,,,\n"
    ledger.close(declaration=declare(sun, matching="hourly"))
    ledger.book("a", [row(KWH, BEGIN), row(KWH, BEGIN + 3600)])
    (difference,) = ledger.close(declaration=declare(sun, matching="hourly")).statement.tree["replaces"]["market"]
    causes = {cause: Fraction(part["exact"]) for cause, part in difference["causes"].items()}
    assert causes == {"method": 0, "activity": 727, "factor": 0, "boundary": 0, "instruments": 0}


def test_a_host_that_nobody_knew_before_restates_a_period(ledger: Ledger) -> None:
    """It had no site when the period was closed first; both differences add up, and the statement verifies."""
    ledger.book("a", [row(MWH)])
    ledger.close()
    ledger.book("late", [row(2 * MWH)])
    again = ledger.close()
    (difference,) = again.statement.tree["replaces"]["market"]
    assert difference["difference"]["exact"] == str(2 * 727_000)
    assert verify(ledger.bundle(again)).problems == []


def test_what_others_used_meanwhile_states_nothing_anew(ledger: Ledger) -> None:
    """Another day took the rest of a certificate; the first day's statement stands."""
    ledger.book("a", [row(MWH, BEGIN), row(MWH, BEGIN + DAY)])
    declaration = declare(f"wind,GO,AIB,IN,{YEAR},2000000,0,Example,A,1,2\n", WIDE)
    ledger.close(end=BEGIN + DAY, declaration=declaration)
    ledger.close(begin=BEGIN + DAY, end=BEGIN + 2 * DAY, declaration=declaration)
    assert not ledger.close(end=BEGIN + DAY, declaration=declaration).is_new


def test_only_an_instrument_that_was_retired_later_restates_a_period(ledger: Ledger) -> None:
    """Nothing was booked since; the location-based figure stands, the market-based one falls by what is covered."""
    ledger.book("a", [row(2 * MWH)])
    ledger.close()
    again = ledger.close(declaration=declare(WIND))
    assert again.is_new
    (location,) = again.statement.tree["replaces"]["differences"]
    assert location["difference"]["exact"] == "0"
    (difference,) = again.statement.tree["replaces"]["market"]
    assert difference["causes"]["instruments"]["exact"] == difference["difference"]["exact"] == str(-727_000)
    assert not ledger.close(declaration=declare(WIND)).is_new


def test_a_false_cause_is_noticed(ledger: Ledger) -> None:
    """Parts that don't add up, and a difference that leads elsewhere."""
    ledger.book("a", [row(2 * MWH)])
    ledger.close()
    again = ledger.close(declaration=declare(WIND)).statement
    for name, words in (("activity", "do not add up to it"), ("after", "does not lead to the statement's total")):
        tree = again.tree
        (difference,) = tree["replaces"]["market"]
        (difference if name == "after" else difference["causes"])[name]["exact"] = "1"
        problems = list(figure_problems(tree, json.loads(again.gaps), sums_of(ledger, again)))
        assert any(words in problem for problem in problems), problems


def sums_of(ledger: Ledger, statement: Stored) -> LeafSums:
    """A statement's leaves, added up."""
    sums = LeafSums(statement.tree)
    for day in leaves_of(ledger.store, statement):
        for leaf in day:
            sums.add(leaf.entry)
        sums.end_day()
    return sums


# -- Forgers


def forged(ledger: Ledger, change: Callable[[Any], None]) -> list[str]:
    """What a check says of a statement that was changed and properly signed by the log itself."""
    rows = WIND + f"coal,GO,AIB,IN,{YEAR},1000000,900,Example,B,1,1\nlate,GO,AIB,IN,{YEAR},1000000,5,Other,B,9,9\n"
    ledger.book("a", [row(3 * MWH)])
    honest = ledger.close(declaration=declare(rows)).statement
    tree = honest.tree
    change(tree)
    hashes = split_hashes(honest.log_hashes)[:-1]
    root = bytes.fromhex(tree["leaves"]["root"])
    draft = Draft(tree, honest.closure, honest.gaps, honest.assignments_last_id, hashes, root)
    with ledger.store.writing() as connection:
        connection.exec_driver_sql("DELETE FROM statement")
        connection.exec_driver_sql("DELETE FROM log_checkpoint")
    lie = append(ledger.store, draft, ledger.key)
    return verify(ledger.bundle(Closed(lie, is_new=True))).problems


def set_row(name: str, **fields: Any) -> Callable[[Any], None]:
    """A change of a certificate's row, with a digest that fits."""

    def change(tree: Any) -> None:
        for each in tree["instruments"]["rows"]:
            if each["certificate"] == name:
                each.update(fields)
        tree["instruments"]["sha256"] = digest(canonical(tree["instruments"]["rows"]))

    return change


def claim_more(tree: Any) -> None:
    """More than there is, of certificate and of load."""
    tree["market"]["claimed"][0]["microjoules"] = str(4 * MWH)


def use_before(tree: Any) -> None:
    """Another statement has used it, too."""
    own = dict.fromkeys(("serial_prefix",), "")
    tree["market"]["used_before"].append(
        {**own, "registry": "AIB", "certificate": "wind", "serial_prefix": "A", "serial_first": "1", "serial_last": "1",
         "microjoules": "1", "statements": [7]}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (claim_more, "more is claimed than its volume"),
        (claim_more, "certificates cover more than the load of IN"),
        (use_before, "and 1 by other statements"),
        (set_row("wind", retired_for=""), "it is not retired"),
        (set_row("wind", retired_for="Other"), "it is retired for another beneficiary"),
        (set_row("wind", market="DE"), "it is of a market in which there is no load"),
        (set_row("wind", from_seconds=BEGIN - 1), "it was generated outside of the time"),
        (set_row("wind", to_seconds=END + 1), "it was generated outside of the time"),
        (set_row("wind", serial_prefix="B"), "serials of the certificate wind are claimed twice: the certificate coal"),
        (set_row("wind", grams_per_kwh=None), "it conveys no emission rate"),
        (set_row("wind", grams_per_kwh="1"), "the parts of site hall do not follow"),
        (set_row("late", retired_for="Example"), "stated to be refused for other_beneficiary, and it is for None"),
        (lambda tree: tree["market"]["claimed"].pop(), "what is claimed of certificates is not what follows"),
        (lambda tree: tree["market"]["claim"].update(beneficiary="Other"), "retired for another beneficiary"),
        (lambda tree: tree["market"]["all"]["market_based"][0]["grams"].update(exact="0"), "grams of all sites"),
        (lambda tree: tree["market"]["sites"].clear(), "not of the sites that have energy"),
        (lambda tree: tree["market"]["load"][0].update(microjoules="1"), "the load of the market IN does not follow"),
        (lambda tree: tree["market"]["stand_ins"].clear(), "the grid average stands in"),
        (lambda tree: tree["market"].update(is_location_based=True), "is the location-based one is not as stated"),
        (lambda tree: tree["market"]["tenures"][0].update(situation="", it=0), "nothing is declared of site hall"),
        (lambda tree: tree["market"]["tenures"][0].update(it=2), "each is 0 or 1"),
        (lambda tree: tree["market"]["tenures"][0].update(to_seconds=END - 1), "is had does not fill the period"),
        (lambda tree: tree["market"]["tenures"][0].update(overhead=0, it=0), "the load of the market IN"),
        (lambda tree: tree["market"]["mixes"][0].update(to_seconds=END - 1), "do not fill the period"),
        (lambda tree: tree["market"]["mixes"][0].update(grams_per_kwh="1"), "neither there nor said to be missing"),
        (lambda tree: tree["market"]["mixes"][0].update(grams_per_kwh="1", missing=""), "the parts of all sites"),
        (lambda tree: tree["market"]["mixes"][0].update(factor="x"), "is not among the statement's factor rows"),
    ],
)  # fmt: skip
def test_a_false_claim_is_noticed_even_if_the_log_itself_signed_it(
    ledger: Ledger, change: Callable[[Any], None], words: str
) -> None:
    """Each rule by itself: who makes and signs statements can break none of them unseen."""
    problems = forged(ledger, change)
    assert any(words in problem for problem in problems), problems
    assert not any("checkpoint" in problem for problem in problems)


def test_the_statement_that_forgers_change_is_good(ledger: Ledger) -> None:
    """So that what is noticed is the change."""
    assert forged(ledger, lambda tree: None) == []


# -- Exactness


PART = st.tuples(
    st.sampled_from("abc"), st.sampled_from(("hall", "cellar")), st.integers(-(2**45), 2**45), st.integers(0, 9)
)


# Without shrinking, which would take minutes: an example is a few dozen transactions.
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow], phases=(Phase.explicit, Phase.generate)
)
@given(
    amounts=st.dictionaries(
        st.tuples(st.sampled_from(("hall", "cellar")), st.integers(0, 9)), st.integers(1, 2**50), min_size=1, max_size=6
    ),
    split=st.lists(PART, max_size=6),
    matching=st.sampled_from(("yearly", "hourly")),
    residual=st.booleans(),
    data=st.data(),
)
def test_both_totals_are_the_same_for_any_hosts_and_order(
    template: Path,
    tmp_path_factory: pytest.TempPathFactory,
    amounts: dict[tuple[str, int], int],
    split: list[tuple[str, str, int, int]],
    matching: str,
    residual: bool,
    data: st.DataObject,
) -> None:
    """One energy, whole on a host for each site or in parts on many, in any order: one figure of each method."""
    # A site is stated where it has energy, also if it cancels out.
    amounts = {("hall", 0): 1, ("cellar", 0): 1, **amounts}
    # Within an interval the PUE changes, and a quarter of an hour has another hour's certificate.
    sites = [hall("1.07"), hall("1.31", valid_from=BEGIN + 4 * INTERVAL + 137), hall("1.2", site="cellar")]
    rows = "".join(
        f"{number},granular,grid,IN,2023-04-01T{number:02}:00Z,2023-04-01T{number + 1:02}:00Z,{100 * number + 17},{number}"
        ",Example,,,\n"
        for number in range(3)
    )
    more = '[[residual]]\nmarket = "IN"\ngrams_per_kwh = 801.25\nevidence = "table"\n' if residual else ""
    holdings = "".join(
        f'[[holding]]\nsite = "{site}"\nsituation = "owned"\nevidence = "deed"\n' for site in ("hall", "cellar")
    )
    declaration = declare(rows, more, matching, holdings)
    catalog = FactorCatalog([[factor("703.5131", date(2024, 1, 1))]])
    trees = []
    whole = [(site, site, [row(energy, BEGIN + place * INTERVAL)]) for (site, place), energy in sorted(amounts.items())]
    rest = dict(amounts)
    parted: list[tuple[str, str, list[Any]]] = []
    for host, site, amount, place in split:
        rest[site, place] = rest.get((site, place), 0) - amount
        parted.append((f"{host} of {site}", site, [row(amount, BEGIN + place * INTERVAL)]))
    parted += [(f"z of {site}", site, [row(energy, BEGIN + place * INTERVAL)]) for (site, place), energy in rest.items()]
    for bookings in (whole, data.draw(st.permutations(parted))):
        ledger = Ledger(tmp_path_factory.mktemp("ledger"), sites, template=template)
        for host, site, booked in bookings:
            ledger.book(host, booked, site=site)
        closed = ledger.close(catalog, declaration=declaration)
        assert verify(ledger.bundle(closed)).problems == []
        trees.append(closed.statement.tree)
        ledger.store.close()
    one, two = trees
    assert one["market"] == two["market"]
    for name in ("all", "by_site"):
        stated = [[(each["name"], each["energy_microjoules"], each["emissions"]) for each in tree["totals"][name]]
                  for tree in trees]  # fmt: skip
        assert stated[0] == stated[1]
