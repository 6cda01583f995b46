"""Reckons the market-based figures of a statement anew, from its leaves and from what it says that they were made with.

No file and nothing of what made the statement: numbers in, sentences out. Sources of truth: the GHG Protocol's Scope 2
Guidance (2015): certificates at their rates, the rest at the residual mix, and where there is none at the location-based
factor; `verify_claims.py` for which certificates count.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from math import lcm
from typing import Any, Final

from wattledger_collector.verify_claims import SECONDS_PER_HOUR, Load, allocate, claim_problems
from wattledger_collector.verify_market_bands import SiteGrams, market_interval_problems
from wattledger_collector.verify_values import Tree, exact, grams_tree, integer

MICROJOULES_PER_KWH: Final = 3_600_000_000_000

# Boundary, gas and warming potentials.
_Counted = tuple[str, str, str]
_UNSTATED: Final[_Counted] = ("", "", "")


@dataclass(frozen=True, slots=True)
class _Slice:
    """What load has in common: a market, hour, site, residual mix and grid factor. order: among those of its market."""

    market: str
    hour: int | None
    site: str
    mix: int
    kind: tuple[str, ...] | None
    grams_per_kwh: Fraction | None
    is_outside: bool = False

    @property
    def order(self) -> tuple[Any, ...]:
        return (
            self.market, self.hour or 0, self.site, self.mix, () if self.kind is None else (self.kind,),
            self.grams_per_kwh or Fraction(0),
        )  # fmt: skip


@dataclass(slots=True)
class _Figure:
    energy: dict[str, Fraction] = field(default_factory=dict)
    grams: dict[str, dict[_Counted, Fraction]] = field(default_factory=dict)
    location: dict[_Counted, Fraction] = field(default_factory=dict)
    mixes: dict[tuple[str, int], dict[_Counted, Fraction]] = field(default_factory=dict)

    def add(self, part: str, energy: Fraction, grams: Fraction | None = None, counted: _Counted = _UNSTATED) -> None:
        self.energy[part] = self.energy.get(part, Fraction(0)) + energy
        if grams is not None:
            sums = self.grams.setdefault(part, {})
            sums[counted] = sums.get(counted, Fraction(0)) + grams

    def add_all(self, other: "_Figure") -> None:
        for part, energy in other.energy.items():
            self.add(part, energy)
        for part, sums in other.grams.items():
            for counted, grams in sums.items():
                self.add(part, Fraction(0), grams, counted)
        for counted, grams in other.location.items():
            self.location[counted] = self.location.get(counted, Fraction(0)) + grams

    @property
    def site_grams(self) -> SiteGrams:
        """What intervals need to know of a site; what has neither energy nor grams is in no total."""
        totals: dict[_Counted, Fraction] = {}
        for part, sums in self.grams.items():
            if self.energy.get(part) or any(sums.values()):
                for counted, grams in sums.items():
                    totals[counted] = totals.get(counted, Fraction(0)) + grams
        grid: dict[_Counted, Fraction] = {}
        for part in ("stand_in", "outside_scope_2"):
            for counted, grams in self.grams.get(part, {}).items():
                grid[counted] = grid.get(counted, Fraction(0)) + grams
        return SiteGrams(totals, self.grams.get("certificates", {}), grid, self.mixes)

    @property
    def tree(self) -> Tree:
        parts = [
            (part, energy, self.grams.get(part, {}))
            for part, energy in sorted(self.energy.items())
            if energy or any(self.grams.get(part, {}).values())
        ]
        totals: dict[_Counted, Fraction] = {}
        for _, _, sums in parts:
            for counted, grams in sums.items():
                totals[counted] = totals.get(counted, Fraction(0)) + grams
        return {
            "parts": [
                {"part": part, "microjoules": str(energy), "grams": _grams_trees(sums)} for part, energy, sums in parts
            ],
            "market_based": _grams_trees(totals),
            "location_based": _grams_trees(self.location),
        }


def market_problems(
    statement: Tree, cells: Mapping[tuple[Any, ...], tuple[int, int]], lines: Sequence[Tree], gaps: Sequence[Tree]
) -> Iterator[str]:
    """What in the section does not follow. cells: energy and time by site, component, quality, recorded, interval.

    lines: as they were reckoned; gaps: the rows of gaps.json.
    """
    problems = [*_tenure_problems(statement), *_mix_problems(statement)]
    yield from problems
    if problems:
        return
    slices = _slices(statement, cells)
    market = statement["market"]
    load: dict[tuple[str, int | None], Fraction] = {}
    for each, energy in slices.items():
        if not each.is_outside:
            load[each.market, each.hour] = load.get((each.market, each.hour), Fraction(0)) + energy
    stated = {(row["market"], row["hour_seconds"]): exact(row["microjoules"]) for row in market["load"]}
    zero = Fraction(0)
    names = sorted({str(key[0]) for key in stated.keys() | load.keys() if stated.get(key, zero) != load.get(key, zero)})
    if names or len(stated) != len(market["load"]):
        yield f"the load of the market {', '.join(names)} does not follow from the leaves"
    yield from claim_problems(statement, load)
    figures, stand_ins = _figures(statement, slices, load)
    total = _Figure()
    for _, figure in sorted(figures.items()):
        total.add_all(figure)
    yield from _figure_problems("all sites", market["all"], total.tree)
    told = {row["site"]: row for row in market["sites"]}
    if set(told) != set(figures) or len(told) != len(market["sites"]):
        yield "the market-based figures are not of the sites that have energy"
    for site in sorted(told.keys() & figures.keys()):
        row = {name: value for name, value in told[site].items() if name != "site"}
        yield from _figure_problems(f"site {site}", row, figures[site].tree)
    rows = {(row["market"], row["reason"]): exact(row["microjoules"]) for row in market["stand_ins"]}
    if rows != stand_ins:
        yield "the energy for which the grid average stands in is not what is stated"
    has_part = any(part in total.energy for part in ("certificates", "residual_mix"))
    if market["is_location_based"] == has_part:
        yield "whether the market-based figure is the location-based one is not as stated"
    yield from _side_problems(statement, total)
    grams = {site: figure.site_grams for site, figure in figures.items()}
    yield from market_interval_problems(statement, lines, gaps, grams)


def _tenure_problems(statement: Tree) -> Iterator[str]:
    """Whether each site is had in one way at any time of the period."""
    period = statement["period"]
    for site in statement["sites"]:
        own = [row for row in statement["market"]["tenures"] if row["site"] == site["site"]]
        if not _is_whole(own, period):
            yield f"how site {site['site']} is had does not fill the period"
        for row in own:
            if row["it"] not in (0, 1) or row["overhead"] not in (0, 1):
                yield f"of site {site['site']} {row['it']} and {row['overhead']} are in scope 2; each is 0 or 1"
            zones = {
                base["zone"] or "" for base in site["bases"]
                if base["from_seconds"] < row["to_seconds"] and row["from_seconds"] < base["to_seconds"]
            }  # fmt: skip
            if not row["situation"] and ({row["market"]} != zones or not row["it"] or not row["overhead"]):
                yield f"nothing is declared of site {site['site']}, and yet it is not in scope 2 in the market of its zone"


def _mix_problems(statement: Tree) -> Iterator[str]:
    """Whether each market has one residual mix, or none, at any time; and each published one is its row's."""
    factors = {row["id"]: row for row in statement["factors"]["rows"]}
    for market in sorted({row["market"] for row in statement["market"]["tenures"]}):
        own = [row for row in statement["market"]["mixes"] if row["market"] == market]
        if not _is_whole(own, statement["period"]):
            yield f"the residual mixes of the market {market or 'that is unknown'} do not fill the period"
    for row in statement["market"]["mixes"]:
        if (row["grams_per_kwh"] is None) != bool(row["missing"]):
            yield f"the residual mix of the market {row['market']} is neither there nor said to be missing"
        if row["factor"] is None:
            continue
        factor = factors.get(row["factor"])
        if factor is None:
            yield f"the residual mix {row['factor']} is not among the statement's factor rows"
            continue
        if (factor["value"], factor["zone"], factor["type"]["basis"]) != (row["grams_per_kwh"], row["market"], "residual"):
            yield f"the residual mix {row['factor']} has another value, zone or basis than its row"
        is_within = factor["valid_from_seconds"] <= row["from_seconds"] and row["to_seconds"] <= factor["valid_to_seconds"]
        if not row["provisional"] and not is_within:
            yield f"the residual mix {row['factor']} is used for a time in which it does not hold"


def _is_whole(rows: Sequence[Tree], period: Tree) -> bool:
    if not rows:
        return False
    follows = all(one["to_seconds"] == other["from_seconds"] for one, other in pairwise(rows))
    edges = (integer(rows[0]["from_seconds"]), integer(rows[-1]["to_seconds"]))
    return follows and edges == (period["from_seconds"], period["to_seconds"]) and _ascends(rows)


def _ascends(rows: Iterable[Tree]) -> bool:
    return all(integer(row["from_seconds"]) < integer(row["to_seconds"]) for row in rows)


def _slices(statement: Tree, cells: Mapping[tuple[Any, ...], tuple[int, int]]) -> dict[_Slice, Fraction]:
    """Load by slice: IT energy x PUE, cut where basis, tenure, mix or hour change; microjoules."""
    market, seconds = statement["market"], integer(statement["interval_seconds"])
    is_hourly = market["claim"]["matching"] == "hourly"
    kinds = {row["id"]: tuple(row["type"][name] for name in ("signal", "boundary", "gas", "basis", "gwp"))
             for row in statement["factors"]["rows"]}  # fmt: skip
    energy: dict[str, dict[int, int]] = {}
    for (site, _, _, _, start), (microjoules, _) in cells.items():
        of_site = energy.setdefault(site, {})
        of_site[start] = of_site.get(start, 0) + microjoules
    slices: dict[_Slice, Fraction] = {}
    for site in statement["sites"]:
        name = site["site"]
        tenures = [row for row in market["tenures"] if row["site"] == name]
        # In whole numbers as long as nothing changes; a fraction for each interval would be slow.
        sums: dict[tuple[int, int, int, int | None], int] = {}
        mixes = {row["market"]: [each for each in market["mixes"] if each["market"] == row["market"]] for row in tenures}
        at = [0, 0]
        for start, microjoules in sorted(energy.get(name, {}).items()):
            begin, end = start, start + seconds
            while begin < end:
                while site["bases"][at[0]]["to_seconds"] <= begin:
                    at[0] += 1
                while tenures[at[1]]["to_seconds"] <= begin:
                    at[1] += 1
                own = mixes[tenures[at[1]]["market"]]
                mix = next(place for place, row in enumerate(own) if row["to_seconds"] > begin)
                hour = begin - begin % SECONDS_PER_HOUR if is_hourly else None
                ends = (site["bases"][at[0]]["to_seconds"], tenures[at[1]]["to_seconds"], own[mix]["to_seconds"], end)
                until = min(ends) if hour is None else min(*ends, hour + SECONDS_PER_HOUR)
                key = (at[0], at[1], mix, hour)
                sums[key] = sums.get(key, 0) + microjoules * (until - begin)
                begin = until
        for (base_place, tenure_place, mix, hour), total in sums.items():
            base, tenure = site["bases"][base_place], tenures[tenure_place]
            for each, part in _parts(
                name, base, tenure, mixes[tenure["market"]][mix], kinds, hour, Fraction(total, seconds)
            ):
                slices[each] = slices.get(each, Fraction(0)) + part
    return slices


def _parts(
    site: str, base: Tree, tenure: Tree, mix: Tree, kinds: Mapping[str, tuple[str, ...]], hour: int | None, energy: Fraction
) -> Iterator[tuple[_Slice, Fraction]]:
    """What of a site's energy is in scope 2, and what is another's."""
    if base["pue"] is None:
        # Of no market that is known.
        yield _Slice("", None if hour is None else 0, site, 0, None, None), energy
        return
    pue = exact(base["pue"])
    inside = tenure["it"] + (pue - 1) * tenure["overhead"]
    # A row that is missing was told before.
    kind = kinds.get(base["factor"])
    rate = None if kind is None else exact(base["grams_per_kwh"])
    if inside:
        yield _Slice(tenure["market"], hour, site, mix["from_seconds"], kind, rate), energy * inside
    if inside != pue:
        yield _Slice(tenure["market"], hour, site, mix["from_seconds"], kind, rate, is_outside=True), energy * (pue - inside)


def _figures(
    statement: Tree, slices: Mapping[_Slice, Fraction], load: Load
) -> tuple[dict[str, _Figure], dict[tuple[str, str], Fraction]]:
    """The figure of each site, and the energy for which the grid average stands in."""
    mixes = {(row["market"], row["from_seconds"]): row for row in statement["market"]["mixes"]}
    rows = {row["certificate"]: row for row in statement["instruments"]["rows"]}
    figures: dict[str, _Figure] = {}
    groups: dict[tuple[str, int | None], dict[str, list[_Slice]]] = {}
    for each in sorted(slices, key=lambda each: each.order):
        figure = figures.setdefault(each.site, _Figure())
        energy = slices[each]
        if each.kind is not None and each.grams_per_kwh is not None:
            counted = _counted(each.kind)
            grams = energy * each.grams_per_kwh / MICROJOULES_PER_KWH
            figure.location[counted] = figure.location.get(counted, Fraction(0)) + grams
        if each.is_outside:
            _add_rest(figure, each, energy, "outside_scope_2")
        else:
            groups.setdefault((each.market, each.hour), {}).setdefault(each.site, []).append(each)
    covering: dict[tuple[str, int | None], dict[tuple[Fraction, _Counted], Fraction]] = {}
    for (market, hour, name), amount in allocate(statement, load)[0].items():
        row = rows[name]
        rate = (exact(row["grams_per_kwh"]), (row["boundary"], row["gas"], ""))
        rates = covering.setdefault((market, hour), {})
        rates[rate] = rates.get(rate, Fraction(0)) + amount
    stand_ins: dict[tuple[str, str], Fraction] = {}
    for key, sites in groups.items():
        left = [sum((slices[each] for each in own), Fraction(0)) for own in sites.values()]
        shares: dict[str, list[tuple[tuple[Fraction, _Counted], Fraction]]] = {site: [] for site in sites}
        for rate, amount in sorted(covering.get(key, {}).items()):
            parts = _divided(amount, left)
            left = [before - part for before, part in zip(left, parts, strict=True)]
            for site, part in zip(sites, parts, strict=True):
                shares[site].append((rate, part))
        for site, own in sites.items():
            _add_site(figures[site], [(each, slices[each]) for each in own], shares[site], mixes, stand_ins)
    return figures, stand_ins


def _add_site(
    figure: _Figure,
    own: Sequence[tuple[_Slice, Fraction]],
    shares: Sequence[tuple[tuple[Fraction, _Counted], Fraction]],
    mixes: Mapping[tuple[str, int], Tree],
    stand_ins: dict[tuple[str, str], Fraction],
) -> None:
    """A site's load of one market and hour: what is covered at the certificates' rates, the rest of each slice."""
    covered = sum((share for _, share in shares), Fraction(0))
    parts = _divided(covered, [energy for _, energy in own]) if covered else [Fraction(0)] * len(own)
    kinds = [_counted(each.kind) for each, _ in own if each.kind is not None]
    beside = kinds[0] if kinds else _mix_counted(mixes.get((own[0][0].market, own[0][0].mix)))
    for (rate, counted), share in shares:
        figure.add("certificates", share, share * rate / MICROJOULES_PER_KWH, _beside(counted, beside))
    for (each, energy), part in zip(own, parts, strict=True):
        rest = energy - part
        mix = mixes.get((each.market, each.mix))
        if not rest:
            continue
        if mix is not None and mix["grams_per_kwh"] is not None:
            counted = _beside(_mix_counted(mix), None if each.kind is None else _counted(each.kind))
            grams = rest * exact(mix["grams_per_kwh"]) / MICROJOULES_PER_KWH
            figure.add("residual_mix", rest, grams, counted)
            sums = figure.mixes.setdefault((each.market, each.mix), {})
            sums[counted] = sums.get(counted, Fraction(0)) + grams
        elif _add_rest(figure, each, rest, "stand_in"):
            reason = (each.market, mix["missing"] if mix is not None else "")
            stand_ins[reason] = stand_ins.get(reason, Fraction(0)) + rest


def _add_rest(figure: _Figure, each: _Slice, energy: Fraction, part: str) -> bool:
    """Energy at its grid factor; without one it is uncovered, and False is returned."""
    if each.kind is None or each.grams_per_kwh is None:
        figure.add("uncovered", energy)
        return False
    figure.add(part, energy, energy * each.grams_per_kwh / MICROJOULES_PER_KWH, _counted(each.kind))
    return True


def _divided(amount: Fraction, parts: Sequence[Fraction]) -> list[Fraction]:
    """An amount in proportion to parts, in whole units of their common denominator: those with the largest remainders get
    what is left over, the earlier ones first."""
    unit = lcm(amount.denominator, *(part.denominator for part in parts))
    whole, weights = int(amount * unit), [int(part * unit) for part in parts]
    total = sum(weights)
    quotients = [divmod(whole * weight, total) for weight in weights]
    counts = [quotient for quotient, _ in quotients]
    by_remainder = sorted(range(len(parts)), key=lambda place: (-quotients[place][1], place))
    for place in by_remainder[: whole - sum(counts)]:
        counts[place] += 1
    return [Fraction(count, unit) for count in counts]


def _counted(kind: Sequence[str]) -> _Counted:
    return kind[1], kind[2], kind[4]


def _mix_counted(mix: Tree | None) -> _Counted:
    return _UNSTATED if mix is None else (mix["boundary"], mix["gas"], mix["gwp"])


def _beside(own: _Counted, other: _Counted | None) -> _Counted:
    """What is counted, with what is not stated taken from the grid factor beside it."""
    boundary, gas, gwp = own
    if other is None or (boundary and gas):
        return own
    whole = gas or other[1]
    potentials = "" if whole == "CO2" else gwp or (other[2] if whole == other[1] else "")
    return boundary or other[0], whole, potentials


def _grams_trees(sums: Mapping[_Counted, Fraction]) -> list[Tree]:
    return [
        {"boundary": boundary, "gas": gas, "gwp": gwp, "grams": grams_tree(grams)}
        for (boundary, gas, gwp), grams in sorted(sums.items())
    ]


def _figure_problems(what: str, stated: Tree, reckoned: Tree) -> Iterator[str]:
    for name, words in (("parts", "parts"), ("market_based", "market-based grams"), ("location_based", "grams beside them")):
        if stated[name] != reckoned[name]:
            told = json.dumps(reckoned[name], sort_keys=True)
            yield f"the {words} of {what} do not follow from the leaves, which give {told:.300}"


def _side_problems(statement: Tree, total: _Figure) -> Iterator[str]:
    """Whether both methods are told of the same energy: location-based grams are those of the statement's totals."""
    types = {row["kind"]: row["type"] for row in statement["factors"]["rows"]}
    sums: dict[_Counted, Fraction] = {}
    for group in statement["totals"]["all"]:
        for emission in group["emissions"]:
            kind = types.get(emission["kind"], {"boundary": "", "gas": "", "gwp": ""})
            counted = (kind["boundary"], kind["gas"], kind["gwp"])
            sums[counted] = sums.get(counted, Fraction(0)) + exact(emission["grams"]["exact"])
    if sums != total.location:
        yield "the location-based grams beside the market-based ones are not those of the statement's totals"
