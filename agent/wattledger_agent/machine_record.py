"""`wattledger-agent record`: writes what this host's sensors show into a folder that `replay` can play, without names.

Changes no setting, follows no link out of sysfs and procfs, and overwrites nothing. Everything is kept in memory, and
scrubbed before a byte is written. Source of truth for the format: machine.py.
"""

import base64
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from wattledger_agent import __version__
from wattledger_agent.commands import RecordedCommand
from wattledger_agent.config import SourcesConfig
from wattledger_agent.inventory import Roots
from wattledger_agent.machine import CONFIG, NVML, SAMPLES, resource_place
from wattledger_agent.machine_listening import NvmlRecorder, Take, open_polled, take_processes, watch
from wattledger_agent.recorded_files import (
    CGROUP,
    CGROUP_CONTROLLERS,
    Tree,
    take_groups,
    take_procfs,
    take_shared,
    take_sysfs,
)
from wattledger_agent.scrubbing import Scrubber, left_over

# Where the folder lies in which a virtual machine's host writes the guest's share.
SHARED = "shared"

# Files with what names a machine; they are not recorded, their content is replaced where else it stands.
DMI_SECRETS = ("product_serial", "board_serial", "chassis_serial", "chassis_asset_tag", "board_asset_tag", "product_sku")
PLACEHOLDERS = frozenset(
    {"none", "default string", "not specified", "to be filled by o.e.m.", "system serial number", "n/a", "unknown"}
)

# Properties of Redfish resources that name something, and those that say nothing of power and may name anything.
SECRET_PROPERTIES = ("serialnumber", "uuid", "hostname", "assettag", "macaddress", "fqdn", "servicetag", "partlocation")
# Some makers name a resource by its serial number.
SERIAL_SHAPE = re.compile(r"(?=(?:.*[0-9]){2})(?=(?:.*[A-Z]){2})[A-Z0-9]{6,}")
DROPPED_PROPERTIES = frozenset({"Oem", "Actions", "Location", "Description", "Contacts", "LocationIndicatorActive"})


class RecordError(Exception):
    """Nothing was recorded; the text says why and what to do, in one sentence each."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was written. replaced: how many names of each kind. notes: what could not be recorded, one sentence each."""

    folder: Path
    files: int
    seconds: float
    replaced: Mapping[str, int]
    notes: Sequence[str]

    def as_text(self) -> str:
        """For people."""
        names = ", ".join(f"{count} {kind}" for kind, count in sorted(self.replaced.items())) or "none was found"
        return "\n".join(
            [
                f"{self.folder} holds {self.files} files of {self.seconds:g} s.",
                f"Names that were replaced: {names}.",
                *self.notes,
                f"Read it before you pass it on, {self.folder / 'PROVENANCE.md'} first; "
                f"`wattledger-agent replay {self.folder}` plays it.",
            ]
        )


def record(
    config: SourcesConfig,
    roots: Roots,
    out: Path,
    *,
    duration_seconds: float,
    period_seconds: float,
    today: datetime,
    etc_root: Path = Path("/etc"),
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Recorded:
    """Record this host into a new or empty folder. today: in UTC. Raises RecordError."""
    _check_folder(out)
    began = monotonic()
    take = Take()
    sysfs, procfs = Tree(roots.sysfs), Tree(roots.procfs)
    trees = {"sys": sysfs, "proc": procfs}
    if config.rapl.shared_root:
        trees[SHARED] = Tree(Path(config.rapl.shared_root))
        take_shared(trees[SHARED])
    take_sysfs(sysfs)
    take_groups(sysfs)
    take_procfs(procfs)
    if config.redfish.address:
        sysfs.take("class/dmi/id/product_uuid")
    nvml = NvmlRecorder(roots, config, take)
    nvml.take(0.0)
    take_processes(procfs, take.nvml)
    if not sysfs.found.files and not procfs.found.files:
        raise RecordError(f"{roots.sysfs} and {roots.procfs} hold nothing that a sensor could be read from. Name others.")
    sources = open_polled(config, roots, take, lambda: monotonic() - began)
    try:
        watch(take, trees, nvml, duration_seconds, period_seconds, sleep, lambda: monotonic() - began)
    finally:
        for source in sources:
            source.close()
    scrubber = _scrubber(roots, etc_root, take)
    written = _written(config, roots, take, trees, scrubber)
    left = left_over((text for text in written.values() if isinstance(text, str)), scrubber)
    if left:
        raise RecordError(f"a name was left after all were replaced (`{left[0]}`), so nothing was written. Report it.")
    unread = sum(raw is None for tree in trees.values() for raw in tree.found.files.values())
    if unread:
        take.notes.append(f"{unread} files can't be read by this user, and are empty in the recording; record as root.")
    written["PROVENANCE.md"] = _provenance(today, procfs, duration_seconds, period_seconds, scrubber, take)
    _write(out, written, trees, scrubber)
    return Recorded(out, len(written), duration_seconds, scrubber.found, take.notes)


def _check_folder(out: Path) -> None:
    try:
        if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
            raise RecordError(f"{out} is not an empty folder, and nothing is overwritten. Name a new one.")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"{out} can't be made: {error.strerror}. Name a folder that this user may write.") from error


def _scrubber(roots: Roots, etc_root: Path, take: Take) -> Scrubber:
    """A scrubber that knows this host's names."""
    scrubber = Scrubber()
    for gpu in (take.nvml or {}).get("gpus", ()):
        # Their UUIDs have a shape of their own.
        if isinstance(gpu.get("nvmlDeviceGetSerial"), str):
            scrubber.tell("serial", gpu["nvmlDeviceGetSerial"])
    for file in (etc_root / "hostname", roots.procfs / "sys/kernel/hostname", roots.procfs / "sys/kernel/domainname"):
        name = _line(file)
        if name and name not in ("localhost", "(none)"):
            scrubber.tell("host", name)
            scrubber.tell("host", name.partition(".")[0])
    for name in DMI_SECRETS:
        text = _line(roots.sysfs / "class/dmi/id" / name)
        if text.lower() not in PLACEHOLDERS:
            scrubber.tell("serial", text)
    for file in sorted((roots.sysfs / "bus/pci/devices").glob("*/unique_id")):
        scrubber.tell("serial", _line(file))
    for device in take.devices:
        kind, _, identity = device.partition("/")
        # A place on the bus names nobody.
        if kind in ("accelerator", "chassis") and ":" not in identity:
            scrubber.tell("serial", identity)
    for _, _, resource in take.resources:
        _tell_resource(resource, scrubber)
    return scrubber


def _tell_resource(resource: Any, scrubber: Scrubber) -> None:
    if isinstance(resource, Mapping):
        for key, value in resource.items():
            if isinstance(value, str) and _is_secret(key) and value.lower() not in PLACEHOLDERS:
                scrubber.tell("serial", value)
            elif isinstance(value, str) and key in ("Id", "@odata.id"):
                for part in value.split("/"):
                    if SERIAL_SHAPE.fullmatch(part):
                        scrubber.tell("serial", part)
            elif key not in DROPPED_PROPERTIES:
                _tell_resource(value, scrubber)
    elif isinstance(resource, list):
        for value in resource:
            _tell_resource(value, scrubber)


def _cleaned(resource: Any, scrubber: Scrubber) -> Any:
    if isinstance(resource, Mapping):
        return {
            key: scrubber.tell("serial", value) if isinstance(value, str) and _is_secret(key) else _cleaned(value, scrubber)
            for key, value in resource.items()
            if key not in DROPPED_PROPERTIES
        }
    if isinstance(resource, list):
        return [_cleaned(value, scrubber) for value in resource]
    return scrubber.text(resource) if isinstance(resource, str) else resource


def _is_secret(key: str) -> bool:
    return any(part in key.lower() for part in SECRET_PROPERTIES)


def _written(
    config: SourcesConfig, roots: Roots, take: Take, trees: Mapping[str, Tree], scrubber: Scrubber
) -> dict[str, str | bytes]:
    """The content of every file of the recording, by its path in the folder, scrubbed."""
    written: dict[str, str | bytes] = {}
    for name, tree in trees.items():
        for path, raw in tree.found.files.items():
            written[_out_path(f"{name}/{path}", scrubber)] = _content(f"{name}/{path}", raw or b"", scrubber)
    samples: dict[float, dict[str, Any]] = {}
    for moment in take.moments:
        files = samples.setdefault(moment.seconds, {"seconds": moment.seconds}).setdefault("files", {})
        for path, change in moment.files.items():
            shown = None if change is None else _content(path, change, scrubber)
            files[_out_path(path, scrubber)] = (
                {"base64": base64.b64encode(shown).decode()} if isinstance(shown, bytes) else shown
            )
    commands = _commands(take, scrubber, samples)
    if commands:
        written["commands.json"] = json.dumps(msgspec.to_builtins(commands), indent=1) + "\n"
    _resources(take, scrubber, samples, written)
    if take.nvml is not None:
        written[NVML] = scrubber.text(json.dumps(take.nvml, indent=1)) + "\n"
    if (roots.devices / "ipmi0").exists():
        written["dev/ipmi0"] = ""
    settings = _settings(config)
    if settings:
        written[CONFIG] = settings
    if samples:
        written[SAMPLES] = "".join(json.dumps(samples[at]) + "\n" for at in sorted(samples))
    return written


def _commands(take: Take, scrubber: Scrubber, samples: dict[float, dict[str, Any]]) -> list[RecordedCommand]:
    """The first answer of each command; what it answered later, where that was another answer, goes to the samples."""
    first: dict[tuple[str, ...], RecordedCommand] = {}
    last: dict[tuple[str, ...], RecordedCommand] = {}
    for seconds, asked in take.asked:
        command = msgspec.structs.replace(asked, stdout=scrubber.text(asked.stdout), stderr=scrubber.text(asked.stderr))
        key = tuple(command.argv)
        if key not in first:
            first[key] = last[key] = command
        elif msgspec.structs.replace(last[key], seconds=0.0) != msgspec.structs.replace(command, seconds=0.0):
            last[key] = command
            at = round(seconds, 3)
            sample = samples.setdefault(at, {"seconds": at})
            sample.setdefault("commands", []).append(msgspec.to_builtins(command))
    return list(first.values())


def _resources(
    take: Take, scrubber: Scrubber, samples: dict[float, dict[str, Any]], written: dict[str, str | bytes]
) -> None:
    """The first answer of each resource as a file, and later ones as samples."""
    last: dict[str, Any] = {}
    for seconds, raw_path, raw in take.resources:
        path, resource = scrubber.text(raw_path), _cleaned(raw, scrubber)
        if path not in last:
            written[resource_place(path)] = json.dumps(resource, indent=1) + "\n"
        elif last[path] != resource:
            at = round(seconds, 3)
            samples.setdefault(at, {"seconds": at}).setdefault("resources", {})[path] = resource
        last[path] = resource


def _out_path(path: str, scrubber: Scrubber) -> str:
    prefix = f"sys/{CGROUP}/"
    if not path.startswith(prefix):
        return scrubber.text(path)
    *folders, name = path.removeprefix(prefix).split("/")
    return "/".join([prefix.rstrip("/"), *(_folder(folder, scrubber) for folder in folders), name])


def _folder(folder: str, scrubber: Scrubber) -> str:
    return folder if folder in CGROUP_CONTROLLERS else scrubber.group(folder)


def _content(path: str, raw: bytes, scrubber: Scrubber) -> str | bytes:
    """A file's content without names; bytes where it is no text."""
    if path.endswith("/gpu_metrics"):
        return raw
    text = raw.decode("utf-8", "replace")
    lines = text.split("\n")
    if path == "proc/cpuinfo":
        # ARM boards show their serial number here.
        lines = [line for line in lines if not line.lower().startswith("serial")]
    elif path.startswith("proc/driver/nvidia"):
        lines = [line for line in lines if line.startswith(("Model", "GPU UUID"))]
    elif path.endswith("/cgroup") and path.startswith("proc/"):
        parts = [line.split(":", 2) for line in lines]
        lines = [":".join([*part[:2], scrubber.groups(part[2])]) if len(part) == 3 else "" for part in parts]
    return scrubber.text("\n".join(lines))


def _settings(config: SourcesConfig) -> str:
    """What of the configuration decides how the recording is read; addresses and users are examples."""
    lines = []
    if config.rapl.psys_is_node_meter or config.rapl.shared_root:
        lines += ["[sources.rapl]", f"psys_is_node_meter = {str(config.rapl.psys_is_node_meter).lower()}"]
        lines += [f'shared_root = "{SHARED}"'] if config.rapl.shared_root else []
    if not config.hwmon.acpi_meter_is_node:
        lines += ["[sources.hwmon]", "acpi_meter_is_node = false"]
    if config.ipmi.excludes_gpus:
        lines += ["[sources.ipmi]", "excludes_gpus = true"]
    if config.redfish.address:
        lines += ["[sources.redfish]", 'address = "https://bmc.example"']
        lines += [f"excludes_gpus = {str(config.redfish.excludes_gpus).lower()}"]
        lines += [f'system = "{config.redfish.system}"'] if config.redfish.system else []
    return "\n".join([*lines, ""]) if lines else ""


def _provenance(
    today: datetime, procfs: Tree, duration_seconds: float, period_seconds: float, scrubber: Scrubber, take: Take
) -> str:
    kernel = (procfs.found.files.get("sys/kernel/osrelease") or b"unknown").decode(errors="replace").strip()
    names = ", ".join(f"{count} {kind}" for kind, count in sorted(scrubber.found.items())) or "none were found"
    return "\n".join(
        [
            f"Recorded: by `wattledger-agent record` {__version__} on {today:%Y-%m-%d %H:%M} UTC, Linux "
            f"{scrubber.text(kernel)}, for {duration_seconds:g} s, a look each {period_seconds:g} s.",
            "",
            "Only files that sources read were taken, none over a link out of sysfs or procfs; names of pods were not asked",
            f"for. Made up, in place of real ones: {names}. The boot id is made up too.",
            *(["", *take.notes] if take.notes else []),
            "",
            "To be written by hand: which machine it is (maker, model, processors, GPUs), what ran on it meanwhile, and",
            "whether a meter outside of it was read too.",
            "",
        ]
    )


def _write(out: Path, written: Mapping[str, str | bytes], trees: Mapping[str, Tree], scrubber: Scrubber) -> None:
    try:
        for name, tree in trees.items():
            (out / name).mkdir(exist_ok=True)
            for folder in sorted(tree.found.folders):
                (out / _out_path(f"{name}/{folder}/x", scrubber)).parent.mkdir(parents=True, exist_ok=True)
            for path, target in sorted(tree.found.links.items()):
                link = out / _out_path(f"{name}/{path}", scrubber)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(scrubber.text(target))
        for path, content in written.items():
            place = out / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise RecordError(
            f"{error.filename} can't be written: {error.strerror}. Make room, or name another folder."
        ) from error


def _line(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
