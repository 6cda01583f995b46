"""Measures how wrong the estimate is on servers that it has not seen.

Not a test: it asserts nothing. Each CPU model of the packaged table is left out in turn and its results are predicted from
the others'; the band of each is that of the others' errors. The comparison is power proportional to TDP x chips, with its
factor fitted for each load level on the same results. Lines named `as_agent` are of a model that is told no more than an
agent finds on a server: CPU name, chips, cores and memory, but neither year nor TDP.

    python -m tests.bench.estimation [--small]
"""

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tests.bench.output import report

from fit_curves import Miss, band_of, leave_out
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
    comparison = _errors(leave_out_tdp(curves))
    told = leave_out(curves, by="model", as_agent=False)
    found = leave_out(curves, by="model", as_agent=True)
    for name, misses in (("estimation", told), ("estimation_as_agent", found)):
        _print_errors(name, _errors(misses), comparison)
        _print_coverage(name, misses)


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
