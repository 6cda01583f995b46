"""The text around the values of one host in /metrics: labels are escaped and joined once, and kept while they stay the same.

Holds no value and knows no metric.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

_KeyT = TypeVar("_KeyT")


def label_text(labels: Mapping[str, str]) -> str:
    """Labels in braces, escaped; nothing for no labels."""
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


class HostText:
    """What stands around the values of one host: for each family one text with a place for each value, made once.

    singles: by family with one series a host, what stands before its value.
    """

    __slots__ = ("_common", "_templates", "info", "info_key", "singles", "site")

    def __init__(self, host: str, site: str, singles: Iterable[str]) -> None:
        self.site = site
        self.info = self.info_key = ""
        self._common = {"host": host, "site": site}
        self._templates: dict[str, tuple[object, str]] = {}
        self.singles = {family: family + label_text(self._common) + " " for family in singles}

    def template(
        self,
        family: str,
        keys: tuple[_KeyT, ...],
        labels: Callable[[_KeyT], dict[str, str]],
        *,
        part: str = "",
    ) -> str:
        """A text for all series of a family, kept for as long as the keys stay equal.

        part: tells apart what is kept of a family that is rendered in several parts.
        """
        kept = self._templates.get(family + part)
        if kept is not None and kept[0] == keys:
            return kept[1]
        # A host's name may hold a percent sign, which would be taken for a place.
        lines = [family + label_text({**self._common, **labels(key)}).replace("%", "%%") + " %r" for key in keys]
        text = "\n".join(lines)
        self._templates[family + part] = (keys, text)
        return text

    def label_info(self, state: str, hostname: str) -> str:
        """The line of wattledger_host_info."""
        key = f"{state}\0{hostname}"
        if self.info_key != key:
            labels = {**self._common, "state": state, "hostname": hostname}
            self.info_key, self.info = key, f"wattledger_host_info{label_text(labels)} 1"
        return self.info
