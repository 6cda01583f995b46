"""Begins the agent's threads, where the system may refuse them: systemd's TasksMax, RLIMIT_NPROC, memory.

Tells each refusal once, until it is over; what is done without the thread, and when it is tried again, is the caller's. The
agent is a guest, so that a limit of its host's must never end it.
"""

import logging
import threading
from collections.abc import Callable

log = logging.getLogger("wattledger.agent")

REMEDY = "raise the unit's TasksMax (systemctl show -p TasksMax,TasksCurrent wattledger-agent) or the container's pids limit"

_refused: set[str] = set()


class NoThreadError(Exception):
    """The system refuses a thread now; the text says which, and what to do."""


def start(run: Callable[[], None], name: str) -> threading.Thread:
    """Run in a daemon thread of this name, which is left behind if it never returns. Raises NoThreadError."""
    thread = threading.Thread(target=run, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        told = f"the thread {name} can't be started ({error}), and is tried again; {REMEDY}"
        if name not in _refused:
            _refused.add(name)
            log.warning("%s.", told)
        raise NoThreadError(told) from error
    if name in _refused:
        _refused.discard(name)
        log.info("the thread %s could be started again", name)
    return thread
