"""Reckons the 95 % intervals of a statement anew, with the bands that it states and the ratios that it assumed.

No file and nothing of what made the statement: numbers in, sentences out. Sources of truth: IPCC 2006, volume 1, chapter 3;
the statement's own `assumed_ratios`, which hold where a sensor's band is 0 on both sides or a factor row has none.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import fsum, sqrt
from typing import Any

from wattledger_collector.verify_values import Tree, grams_tree, integer, is_near

# Type of factor, recorded, site or None for all of them.
_Key = tuple[str, bool, str | None]


@dataclass(slots=True)
class Sums:
    """What one interval is made of; names are those of a source, or of a zone's series. series: bands of all factors."""

    series: Mapping[tuple[Any, ...], tuple[float, bool]]
    below: dict[str, list[float]] = field(default_factory=dict)
    above: dict[str, list[float]] = field(default_factory=dict)
    factors: dict[str, list[float]] = field(default_factory=dict)
    assumed_sensors: dict[str, float] = field(default_factory=dict)
    assumed_factors: dict[str, float] = field(default_factory=dict)


def uncertainty_problems(statement: Tree, lines: Sequence[Tree], gaps: Sequence[Tree]) -> Iterator[str]:
    """Whether each total has the interval that follows. lines: as they were reckoned; gaps: the rows of gaps.json."""
    yield from _ratio_problems(statement)
    groups: dict[_Key, list[Tree]] = {}
    for line in lines:
        if line["kind"] is not None:
            for site in (None, line["site"]):
                groups.setdefault((line["kind"], line["recorded"], site), []).append(line)
    stated = {(each["kind"], each["recorded"], each["site"]): each for each in statement["uncertainty"]}
    if set(stated) != set(groups) or len(stated) != len(statement["uncertainty"]):
        yield "the uncertainties are not of the types of factors and the sites that were used"
        return
    bounds = bounds_of(statement, gaps)
    for key, own in sorted(groups.items(), key=str):
        yield from _interval_problems(statement, key, own, lines, bounds, stated[key])


def _ratio_problems(statement: Tree) -> Iterator[str]:
    """An assumed band of 0 would be no band at all."""
    for group, ratios in statement["assumed_ratios"].items():
        for name, ratio in ratios.items():
            if not 0 < float(ratio) <= 1:
                yield f"the band that is assumed for {group} of {name} is {ratio}, which is no band"


def _interval_problems(
    statement: Tree,
    key: _Key,
    own: Sequence[Tree],
    lines: Sequence[Tree],
    bounds: Mapping[tuple[str, bool], tuple[int, int | None]],
    stated: Tree,
) -> Iterator[str]:
    kind, recorded, site = key
    name = f"{kind}{' (recorded)' if recorded else ''}{f' of site {site}' if site is not None else ''}"
    sums = _sums(statement, own)
    missing_below, missing_above, open_sites = _missing(statement, key, own, lines, bounds)
    spread_below, spread_above = half_widths(sums)
    lower, upper = spread_below + missing_below, spread_above + missing_above
    total = sum((Fraction(line["grams"]["exact"]) for line in own), Fraction(0))
    if stated["grams"] != grams_tree(total):
        yield f"the total under {name} beside its uncertainty is another one"
    for what, value in (("lower_grams", lower), ("upper_grams", upper)):
        if not is_near(stated[what], value):
            yield f"{what} under {name} is {value:.6f}, and not {stated[what]}"
    assumed = stated["assumed"]
    for what, found in (("sensor", sums.assumed_sensors), ("factor", sums.assumed_factors)):
        amount = sum(found.values())
        if assumed[f"{what}s"] != sorted(found) or not is_near(assumed[f"{what}_grams"], amount):
            yield f"under {name}, {what}s without a stated band are {', '.join(sorted(found)) or 'none'}, for {amount:.6f} g"
    if stated["without_upper_bound"] != sorted(open_sites):
        yield f"under {name}, nobody knows what is missing at {', '.join(sorted(open_sites)) or 'no site'}"


def _sums(statement: Tree, lines: Sequence[Tree]) -> Sums:
    sums = sums_of(statement)
    for line in lines:
        add_terms(statement, sums, line, float(Fraction(line["grams"]["exact"])))
    return sums


def sums_of(statement: Tree) -> Sums:
    """Of nothing yet, with the bands of the statement's factors."""
    return Sums(_series(statement))


def add_terms(statement: Tree, sums: Sums, line: Tree, grams: float, factor: tuple[str, float, str] | None = None) -> None:
    """Add grams of a line's energy. factor: name, ratio, and its name once more if that is assumed; None: the line's own."""
    ratios = statement["assumed_ratios"]
    name, ratio, assumed = factor or _factor(statement, sums, line)
    if assumed:
        sums.assumed_factors[assumed] = sums.assumed_factors.get(assumed, 0.0) + grams
    for source, lower, upper, share in _sensors(statement, line):
        part = grams * share
        if not lower > 0 and not upper > 0:
            lower = upper = ratios["sensors"][line["quality"]]
            sums.assumed_sensors[source] = sums.assumed_sensors.get(source, 0.0) + part
        sums.below.setdefault(source, []).append(part * lower)
        sums.above.setdefault(source, []).append(part * upper)
        sums.factors.setdefault(name, []).append(part * ratio)


def _factor(statement: Tree, sums: Sums, line: Tree) -> tuple[str, float, str]:
    """A line's series with its band, and its name if that is assumed."""
    name = f"{line['zone']} {line['source']}"
    largest, is_unstated = sums.series.get((line["zone"], line["source"], line["kind"]), (0.0, False))
    if not is_unstated:
        return name, largest, ""
    return name, max(largest, statement["assumed_ratios"]["factors"][line["tier"]]), name


def half_widths(sums: Sums) -> tuple[float, float]:
    """Of sensors and factors together, below and above."""
    shared = _variance(sums.factors)
    return sqrt(_variance(sums.below) + shared), sqrt(_variance(sums.above) + shared)


def _sensors(statement: Tree, line: Tree) -> list[tuple[str, float, float, float]]:
    """Source, band and share of the sensors that a line's energy is from."""
    names = ("site", "component", "quality", "recorded")
    own = [sensor for sensor in statement["sensors"] if all(sensor[name] == line[name] for name in names)]
    energies = [int(sensor["energy_microjoules"]) for sensor in own]
    whole = sum(energies)
    if not whole:
        return [(f"{line['component']} {line['quality']}", 0.0, 0.0, 1.0)]
    return [
        (sensor["sensor"], sensor["lower"], sensor["upper"], energy / whole)
        for sensor, energy in zip(own, energies, strict=True)
    ]


def _series(statement: Tree) -> dict[tuple[Any, ...], tuple[float, bool]]:
    """Of each series of factors, the largest band that its rows state, and whether one of them states none."""
    found: dict[tuple[Any, ...], tuple[float, bool]] = {}
    for row in statement["factors"]["rows"]:
        key = (row["zone"], row["source"], row["kind"])
        largest, is_unstated = found.get(key, (0.0, False))
        ratio = row["uncertainty_ratio"]
        found[key] = (max(largest, 0.0 if ratio is None else float(ratio)), is_unstated or ratio is None)
    return found


def _variance(groups: Mapping[str, Sequence[float]]) -> float:
    """What shares a name is off together; the names are independent."""
    return fsum(fsum(parts) ** 2 for parts in groups.values())


def bounds_of(statement: Tree, gaps: Sequence[Tree]) -> dict[tuple[str, bool], tuple[int, int | None]]:
    """What gaps leave open at each site, those of recordings apart: microjoules below and above; None: unknown."""
    period = statement["period"]
    begin, end = integer(period["from_seconds"]) * 10**9, integer(period["to_seconds"]) * 10**9
    found: dict[tuple[str, bool], tuple[int, int | None]] = {
        (site["site"], recorded): (0, 0) for site in statement["sites"] for recorded in (False, True)
    }
    for gap in gaps:
        key = (gap["site"], gap["recorded"])
        lower, upper = found.get(key, (0, 0))
        is_within = begin <= int(gap["from_nanoseconds"]) and int(gap["to_nanoseconds"]) <= end
        below = int(gap["lower_microjoules"])
        lower += below if is_within else min(below, 0)
        if gap["upper_microjoules"] is None or upper is None:
            upper = None
        else:
            above = int(gap["upper_microjoules"])
            upper += above if is_within else max(above, 0)
        found[key] = (lower, upper)
    return found


def _missing(
    statement: Tree,
    key: _Key,
    own: Sequence[Tree],
    lines: Sequence[Tree],
    bounds: Mapping[tuple[str, bool], tuple[int, int | None]],
) -> tuple[float, float, set[str]]:
    """Grams that gaps may hide, below and above; and the sites where nobody knows how much is missing."""
    _, recorded, only = key
    told = {line["site"] for line in lines if line["kind"] is not None and line["recorded"] == recorded}
    silent = {site["site"] for site in statement["sites"] if site["silent"]} if not recorded else set()
    below, above = 0.0, 0.0
    open_sites: set[str] = set()
    for (site, is_recorded), (lower, upper) in bounds.items():
        own_lines = [line for line in own if line["site"] == site]
        if is_recorded != recorded or only not in (None, site) or not (own_lines or site not in told):
            continue
        if upper is None or site in silent:
            open_sites.add(site)
        energy = sum(int(line["energy_microjoules"]) for line in own_lines)
        if energy:
            rate = sum((Fraction(line["grams"]["exact"]) for line in own_lines), Fraction(0)) / energy
            below -= min(0.0, float(lower * rate))
            above += max(0.0, float((upper or 0) * rate))
        elif lower or upper:
            open_sites.add(site)
    return below, above, open_sites
