"""What the agent itself costs its host: CPU time, memory and wake-ups of its process.

Meters no energy (see own_energy.py). CPU time is the kernel's clock of the process (man clock_gettime(2),
CLOCK_PROCESS_CPUTIME_ID) and wake-ups are its voluntary context switches (man getrusage(2), ru_nvcsw): both exact, over all
threads, ended ones too, and one system call each without a file. Memory is psutil's resident set size.
"""

import resource
import time

import psutil


class ProcessCost:
    """The cost of this process."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def cpu_nanoseconds(self) -> int:
        """CPU time of all threads since the start."""
        return time.process_time_ns()

    def memory_bytes(self) -> int:
        """Resident memory."""
        return self._process.memory_info().rss

    def wakeups(self) -> int:
        """Times that a thread went to sleep of its own will since the start; after each of them it was woken."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
