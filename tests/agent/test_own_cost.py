"""What the agent tells of its own cost, beside what the kernel says of this process."""

import resource
import threading
import time

from wattledger_agent.own_cost import ProcessCost


def test_cpu_time_is_that_of_the_process() -> None:
    """Work done is seen, to the nanosecond and never more than what the kernel accounts."""
    cost = ProcessCost()
    before, began = cost.cpu_nanoseconds(), time.process_time_ns()
    sum(range(200_000))
    ended, after = time.process_time_ns(), cost.cpu_nanoseconds()
    assert 0 < ended - began <= after - before


def test_memory_is_what_is_resident() -> None:
    """Within what this process ever had, and more than a bare interpreter's 5 MB."""
    highest_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 5_000_000 < ProcessCost().memory_bytes() <= highest_bytes * 1.1


def sleep_often() -> None:
    """Sleep a hundred times."""
    for _ in range(100):
        time.sleep(0.001)


def test_a_wakeup_of_any_thread_is_counted() -> None:
    """Each sleep ends with one; those of threads that have ended stay in the count."""
    cost = ProcessCost()
    before = cost.wakeups()
    sleeper = threading.Thread(target=sleep_often)
    sleeper.start()
    sleeper.join()
    assert cost.wakeups() - before >= 100
