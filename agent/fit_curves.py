"""Fits the estimate's load-to-power model, and measures how wrong it is.

Not part of the agent: it needs numpy and is run by a developer when the table of curves or the kernel changes:

    python agent/fit_curves.py                      # fits the packaged table anew and rewrites curves.json
    python agent/fit_curves.py --table results.csv  # first makes the packaged table of results in the columns of curves.csv
    python agent/fit_curves.py --tdps cpu_power.csv # first makes the packaged TDPs of a list of CPU names and watts

The figures are results of SPECpower_ssj2008 published by SPEC (https://www.spec.org/power_ssj2008/results/).
"""

import argparse
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wattledger_agent.cpus import cpu_key, find_family, is_server
from wattledger_agent.curves import (
    COLUMNS,
    NOISE,
    TABLE_PATH,
    TDPS_PATH,
    WEIGHTS_PATH,
    Band,
    CurveModel,
    PublishedCurve,
    Server,
    Weights,
    guess_server,
    kernel,
    point,
    read_table,
    read_tdps,
)
from wattledger_agent.estimates import count_relatives, threads_per_core, usual_server

# Of the level at which the model errs most, the band leaves out so many percent on either side. There 93 % of the values lie
# within it, over all levels 98 %: a band that is one for all loads can't hold 95 % at each.
BAND_TAIL_PERCENT = 3.5

# Figures of the weights in the file: the power they give differs from the unrounded by less than 0.01 %.
DECIMALS = 6

# What a guest runs on: no entry server, and where nothing is known of it, none older than this.
GUEST_HOST_CORES_MIN = 8
GUEST_YEAR_MIN = 2016

HEADER = """\
# Published results of the SPECpower_ssj2008 benchmark: wall power of whole servers at active idle and at 10 to 100 % load.
# Source: SPEC, https://www.spec.org/power_ssj2008/results/. SPEC(R) and SPECpower_ssj(R) are registered trademarks of the
# Standard Performance Evaluation Corporation (https://www.spec.org). The figures are used under SPEC's fair use rules to fit
# a model, not to compare products. Made by agent/fit_curves.py; cores and chips are of the server, tdp_watts of one chip.
"""


TDPS_HEADER = """\
# Thermal design power of server CPUs in watts of one chip, then the models that have it, by key (see cpus.cpu_key).
# Source: Intel's and AMD's lists as compiled in cpu_power.csv of CodeCarbon 3.3.2 (https://github.com/mlco2/codecarbon, MIT
# licence); server brands only. Made by agent/fit_curves.py.
"""


@dataclass(frozen=True, slots=True)
class Miss:
    """One held-out curve: what was published, and what the model says that did not see it; watts by level."""

    curve: PublishedCurve
    watts: tuple[float, ...]

    def ratios(self) -> list[float]:
        """Return published over predicted power, by level."""
        return [true / model for true, model in zip(self.curve.watts, self.watts, strict=True)]

    def errors(self) -> list[float]:
        """Return the relative errors of the predicted power, by level; each >= 0."""
        return [abs(model / true - 1) for true, model in zip(self.curve.watts, self.watts, strict=True)]


def fit(curves: Sequence[PublishedCurve], bands: dict[str, Band] | None = None) -> CurveModel:
    """Return the model of these curves."""
    return CurveModel(curves, fit_weights(curves, bands))


def fit_weights(curves: Sequence[PublishedCurve], bands: dict[str, Band] | None = None) -> Weights:
    """Return the weights of these curves; without bands where none are given."""
    return _weights(_inverse(curves), curves, bands or {})


def leave_out(curves: Sequence[PublishedCurve], *, by: str, as_agent: bool) -> list[Miss]:
    """Predict each curve by a model that saw neither it nor any other of its group.

    by: `model` leaves out all results of its CPU model, `family` those of its CPU family, `result` it alone.
    as_agent: tell the model no more than an agent finds on the server (CPU name, chips, cores, memory): not the year, and
    the TDP only where the packaged list of vendors' figures has it.
    """
    tdps = read_tdps() if as_agent else {}
    misses = []
    for held, rest, model in _models_without(curves, by):
        for index in sorted(held):
            server = curves[index].server
            misses.append(Miss(curves[index], model.watts(forget(server, rest, tdps) if as_agent else server)))
    return misses


def forget(server: Server, curves: Sequence[PublishedCurve], tdps: Mapping[str, float]) -> Server:
    """Return the server as an agent would take it from the other curves and the vendors' lists."""
    family = find_family(server.cpu)
    return guess_server(server.cpu, family, server.chips, server.cores, server.memory_gb, curves, tdps)


def leave_out_as_guest(curves: Sequence[PublishedCurve], *, family_known: bool) -> list[Miss]:
    """Predict each server's power by thread from a usual server, as for a guest that can't see its host.

    family_known: the guest knows its CPU's family, of which all results of the held-out CPU model are left out; else it
    knows nothing, and only servers of the years in which clouds still run them are asked for.
    """
    tdps = read_tdps()
    misses = []
    for held, rest, model in _models_without(curves, "model"):
        family = find_family(curves[min(held)].server.cpu)
        asked = [curves[index] for index in sorted(held) if curves[index].server.cores >= GUEST_HOST_CORES_MIN]
        if not family_known:
            asked = [curve for curve in asked if curve.server.year >= GUEST_YEAR_MIN]
        if not asked or (family_known and not count_relatives(family, rest)):
            continue
        known = family if family_known else None
        usual = usual_server("", known, rest, tdps)
        watts = model.watts(usual)
        for curve in asked:
            share = curve.server.cores * threads_per_core(family) / (usual.cores * threads_per_core(known))
            misses.append(Miss(curve, tuple(value * share for value in watts)))
    return misses


def band_of(misses: Sequence[Miss]) -> Band:
    """Return the band of the published values, at whichever load level they lie furthest out: true of an idle server too."""
    ratios = np.array([miss.ratios() for miss in misses])
    lower, upper = np.percentile(ratios, [BAND_TAIL_PERCENT, 100.0 - BAND_TAIL_PERCENT], axis=0)
    return Band(round(float(1 - lower.min()), 3), round(float(upper.max() - 1), 3))


def leave_out_in_table(curves: Sequence[PublishedCurve], *, as_agent: bool) -> list[Miss]:
    """Predict each curve whose CPU model has others by a model that saw those others, but not it."""
    counts: dict[str, int] = {}
    for curve in curves:
        counts[curve.server.cpu] = counts.get(curve.server.cpu, 0) + 1
    return [miss for miss in leave_out(curves, by="result", as_agent=as_agent) if counts[miss.curve.server.cpu] > 1]


def fit_bands(curves: Sequence[PublishedCurve]) -> dict[str, Band]:
    """Return the bands of servers whose CPU model has curves, whose family has, and of which neither has; and of guests."""
    return {
        "model": band_of(leave_out_in_table(curves, as_agent=True)),
        "family": band_of(leave_out(curves, by="model", as_agent=True)),
        "server": band_of(leave_out(curves, by="family", as_agent=True)),
        "guest": band_of([m for known in (True, False) for m in leave_out_as_guest(curves, family_known=known)]),
    }


def write_weights(weights: Weights, path: Path) -> None:
    """Write curves.json."""
    lines = [
        '{"means": ' + json.dumps([round(value, DECIMALS) for value in weights.means]) + ",",
        '"bands": ' + json.dumps({word: [band.lower_ratio, band.upper_ratio] for word, band in weights.bands.items()}) + ",",
        '"weights": [',
        ",\n".join(json.dumps([round(value, DECIMALS) for value in row]) for row in weights.weights),
        "]}",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_table(source: Path, path: Path) -> int:
    """Make the packaged table of a file of results; returns how many were left out for want of a TDP."""
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    usable = [row for row in rows if row["tdp_watts"]]
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(HEADER)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in usable:
            writer.writerow([_plain(row["watts_idle" if column == "watts_0" else column]) for column in COLUMNS])
    return len(rows) - len(usable)


def write_tdps(source: Path, path: Path) -> int:
    """Make the packaged TDPs of a list with the columns Name and TDP; returns how many server CPUs have one."""
    tdps: dict[str, float] = {}
    with source.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            key = cpu_key(row["Name"])
            if is_server(key) and row["TDP"].replace(".", "", 1).isdigit():
                tdps.setdefault(key, float(row["TDP"]))
    lines = [
        _plain(str(watts)) + "," + " ".join(sorted(key for key in tdps if tdps[key] == watts))
        for watts in sorted(set(tdps.values()))
    ]
    path.write_text(TDPS_HEADER + "\n".join(lines) + "\n", encoding="utf-8")
    return len(tdps)


def main() -> None:
    """Fit, write, and say what was written."""
    parser = argparse.ArgumentParser(description="Fit the load-to-power model of the estimate.")
    parser.add_argument("--table", type=Path, help="results to make the packaged table of, in the columns of curves.csv")
    parser.add_argument("--tdps", type=Path, help="a list with the columns Name and TDP to make the packaged one of")
    arguments = parser.parse_args()
    if arguments.tdps:
        print(f"TDPs of {write_tdps(arguments.tdps, TDPS_PATH)} server CPUs")
    if arguments.table:
        print(f"{write_table(arguments.table, TABLE_PATH)} results without TDP left out")
    curves = read_table()
    weights = replace(fit_weights(curves), bands=fit_bands(curves))
    write_weights(weights, WEIGHTS_PATH)
    print(f"{len(curves)} curves; bands {weights.bands}")


def _likeness(curves: Sequence[PublishedCurve]) -> NDArray[np.float64]:
    points = [point(curve.server) for curve in curves]
    likeness = np.empty((len(points), len(points)))
    for row, a in enumerate(points):
        for column, b in enumerate(points[: row + 1]):
            likeness[row, column] = likeness[column, row] = kernel(a, b)
    return likeness


def _inverse(curves: Sequence[PublishedCurve]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.inv(_likeness(curves) + NOISE * np.eye(len(curves))), dtype=np.float64)


def _weights(inverse: NDArray[np.float64], curves: Sequence[PublishedCurve], bands: dict[str, Band]) -> Weights:
    logs = np.log(np.array([curve.watts for curve in curves]))
    means = logs.mean(axis=0)
    return Weights(tuple(means.tolist()), tuple(tuple(row) for row in (inverse @ (logs - means)).tolist()), bands)


def _models_without(
    curves: Sequence[PublishedCurve], by: str
) -> Iterator[tuple[set[int], list[PublishedCurve], CurveModel]]:
    """Return each group that is left out, the other curves, and the model of these, which knows nothing of the group."""
    inverse = _inverse(curves)
    for held in _groups(curves, by):
        kept, out = [index for index in range(len(curves)) if index not in held], sorted(held)
        rest = [curves[index] for index in kept]
        # The inverse over the rest follows from that over all, by the Schur complement.
        across = inverse[np.ix_(kept, out)]
        of_rest = inverse[np.ix_(kept, kept)] - across @ np.linalg.solve(inverse[np.ix_(out, out)], across.T)
        yield held, rest, CurveModel(rest, _weights(of_rest, rest, {}))


def _groups(curves: Sequence[PublishedCurve], by: str) -> Iterator[set[int]]:
    names = [str(index) for index in range(len(curves))]
    if by == "model":
        names = [curve.server.cpu for curve in curves]
    elif by == "family":
        families = [find_family(curve.server.cpu) for curve in curves]
        names = [family.name if family else "" for family in families]
    for name in dict.fromkeys(names):
        yield {index for index, other in enumerate(names) if other == name}


def _plain(text: str) -> str:
    return text.removesuffix(".0")


if __name__ == "__main__":
    main()
