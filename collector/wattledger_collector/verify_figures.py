"""Reckons a statement's figures anew from its leaves, gaps and factor rows, by plain arithmetic of its own.

No file and nothing of what made the statement: numbers in, sentences out. Sources of truth: the form of a leaf;
grams = microjoules x PUE x factor / 3.6e12, each interval joined with what held in it by overlap.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wattledger_collector.verify_first import first_uncertainty_problems
from wattledger_collector.verify_imports import SENSOR, import_problems
from wattledger_collector.verify_market import market_problems
from wattledger_collector.verify_uncertainty import uncertainty_problems
from wattledger_collector.verify_values import Tree, exact, grams_tree, integer

FIRST_FORMAT: Final = "wattledger statement 1"
MICROJOULES_PER_KWH: Final = 3_600_000_000_000
CAUSES: Final = ("activity", "factor", "boundary", "method")
MARKET_CAUSES: Final = (*CAUSES, "instruments")

_Halves = list[NDArray[np.int64]]


class LeafSums:
    """Adds leaves up: energy and covered time by site, component, quality, recorded and interval; and energy by sensor."""

    def __init__(self, statement: Tree) -> None:
        self._interval_seconds = int(statement["interval_seconds"])
        self._span = (integer(statement["period"]["from_seconds"]), integer(statement["period"]["to_seconds"]))
        self._edition = statement["edition"]
        # (site, component, quality, recorded, beginning of the interval): microjoules and nanoseconds.
        self.cells: dict[tuple[Any, ...], tuple[int, int]] = {}
        self.sensors: dict[tuple[Any, ...], int] = {}
        # (host, component): microjoules that came from other meters' files.
        self.imported: dict[tuple[str, str], int] = {}
        self._first = 0
        # In halves of 32 bits, whose sums stay below 64 for more leaves than there are.
        self._day: dict[tuple[Any, ...], _Halves] = {}
        self._day_sensors: dict[tuple[Any, ...], _Halves] = {}

    def add(self, entry: bytes) -> tuple[str, str]:
        """Add one leaf; returns its day and host. Raises ValueError, KeyError or TypeError for what is none."""
        begin = 4 + int.from_bytes(entry[:4], "big")
        header = json.loads(entry[4:begin])
        intervals, series = header["intervals"], header["series"]
        values = np.frombuffer(entry, ">i8", offset=begin).astype(np.int64).reshape(len(series), 2, intervals)
        self._first = header["first_interval_seconds"]
        end = self._first + intervals * self._interval_seconds
        if header["interval_seconds"] != self._interval_seconds or not self._span[0] <= self._first < end <= self._span[1]:
            raise ValueError("its intervals are not those of the statement")
        for each, (energy, covered) in zip(series, values, strict=True):
            if each["edition"] > self._edition:
                raise ValueError("it has energy that came after the closing")
            kind = (each["site"], each["component"], each["quality"], each["recorded"])
            total = self._day.setdefault(kind, _zeros(4, intervals))
            for place, part in enumerate((energy >> 32, energy & 0xFFFFFFFF, covered >> 32, covered & 0xFFFFFFFF)):
                total[place] += part
            sensor = (*kind, each["sensor"], each["lower"], each["upper"])
            of_sensor = self._day_sensors.setdefault(sensor, _zeros(2, intervals))
            of_sensor[0] += energy >> 32
            of_sensor[1] += energy & 0xFFFFFFFF
            if each["sensor"] == SENSOR:
                host = (header["host"], each["component"])
                self.imported[host] = self.imported.get(host, 0) + sum(energy.tolist())
        return header["day"], header["host"]

    def end_day(self) -> None:
        """All leaves of a day were added."""
        for kind, (high, low, covered_high, covered_low) in self._day.items():
            for place, energy in enumerate(_whole(high, low)):
                start = self._first + place * self._interval_seconds
                before = self.cells.get((*kind, start), (0, 0))
                covered = (int(covered_high[place]) << 32) + int(covered_low[place])
                if energy or covered:
                    self.cells[*kind, start] = (before[0] + energy, before[1] + covered)
        for sensor, (high, low) in self._day_sensors.items():
            self.sensors[sensor] = self.sensors.get(sensor, 0) + sum(_whole(high, low))
        self._day.clear()
        self._day_sensors.clear()


def _zeros(arrays: int, length: int) -> _Halves:
    return [np.zeros(length, np.int64) for _ in range(arrays)]


def _whole(high: NDArray[np.int64], low: NDArray[np.int64]) -> list[int]:
    return [(above << 32) + below for above, below in zip(high.tolist(), low.tolist(), strict=True)]


def figure_problems(statement: Tree, gaps: Sequence[Tree], sums: LeafSums) -> Iterator[str]:
    """What in a statement does not follow from its leaves, gaps and factor rows."""
    yield from _basis_problems(statement)
    lines = _lines(statement, sums)
    yield from _differing("line", statement["lines"], lines)
    for name, group in (("all", None), ("by_site", "site"), ("by_component", "component"), ("by_quality", "quality"),
                        ("by_tier", "tier")):  # fmt: skip
        yield from _differing(f"total {name}", statement["totals"][name], _totals(lines, group))
    sensors = [
        {"site": key[0], "component": key[1], "quality": key[2], "recorded": key[3], "sensor": key[4], "lower": key[5],
         "upper": key[6], "energy_microjoules": str(energy)}
        for key, energy in sums.sensors.items()
    ]  # fmt: skip
    yield from _differing("energy of a sensor", statement["sensors"], sensors)
    by_site = {site["site"]: _gap_sums(site["site"], gaps, statement["period"]) for site in statement["sites"]}
    yield from _gap_problems(statement, by_site, lines)
    if statement["format"] == FIRST_FORMAT:
        yield from first_uncertainty_problems(statement, lines, by_site)
    else:
        yield from uncertainty_problems(statement, lines, gaps)
        yield from market_problems(statement, sums.cells, lines, gaps)
        yield from import_problems(statement, sums.imported)
    yield from _replaced_problems(statement)


def _basis_problems(statement: Tree) -> Iterator[str]:
    """Whether each part of the period has one basis, and each factor that is used is the row that it says it is."""
    rows = {row["id"]: row for row in statement["factors"]["rows"]}
    period = statement["period"]
    used = {line["site"] for line in statement["lines"]}
    for site in statement["sites"]:
        bases, name = site["bases"], site["site"]
        edges = [bases[0]["from_seconds"], *(base["to_seconds"] for base in bases)] if bases else []
        is_whole = all(one["to_seconds"] == other["from_seconds"] for one, other in pairwise(bases))
        if not is_whole or not edges or (edges[0], edges[-1]) != (period["from_seconds"], period["to_seconds"]):
            yield f"the bases of site {name} do not fill the period"
        for base in bases:
            if base["factor"] is None or name not in used:
                continue
            row = rows.get(base["factor"])
            if row is None:
                # A factor is kept where energy was joined with it.
                if _has_energy(statement, name):
                    yield f"the factor {base['factor']} of site {name} is not among the statement's rows"
                continue
            if (row["value"], row["kind"], row["zone"]) != (base["grams_per_kwh"], base["kind"], base["zone"]):
                yield f"site {name} uses the factor {row['id']} with another value, type or zone than its row's"
            begins, ends = row["valid_from_seconds"], row["valid_to_seconds"]
            if not base["provisional"] and not begins <= base["from_seconds"] < base["to_seconds"] <= ends:
                yield f"site {name} uses the factor {row['id']} for a time in which it does not hold"


def _has_energy(statement: Tree, site: str) -> bool:
    return any(line["site"] == site and line["kind"] is not None for line in statement["lines"])


def _lines(statement: Tree, sums: LeafSums) -> list[Tree]:
    """The statement's lines, from the cells of the leaves."""
    seconds = statement["interval_seconds"]
    bases = {site["site"]: site["bases"] for site in statement["sites"]}
    sources = {row["id"]: row["source"] for row in statement["factors"]["rows"]}
    # Lines of the first form do not tell series of two sources apart.
    has_sources = statement["format"] != FIRST_FORMAT
    places: dict[str, int] = {}
    totals: dict[tuple[Any, ...], list[Any]] = {}
    # Grams are summed as microjoules x seconds by basis, and multiplied once.
    joined: dict[tuple[Any, ...], dict[tuple[str, str], int]] = {}
    for (site, component, quality, recorded, start), (energy, covered) in sorted(
        sums.cells.items(), key=lambda cell: (cell[0][0], cell[0][4])
    ):
        own = bases[site]
        place = places.get(site, 0)
        while own[place]["to_seconds"] <= start:
            place += 1
        places[site] = place
        at = start
        while at < start + seconds:
            base = own[place]
            until = min(base["to_seconds"], start + seconds)
            kind = base["kind"] if base["pue"] is not None else None
            source = sources.get(base["factor"]) if has_sources and kind is not None else None
            key = (site, base["zone"], base["pue"], base["tier"], kind, recorded, component, quality, source)
            total = totals.setdefault(key, [0, 0])
            # In whole microjoules; what is odd falls to the later part.
            total[0] += energy * (until - start) // seconds - energy * (at - start) // seconds
            total[1] += covered * (until - start) // seconds - covered * (at - start) // seconds
            if kind is not None:
                shares = joined.setdefault(key, {})
                factor = (base["pue"], base["grams_per_kwh"])
                shares[factor] = shares.get(factor, 0) + energy * (until - at)
            at = until
            place += 1
    return [
        {
            "site": key[0], "zone": key[1], "pue": key[2], "tier": key[3], "kind": key[4], "recorded": key[5],
            "component": key[6], "quality": key[7], **({"source": key[8]} if has_sources else {}),
            "energy_microjoules": str(energy),
            "covered_nanoseconds": str(covered),
            "grams": None if key[4] is None else grams_tree(_grams(joined[key], seconds)),
        }
        for key, (energy, covered) in totals.items()
    ]  # fmt: skip


def _grams(shares: Mapping[tuple[str, str], int], seconds: int) -> Fraction:
    return sum((amount * exact(pue) * exact(value) for (pue, value), amount in shares.items()), Fraction(0)) / (
        MICROJOULES_PER_KWH * seconds
    )


def _totals(lines: Iterable[Tree], group: str | None) -> list[Tree]:
    found: dict[tuple[str, bool], list[Any]] = {}
    for line in lines:
        total = found.setdefault((line[group] if group else "", line["recorded"]), [0, 0, 0, {}])
        energy = int(line["energy_microjoules"])
        total[0] += energy
        total[1] += int(line["covered_nanoseconds"])
        if line["kind"] is None:
            total[2] += energy
        else:
            total[3][line["kind"]] = total[3].get(line["kind"], Fraction(0)) + Fraction(line["grams"]["exact"])
    return [
        {
            "name": name, "recorded": recorded,
            "energy_microjoules": str(energy),
            "covered_nanoseconds": str(covered),
            "uncovered_microjoules": str(uncovered),
            "emissions": [{"kind": kind, "grams": grams_tree(grams)} for kind, grams in sorted(kinds.items())],
        }
        for (name, recorded), (energy, covered, uncovered, kinds) in found.items()
    ]  # fmt: skip


def _differing(what: str, stated: Sequence[Tree], reckoned: Iterable[Tree]) -> Iterator[str]:
    """Sentences for rows that are stated and not reckoned, or the other way round."""
    one = {json.dumps(row, sort_keys=True) for row in stated}
    other = {json.dumps(row, sort_keys=True) for row in reckoned}
    if len(one) != len(stated):
        yield f"a {what} is stated twice"
    for row in sorted(one - other):
        yield f"stated, but it does not follow from the leaves: {what} {row}"
    for row in sorted(other - one):
        yield f"it follows from the leaves, but is not stated: {what} {row}"


def _gap_sums(site: str, gaps: Iterable[Tree], period: Tree) -> Tree:
    begin, end = period["from_seconds"] * 10**9, period["to_seconds"] * 10**9
    lower, upper, count, is_bounded = 0, 0, 0, True
    reasons: dict[str, int] = {}
    spans: dict[tuple[str, str, int], tuple[int, list[tuple[int, int]]]] = {}
    for gap in gaps:
        if gap["site"] != site:
            continue
        first, last = int(gap["from_nanoseconds"]), int(gap["to_nanoseconds"])
        # Of a gap that reaches out of the period, it is not known which part lies within.
        is_within = begin <= first and last <= end
        count += 1
        reasons[gap["reason"]] = reasons.get(gap["reason"], 0) + 1
        below = int(gap["lower_microjoules"])
        lower += below if is_within else min(below, 0)
        if gap["upper_microjoules"] is None:
            is_bounded = False
        else:
            above = int(gap["upper_microjoules"])
            upper += above if is_within else max(above, 0)
        if gap["reason"] != "overlap":
            key = (gap["host"], gap["epoch"], gap["channel"])
            spans.setdefault(key, (integer(gap["channels"]), []))[1].append((max(first, begin), min(last, end)))
    missing = 0
    for channels, of_channel in spans.values():
        reached = begin
        for first, last in sorted(of_channel):
            missing += max(0, last - max(first, reached)) * channels
            reached = max(reached, last)
    return {
        "count": count,
        "lower_microjoules": str(lower),
        "upper_microjoules": str(upper) if is_bounded else None,
        "missing_nanoseconds": str(missing),
        "reasons": reasons,
    }


def _gap_problems(statement: Tree, by_site: Mapping[str, Tree], lines: Sequence[Tree]) -> Iterator[str]:
    if statement["gaps"]["count"] != sum(each["count"] for each in by_site.values()):
        yield "gaps.json has gaps of sites that the statement does not have"
    for site in statement["sites"]:
        name = site["site"]
        if site["gaps"] != by_site[name]:
            yield f"the gaps of site {name} do not sum up to what is stated: {by_site[name]}"
        covered = sum(int(line["covered_nanoseconds"]) for line in lines if line["site"] == name)
        missing = int(by_site[name]["missing_nanoseconds"])
        missing += sum(int(host["missing_nanoseconds"]) for host in site["silent"])
        share = None if covered + missing <= 0 else grams_tree(Fraction(covered, covered + missing))
        if site["coverage"] != share:
            yield f"the coverage of site {name} is {share}, and not what is stated"


def _replaced_problems(statement: Tree) -> Iterator[str]:
    replaced = statement["replaces"]
    if replaced is None:
        return
    now = {
        (emission["kind"], total["recorded"]): exact(emission["grams"]["exact"])
        for total in statement["totals"]["all"]
        for emission in total["emissions"]
    }
    for each in replaced["differences"]:
        kind = each["kind"]
        before, after = exact(each["before"]["exact"]), exact(each["after"]["exact"])
        whole = sum((exact(each["causes"][cause]["exact"]) for cause in CAUSES), Fraction(0))
        if not whole == after - before == exact(each["difference"]["exact"]):
            yield f"the causes of the difference under {kind} do not add up to it"
        if after != now.get((kind, each["recorded"]), Fraction(0)):
            yield f"the difference under {kind} does not lead to the statement's total"
    yield from _market_replaced_problems(statement)


def _market_replaced_problems(statement: Tree) -> Iterator[str]:
    names = ("boundary", "gas", "gwp")
    now = {
        tuple(row[name] for name in names): exact(row["grams"]["exact"])
        for row in statement.get("market", {}).get("all", {}).get("market_based", ())
    }
    told = statement["replaces"].get("market") or []
    for each in told:
        counted = tuple(each[name] for name in names)
        before, after = exact(each["before"]["exact"]), exact(each["after"]["exact"])
        whole = sum((exact(each["causes"][cause]["exact"]) for cause in MARKET_CAUSES), Fraction(0))
        if not whole == after - before == exact(each["difference"]["exact"]):
            yield f"the causes of the market-based difference under {' '.join(counted)} do not add up to it"
        if after != now.get(counted, Fraction(0)):
            yield f"the market-based difference under {' '.join(counted)} does not lead to the statement's total"
    if told and now.keys() - {tuple(each[name] for name in names) for each in told}:
        yield "the market-based differences are not of all that is counted"
