"""Counts CPU packages from 0, whatever numbers the kernel gives them.

Reads nothing but sysfs. On ARM `physical_package_id` is an offset in a firmware table (36 and 3180 were seen), while labels
of sensors count sockets: only by its rank is a package the same device for all sources. Source of truth: the kernel's
Documentation/admin-guide/cputopology.rst.
"""

from pathlib import Path


def package_rank(sysfs_root: Path, cpu: str) -> int | None:
    """Return the place of a CPU's package among all packages, in the order of their ids; None if it is unknown."""
    folder = sysfs_root / "devices/system/cpu"
    own = _package(folder / f"cpu{cpu}")
    if own is None:
        return None
    packages = {_package(path) for path in folder.glob("cpu[0-9]*")}
    return sorted(package for package in packages if package is not None).index(own)


def _package(folder: Path) -> int | None:
    """A CPU's package id; None where the kernel has none, which it says by -1 or by no file."""
    try:
        package = int((folder / "topology/physical_package_id").read_text())
    except (OSError, ValueError):
        return None
    return package if package >= 0 else None
