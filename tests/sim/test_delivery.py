"""Every joule once, through everything that goes wrong: a slice of the seeds that `make soak` runs."""

from collections import Counter

import pytest
from tests.sim.soak import run_seed

# A second each. Faults that are met in few of these are met in hundreds of `make soak`'s.
SEEDS = 32
SEEDS_PER_TEST = 4


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_ledger_equals_what_was_counted(first: int) -> None:
    """After healing the ledger holds what was unambiguously counted, to the microjoule, and bounds contain the rest."""
    for seed in range(first, first + SEEDS_PER_TEST):
        _, findings = run_seed(seed)
        assert findings.problems == [], f"seed {seed}"
        assert findings.booked_microjoules > 0
        assert findings.epochs > 0


def test_same_seed_is_the_same_world() -> None:
    """A failing seed can be run again: faults, bookings and gaps are the same."""
    runs = [run_seed(3) for _ in range(2)]
    worlds, findings = [world for world, _ in runs], [found for _, found in runs]
    assert worlds[0].faults == worlds[1].faults
    assert findings[0] == findings[1]
    assert isinstance(worlds[0].faults, Counter)
