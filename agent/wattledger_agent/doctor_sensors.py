"""What of this host's sensors is read, what stands in the way of the others, and the remedy. Part of `doctor`.

Reads files that are a few bytes long, and changes nothing. What a source says of itself is taken from it (doctor_told); what
it can't know, as whether a device is there that has no driver, is looked for here.
"""

import os
import resource
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from wattledger_agent.config import AgentConfig
from wattledger_agent.doctor_faults import FAULTS, Finding
from wattledger_agent.doctor_host import Host, read_text
from wattledger_agent.doctor_told import recognise
from wattledger_agent.inventory import Inventory, Missing, Roots, has_node_meter, without_name
from wattledger_agent.known_faults import AMD, INTEL
from wattledger_agent.once import Snapshot
from wattledger_agent.readings import Component, Method, Role
from wattledger_agent.sampler import OpenSource
from wattledger_agent.wraps import shortest_wrap

# Two sources of one quantity that are further apart than this are not two views of it; a look takes a second or two, in
# which means over a second and delays of the firmware make some percent.
DISAGREEMENT_RATIO_MAX = 0.25

# Faults of sensors that are there, so that the estimate stands in for something that could be measured.
_STANDS_IN_THE_WAY = frozenset(
    {
        "rapl-permission", "rapl-masked", "rapl-module", "acpi-meter-module", "acpi-meter-grace", "hsmp-module",
        "ipmi-module", "ipmi-permission", "ipmi-tool", "ipmi-deactivated", "ipmi-silent",
        "redfish-certificate", "redfish-silent", "redfish-name", "redfish-credentials", "redfish-password",
    }
)  # fmt: skip

_DRIVERS = (("ACPI000D", "power_meter", "acpi-meter-module"), ("AMDI0097", "amd_hsmp", "hsmp-module"))


def sensor_findings(config: AgentConfig, roots: Roots, inventory: Inventory, look: Snapshot | None) -> list[Finding]:
    """Look at every source, and at what has none. look: what was read; None if nothing could be dated."""
    host = Host(roots.sysfs, roots.procfs)
    # A source that was closed after the look has forgotten what it had to say.
    opened_now = [(source.source.name, note) for source in inventory.opened for note in source.source.notes()]
    notes = opened_now if look is None else look.notes
    findings = _without_repeats(
        [
            *(one for opened in inventory.opened for one in _opened(opened, inventory)),
            *(_noted(name, note, host, roots) for name, note in notes if name != "workloads"),
            *(_missing(one, host, roots) for one in inventory.missing),
            *_asleep(host, inventory),
            *_unshown(host, inventory),
            *_password_file(config),
            *(_problems(look, host, roots) if look is not None else ()),
        ]
    )
    return [*_platform(host, inventory), *findings, *_modelled(inventory, findings), *_nothing(inventory)]


def period_findings(period_seconds: float, inventory: Inventory) -> Iterator[Finding]:
    """Whether every counter is read often enough, and how long the agent may be away."""
    wrap = shortest_wrap(inventory.specs)
    if wrap is None:
        return
    found = f"`period_seconds` is {period_seconds:g}, and {wrap.sentence()}"
    facts = {"found": found, "seconds": f"{wrap.period_seconds_max:.1f}"}
    if wrap.is_hopeless(period_seconds):
        yield FAULTS["period-hopeless"].finding(**facts)
    elif wrap.is_risky(period_seconds):
        yield FAULTS["period-risky"].finding(**facts)
    else:
        yield Finding("period", "ok", f"{found}; an agent that is away for longer leaves a gap with bounds")


def explain_workloads(note: str) -> Finding | None:
    """The fault that a note of the workloads' source tells of."""
    return recognise("workloads", note, **_limits(note))


def _platform(host: Host, inventory: Inventory) -> Iterator[Finding]:
    if not host.is_guest:
        yield Finding("system", "ok", "Linux on hardware")
    elif _measures_cpus(inventory):
        who = f"a virtual machine of {host.hypervisor}"
        yield Finding("system", "ok", f"{who}, metered by the counters that it is shown; its host counts the same energy")
    else:
        fault = FAULTS["qemu-without-rapl" if host.is_qemu else "vm-without-sensors"]
        yield fault.finding(hypervisor=host.hypervisor)


def _opened(opened: OpenSource, inventory: Inventory) -> Iterator[Finding]:
    source = opened.source
    if Method.MODEL not in {spec.method for spec in opened.specs}:
        if opened.specs or source.name != "workloads":
            yield Finding(source.name, "ok", f"{len(opened.specs)} channels" if opened.specs else "utilization")
    elif has_node_meter(inventory.specs):
        yield Finding(source.name, "ok", "1 channel, modelled: shown beside the node's meter, never booked")


def _noted(name: str, note: str, host: Host, roots: Roots) -> Finding:
    return _explained(name, note, "", host, roots) or Finding(name, "note", without_name(name, note))


def _missing(missing: Missing, host: Host, roots: Roots) -> Finding:
    """Why a source is not read. What this machine does not have is a note, and nothing to mend."""
    name, reason = missing.source, without_name(missing.source, missing.reason)
    if "it has not opened within" in reason:
        return FAULTS["source-left-out"].finding(source=name, reason=reason)
    known = _explained(name, missing.reason, missing.remedy, host, roots) or _by_hardware(missing, host, roots)
    if known is not None:
        return known
    found = replace(FAULTS["source-unavailable"].finding(reason=reason, remedy=missing.remedy), check=name)
    return found if _is_there(name, reason, host) else replace(found, verdict="note", id="")


def _explained(name: str, text: str, remedy: str, host: Host, roots: Roots) -> Finding | None:
    """The fault that a source's own words tell of."""
    if name == "rapl" and "points to nothing" in text:
        return _dangling(host)
    device = next((str(path) for path in (roots.devices / "ipmi0", roots.devices / "ipmi/0") if path.exists()), "ipmi")
    return recognise(name, f"{without_name(name, text)} {remedy}".strip(), user=os.getuid(), device=device, **_limits(text))


def _limits(text: str) -> dict[str, object]:
    """How many files may stay open, and how many should."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = next((int(word) for word in text.split() if word.isdecimal()), 0)
    wanted = 256
    while wanted < soft + 2 * number:
        wanted *= 2
    return {"limit": soft, "wanted": wanted}


def _dangling(host: Host) -> Finding | None:
    folder = host.sysfs / "class/powercap"
    zones = sorted(entry for entry in folder.iterdir() if entry.name.startswith("intel-rapl") and ":" in entry.name)
    lost = [zone for zone in zones if zone.is_symlink() and not zone.exists()]
    if not lost:
        return None
    is_masked = len(lost) == len(zones) or host.is_container
    return FAULTS["rapl-masked" if is_masked else "rapl-dangling"].finding(path=lost[0])


def _by_hardware(missing: Missing, host: Host, roots: Roots) -> Finding | None:
    """The fault that follows from a part that is there while its source finds nothing."""
    if missing.source == "rapl" and not host.is_guest:
        cpu = host.cpu
        if cpu is not None and cpu.cpuid is not None and cpu.cpuid[0] in (INTEL, AMD) and "modprobe" in missing.remedy:
            return FAULTS["rapl-module"].finding(path=host.sysfs / "class/powercap")
    if missing.source == "nvidia":
        return _without_nvml(missing, host)
    if missing.source == "ipmi" and "does not exist" in missing.reason:
        told = [*host.acpi("IPI0001"), *(["DMI type 38"] if (host.sysfs / "firmware/dmi/entries/38-0").exists() else [])]
        return FAULTS["ipmi-module"].finding(device=told[0], path=roots.devices / "ipmi0") if told else None
    return None


def _without_nvml(missing: Missing, host: Host) -> Finding | None:
    gpus = host.nvidia_gpus()
    if not gpus:
        return None
    if "libnvidia-ml.so.1" in missing.remedy:
        return FAULTS["nvml-not-in-container" if host.is_container else "nvml-missing"].finding(device=gpus[0].address)
    if "modprobe nvidia" not in missing.remedy:
        return None
    if host.lockdown:
        return FAULTS["nvidia-module-unsigned"].finding(lockdown=host.lockdown)
    return FAULTS["nvidia-module"].finding()


def _is_there(name: str, reason: str, host: Host) -> bool:
    """Whether the machine has what a source would read, as far as can be told."""
    if name == "nvidia":
        return bool(host.nvidia_gpus())
    return name not in ("rapl", "hwmon") and "PCI bus" not in reason and "drives no management controller" not in reason


def _unshown(host: Host, inventory: Inventory) -> Iterator[Finding]:
    """Sensors that the firmware has and no driver shows."""
    shown = {read_text(name) for name in (host.sysfs / "class/hwmon").glob("hwmon*/name")}
    shown |= {read_text(name) for name in (host.sysfs / "class/hwmon").glob("hwmon*/device/name")}
    for identifier, chip, fault in _DRIVERS:
        devices = host.acpi(identifier)
        if not devices or chip in shown or any(opened.source.name == "hwmon" for opened in inventory.opened):
            continue
        cpu = host.cpu
        is_grace = cpu is not None and "Grace" in cpu.model_name
        yield FAULTS["acpi-meter-grace" if is_grace and chip == "power_meter" else fault].finding(device=devices[0])


def _asleep(host: Host, inventory: Inventory) -> Iterator[Finding]:
    if any(opened.source.name == "nvidia" for opened in inventory.opened):
        for gpu in host.nvidia_gpus():
            if gpu.sleeps:
                yield FAULTS["gpu-asleep"].finding(device=f"the GPU at {gpu.address}", address=gpu.address)


def _password_file(config: AgentConfig) -> Iterator[Finding]:
    path = Path(config.sources.redfish.password_file)
    if config.sources.redfish.address and "/" in str(path) and path.is_file() and path.stat().st_mode & 0o004:
        yield FAULTS["redfish-password-open"].finding(path=path, mode=f"{path.stat().st_mode & 0o777:04o}")


def _problems(look: Snapshot, host: Host, roots: Roots) -> Iterator[Finding]:
    """What was seen while the sources were read."""
    for name, told in look.silent:
        yield FAULTS["source-left-out"].finding(source=name, reason=told)
    for line in look.lines:
        found = _explained(line.key.source, line.problem, "", host, roots) if line.problem else None
        if found is not None:
            yield found
    for one in look.comparisons:
        is_model = any(line.key == one.subject and line.method is Method.MODEL for line in look.lines)
        if one.ratio is not None and abs(one.ratio) > DISAGREEMENT_RATIO_MAX and not is_model:
            yield FAULTS["sources-disagree"].finding(
                device=one.subject.device,
                source=one.subject.source,
                domain=one.subject.domain,
                ratio=f"{one.ratio:+.0%}",
                reference_source=one.reference.source,
                reference_domain=one.reference.domain,
            )


def _modelled(inventory: Inventory, findings: Iterable[Finding]) -> Iterator[Finding]:
    if not any(spec.method is Method.MODEL for spec in inventory.specs) or has_node_meter(inventory.specs):
        return
    hindered = {finding.check: None for finding in findings if finding.id in _STANDS_IN_THE_WAY}
    if hindered:
        yield FAULTS["estimate-over-sensor"].finding(sensors=", ".join(hindered))
    else:
        yield FAULTS["only-estimate"].finding()


def _nothing(inventory: Inventory) -> Iterator[Finding]:
    if not inventory.specs:
        yield FAULTS["no-source"].finding()


def _measures_cpus(inventory: Inventory) -> bool:
    return any(
        spec.method is not Method.MODEL
        and (spec.role is Role.METER or (spec.component is Component.CPU and spec.role is Role.LEAF))
        for spec in inventory.specs
    )


def _without_repeats(findings: Iterable[Finding]) -> list[Finding]:
    """A fault that several channels tell of is told once."""
    kept: dict[tuple[str, str, str], Finding] = {}
    for finding in findings:
        kept.setdefault((finding.check, finding.id, finding.remedy if finding.id else finding.found), finding)
    return list(kept.values())
