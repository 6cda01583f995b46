"""What the agent itself costs its host: CPU time and memory of its process.

Meters no energy. CPU time is the kernel's clock of the process (man clock_gettime(2), CLOCK_PROCESS_CPUTIME_ID): exact, and
one system call without a file; memory is psutil's resident set size.
"""

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
