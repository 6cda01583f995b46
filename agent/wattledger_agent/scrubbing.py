"""Replaces what names a machine, its owner or its users by made-up names, the same by the same.

Reads nothing: texts in, texts out. Knows the shapes of identifiers (UUIDs, hardware and network addresses, container ids),
the names of control groups, and the secrets that it is told. What is none of these stays as it is.
"""

import ipaddress
import re
from collections.abc import Iterable

from wattledger_agent.cgroup_names import recognise

# Shorter ones are not looked for in texts: `1` or `rack` is in too many of them that say nothing of it.
SECRET_CHARACTERS_MIN = 4

# `pod` ends with what may be a digit of the identifier after it.
_BEFORE, _AFTER = r"(?:(?<![0-9a-fA-F])|(?<=pod))", r"(?![0-9a-fA-F])"
_UUID = re.compile(r"[0-9a-fA-F]{8}([-_])(?:[0-9a-fA-F]{4}\1){3}[0-9a-fA-F]{12}")
_HEX_64 = re.compile(_BEFORE + r"[0-9a-fA-F]{64}" + _AFTER)
_HEX_32 = re.compile(_BEFORE + r"[0-9a-fA-F]{32}" + _AFTER)
_MAC = re.compile(r"(?<![0-9a-fA-F:-])(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}(?![0-9a-fA-F:-])")
_IPV4 = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])")
_IPV6 = re.compile(r"(?<![0-9a-zA-Z:.])[0-9a-fA-F:]*:[0-9a-fA-F:]*:[0-9a-fA-F:]*(?![0-9a-zA-Z:.])")
_MAIL = re.compile(r"[\w.+-]+@(?!odata\b)[\w-]+(?:\.[\w-]+)*\.[a-zA-Z]{2,}")

# Folders of control groups that every machine has under these names.
_USUAL_GROUPS = re.compile(
    r"(?:kubepods|system|user|machine|app|session|background|burstable|besteffort|guaranteed|init|slurm|slurmstepd|docker|"
    r"libpod_parent|containerd|nerdctl|lxc|libvirt|emulator|vcpu\d+|iothread\d+|system|step_\w+|task_\w+|user|supervisor|"
    r"kubepods-(?:burstable|besteffort)|machine-qemu|unified)(?:\.slice|\.scope|\.service)?"
)
_POD = re.compile(r"pod(?=[0-9a-f]{8})")
_NUMBERED = re.compile(r"(uid|job)_(\d+)")
_USER = re.compile(r"(user-|user@|session-)(\w+)(\.slice|\.service|\.scope)")
_MACHINE = re.compile(r"(machine-(?:qemu|lxc)(?:-|\\x2d)\d+(?:-|\\x2d))(.+)(\.scope)")
_LXC = re.compile(r"(lxc\.(?:payload|monitor)\.)(.+)")
_UNIT = re.compile(r"(.+)(\.service|\.scope|\.slice|\.mount|\.socket|\.swap)")


class Scrubber:
    """Replaces names, and remembers what each became. found: how many of each kind were replaced."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}
        self._made: dict[tuple[str, str], str] = {}
        self._secrets: dict[str, str] = {}
        self._pattern: re.Pattern[str] | None = None

    @property
    def secrets(self) -> Iterable[str]:
        """What it was told to replace, as it was."""
        return self._secrets.keys()

    def tell(self, kind: str, secret: str) -> str:
        """Note a secret (a host's name, a serial number), to be replaced wherever it stands. Returns what it becomes."""
        secret = secret.strip()
        if len(secret) < SECRET_CHARACTERS_MIN:
            return self._become(kind, secret) if secret else secret
        plain = self._shaped(secret)
        if plain != secret:
            # It has a shape of its own, by which it is found everywhere.
            return plain
        if secret not in self._secrets:
            self._learn(secret, self._become(kind, secret))
        return self._secrets[secret]

    def text(self, text: str) -> str:
        """A text without what names somebody."""
        if self._pattern is not None:
            text = self._pattern.sub(lambda match: self._replaced(match[0]), text)
        return self._shaped(text)

    def _shaped(self, text: str) -> str:
        """A text without what is known by its shape."""
        text = _UUID.sub(self._uuid, text)
        text = _HEX_64.sub(lambda match: self._digits("container", match[0], 64), text)
        text = _HEX_32.sub(lambda match: self._digits("id", match[0], 32), text)
        text = _MAC.sub(self._mac, text)
        text = _MAIL.sub(lambda match: self._mail(match[0]), text)
        text = _IPV4.sub(self._ipv4, text)
        return _IPV6.sub(self._ipv6, text)

    def group(self, name: str) -> str:
        """A control group's folder name without the name of what runs there; what kind of workload it is stays known."""
        if _USUAL_GROUPS.fullmatch(name):
            return name
        if (match := _NUMBERED.fullmatch(name)) is not None:
            return f"{match[1]}_{self._number(match[1], match[2], 1000)}"
        if (match := _USER.fullmatch(name)) is not None:
            return f"{match[1]}{self._number('uid', match[2], 1000)}{match[3]}"
        if (match := _MACHINE.fullmatch(name)) is not None:
            return f"{match[1]}vm{self._number('machine', match[2], 1)}{match[3]}"
        if (match := _LXC.fullmatch(name)) is not None:
            return f"{match[1]}container{self._number('container name', match[2], 1)}"
        if _POD.search(name) or recognise(("kubepods", name)) is not None or _HEX_64.search(name):
            return self.text(name)
        if (match := _UNIT.fullmatch(name)) is not None:
            return f"unit{self._number('unit', match[1], 1)}{match[2]}"
        if name.endswith(".libvirt-qemu"):
            return f"vm{self._number('machine', name, 1)}.libvirt-qemu"
        return f"group{self._number('group', name, 1)}"

    def groups(self, path: str) -> str:
        """A path of control groups, folder by folder."""
        return "/".join(self.group(folder) if folder else folder for folder in path.split("/"))

    def _replaced(self, found: str) -> str:
        exact = self._secrets.get(found)
        return next(new for old, new in self._secrets.items() if old.lower() == found.lower()) if exact is None else exact

    def _learn(self, secret: str, becomes: str) -> None:
        self._secrets[secret] = becomes
        longest_first = sorted(self._secrets, key=len, reverse=True)
        # Not within a longer word: a host `node` does not make `unknown_nodes` a secret.
        words = (rf"(?<![A-Za-z0-9]){re.escape(one)}(?![A-Za-z0-9])" for one in longest_first)
        self._pattern = re.compile("|".join(words), re.IGNORECASE)

    def _become(self, kind: str, secret: str) -> str:
        return f"{kind}{self._number(kind, secret, 1):04d}"

    def _number(self, kind: str, secret: str, first: int) -> int:
        made = self._made.get((kind, secret))
        if made is None:
            self.found[kind] = self.found.get(kind, 0) + 1
            made = self._made[kind, secret] = str(first + self.found[kind] - 1)
        return int(made)

    def _digits(self, kind: str, secret: str, count: int) -> str:
        if secret.strip("0") == "" or secret.lower().startswith("0" * (count - 6)):
            return secret
        return f"{self._number(kind, secret.lower(), 1):0{count}d}"

    def _uuid(self, match: re.Match[str]) -> str:
        whole, separator = match[0].lower().replace("_", "-"), match[1]
        if whole.startswith("00000000-0000-"):
            return match[0]
        number = self._number("uuid", whole, 1)
        return f"00000000-0000-0000-0000-{number:012d}".replace("-", separator)

    def _mac(self, match: re.Match[str]) -> str:
        if match[0].startswith("02:00:00:00:"):
            return match[0]
        number = self._number("hardware address", match[0].lower().replace("-", ":"), 1)
        return f"02:00:00:00:{number >> 8 & 255:02x}:{number & 255:02x}"

    def _mail(self, address: str) -> str:
        # Instances of systemd's units look alike.
        if address.endswith((".service", ".scope", ".slice", ".socket", "@example.org")):
            return address
        return f"person{self._number('mail', address, 1)}@example.org"

    def _ipv4(self, match: re.Match[str]) -> str:
        try:
            address = ipaddress.IPv4Address(match[0])
        except ValueError:
            return match[0]
        if address.is_loopback or address.is_unspecified or address in ipaddress.IPv4Network("192.0.2.0/24"):
            return match[0]
        return f"192.0.2.{self._number('address', match[0], 1) % 256}"

    def _ipv6(self, match: re.Match[str]) -> str:
        try:
            address = ipaddress.IPv6Address(match[0])
        except ValueError:
            return match[0]
        if address.is_loopback or address.is_unspecified or address in ipaddress.IPv6Network("2001:db8::/32"):
            return match[0]
        return f"2001:db8::{self._number('address 6', match[0].lower(), 1):x}"


def left_over(texts: Iterable[str], scrubber: Scrubber) -> list[str]:
    """What a scrubber would still replace in texts that it has replaced already; empty if all is well."""
    found = []
    for text in texts:
        again = scrubber.text(text)
        if again != text:
            found.append(_difference(text, again))
    return found


def _difference(text: str, again: str) -> str:
    start = next((place for place, (one, other) in enumerate(zip(text, again, strict=False)) if one != other), 0)
    return text[start : start + 40]
