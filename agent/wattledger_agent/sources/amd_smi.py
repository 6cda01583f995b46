"""Energy counters of AMD GPUs by the maker's library `amdsmi`, for those whose driver's table is of no known kind.

Asks for nothing else: all that the agent shows besides is in the driver's files. Source of truth: amdsmi_get_energy_count in
amdsmi.h (steps of `counter_resolution` microjoules; not supported on virtual machine guests).
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

# The resolution is a float of a few digits (15.3, 15.259); energy is reckoned in whole numbers.
RESOLUTION_DENOMINATOR = 1000


class AmdSmi(Protocol):
    """The part of the module `amdsmi` that is used."""

    AmdSmiException: type[Exception]

    def amdsmi_init(self) -> None:
        """Load the library and find the GPUs."""

    def amdsmi_shut_down(self) -> None:
        """Let go of them."""

    def amdsmi_get_processor_handles(self) -> Sequence[Any]:
        """All GPUs."""

    def amdsmi_get_gpu_device_bdf(self, handle: Any) -> str:
        """A GPU's address, as `0000:0c:00.0`."""

    def amdsmi_get_energy_count(self, handle: Any) -> Mapping[str, Any]:
        """`energy_accumulator` and `counter_resolution`."""


def load_amdsmi(name: str = "amdsmi") -> AmdSmi | None:
    """The module, or None where it or its library is missing."""
    try:
        return cast(AmdSmi, importlib.import_module(name))
    except (ImportError, OSError, KeyError, AttributeError):
        # It looks for ROCm's library while it is imported, and fails in one of these ways without it.
        return None


class SmiCounters:
    """The GPUs of the library, by their address on the bus."""

    def __init__(self, smi: AmdSmi) -> None:
        """Raises the library's AmdSmiException."""
        self._smi = smi
        smi.amdsmi_init()
        self._handles = {smi.amdsmi_get_gpu_device_bdf(h).lower(): h for h in smi.amdsmi_get_processor_handles()}

    def microjoules(self, address: str) -> int | None:
        """The GPU's energy, rounded down; None if it can't be had now, or not at all."""
        handle = self._handles.get(address)
        if handle is None:
            return None
        try:
            count = self._smi.amdsmi_get_energy_count(handle)
            # Older releases call the accumulator `power`.
            steps = int(count["energy_accumulator" if "energy_accumulator" in count else "power"])
            resolution = round(float(count["counter_resolution"]) * RESOLUTION_DENOMINATOR)
        except (self._smi.AmdSmiException, KeyError, TypeError, ValueError):
            return None
        return steps * resolution // RESOLUTION_DENOMINATOR if 0 < steps < 2**64 - 1 and resolution > 0 else None

    def close(self) -> None:
        """Let go of the library."""
        try:
            self._smi.amdsmi_shut_down()
        except self._smi.AmdSmiException:
            # It may have lost the driver; there is nothing left to let go of.
            self._handles = {}
