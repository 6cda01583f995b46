"""The line in which a running agent tells its supervisor how delivery stands, and what `doctor` takes out of it.

Sends nothing. It is the status text of sd_notify(3), which `systemctl status` shows too: an agent has no other place where
another process could ask it.
"""

import re

_REFUSED = "the collector refuses this host: "
_CLOCK = re.compile(r"the collector's clock is ([+-]\d+\.\d) s from this one")


def delivery_text(*, connected: bool, refusal: str, error: str, collector_clock_seconds: float | None) -> str:
    """Say how delivery stands; one line. collector_clock_seconds: the collector's clock less this host's; None: unknown."""
    if refusal:
        text = f"{_REFUSED}{refusal}"
    elif connected:
        text = "metering and delivering"
    else:
        text = f"metering into the spool: {error or 'no stream to the collector yet'}"
    if collector_clock_seconds is not None:
        text += f"; the collector's clock is {collector_clock_seconds:+.1f} s from this one"
    return " ".join(text.split())


def refusal_in(text: str) -> str:
    """Return why the collector refuses the host; empty if it does not."""
    _, refused, reason = text.partition(_REFUSED)
    return _CLOCK.sub("", reason).strip().rstrip(";") if refused else ""


def clock_seconds_in(text: str) -> float | None:
    """Return how far ahead the collector's clock is; None if that is not told."""
    found = _CLOCK.search(text)
    return None if found is None else float(found[1])
