"""The load-to-power model: wall power of a whole server, from its CPUs, memory and load.

Reads no sensor and no clock; it predicts what published results of the SPECpower_ssj2008 benchmark say of like servers, and
how far off that is. Three data files stand beside it: `curves.csv`, the published curves; `curves.json`, the weights that
`agent/fit_curves.py` makes of them; and `tdps.csv`, the thermal design power of CPU models as their vendors list it. The
method is kernel ridge regression of the logarithm of the power at each load level (C. E. Rasmussen, C. K. I. Williams,
"Gaussian Processes for Machine Learning", 2006, equation 2.25): a linear trend, plus what servers near to this one differ
from it by; a CPU model with published curves is nearest to itself. The benchmark's load is a share of the highest
throughput; a utilization is taken for it, which on chips with two threads a core is a little high.
"""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from wattledger_agent.cpus import Family, find_family, is_low_power

Number = TypeVar("Number", int, float)

TABLE_PATH = Path(__file__).with_name("curves.csv")
WEIGHTS_PATH = Path(__file__).with_name("curves.json")
TDPS_PATH = Path(__file__).with_name("tdps.csv")

# Load levels of a curve, as shares of full load; 0 is active idle.
LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
COLUMNS = ("cpu", "year", "chips", "cores", "tdp_watts", "memory_gb", *(f"watts_{round(level * 100)}" for level in LEVELS))

# The table's years; a server from outside is taken as one of its edge, since a trend in time can't be prolonged.
YEAR_MIN, YEAR_MAX = 2006, 2022

# How alike two servers are, for the kernel: distances at which likeness falls to exp(-1/2), and each part's share. Chosen by
# the leave-one-model-out error of the table itself; neighbouring choices differ by less than half a percent.
TDP_SCALE, CHIPS_SCALE, CORES_SCALE, YEARS_SCALE, MEMORY_SCALE = 0.35, 1.0, 1.0, 1.5, 0.7
TREND_SHARE, NEAR_SHARE, SAME_MODEL_SHARE, SAME_FAMILY_SHARE = 3.0, 0.3, 0.03, 0.3
# Results of one CPU model are most alike with as much memory: it tells makes of servers apart.
SAME_MODEL_MEMORY_SCALE = 0.15
# Variance of results of one configuration, relative to the shares above.
NOISE = 0.04

# Centre and spread of the trend's features, rounded; they only make its terms alike in size.
TREND_CENTRES = (5.2, 0.7, 2.9, 0.0, 3.6, 20.0, 0.18)
TREND_SPREADS = (0.65, 0.45, 1.1, 4.5, 1.3, 20.0, 0.39)


@dataclass(frozen=True, slots=True)
class Server:
    """What the model knows of a server.

    cpu: key of the CPU model (see cpus.cpu_key). chips, cores: of the whole server, each >= 1. tdp_watts: of one chip.
    """

    cpu: str
    year: int
    chips: int
    cores: int
    tdp_watts: float
    memory_gb: float


@dataclass(frozen=True, slots=True)
class PublishedCurve:
    """One published result: a server, and its wall power in watts at each of LEVELS."""

    server: Server
    watts: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Band:
    """95 % band of a modelled value: [value x (1 - lower), value x (1 + upper)]."""

    lower_ratio: float
    upper_ratio: float


@dataclass(frozen=True, slots=True)
class Weights:
    """What is fitted.

    means: mean logarithm of watts by level. weights: one row by curve of the table, one column by level.
    bands: by how well a server is known: `model`, `family`, `server`, `guest` (see fit_curves).
    """

    means: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    bands: dict[str, Band]


class CurveModel:
    """Predicts power by load. The curves and weights must be of one fit. Raises ValueError if their counts differ."""

    def __init__(self, curves: Sequence[PublishedCurve], weights: Weights) -> None:
        if len(curves) != len(weights.weights):
            raise ValueError(f"{len(curves)} curves but {len(weights.weights)} rows of weights: run agent/fit_curves.py")
        self.curves = curves
        self._weights = weights
        self._points = [point(curve.server) for curve in curves]

    def watts(self, server: Server) -> tuple[float, ...]:
        """Return the wall power at each of LEVELS."""
        here = point(server)
        logs = list(self._weights.means)
        for there, row in zip(self._points, self._weights.weights, strict=True):
            likeness = kernel(here, there)
            for level, weight in enumerate(row):
                logs[level] += likeness * weight
        return tuple(math.exp(value) for value in logs)

    def band(self, knowledge: str) -> Band:
        """Return the band of servers known in this way. Raises KeyError for a word that fit_curves did not fit."""
        return self._weights.bands[knowledge]


@dataclass(frozen=True, slots=True)
class Point:
    """A server as the kernel sees it."""

    cpu: str
    family: str
    near: tuple[float, ...]
    memory: float
    trend: tuple[float, ...]


def point(server: Server) -> Point:
    """Return the features of a server."""
    family = find_family(server.cpu)
    year = min(max(server.year, YEAR_MIN), YEAR_MAX) - 2012
    tdp, chips, memory = math.log(server.tdp_watts), math.log(server.chips), math.log(max(server.memory_gb, 1.0))
    cores = math.log(server.cores)
    is_amd = 1.0 if server.cpu.startswith(("epyc", "opteron")) else 0.0
    trend = (tdp + chips, chips, cores, float(year), memory, float(year * year), is_amd)
    return Point(
        cpu=server.cpu,
        family=family.name if family else "",
        near=(
            tdp / TDP_SCALE,
            chips / CHIPS_SCALE,
            (cores - chips) / CORES_SCALE,
            year / YEARS_SCALE,
            (memory - chips) / MEMORY_SCALE,
        ),
        memory=(memory - chips) / SAME_MODEL_MEMORY_SCALE,
        trend=tuple((value - c) / s for value, c, s in zip(trend, TREND_CENTRES, TREND_SPREADS, strict=True)),
    )


def kernel(a: Point, b: Point) -> float:
    """Return how alike two servers are."""
    trend = sum(x * y for x, y in zip(a.trend, b.trend, strict=True)) / len(a.trend)
    distance = sum((x - y) ** 2 for x, y in zip(a.near, b.near, strict=True))
    share = 1.0 if a.family == b.family else 1.0 - SAME_FAMILY_SHARE
    same_model = SAME_MODEL_SHARE * math.exp(-0.5 * (a.memory - b.memory) ** 2) if a.cpu == b.cpu else 0.0
    return 1.0 + TREND_SHARE * trend + NEAR_SHARE * share * math.exp(-0.5 * distance) + same_model


def guess_server(
    cpu: str,
    family: Family | None,
    chips: int,
    cores: int,
    memory_gb: float,
    curves: Iterable[PublishedCurve],
    tdps: Mapping[str, float],
) -> Server:
    """Fill in a server's year and TDP: of its own model's results, else of its family and of its vendor's list.

    family: None takes the newest of the table's years. tdps: as vendors list them, in watts by key (see read_tdps); for a
    model that is not in it, the family's with most nearly as many cores counts.
    """
    same_model = [curve.server for curve in curves if curve.server.cpu == cpu]
    if same_model:
        return Server(
            cpu, _median([s.year for s in same_model]), chips, cores, _median([s.tdp_watts for s in same_model]), memory_gb
        )
    if family is None:
        return Server(cpu, YEAR_MAX, chips, cores, tdps.get(cpu, TDP_WATTS_UNKNOWN), memory_gb)
    tdp_watts = tdps.get(cpu) or _tdp_of_relatives(cpu, family, cores / chips, curves)
    return Server(cpu, family.year, chips, cores, tdp_watts, memory_gb)


def _tdp_of_relatives(cpu: str, family: Family, cores_per_chip: float, curves: Iterable[PublishedCurve]) -> float:
    relatives = [curve.server for curve in curves if find_family(curve.server.cpu) is family]
    relatives = [s for s in relatives if is_low_power(s.cpu) == is_low_power(cpu)]
    if not relatives:
        return family.tdp_watts

    def distance(relative: Server) -> float:
        return abs(math.log((relative.cores / relative.chips) / cores_per_chip))

    nearest = min(distance(relative) for relative in relatives)
    return _median([relative.tdp_watts for relative in relatives if distance(relative) <= nearest + 1e-9])


# The middle of today's server CPUs.
TDP_WATTS_UNKNOWN = 205.0


def read_table(path: Path = TABLE_PATH) -> list[PublishedCurve]:
    """Read the packaged curves. Raises OSError, or ValueError for a file that is not as COLUMNS says."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        if tuple(rows.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path}: the columns are {rows.fieldnames}, not {list(COLUMNS)}: install the package anew")
        return [_curve(row) for row in rows]


def read_weights(path: Path = WEIGHTS_PATH) -> Weights:
    """Read the fitted weights. Raises OSError, or ValueError for a file that fit_curves did not write."""
    data = json.loads(path.read_text(encoding="utf-8"))
    return Weights(
        means=tuple(data["means"]),
        weights=tuple(tuple(row) for row in data["weights"]),
        bands={word: Band(lower, upper) for word, (lower, upper) in data["bands"].items()},
    )


def read_tdps(path: Path = TDPS_PATH) -> dict[str, float]:
    """Read the packaged TDPs: watts of one chip, by CPU key. Raises OSError, or ValueError for a line without a number."""
    tdps: dict[str, float] = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.startswith("#"):
                watts, _, keys = line.partition(",")
                tdps.update(dict.fromkeys(keys.split(), float(watts)))
    return tdps


def _curve(row: dict[str, str]) -> PublishedCurve:
    server = Server(
        cpu=row["cpu"],
        year=int(row["year"]),
        chips=int(row["chips"]),
        cores=int(row["cores"]),
        tdp_watts=float(row["tdp_watts"]),
        memory_gb=float(row["memory_gb"]),
    )
    return PublishedCurve(server, tuple(float(row[column]) for column in COLUMNS[6:]))


def _median(values: list[Number]) -> Number:
    return sorted(values)[len(values) // 2]
