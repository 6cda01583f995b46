"""What a machine's power is estimated to be: from its CPUs and memory, as a curve over load with a band.

Reads nothing; says of each estimate what it stands on. Grounds, from firm to weak: the user's own curve, published results
of the CPU model, of its family, of servers at large, and none at all. A guest of a hypervisor gets its share of a usual
server of its CPU, or of that CPU's family: its threads over that server's, since a guest can't see how many its host has.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from wattledger_agent.arm_cpus import core_of
from wattledger_agent.cpus import CpuInfo, Family, cpu_key, find_family, is_desktop, is_laptop, is_server
from wattledger_agent.curves import LEVELS, Band, CurveModel, PublishedCurve, Server, guess_server

# Judged, not fitted: nothing is published of these machines in the way that it is of servers.
BAND_OUTSIDE = Band(0.7, 2.0)
LAPTOP_WATTS = (8.0, 45.0)
DESKTOP_WATTS = (40.0, 140.0)
SMALL_WATTS_PER_CORE = (1.2, 4.0)
# Between idle and full, power rises steeply at first: the mean of the published curves is near to this power of the load.
SHAPE_EXPONENT = 0.8

# A usual server of a family of which nothing is published.
USUAL_CHIPS, USUAL_CORES_PER_CHIP, USUAL_GB_PER_CORE = 2, 32, 4.0
# Families with one thread a core; all others have two.
SINGLE_THREADED = frozenset({"Core 2", "Core 2 entry", "Opteron K8", "Opteron K10", "Bulldozer", "Sierra Forest"})


@dataclass(frozen=True, slots=True)
class Estimate:
    """Power by load, and how far to trust it.

    watts: at each of loads, which rise from 0 to 1. ground: one sentence, without a full stop, on what it stands.
    """

    watts: tuple[float, ...]
    band: Band
    ground: str
    loads: tuple[float, ...] = LEVELS

    def watts_at(self, load_ratio: float) -> float:
        """Return the power between the loads, by straight lines; the load is taken as the nearest in [0, 1]."""
        load = min(max(load_ratio, 0.0), 1.0)
        above = min(bisect_right(self.loads, load), len(self.loads) - 1)
        low, high = self.loads[above - 1], self.loads[above]
        return self.watts[above - 1] + (self.watts[above] - self.watts[above - 1]) * (load - low) / (high - low)


def own_curve(points: Sequence[tuple[float, float]], band_ratios: Sequence[float]) -> Estimate:
    """Return the estimate that a user has given.

    points: load and watts of this machine as it is seen, a guest's as a guest; loads rise from 0 to 1.
    band_ratios: lower and upper; empty: unknown, which is taken as wide.
    """
    loads, watts = zip(*points, strict=True)
    band = Band(*band_ratios) if band_ratios else BAND_OUTSIDE
    told = "its band is configured too" if band_ratios else "its band is unknown and taken as wide"
    return Estimate(watts, band, f"the configured curve of {len(points)} points; {told}", loads)


def estimate(info: CpuInfo, memory_gb: float, model: CurveModel, tdps: Mapping[str, float]) -> Estimate:
    """Return the estimate of a machine's wall power, or of a guest's share of it. tdps: vendors' TDPs by key, in watts."""
    if info.parts:
        return _arm(info)
    key = cpu_key(info.model_name)
    family = find_family(key, info.cpuid)
    if info.is_guest:
        return _guest(info, key, family if is_server(key) else None, model, tdps)
    published = [curve for curve in model.curves if curve.server.cpu == key]
    if not published and not is_server(key):
        return _outside(key, info)
    server = guess_server(key, family, info.chips, info.cores, memory_gb, model.curves, tdps)
    watts = model.watts(server)
    if published:
        return Estimate(watts, model.band("model"), f"{len(published)} published results of servers with this CPU")
    relatives = count_relatives(family, model.curves)
    if family is not None and relatives:
        return Estimate(watts, model.band("family"), f"{relatives} published results of servers with {family.name} CPUs")
    return Estimate(
        watts, model.band("server"), f"{len(model.curves)} published results of servers with older or other CPUs"
    )


def count_relatives(family: Family | None, curves: Sequence[PublishedCurve]) -> int:
    """Return how many curves are of this family."""
    return sum(find_family(curve.server.cpu) is family for curve in curves) if family else 0


def usual_server(key: str, family: Family | None, curves: Sequence[PublishedCurve], tdps: Mapping[str, float]) -> Server:
    """Return a two-chip server of this CPU, with as many cores as its published ones have a chip; else as its family's.

    Of no known family: today's. key: of the CPU model; empty: not known.
    """
    own = _cores_per_chip([curve for curve in curves if curve.server.cpu == key])
    related = [curve for curve in curves if family and find_family(curve.server.cpu) is family]
    cores = USUAL_CHIPS * (own or _cores_per_chip(related) or USUAL_CORES_PER_CHIP)
    server = guess_server(key if own else "", family, USUAL_CHIPS, cores, USUAL_GB_PER_CORE * cores, curves, tdps)
    # Without a key of its own it is named after a relative, so that the model takes it for one of the family.
    return server if own else replace(server, cpu=related[0].server.cpu if related else "")


def _cores_per_chip(curves: Sequence[PublishedCurve]) -> int:
    """Return the middle number; 0 without curves."""
    cores = sorted(curve.server.cores // curve.server.chips for curve in curves)
    return cores[len(cores) // 2] if cores else 0


def threads_per_core(family: Family | None) -> int:
    """Return how many threads a core of the family has."""
    return 1 if family and family.name in SINGLE_THREADED else 2


def _guest(info: CpuInfo, key: str, family: Family | None, model: CurveModel, tdps: Mapping[str, float]) -> Estimate:
    server = usual_server(key, family, model.curves, tdps)
    host_threads = server.cores * threads_per_core(family)
    share = info.threads / host_threads
    watts = tuple(value * share for value in model.watts(server))
    kind = "server of unknown kind" if family is None else f"{family.name} server"
    if server.cpu == key:
        kind = "server with this CPU"
    ground = f"this guest's share, {info.threads} of {host_threads} threads, of a usual {kind}"
    return Estimate(watts, model.band("guest"), ground)


def _arm(info: CpuInfo) -> Estimate:
    """By the core, of whatever design: so a guest's share is its cores' too."""
    cores = [core_of(part) for part in info.parts]
    idle, full = sum(core.idle_watts for core in cores), sum(core.full_watts for core in cores)
    whose = "this guest's share of a server" if info.is_guest else "a machine"
    return Estimate(
        _concave(idle, full),
        BAND_OUTSIDE,
        f"a guess for {whose} with {len(cores)} cores of {info.model_name}, of which no results are published",
    )


def _concave(idle_watts: float, full_watts: float) -> tuple[float, ...]:
    return tuple(idle_watts + (full_watts - idle_watts) * level**SHAPE_EXPONENT for level in LEVELS)


def _outside(key: str, info: CpuInfo) -> Estimate:
    if is_laptop(key):
        idle, full, kind = *LAPTOP_WATTS, "a laptop"
    elif is_desktop(key):
        idle, full, kind = *DESKTOP_WATTS, "a personal computer"
    else:
        idle, full = (watts * info.cores for watts in SMALL_WATTS_PER_CORE)
        kind = f"a machine with {info.cores} cores of an unknown kind"
    return Estimate(_concave(idle, full), BAND_OUTSIDE, f"a guess for {kind}, of which no results are published")
