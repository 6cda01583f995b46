"""Modules that carry a CPU and one or two GPUs: which GPU belongs to which, and one meter for each module.

Reads no sensor. GB200 reports the power of its module once for each of the two GPUs on it; they are told to be of one module
by the serial number of their board, and the module is metered once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from wattledger_agent.readings import ChannelKey, ChannelSpec, Component, Method, Role
from wattledger_agent.sources.nvidia_gpu import NAME, Gpu
from wattledger_agent.sources.nvml import Field


@dataclass(slots=True)
class Module:
    """One module with its own power sensor. gpus: those that report it, in their order."""

    spec: ChannelSpec
    gpus: list[Gpu]
    gone: bool = False

    def reporter(self) -> Gpu | None:
        """The GPU that is asked for the module's power: the first that answers. None if all are gone."""
        present = [gpu for gpu in self.gpus if not gpu.gone]
        well = (gpu for gpu in present if gpu.lost_reads == 0 and not gpu.hangs)
        return next(well, present[0] if present else None)

    def field_of(self, gpu: Gpu) -> Field | None:
        """The field to ask this GPU for; None if another is asked."""
        return gpu.module_field if self.reporter() is gpu else None


def find_modules(gpus: Sequence[Gpu], notes: list[str]) -> list[Module]:
    """Group the GPUs by module, and place each GPU within its own.

    A module is named by the package of its CPU, as other sources name it too, so that it is metered once however many
    sensors it has. Where the package is unknown it is only shown.
    """
    boards: dict[str, list[Gpu]] = {}
    for gpu in gpus:
        if gpu.is_superchip:
            package = gpu.pci.package()
            if package is not None and gpu.leaf is not None:
                gpu.leaf = replace(gpu.leaf, within=f"module/{package}")
            if gpu.module_field is not None:
                boards.setdefault(gpu.board or (f"package {package}" if package is not None else gpu.device), []).append(gpu)
    modules: list[Module] = []
    for board, members in boards.items():
        modules.append(Module(_spec(board, members, {module.spec.key.device for module in modules}, notes), members))
    for module in modules:
        if module.spec.role is Role.METER:
            for gpu in module.gpus:
                if gpu.leaf is not None:
                    gpu.leaf = replace(gpu.leaf, parent=module.spec.key)
    return modules


def _spec(board: str, gpus: Sequence[Gpu], taken: set[str], notes: list[str]) -> ChannelSpec:
    package = gpus[0].pci.package()
    device = f"module/{package}" if package is not None else ""
    role = Role.METER
    if not device or device in taken:
        device, role = f"module/{board}", Role.SHOWN
        why = "the CPU package that it belongs to is unknown" if package is None else "another board is next to the same CPU"
        notes.append(f"nvidia: the power of module {board} is shown and not booked: {why}; its GPUs are booked.")
    if len(gpus) > 1:
        notes.append(f"nvidia: {len(gpus)} GPUs report the power of {device}, with one board serial; it is metered once.")
    return ChannelSpec(
        key=ChannelKey(device, "module", NAME),
        component=Component.OTHER,
        method=Method.INTEGRAL,
        role=role,
        power_bound_watts=max(gpu.module_bound_watts for gpu in gpus),
        model=gpus[0].model,
    )
