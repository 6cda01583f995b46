"""Recognises in what sources say of themselves the faults that have a remedy, and takes the facts out of their sentences.

Looks at nothing. The sentences are those of the sources; a sentence that is none of these is told as it stands.
"""

import re
from dataclasses import dataclass

from wattledger_agent.doctor_faults import FAULTS, Finding


@dataclass(frozen=True, slots=True)
class Told:
    """A sentence of a source that stands for a fault. pattern: its named groups are the fault's facts."""

    source: str
    pattern: re.Pattern[str]
    fault: str


def _told(source: str, pattern: str, fault: str) -> Told:
    return Told(source, re.compile(pattern), fault)


_URL = r"(?P<address>https?://\S+?)"

# The first that fits counts.
SENTENCES = (
    _told("rapl", r"(?P<path>/\S+) can't be read: (?:Permission denied|Operation not permitted)", "rapl-permission"),
    _told(
        "hwmon", r"(?P<sensor>\w+ .*): its `_enable` file says 0.*write 1 to (?P<path>/\S+) to meter", "hwmon-switched-off"
    ),
    _told(
        "hwmon",
        r"(?P<sensor>\w+ .*?)(?: and \d+ more)? shows? means over (?P<window>\d+ ms);.*write \d+ to (?P<path>/\S+)\.$",
        "hwmon-short-mean",
    ),
    _told("nvidia", r"The driver was upgraded but not reloaded", "nvml-mismatch"),
    _told("nvidia", r"Let the agent's user read and write /dev/nvidiactl", "nvml-permission"),
    _told("nvidia", r"gpu/(?P<uuid>\S+) fell off the bus \((?P<error>[^)]*)\)", "gpu-lost"),
    # Said so after some reads; a look has few. The second is what a recording says.
    _told("nvidia", r"gpu/(?P<uuid>\S+) can't be read: (?P<error>GPU is lost|NVML error 15)", "gpu-lost"),
    _told("nvidia", r"(?P<device>(?:the GPU at|GPU number) \S+) can't be opened \((?P<error>[^)]*)\)", "gpu-not-opened"),
    _told("amd_gpu", r"no driver shows sensors of the AMD GPU at (?P<address>[^;]+?)(?:; |\. |$)", "amdgpu-module"),
    _told("ipmi", r"(?P<path>/\S+) may not be opened by user id", "ipmi-permission"),
    _told("ipmi", r"(?i)neither (?P<programs>[\w. -]+) is installed", "ipmi-tool"),
    _told("ipmi", r"calls its power reading `(?P<state>[^`]+)`", "ipmi-deactivated"),
    _told(
        "ipmi",
        r"(?i)this controller has no DCMI power reading",
        "ipmi-without-dcmi",
    ),
    _told("ipmi", r"(?P<reason>the controller has not answered yet|.* has not ended within \d+ s)", "ipmi-silent"),
    _told("ipmi", r"(?P<reason>.* ended with status \d+: `[^`]*`)", "ipmi-silent"),
    _told("redfish", _URL + r": its certificate is not trusted \((?P<reason>.*?)\)", "redfish-certificate"),
    _told("redfish", _URL + r": the name can't be resolved \((?P<reason>.*?)\)", "redfish-name"),
    _told("redfish", _URL + r" refuses user `(?P<user>.*?)` \(HTTP (?P<status>\d+)\)", "redfish-credentials"),
    _told(
        "redfish",
        _URL + r" (?P<reason>can't be reached: [^;.]+|has not answered in time)",
        "redfish-silent",
    ),
    _told("redfish", r"the password file (?P<path>\S+) can't be read \((?P<reason>.*?)\)", "redfish-password"),
    _told("workloads", r"(?P<path>\S+) holds neither the unified hierarchy nor cpuacct", "cgroup-missing"),
    _told("workloads", r"(?P<path>\S+) shows only this container's groups", "cgroup-namespace"),
    _told("workloads", r"this is another PID namespace than the host's", "pid-namespace"),
    _told("workloads", r"no process on a GPU can be seen in (?P<path>[^,]+), ", "processes-hidden"),
    _told("workloads", r"(?P<groups>\d+) groups are opened for each read", "few-files"),
)


def recognise(source: str, text: str, **facts: object) -> Finding | None:
    """Return the fault that a source's sentence tells of; None if it tells of none. facts: what the sentence leaves out."""
    for told in SENTENCES:
        found = told.pattern.search(text) if told.source == source else None
        if found is not None:
            named = {name: value for name, value in found.groupdict().items() if value}
            return FAULTS[told.fault].finding(**{"option": "hidepid", **facts, **named})
    return None
