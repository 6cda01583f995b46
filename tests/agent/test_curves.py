"""The load-to-power model: re-made by its fit, true of what it saw, and as wrong as it says of what it did not."""

from pathlib import Path

import numpy as np
import pytest

from fit_curves import Miss, band_of, fit_weights, leave_out, leave_out_in_table, write_table, write_tdps
from wattledger_agent.cpus import FAMILIES
from wattledger_agent.curves import (
    COLUMNS,
    LEVELS,
    CurveModel,
    Server,
    Weights,
    guess_server,
    read_table,
    read_tdps,
    read_weights,
)

ROME = next(family for family in FAMILIES if family.name == "Rome")
GENOA = next(family for family in FAMILIES if family.name == "Genoa")


@pytest.fixture(scope="module")
def model() -> CurveModel:
    """Return the packaged model."""
    return CurveModel(read_table(), read_weights())


@pytest.fixture(scope="module")
def misses() -> list[Miss]:
    """Return what the model says of each CPU model that it has not seen, knowing what an agent knows."""
    return leave_out(read_table(), by="model", as_agent=True)


def test_the_fit_makes_the_packaged_weights_anew(model: CurveModel) -> None:
    """Fitting the packaged table gives the packaged model: each curve's power within 0.01 %."""
    fitted = CurveModel(model.curves, fit_weights(model.curves))
    for curve in model.curves[::25]:
        assert model.watts(curve.server) == pytest.approx(fitted.watts(curve.server), rel=1e-4)


@pytest.fixture(scope="module")
def misses_in_table() -> list[Miss]:
    """Return what the model says of each machine that it has not seen, of a CPU model that it has."""
    return leave_out_in_table(read_table(), as_agent=True)


def test_the_packaged_bands_are_those_of_the_errors(misses: list[Miss], misses_in_table: list[Miss]) -> None:
    """The bands are re-made by leaving each model, and each machine, out."""
    assert read_weights().bands["family"] == band_of(misses)
    assert read_weights().bands["model"] == band_of(misses_in_table)


def coverage_of(misses: list[Miss], word: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the share of published values within the packaged band, by level."""
    band = read_weights().bands[word]
    ratios = np.array([miss.ratios() for miss in misses])
    inside: np.ndarray[tuple[int], np.dtype[np.float64]] = (
        (ratios >= 1 - band.lower_ratio) & (ratios <= 1 + band.upper_ratio)
    ).mean(axis=0)
    return inside


def test_an_unseen_cpu_model_is_met_within_its_band(misses: list[Miss]) -> None:
    """Median and 90th percentile of the error are at most 10 and 28 %; the band holds neither too little nor all."""
    errors = np.array([miss.errors() for miss in misses])
    assert np.median(errors) <= 0.10
    assert np.percentile(errors, 90) <= 0.28
    coverage = coverage_of(misses, "family")
    assert (coverage >= 0.90).all()
    assert 0.90 <= coverage.mean() <= 0.99


def test_a_cpu_model_of_the_table_is_met_more_nearly(misses_in_table: list[Miss]) -> None:
    """Other machines of the CPU model bring the error to two thirds; what is left is how machines of one make differ."""
    errors = np.array([miss.errors() for miss in misses_in_table])
    assert np.median(errors) <= 0.067
    assert np.percentile(errors, 90) <= 0.193
    coverage = coverage_of(misses_in_table, "model")
    assert (coverage >= 0.90).all()
    assert 0.90 <= coverage.mean() <= 0.99


def test_less_knowledge_has_a_wider_band() -> None:
    """Own curves are firmer than the family's, and those than other servers'."""
    bands = [read_weights().bands[word] for word in ("model", "family", "server")]
    assert [band.lower_ratio for band in bands] == sorted(band.lower_ratio for band in bands)
    assert [band.upper_ratio for band in bands] == sorted(band.upper_ratio for band in bands)


def test_a_cpu_model_of_the_table_uses_its_own_curves(model: CurveModel) -> None:
    """Where a model has published results, its prediction lies nearer to them than what others would say."""
    curves = read_table()
    own = [curve for curve in curves if curve.server.cpu == "epyc7702p"]
    seen = np.array([np.abs(np.log(np.array(model.watts(curve.server)) / curve.watts)).mean() for curve in own])
    unseen_model = CurveModel(rest := [c for c in curves if c not in own], fit_weights(rest))
    unseen = np.array([np.abs(np.log(np.array(unseen_model.watts(curve.server)) / curve.watts)).mean() for curve in own])
    assert seen.mean() < 0.6 * unseen.mean()


@pytest.mark.parametrize("chips", [1, 2, 4])
@pytest.mark.parametrize("cores_per_chip", [4, 16, 64, 128])
@pytest.mark.parametrize(("tdp_watts", "year"), [(60.0, 2009), (150.0, 2016), (400.0, 2025)])
def test_power_rises_with_load_for_any_server(
    model: CurveModel, chips: int, cores_per_chip: int, tdp_watts: float, year: int
) -> None:
    """Even far from the table the curve is within a server's reach, and rises from level to level."""
    watts = model.watts(Server("xeon", year, chips, chips * cores_per_chip, tdp_watts, 4.0 * chips * cores_per_chip))
    assert all(10.0 < value < 5000.0 for value in watts)
    assert list(watts) == sorted(watts)


def test_year_and_tdp_are_guessed_from_like_servers() -> None:
    """Own results come first, then the vendors' list, then the family's with as many cores, then the family at large."""
    curves = read_table()
    assert guess_server("epyc7742", ROME, 2, 128, 256.0, curves, {"epyc7742": 1.0}).tdp_watts == 225.0
    assert guess_server("epyc7402", ROME, 2, 48, 256.0, curves, read_tdps()).tdp_watts == 180.0
    assert guess_server("epyc7402", ROME, 2, 48, 256.0, curves, {}).tdp_watts in {200.0, 225.0}
    genoa = guess_server("epyc9654", GENOA, 2, 192, 768.0, curves, {})
    assert (genoa.tdp_watts, genoa.year) == (GENOA.tdp_watts, GENOA.year)
    assert guess_server("xeond-2712t", None, 1, 4, 64.0, curves, read_tdps()).tdp_watts == 65.0


def test_the_vendors_list_agrees_with_the_published_results() -> None:
    """Two independent lists give one TDP for each CPU model that both have, and that is most of them."""
    tdps = read_tdps()
    known = {curve.server.cpu: curve.server.tdp_watts for curve in read_table() if curve.server.cpu in tdps}
    assert len(known) == 95
    assert all(tdps[cpu] == tdp_watts for cpu, tdp_watts in known.items())


def test_the_list_of_tdps_is_made_of_server_cpus(tmp_path: Path) -> None:
    """Other CPUs and entries without a number are left out; the first of two entries counts."""
    source, target = tmp_path / "cpus.csv", tmp_path / "tdps.csv"
    source.write_text("Name,TDP\nIntel Xeon Gold 6230,125\nAMD Ryzen 9 5950X,105\nAMD EPYC 7H12,?\nXeon Gold 6230,7\n")
    assert write_tdps(source, target) == 1
    assert read_tdps(target) == {"xeongold6230": 125.0}
    assert "CodeCarbon" in target.read_text()


def test_weights_of_another_table_are_refused() -> None:
    """A table and weights that do not belong together are an error, not a wrong figure."""
    with pytest.raises(ValueError, match="306 curves but 0 rows of weights"):
        CurveModel(read_table(), Weights((0.0,), (), {}))


def test_a_table_with_other_columns_is_refused(tmp_path: Path) -> None:
    """A damaged installation is named."""
    path = tmp_path / "curves.csv"
    path.write_text("cpu,year\nx,2012\n")
    with pytest.raises(ValueError, match=r"curves\.csv: the columns are"):
        read_table(path)


def test_the_table_is_made_of_results_with_a_tdp(tmp_path: Path) -> None:
    """A result without TDP is left out and counted; figures are taken as they are."""
    source, target = tmp_path / "results.csv", tmp_path / "curves.csv"
    columns = ["watts_idle" if column == "watts_0" else column for column in COLUMNS]
    values = ["epyc7742", "2019", "2", "128", "225.0", "256.0", *[f"{90 + 30 * step}.5" for step in range(len(LEVELS))]]
    without = [*values[:4], "", *values[5:]]
    source.write_text("\n".join(",".join(row) for row in (columns, values, without)) + "\n")
    assert write_table(source, target) == 1
    (curve,) = read_table(target)
    assert curve.server == Server("epyc7742", 2019, 2, 128, 225.0, 256.0)
    assert curve.watts == tuple(90.5 + 30 * step for step in range(len(LEVELS)))


def test_the_table_names_its_source() -> None:
    """The attribution travels with the figures."""
    header = (Path(__file__).parents[2] / "agent/wattledger_agent/curves.csv").read_text()[:700]
    assert "SPECpower_ssj2008" in header
    assert "https://www.spec.org" in header
