"""The two watches that tell counters of their own from one register that is shown twice."""

from hypothesis import example, given
from hypothesis import strategies as st

from wattledger_agent.sources.mirrors import DuplicateWatch, MirrorWatch, Verdict

JOULE = 1_000_000
RANGE = 65_532_611_002


def test_duplicates_of_one_energy_agree() -> None:
    """Two drivers whose counters began apart, and round apart, count the same energy."""
    watch = DuplicateWatch(RANGE, RANGE)
    verdicts = [watch.observe(60 * JOULE * tick, 7 * JOULE + 60 * JOULE * tick * 999 // 1000, 60 * JOULE * tick)
                for tick in range(40)]  # fmt: skip
    assert set(verdicts[:33]) == {Verdict.UNDECIDED}
    assert set(verdicts[34:]) == {Verdict.MIRRORED}


def test_duplicates_that_part_are_told_after_having_agreed() -> None:
    """A driver that stands still while the other counts is wrong, however long they agreed."""
    watch = DuplicateWatch(RANGE, RANGE)
    for tick in range(100):
        assert watch.observe(60 * JOULE * tick, 60 * JOULE * tick, 60 * JOULE * tick) is not Verdict.DISTINCT
    stuck = 60 * JOULE * 99
    seen = [watch.observe(stuck + 60 * JOULE * tick, stuck, stuck + 60 * JOULE * tick) for tick in range(1, 4)]
    assert seen[-1] is Verdict.DISTINCT


def test_duplicates_may_wrap_apart() -> None:
    """Each counter has its own modulus and its own place in it."""
    coarse = 262_143_328_911
    watch = DuplicateWatch(RANGE, coarse)
    for tick in range(120):
        counted = 3000 * JOULE * tick
        leader = (RANGE - JOULE + counted) % RANGE
        assert watch.observe(leader, counted % coarse, leader) is not Verdict.DISTINCT
    assert watch.advances_microjoules == (119 * 3000 * JOULE, 119 * 3000 * JOULE)


def test_an_observation_that_took_long_says_nothing() -> None:
    """Between the reads the process may stand still for a second; hundreds of joules are then no divergence."""
    watch = DuplicateWatch(RANGE, RANGE)
    watch.observe(0, 0, 0)
    assert watch.observe(0, 300 * JOULE, 500 * JOULE) is Verdict.UNDECIDED
    assert watch.advances_microjoules == (0, 0)


@given(
    start=st.integers(0, RANGE - 1),
    offset=st.integers(0, RANGE - 1),
    steps=st.lists(st.integers(0, 60_000 * JOULE), min_size=1, max_size=40),
    lag=st.integers(0, JOULE // 2),
)
@example(start=RANGE - JOULE, offset=500 * JOULE, steps=[JOULE // 2, 10 * JOULE, 60_000 * JOULE, 60_000 * JOULE], lag=0)
def test_a_mirror_never_parts(start: int, offset: int, steps: list[int], lag: int) -> None:
    """Wherever they begin, however they wrap, and whenever the twin is read between the leader's two reads."""
    watch = MirrorWatch(RANGE)
    counter = start
    for step in steps:
        counter += step
        verdict = watch.observe(counter % RANGE, (counter + offset + lag) % RANGE, (counter + 2 * lag) % RANGE)
        counter += 2 * lag
        assert verdict is not Verdict.DISTINCT


@given(watts=st.integers(50, 500), percent=st.integers(1, 20))
def test_dies_that_draw_unlike_part_before_they_could_be_folded(watts: int, percent: int) -> None:
    """Counters of their own whose values differ are told apart within 2000 J, at a hundredth of difference in power."""
    watch = MirrorWatch(RANGE)
    verdict, tick = Verdict.UNDECIDED, 0
    while verdict is Verdict.UNDECIDED:
        leader, twin = watts * tick * JOULE, 900 * JOULE + watts * tick * JOULE * (100 + percent) // 100
        verdict = watch.observe(leader % RANGE, twin % RANGE, leader % RANGE)
        tick += 1
    assert verdict is Verdict.DISTINCT
