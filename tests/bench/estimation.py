"""Measures how wrong the estimate is on servers that it has not seen.

Not a test: it asserts nothing. Each CPU model of the packaged table is left out in turn and its results are predicted from
the others'; the band of each is that of the others' errors. The comparison is power proportional to TDP x chips, with its
factor fitted for each load level on the same results. Lines named `as_agent` are of a model that is told no more than an
agent finds on a server: CPU name, chips, cores, memory and the TDP that vendors' lists give for the name, but not the year.
Lines named `in_table` are of a CPU model that is in the table: each result that is not its CPU model's only one is left out
alone, so that other machines with this CPU model stay in; the comparison is what the TDP-proportional model says of the
same results. `alike` is what no model can beat by much: the error of the middle of all other results of the same CPU model,
with as many chips and cores and as much memory. Machines of one configuration differ by that.

    python -m tests.bench.estimation [--small]
"""

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tests.bench.output import report

from fit_curves import Miss, band_of, leave_out, leave_out_in_table
from wattledger_agent.curves import LEVELS, PublishedCurve, read_table

NOMINAL_COVERAGE = 0.95

# Each so many-th result is used in a small run; every family still has some.
SMALL_STEP = 3


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Measure how wrong the estimate is on servers that it has not seen.")
    parser.add_argument("--small", action="store_true", help="use a third of the results")
    curves = read_table()
    if parser.parse_args().small:
        curves = curves[::SMALL_STEP]
    comparison = leave_out_tdp(curves)
    told = leave_out(curves, by="model", as_agent=False)
    found = leave_out(curves, by="model", as_agent=True)
    in_table = leave_out_in_table(curves, as_agent=True)
    known = {id(miss.curve) for miss in in_table}
    comparison_in_table = [miss for miss in comparison if id(miss.curve) in known]
    for name, misses, theirs in (
        ("estimation", told, comparison),
        ("estimation_as_agent", found, comparison),
        ("estimation_in_table", in_table, comparison_in_table),
    ):
        _print_errors(name, _errors(misses), _errors(theirs))
        _print_coverage(name, misses)
    alike = leave_out_alike(curves)
    known = {id(miss.curve) for miss in alike}
    for word, percent in (("median", 50), ("p90", 90)):
        ours = float(np.percentile(_errors([miss for miss in in_table if id(miss.curve) in known]), percent))
        value = float(np.percentile(_errors(alike), percent))
        report(f"estimation_alike_error_{word}_all", value, "ratio", ours, "the estimate of the same results")


def leave_out_tdp(curves: Sequence[PublishedCurve]) -> list[Miss]:
    """Predict each curve by factor x TDP x chips, the factor being the median of the other CPU models' at each level."""
    tdps = np.array([curve.server.tdp_watts * curve.server.chips for curve in curves])
    factors = np.array([curve.watts for curve in curves]) / tdps[:, None]
    names = np.array([curve.server.cpu for curve in curves])
    misses = []
    for curve, tdp in zip(curves, tdps, strict=True):
        watts = np.median(factors[names != curve.server.cpu], axis=0) * tdp
        misses.append(Miss(curve, tuple(watts.tolist())))
    return misses


def leave_out_alike(curves: Sequence[PublishedCurve]) -> list[Miss]:
    """Predict each curve by the middle of the others of its very configuration, where there are any."""
    configurations = [(curve.server.cpu, curve.server.chips, curve.server.cores, curve.server.memory_gb) for curve in curves]
    misses = []
    for index, curve in enumerate(curves):
        others = [
            other.watts
            for place, other in enumerate(curves)
            if place != index and configurations[place] == configurations[index]
        ]
        if others:
            misses.append(Miss(curve, tuple(np.median(np.array(others), axis=0).tolist())))
    return misses


def coverage(misses: Sequence[Miss]) -> NDArray[np.bool_]:
    """Say of each value, by level, whether it lies in the band of the other CPU models' errors."""
    inside = np.zeros((len(misses), len(LEVELS)), dtype=np.bool_)
    for cpu in {miss.curve.server.cpu for miss in misses}:
        band = band_of([miss for miss in misses if miss.curve.server.cpu != cpu])
        for index, miss in enumerate(misses):
            if miss.curve.server.cpu == cpu:
                ratios = np.array(miss.ratios())
                inside[index] = (ratios >= 1 - band.lower_ratio) & (ratios <= 1 + band.upper_ratio)
    return inside


def _errors(misses: Sequence[Miss]) -> NDArray[np.float64]:
    return np.array([miss.errors() for miss in misses])


def _print_errors(name: str, errors: NDArray[np.float64], comparison: NDArray[np.float64]) -> None:
    levels: list[tuple[str, slice]] = [("all", slice(None))]
    levels += [(f"load_{round(level * 100)}", slice(index, index + 1)) for index, level in enumerate(LEVELS)]
    for level, columns in levels:
        for word, percent in (("median", 50), ("p90", 90)):
            value = float(np.percentile(errors[:, columns], percent))
            theirs = float(np.percentile(comparison[:, columns], percent))
            report(f"{name}_error_{word}_{level}", value, "ratio", theirs, "TDP-proportional model")


def _print_coverage(name: str, misses: Sequence[Miss]) -> None:
    inside = coverage(misses)
    by_level = inside.mean(axis=0)
    report(f"{name}_band_coverage_all", float(inside.mean()), "ratio", NOMINAL_COVERAGE, "nominal coverage")
    for index, level in enumerate(LEVELS):
        value = float(by_level[index])
        report(f"{name}_band_coverage_load_{round(level * 100)}", value, "ratio", NOMINAL_COVERAGE, "nominal coverage")


if __name__ == "__main__":
    main()
