"""What a declaration says of a site's electricity: its scopes, and the residual mix of its market."""

from datetime import date

from wattledger_collector.declared import Declared, parse_declared
from wattledger_collector.emission_bases import SCOPE_UNDECLARED, Terms
from wattledger_collector.emission_terms import DeclaredTerms
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factors import (
    Basis,
    Boundary,
    FactorKind,
    Gas,
    Gwp,
    Signal,
    kind_of_id,
    parse_factors,
    seconds_of_day,
)

AT = seconds_of_day(date(2024, 7, 1))
GRID = FactorKind(Signal.AVERAGE, Boundary.LIFECYCLE, Gas.CO2E, Basis.CONSUMPTION, Gwp.AR5)
HEADER = (
    "zone,name,value,unit,signal,boundary,gas,basis,includes_td,valid_from,valid_to,published,source,document,"
    "licence,attribution\n"
)
HOLDING = """
[[holding]]
site = "hall"
situation = "colocated"
has_control = true
evidence = "contract 7"
to = 2024-08-01

[[holding]]
site = "hall"
situation = "cloud"
evidence = "contract 8"
market = "EU/1"
from = 2024-08-01
"""


def declared(text: str, approach: str = "operational_control") -> Declared:
    """A declaration from its entries."""
    return parse_declared(f'organisation = "O"\napproach = "{approach}"\n{text}', "inventory.toml")


def catalog(*values: tuple[str, str]) -> FactorCatalog:
    """Residual mixes for all of 2024: zone and g/kWh."""
    rows = (
        f"{zone},Nowhere,{value},g/kWh,average,direct,CO2,residual,false,2024-01-01,2025-01-01,2025-05-01,T,d,l,a\n"
        for zone, value in values
    )
    text = "".join(rows)
    return FactorCatalog([parse_factors(HEADER + text, "f")] if text else [])


def test_without_a_declaration_all_is_in_scope_2_of_the_zones_market() -> None:
    """The residual mix is that of a factor table, by the zone; without one the grid's factor has to stand in."""
    terms = DeclaredTerms(None, lambda: catalog(("XX", "610")))
    told = terms.at("hall", "XX", AT, GRID)
    assert (told.scope, told.overhead_scope) == ("2", "2")
    assert told.residual is not None
    assert (str(told.residual.grams_per_kwh), kind_of_id(told.residual.factor).basis) == ("610", "residual")
    assert terms.at("hall", "YY", AT, GRID) == Terms("2", "2", None)


def test_scopes_are_those_of_the_holding_at_the_time() -> None:
    """A tenant with control of the racks buys their electricity, and the lessor cools them; a cloud is a service."""
    terms = DeclaredTerms(declared(HOLDING), catalog)
    before, after = (terms.at("hall", "XX", at, GRID) for at in (AT, seconds_of_day(date(2024, 8, 1))))
    assert (before.scope, before.overhead_scope) == ("2", "3.8")
    assert (after.scope, after.overhead_scope) == ("3.1", "3.1")


def test_the_approach_decides() -> None:
    """By financial control a tenant's racks are the lessor's."""
    told = DeclaredTerms(declared(HOLDING, "financial_control"), catalog).at("hall", "XX", AT, GRID)
    assert (told.scope, told.overhead_scope) == ("3.8", "3.8")


def test_a_site_that_is_not_declared_is_in_no_scope() -> None:
    """As in the inventory, where its energy is in no figure."""
    terms = DeclaredTerms(declared(HOLDING), lambda: catalog(("XX", "610")))
    assert terms.at("other", "XX", AT, GRID) == Terms(SCOPE_UNDECLARED, SCOPE_UNDECLARED, None)


def test_a_declared_mix_stands_before_a_tables_and_counts_what_the_grids_does() -> None:
    """Its id is like that of a factor row, whatever characters the market's name has; the holding's market is asked for."""
    mixes = '[[residual]]\nmarket = "{}"\ngrams_per_kwh = {}\nevidence = "decree"\n'
    text = HOLDING + mixes.format("XX", "512.5") + mixes.format("EU/1", "480.5")
    terms = DeclaredTerms(declared(text), lambda: catalog(("XX", "610")))
    for at, grams in ((AT, "512.5"), (seconds_of_day(date(2024, 8, 1)), "480.5")):
        told = terms.at("hall", "XX", at, GRID).residual
        assert told is not None
        assert str(told.grams_per_kwh) == grams
        assert kind_of_id(told.factor) == FactorKind(Signal.AVERAGE, Boundary.LIFECYCLE, Gas.CO2E, Basis.RESIDUAL, Gwp.AR5)
    assert terms.at("hall", "YY", AT, GRID).residual is None


def test_a_mix_that_is_published_later_is_found() -> None:
    """The catalog is asked each time, so that a factor which is recorded while the collector runs counts from then on."""
    known = [catalog()]
    terms = DeclaredTerms(None, lambda: known[0])
    assert terms.at("hall", "XX", AT, GRID).residual is None
    known[0] = catalog(("XX", "610"))
    assert terms.at("hall", "XX", AT, GRID).residual is not None
