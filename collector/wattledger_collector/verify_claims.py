"""Checks what a statement claims of certificates, and allocates them anew: whose, of which market, when, how much, once.

No file and nothing of what made the statement: numbers in, sentences out. Sources of truth: the GHG Protocol's Scope 2
Guidance (2015) for what may be claimed; the statement for the certificates, for whom they are claimed, and what other
statements used of them before.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Final

from wattledger_collector.verify_values import Tree, exact, integer

MICROJOULES_PER_WH: Final = 3_600_000_000
SECONDS_PER_HOUR: Final = 3600
# From the first hour of 2025 in China's time zone, its generation gets no I-REC(E) any more.
IREC_CHINA_ENDS: Final = int(datetime(2024, 12, 31, 16, tzinfo=UTC).timestamp())

# (market, hour or None): microjoules.
Load = Mapping[tuple[str, int | None], Fraction]
# (market, hour or None, certificate): microjoules.
Allocation = dict[tuple[str, int | None, str], Fraction]

_Identity = tuple[Any, ...]


def claim_problems(statement: Tree, load: Load) -> Iterator[str]:
    """Whether each claim holds, whatever the others are; and whether all together are those that follow."""
    market = statement["market"]
    rows = {row["certificate"]: row for row in statement["instruments"]["rows"]}
    if len(rows) != len(statement["instruments"]["rows"]):
        yield "two certificates have one name"
    used = _used_before(market)
    yield from _volume_problems(market, rows, used)
    yield from _load_problems(market, rows, load)
    yield from _serial_problems(market, rows, used)
    markets = {name for name, _ in load}
    for name in sorted({each["certificate"] for each in market["claimed"]}):
        row = rows.get(name)
        if row is None:
            yield f"the certificate {name} is claimed and not among the statement's rows"
            continue
        code = _refusal(statement, row, markets)
        if code:
            yield f"the certificate {name} is claimed, and may not be: {_WORDS[code]}"
    yield from _other_problems(statement, load)


def _volume_problems(market: Tree, rows: Mapping[str, Tree], used: Mapping[_Identity, Fraction]) -> Iterator[str]:
    sums: dict[str, Fraction] = {}
    for each in market["claimed"]:
        amount = exact(each["microjoules"])
        if amount <= 0:
            yield f"of the certificate {each['certificate']} {amount} microjoules are claimed"
        sums[each["certificate"]] = sums.get(each["certificate"], Fraction(0)) + amount
    for name, amount in sorted(sums.items()):
        if name in rows:
            before, volume = used.get(_identity(rows[name]), Fraction(0)), int(rows[name]["volume_wh"]) * MICROJOULES_PER_WH
            if amount + before > volume:
                yield (
                    f"of the certificate {name} more is claimed than its volume: {amount} microjoules here and {before} by "
                    f"other statements, of {volume}"
                )


def _load_problems(market: Tree, rows: Mapping[str, Tree], load: Load) -> Iterator[str]:
    sums: dict[tuple[str, int | None], Fraction] = {}
    for each in market["claimed"]:
        key = (rows.get(each["certificate"], {}).get("market", ""), each["hour_seconds"])
        sums[key] = sums.get(key, Fraction(0)) + exact(each["microjoules"])
        own = rows.get(each["certificate"])
        if key[1] is not None and own is not None and not key[1] <= own["from_seconds"] < key[1] + SECONDS_PER_HOUR:
            yield f"the certificate {each['certificate']} covers an hour in which it was not generated"
    for (name, hour), amount in sorted(sums.items(), key=str):
        own_load = load.get((name, hour), Fraction(0))
        if amount > own_load:
            where = name if hour is None else f"{name} in the hour from {hour}"
            yield f"certificates cover more than the load of {where}: {amount} of {own_load} microjoules"


def _serial_problems(market: Tree, rows: Mapping[str, Tree], used: Mapping[_Identity, Fraction]) -> Iterator[str]:
    """No serial may be claimed twice, here or by another statement under another name."""
    names = sorted({each["certificate"] for each in market["claimed"]})
    ranges = [(_identity(rows[name]), name) for name in names if name in rows and _has_serials(rows[name])]
    for place, (own, name) in enumerate(ranges):
        others = [other for other, _ in ranges[:place]] + [other for other in used if other != own and other[4] > 0]
        for other in others:
            if _share_serials(own, other):
                yield f"serials of the certificate {name} are claimed twice: the certificate {other[1]} has them, too"


def _other_problems(statement: Tree, load: Load) -> Iterator[str]:
    """Whether exactly these are claimed and refused."""
    market = statement["market"]
    allocation, refused = allocate(statement, load)
    rows = {row["certificate"]: row for row in statement["instruments"]["rows"]}
    stated: Allocation = {}
    for each in market["claimed"]:
        key = (rows.get(each["certificate"], {}).get("market", ""), each["hour_seconds"], each["certificate"])
        stated[key] = stated.get(key, Fraction(0)) + exact(each["microjoules"])
    if stated != allocation:
        names = sorted({key[2] for key in stated.keys() | allocation.keys() if stated.get(key) != allocation.get(key)})
        yield f"what is claimed of certificates is not what follows from load and volumes: {', '.join(names[:5])}"
    told = {each["certificate"]: each["code"] for each in market["refused"]}
    for name in sorted(told.keys() | refused.keys()):
        if told.get(name) != refused.get(name):
            yield f"the certificate {name} is stated to be refused for {told.get(name)}, and it is for {refused.get(name)}"


def allocate(statement: Tree, load: Load) -> tuple[Allocation, dict[str, str]]:
    """What certificates cover, in the order of generation and name; and the codes of those that cover nothing."""
    market = statement["market"]
    is_hourly = market["claim"]["matching"] == "hourly"
    used = _used_before(market)
    markets = {name for name, _ in load}
    left = dict(load)
    taken_serials: list[_Identity] = [each for each in used if each[4] > 0]
    seen: set[str] = set()
    allocation: Allocation = {}
    refused: dict[str, str] = {}
    for row in sorted(statement["instruments"]["rows"], key=lambda row: (row["from_seconds"], row["certificate"])):
        name, own = row["certificate"], _identity(row)
        code = _refusal(statement, row, markets)
        available = int(row["volume_wh"]) * MICROJOULES_PER_WH - used.get(own, Fraction(0))
        if not code and available <= 0:
            code = "used_up"
        if not code and _has_serials(row):
            # Of a certificate that another statement used in part, the rest may be used under the same name.
            others = [other for other in taken_serials if other != own or name in seen]
            code = "serial_used_twice" if any(_share_serials(own, other) for other in others) else ""
            if not code:
                taken_serials.append(own)
        seen.add(name)
        if code:
            refused[name] = code
            continue
        hour = row["from_seconds"] - row["from_seconds"] % SECONDS_PER_HOUR if is_hourly else None
        key = (row["market"], hour)
        amount = min(max(left.get(key, Fraction(0)), Fraction(0)), available)
        if amount:
            left[key] -= amount
            allocation[row["market"], hour, name] = amount
    return allocation, refused


def _refusal(statement: Tree, row: Tree, markets: set[str]) -> str:
    """Why a certificate may not be claimed, whatever else is; empty if it may."""
    claim, period = statement["market"]["claim"], statement["period"]
    is_hourly = claim["matching"] == "hourly"
    if not row["retired_for"]:
        return "not_retired"
    if row["retired_for"] != claim["beneficiary"]:
        return "other_beneficiary"
    if row["market"] not in markets or not row["market"]:
        return "other_market"
    begins, ends = integer(row["from_seconds"]), integer(row["to_seconds"])
    if is_hourly and ends > begins - begins % SECONDS_PER_HOUR + SECONDS_PER_HOUR:
        return "hour_mismatch"
    before, after = (0, 0) if is_hourly else (claim["vintage_before_seconds"], claim["vintage_after_seconds"])
    if begins < period["from_seconds"] - integer(before) or ends > period["to_seconds"] + integer(after):
        return "vintage_outside"
    if row["offset"] and row["offset"] in claim["offsets"]:
        return "offset_for_same_mwh"
    if row["kind"] == "I-REC" and row["market"].partition("-")[0] == "CN" and ends > IREC_CHINA_ENDS:
        return "irec_china_after_2024"
    if row["grams_per_kwh"] is None:
        return "no_emission_rate"
    count = int(row["serial_last"]) - int(row["serial_first"]) + 1
    if _has_serials(row) and row["kind"] != "granular" and int(row["volume_wh"]) > count * 1_000_000:
        return "volume_above_serials"
    return ""


_WORDS: Final = {
    "not_retired": "it is not retired",
    "other_beneficiary": "it is retired for another beneficiary",
    "other_market": "it is of a market in which there is no load",
    "hour_mismatch": "it was generated over more than one hour",
    "vintage_outside": "it was generated outside of the time for which it may be claimed",
    "offset_for_same_mwh": "credits are claimed for the same MWh",
    "irec_china_after_2024": "I-REC(E) are not issued for Chinese generation after 2024",
    "no_emission_rate": "it conveys no emission rate",
    "volume_above_serials": "its volume is above a MWh for each serial",
}


def _used_before(market: Tree) -> dict[_Identity, Fraction]:
    used: dict[_Identity, Fraction] = {}
    for row in market["used_before"]:
        amount = exact(row["microjoules"])
        if amount < 0:
            raise ValueError(f"{amount} microjoules were used before of the certificate {row['certificate']}")
        used[_identity(row)] = used.get(_identity(row), Fraction(0)) + amount
    return used


def _identity(row: Tree) -> _Identity:
    return (
        row["registry"], row["certificate"], row["serial_prefix"], int(row["serial_first"]), int(row["serial_last"])
    )  # fmt: skip


def _has_serials(row: Tree) -> bool:
    return int(row["serial_last"]) > 0


def _share_serials(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return (one[0], one[2]) == (other[0], other[2]) and bool(one[3] <= other[4] and other[3] <= one[4])
