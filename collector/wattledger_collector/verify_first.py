"""What statements of the first form said of their uncertainty, reckoned anew: what stated no band was counted as 0.

No file and nothing of what made the statement: numbers in, sentences out. Source of truth: `wattledger statement 1`, whose
bundles have to verify for ever; later forms are in `verify_uncertainty.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from math import sqrt
from typing import Any

from wattledger_collector.verify_values import Tree, grams_tree, is_near


def first_uncertainty_problems(statement: Tree, lines: Sequence[Tree], gaps: Mapping[str, Tree]) -> Iterator[str]:
    """Whether the intervals are those of the stated bands. gaps: by site, as they sum up."""
    stated = {each["kind"]: each for each in statement["uncertainty"]}
    kinds = {line["kind"] for line in lines if line["kind"] is not None and not line["recorded"]}
    if set(stated) != kinds:
        yield "the uncertainties are not of the types of factors that were used"
        return
    for kind in sorted(kinds):
        own = [line for line in lines if line["kind"] == kind and not line["recorded"]]
        total, lower, upper = _interval(statement, own, gaps)
        each = stated[kind]
        if each["grams"] != grams_tree(total):
            yield f"the total under {kind} beside its uncertainty is another one"
        for name, value in (("lower_grams", lower), ("upper_grams", upper)):
            if not is_near(each[name], value):
                yield f"{name} under {kind} is {value:.6f}, and not {each[name]}"


def _interval(statement: Tree, lines: Sequence[Tree], gaps: Mapping[str, Tree]) -> tuple[Fraction, float, float]:
    """A total and the half-widths of its 95 % interval: what shares a sensor or a factor is off together."""
    below: dict[str, float] = {}
    above: dict[str, float] = {}
    of_factors: dict[str, float] = {}
    ratios = _factor_ratios(statement)
    for line in lines:
        grams = float(Fraction(line["grams"]["exact"]))
        own = [
            sensor for sensor in statement["sensors"]
            if all(sensor[name] == line[name] for name in ("site", "component", "quality", "recorded"))
        ]  # fmt: skip
        whole = sum(int(sensor["energy_microjoules"]) for sensor in own)
        key = tuple(line[name] for name in ("site", "zone", "pue", "tier", "kind"))
        # A row that is missing was told before.
        source, ratio = ratios.get(key, ("", 0.0))
        for sensor in own if whole else ():
            part = grams * (int(sensor["energy_microjoules"]) / whole)
            name = f"{sensor['sensor']} {sensor['component']} {sensor['quality']} {sensor['lower']} {sensor['upper']}"
            below[name] = below.get(name, 0.0) + part * sensor["lower"]
            above[name] = above.get(name, 0.0) + part * sensor["upper"]
            factor = f"{line['zone']} {source}"
            of_factors[factor] = of_factors.get(factor, 0.0) + part * ratio
    total = sum((Fraction(line["grams"]["exact"]) for line in lines), Fraction(0))
    shared = sum(value**2 for value in of_factors.values())
    lower = sqrt(sum(value**2 for value in below.values()) + shared)
    upper = sqrt(sum(value**2 for value in above.values()) + shared)
    for site, summary in gaps.items():
        own_lines = [line for line in lines if line["site"] == site]
        energy = sum(int(line["energy_microjoules"]) for line in own_lines)
        if energy:
            intensity = sum((Fraction(line["grams"]["exact"]) for line in own_lines), Fraction(0)) / energy
            lower -= min(0.0, float(int(summary["lower_microjoules"]) * intensity))
            upper += max(0.0, float(int(summary["upper_microjoules"] or 0) * intensity))
    return total, lower, upper


def _factor_ratios(statement: Tree) -> dict[tuple[Any, ...], tuple[str, float]]:
    """Source and largest relative uncertainty of the factors of a line, by what tells lines apart."""
    rows = {row["id"]: row for row in statement["factors"]["rows"]}
    found: dict[tuple[Any, ...], tuple[str, float]] = {}
    for site in statement["sites"]:
        for base in site["bases"]:
            row = rows.get(base["factor"])
            if row is not None:
                key = (site["site"], base["zone"], base["pue"], base["tier"], base["kind"])
                ratio = float(row["uncertainty_ratio"] or 0)
                before = found.get(key, (row["source"], 0.0))
                found[key] = (before[0], max(before[1], ratio))
    return found
