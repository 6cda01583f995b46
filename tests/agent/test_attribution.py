"""Division of energy: exact to the microjoule whatever the weights, and fair by the rule that is stated."""

from math import inf, nan

from hypothesis import given, settings
from hypothesis import strategies as st

from wattledger_agent.attribution import Divider, Division, Usage, divide
from wattledger_agent.readings import IdlePolicy

SECOND = 1_000_000_000
NODE_ONLY = IdlePolicy.NODE_ONLY


def total(division: Division) -> int:
    """All parts together."""
    return sum(division.parts.values()) + division.idle_microjoules + division.unattributed_microjoules


def usage(busy: int = SECOND, idle: int = SECOND, **cpu: int) -> Usage:
    """One package; workloads by number, as w1=..."""
    return Usage((busy,), (idle,), {int(name[1:]): time for name, time in cpu.items()})


TIMES = st.integers(0, 100 * SECOND)
NUMBERS = st.integers(1, 40)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Any usage, also such as no kernel should report: more claimed than busy, workloads bound to packages with no work."""
    packages = draw(st.integers(1, 4))
    cpu = draw(st.dictionaries(NUMBERS, TIMES, max_size=12))
    return Usage(
        tuple(draw(st.lists(TIMES, min_size=packages, max_size=packages))),
        tuple(draw(st.lists(TIMES, min_size=packages, max_size=packages))),
        cpu,
        draw(st.dictionaries(NUMBERS, st.integers(0, packages - 1), max_size=6)),
        draw(st.dictionaries(NUMBERS, st.integers(0, 10_000), max_size=12)),
        draw(st.dictionaries(NUMBERS, st.integers(0, 2**40), max_size=12)),
        draw(st.integers(0, 2**40)),
    )


@given(total=st.integers(0, 2**62), weights=st.lists(st.integers(0, 2**80), min_size=1).filter(any))
def test_parts_sum_to_the_whole_and_are_exact_shares_rounded(total: int, weights: list[int]) -> None:
    """Each part is its share rounded down or up, a weight of 0 gets nothing, and nothing is lost or made."""
    parts = divide(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        share, remainder = divmod(total * weight, sum(weights))
        assert share <= part <= share + (remainder > 0)


@settings(max_examples=200)
@given(
    energy=st.integers(0, 2**62),
    usage=usages(),
    policy=st.sampled_from(IdlePolicy),
    package=st.one_of(st.none(), st.integers(0, 5)),
    shares=st.dictionaries(st.integers(1, 60), st.floats(), max_size=8),
)
def test_every_division_is_exact_and_never_negative(
    energy: int, usage: Usage, policy: IdlePolicy, package: int | None, shares: dict[int, float]
) -> None:
    """Workloads, idling and what nobody claims sum to the step, for CPUs, memory and accelerators, under every policy."""
    divider = Divider(usage, policy)
    owners = {pid: pid % 20 for pid in range(1, 50)}
    for division in (
        divider.cpu(energy, package),
        divider.memory(energy, package),
        divider.shares(energy, shares, owners.get),
    ):
        assert total(division) == energy
        assert min(*division.parts.values(), division.idle_microjoules, division.unattributed_microjoules, 0) == 0
        assert division.parts.keys() <= usage.cpu_nanoseconds.keys()


def test_active_energy_goes_by_cpu_time_and_the_idle_share_stays_with_the_node() -> None:
    """Half of the time idled; of the other half one workload had a quarter, one the half, and a quarter is nobody's."""
    division = Divider(usage(w1=SECOND // 4, w2=SECOND // 2), NODE_ONLY).cpu(80_000_000, 0)
    assert division.parts == {1: 10_000_000, 2: 20_000_000}
    assert (division.idle_microjoules, division.unattributed_microjoules) == (40_000_000, 10_000_000)


def test_a_fully_used_host_idles_nothing() -> None:
    """The time share says so itself (kepler#2465 asks why idle power vanishes at full load): all of it is then working."""
    division = Divider(usage(busy=SECOND, idle=0, w1=SECOND), NODE_ONLY).cpu(100, 0)
    assert division == Division({1: 100}, 0, 0)


def test_workloads_never_get_more_than_the_host() -> None:
    """Workloads that claim twice the host's busy time share it (scaphandre#350, alumet#403), and none is left over."""
    division = Divider(usage(busy=SECOND, idle=0, w1=SECOND, w2=SECOND), NODE_ONLY).cpu(1_000_001, 0)
    assert sum(division.parts.values()) == 1_000_001
    assert division.parts == {1: 500_000, 2: 500_001}


def test_a_host_of_which_nothing_is_known_has_nothing_to_attribute() -> None:
    """Without any CPU time neither working nor idling can be told apart: unattributed, not idle."""
    assert Divider(Usage((0,), (0,), {1: 0}), NODE_ONLY).cpu(7, 0) == Division({}, 0, 7)


def test_work_that_no_workload_claims_is_unattributed() -> None:
    """Kernel threads and processes outside of any workload keep their energy to themselves."""
    assert Divider(usage(busy=SECOND, idle=0), NODE_ONLY).cpu(9, 0) == Division({}, 0, 9)


def test_a_package_is_divided_by_its_own_times() -> None:
    """One package works, the other idles: the idle one's energy is no workload's."""
    divider = Divider(Usage((SECOND, 0), (0, SECOND), {1: SECOND}), NODE_ONLY)
    assert divider.cpu(50, 0) == Division({1: 50}, 0, 0)
    assert divider.cpu(20, 1) == Division({}, 20, 0)
    assert divider.cpu(70, None).parts == {1: 35}


def test_a_workload_bound_to_a_package_costs_only_that_one() -> None:
    """The other's time then ran where there was still work that nobody bound explains."""
    divider = Divider(Usage((2 * SECOND, SECOND), (0, 0), {1: 2 * SECOND, 2: SECOND}, packages={1: 0}), NODE_ONLY)
    assert divider.cpu(100, 0) == Division({1: 100}, 0, 0)
    assert divider.cpu(100, 1) == Division({2: 100}, 0, 0)


def test_a_package_that_the_kernel_does_not_list_is_divided_like_the_host() -> None:
    """A sensor may number packages that /proc/stat does not know."""
    divider = Divider(usage(w1=SECOND), NODE_ONLY)
    assert divider.cpu(100, 7) == divider.cpu(100, None)


def test_equal_gives_idle_energy_to_every_workload_there() -> None:
    """Also to those that did nothing: three workloads, one part each."""
    division = Divider(usage(busy=0, idle=SECOND, w1=0, w2=0, w3=0), IdlePolicy.EQUAL).cpu(300, 0)
    assert division == Division({1: 100, 2: 100, 3: 100}, 0, 0)


def test_by_usage_lets_what_nobody_claims_pay_its_part() -> None:
    """A workload with a third of the work bears a third of the idling."""
    division = Divider(usage(busy=3 * SECOND, idle=3 * SECOND, w1=SECOND), IdlePolicy.BY_USAGE).cpu(600, 0)
    assert division == Division({1: 200}, 0, 400)


def test_by_reservation_gives_idle_energy_by_what_was_asked_for() -> None:
    """Three parts of the CPUs to one, and one to another."""
    idle = Usage((0,), (SECOND,), {1: 0, 2: 0}, reservations={1: 300, 2: 100})
    assert Divider(idle, IdlePolicy.BY_RESERVATION).cpu(400, 0) == Division({1: 300, 2: 100}, 0, 0)


def test_idle_energy_that_nobody_can_take_stays_with_the_node() -> None:
    """No workloads, no usage, no reservations."""
    for policy in IdlePolicy:
        assert Divider(usage(busy=0, idle=SECOND), policy).cpu(5, 0) == Division({}, 5, 0)
    assert Divider(usage(busy=0, idle=SECOND, w1=0), IdlePolicy.BY_RESERVATION).cpu(5, 0) == Division({}, 5, 0)


def test_memory_energy_goes_by_the_memory_held() -> None:
    """Of what is in use one workload holds half; page cache and kernel hold the rest."""
    held = Usage((SECOND,), (SECOND,), {1: 0, 2: SECOND}, memory_bytes={1: 2048}, memory_used_bytes=4096)
    assert Divider(held, NODE_ONLY).memory(400, 0) == Division({1: 100}, 200, 100)


def test_memory_energy_goes_by_cpu_time_where_memory_is_not_asked_for() -> None:
    """Those who work use the memory."""
    divider = Divider(usage(w1=SECOND), NODE_ONLY)
    assert divider.memory(400, 0) == divider.cpu(400, 0)


def test_an_accelerators_energy_goes_by_its_processes_shares() -> None:
    """Two processes of one workload, one of nobody (another PID namespace), and a quarter of idling."""
    owners = {10: 1, 11: 1}
    division = Divider(usage(w1=0), NODE_ONLY).shares(400, {10: 0.25, 11: 0.25, 12: 0.25}, owners.get)
    assert division == Division({1: 200}, 100, 100)


def test_an_accelerators_idle_energy_goes_only_to_those_that_hold_it() -> None:
    """A workload without the GPU pays none of its idling, under any policy."""
    for policy in (IdlePolicy.EQUAL, IdlePolicy.BY_USAGE):
        division = Divider(usage(w1=0, w2=0), policy).shares(400, {10: 0.5}, {10: 1}.get)
        assert division == Division({1: 400}, 0, 0)


def test_a_gpu_that_nobody_uses_idles() -> None:
    """An empty list of processes is an answer: nobody used the device."""
    assert Divider(usage(w1=0), NODE_ONLY).shares(400, {}, {10: 1}.get) == Division({}, 400, 0)


def test_shares_that_are_no_numbers_are_not_believed() -> None:
    """What a driver should not say gives nobody energy."""
    shares = {10: nan, 11: inf, 12: -0.5}
    assert Divider(usage(w1=0), NODE_ONLY).shares(400, shares, {10: 1, 11: 1, 12: 1}.get) == Division({}, 400, 0)
