"""Which processes used a GPU, as parts of its work, for the energy of workloads.

Asks NVML through its arguments and keeps the time of the last sample; divides no energy. Source of truth: nvml.h
(nvmlDeviceGetProcessUtilization: per process the share of the time since the last sample in which its kernels ran).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wattledger_agent.readings import ProcessShares
from wattledger_agent.sources.nvidia_gpu import Gpu
from wattledger_agent.sources.nvidia_mig import Instance
from wattledger_agent.sources.nvml import NOT_FOUND, UNSUPPORTED, Nvml, error_value

PERCENT = 100


@dataclass(slots=True)
class _State:
    """last_microseconds: time of the newest sample that was taken in; None before the first read."""

    last_microseconds: int | None = None
    by_ownership: bool = False


@dataclass(slots=True)
class ProcessReader:
    """Reads the shares of every GPU's processes; keeps, by device, how far it has read."""

    nvml: Nvml
    notes: list[str]
    _states: dict[str, _State] = field(default_factory=dict)

    def read(
        self, gpu: Gpu, busy_ratio: float | None, instances: Sequence[Instance], activity: Mapping[str, float]
    ) -> ProcessShares | None:
        """The shares since the read before; None if they can't be known this time.

        busy_ratio: how long the GPU as a whole worked, in [0, 1]; None if unknown. activity: of instances whose activity is
        measured, in [0, 1], by device.
        """
        if gpu.has_mig:
            shares = self._of_instances(gpu, instances, activity)
        else:
            state = self._states.setdefault(gpu.device, _State())
            shares = self._owned(gpu, busy_ratio) if state.by_ownership else self._sampled(gpu, busy_ratio, state)
        return None if shares is None else ProcessShares(gpu.device, shares)

    def _sampled(self, gpu: Gpu, busy_ratio: float | None, state: _State) -> dict[int, float] | None:
        first = state.last_microseconds is None
        since = state.last_microseconds or 0
        try:
            samples = self.nvml.nvmlDeviceGetProcessUtilization(gpu.handle, since)
        except self.nvml.NVMLError as error:
            if error_value(error) in UNSUPPORTED:
                state.by_ownership = True
                self.notes.append(f"nvidia: {gpu.device} does not tell its processes apart; they share its work equally.")
                return self._owned(gpu, busy_ratio)
            if error_value(error) != NOT_FOUND:
                return None
            samples = []  # So NVML says that no process has worked since.
        percents = _newest(samples, since)
        state.last_microseconds = max((sample.timeStamp for sample in samples if _is_sane(sample)), default=since)
        # What the driver has kept from before the start is nobody's energy of now.
        return None if first else busy_shares(percents, busy_ratio)

    def _owned(self, gpu: Gpu, busy_ratio: float | None) -> dict[int, float] | None:
        pids = _pids(gpu.ask(self.nvml, "nvmlDeviceGetComputeRunningProcesses"))
        return None if pids is None else owned_shares(pids, 1.0 if busy_ratio is None else busy_ratio)

    def _of_instances(
        self, gpu: Gpu, instances: Sequence[Instance], activity: Mapping[str, float]
    ) -> dict[int, float] | None:
        shares: dict[int, float] = {}
        for instance in instances:
            pids = _pids(instance.ask(self.nvml, "nvmlDeviceGetComputeRunningProcesses"))
            if pids is None:
                return None
            part = instance.part * activity.get(instance.device, 1.0)
            for pid, share in owned_shares(pids, part).items():
                shares[pid] = shares.get(pid, 0.0) + share
        return shares


def busy_shares(percents: Mapping[int, float], busy_ratio: float | None) -> dict[int, float]:
    """Shares of the GPU's time by process, from the percent of the time that each one's kernels ran.

    Time-sliced processes run one after the other, and their percents add up to the time that the GPU was busy. Under MPS
    they run side by side and may add up to more: then they are scaled down to it, since together they can't have worked
    longer than the GPU. What is busy beyond them (graphics, a process that ended) is left over, and nobody's.
    """
    total = sum(percents.values()) / PERCENT
    # A GPU that was idle just now while its processes worked was looked at over another span: that tells nothing.
    most = min(busy_ratio, 1.0) if busy_ratio else 1.0
    scale = most / total if total > most else 1.0
    return {pid: percent / PERCENT * scale for pid, percent in percents.items() if percent > 0}


def owned_shares(pids: Iterable[int], part: float) -> dict[int, float]:
    """Equal shares of a part (in [0, 1]) for the processes that hold it; empty if there are none, and the part was idle."""
    holders = set(pids)
    return dict.fromkeys(holders, part / len(holders)) if holders else {}


def _newest(samples: Sequence[Any], since_microseconds: int) -> dict[int, float]:
    """The last percent of each process. The driver may fill its answer up with entries that are none."""
    newest: dict[int, Any] = {}
    for sample in samples:
        if _is_sane(sample) and sample.timeStamp > since_microseconds:
            before = newest.get(sample.pid)
            if before is None or sample.timeStamp > before.timeStamp:
                newest[sample.pid] = sample
    return {pid: float(sample.smUtil) for pid, sample in newest.items()}


def _is_sane(sample: Any) -> bool:
    return bool(sample.pid > 0 and sample.timeStamp > 0 and 0 <= sample.smUtil <= PERCENT)


def _pids(processes: Sequence[Any] | None) -> list[int] | None:
    return None if processes is None else [process.pid for process in processes if process.pid > 0]
