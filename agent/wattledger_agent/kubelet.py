"""Asks the kubelet on this host for the names of its pods, in a thread, now and then.

Names are for people: whatever fails here leaves a pod with its uid, and delays nothing. Source of truth: the kubelet's
/pods endpoint, which returns a PodList (Kubernetes API reference, core/v1).
"""

import json
import ssl
import threading
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wattledger_agent.cgroup_names import PodName
from wattledger_agent.threads import NoThreadError, start

# A kubelet that is well answers in milliseconds.
ANSWER_SECONDS_MAX = 5.0

# A PodList of 250 pods with all their fields has some four megabytes.
ANSWER_BYTES_MAX = 32 * 1024 * 1024

# Unknown pods are asked for no more often than this; all are asked for again after this many times as long.
ASK_SECONDS = 15.0
REFRESH_FACTOR = 20

# The mirror of a static pod has another uid than its groups, which are named by the hash of its manifest.
_HASH_ANNOTATION = "kubernetes.io/config.hash"


Fetch = Callable[[], bytes]


class NoPodListError(ValueError):
    """An answer is something else than a list of pods."""


class KubeletNames:
    """Names by pod uid.

    fetch: returns the kubelet's answer; may take its time, and may raise. is_recorded: it takes none.
    """

    def __init__(self, fetch: Fetch, *, is_recorded: bool = False) -> None:
        self._fetch = fetch
        self._is_recorded = is_recorded
        self._names: Mapping[str, PodName] = {}
        self._problem = ""
        self._thread: threading.Thread | None = None
        self._asked_nanoseconds: int | None = None

    @property
    def names(self) -> Mapping[str, PodName]:
        """All that is known; the same object until the kubelet has answered anew."""
        return self._names

    @property
    def problem(self) -> str:
        """Why the last question had no answer, and what to do; empty if it had one."""
        return self._problem

    def look(self, now_nanoseconds: int, *, has_unknown: bool) -> None:
        """Ask if it is time to, in a thread of its own; returns at once."""
        if self._thread is not None and self._thread.is_alive():
            return
        age = None if self._asked_nanoseconds is None else (now_nanoseconds - self._asked_nanoseconds) / 1e9
        if age is not None and age < (ASK_SECONDS if has_unknown else ASK_SECONDS * REFRESH_FACTOR):
            return
        self._asked_nanoseconds = now_nanoseconds
        if self._is_recorded:
            self._ask()
            return
        try:
            self._thread = start(self._ask, "kubelet")
        except NoThreadError as error:
            self._problem = f"workloads: the kubelet is not asked for the names of its pods: {error}."

    def wait(self, seconds: float) -> None:
        """Wait for the answer to a question that was asked, so long at most."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _ask(self) -> None:
        try:
            self._names = pod_names(self._fetch())
            self._problem = ""
        except Exception as error:
            # Whatever it is, it is the kubelet's: the pods keep their uids.
            self._problem = (
                f"workloads: the kubelet did not tell the names of its pods ({type(error).__name__}: {error}); they are "
                "shown by their uids. Check `workloads.kubelet_url`, and that the token may `get` `nodes/pods`."
            )


def https_fetch(url: str, token_file: str, ca_file: str) -> Fetch:
    """Return what asks a kubelet: at its read-only port (http), or with a token, which is read anew each time."""

    def fetch() -> bytes:
        request = urllib.request.Request(f"{url.rstrip('/')}/pods")
        if token_file:
            request.add_header("Authorization", f"Bearer {Path(token_file).read_text().strip()}")
        context = ssl.create_default_context(cafile=ca_file or None) if url.startswith("https:") else None
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS_MAX, context=context) as answer:
            body: bytes = answer.read(ANSWER_BYTES_MAX + 1)
        if len(body) > ANSWER_BYTES_MAX:
            raise ValueError(f"the answer is larger than {ANSWER_BYTES_MAX} bytes")
        return body

    return fetch


def pod_names(answer: bytes) -> dict[str, PodName]:
    """Read a PodList. What is no pod is passed over. Raises NoPodListError, or ValueError if it is no JSON."""
    document = json.loads(answer)
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise NoPodListError("the answer is no PodList")
    names: dict[str, PodName] = {}
    for item in items:
        metadata: Any = item.get("metadata") if isinstance(item, dict) else None
        if not isinstance(metadata, dict):
            continue
        pod = PodName(str(metadata.get("namespace") or ""), str(metadata.get("name") or ""))
        annotations = metadata.get("annotations")
        uids = [metadata.get("uid"), annotations.get(_HASH_ANNOTATION) if isinstance(annotations, dict) else None]
        names.update({uid: pod for uid in uids if isinstance(uid, str) and pod.name})
    return names
