"""Finds the NVIDIA GPUs of a host, without waking one that sleeps.

Reads no sensor. NVML initialises a GPU when its handle is asked for, and that wakes it; so where sysfs says that one sleeps,
the GPUs are gone through by their PCI addresses, and who a sleeper is comes from procfs.
"""

from pathlib import Path
from typing import Any

from wattledger_agent.sources.cpu import Opener, Pread
from wattledger_agent.sources.nvidia_gpu import Gpu, asleep_gpu, probe
from wattledger_agent.sources.nvidia_pci import PciDevice, address_of, find_gpus, identity
from wattledger_agent.sources.nvml import Nvml, text


class Finder:
    """Finds GPUs once; notes gets a sentence for each that is not metered as it should be."""

    def __init__(
        self, nvml: Nvml, sysfs_root: Path, procfs_root: Path, opener: Opener, pread: Pread, notes: list[str]
    ) -> None:
        self._nvml = nvml
        self._sysfs_root = sysfs_root
        self._procfs_root = procfs_root
        self._opener = opener
        self._pread = pread
        self._notes = notes
        self._gpus: list[Gpu] = []
        self._strangers: list[PciDevice] = []

    def find(self) -> tuple[list[Gpu], list[PciDevice]]:
        """Return the GPUs, and the devices that sleep and are not known yet. The caller closes both."""
        devices = [self._device(address) for address in find_gpus(self._sysfs_root)]
        if any(device.sleeps() for device in devices):
            for device in devices:
                self._find_by_address(device)
        else:
            for device in devices:
                device.close()
            for index in range(self._count()):
                self._find_by_index(index)
        return self._gpus, self._strangers

    def _count(self) -> int:
        try:
            return self._nvml.nvmlDeviceGetCount()
        except self._nvml.NVMLError as error:
            self._notes.append(f"nvidia: the GPUs can't be counted: {error}.")
            return 0

    def _find_by_index(self, index: int) -> None:
        try:
            handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
            self._probe(handle, self._device(self._address(handle)))
        except self._nvml.NVMLError as error:
            self._notes.append(f"nvidia: GPU number {index} can't be opened ({error}); it is not metered. Reset it.")

    def _find_by_address(self, device: PciDevice) -> None:
        if device.sleeps():
            self._find_asleep(device)
            return
        try:
            handle = self._nvml.nvmlDeviceGetHandleByPciBusId(device.address)
        except self._nvml.NVMLError as error:
            device.close()
            self._refuse(device, error)
            return
        try:
            self._probe(handle, device)
        except self._nvml.NVMLError as error:
            self._refuse(device, error)

    def _find_asleep(self, device: PciDevice) -> None:
        known = identity(self._procfs_root, device.address)
        if known is None:
            self._strangers.append(device)
            self._notes.append(f"nvidia: the GPU at {device.address} sleeps and is not known yet; it was not woken.")
        else:
            self._gpus.append(asleep_gpu(device, known.uuid, known.model, self._notes))

    def _probe(self, handle: Any, device: PciDevice) -> None:
        try:
            self._gpus.append(probe(self._nvml, handle, device, self._notes))
        except self._nvml.NVMLError:
            device.close()
            raise

    def _refuse(self, device: PciDevice, error: Exception) -> None:
        self._notes.append(f"nvidia: the GPU at {device.address} can't be opened ({error}); it is not metered. Reset it.")

    def _device(self, address: str) -> PciDevice:
        return PciDevice(self._sysfs_root, address, self._opener, self._pread)

    def _address(self, handle: Any) -> str:
        try:
            return address_of(text(self._nvml.nvmlDeviceGetPciInfo(handle).busId))
        except self._nvml.NVMLError:
            return ""
