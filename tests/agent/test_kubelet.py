"""Names of pods: what the kubelet says, when it is asked, and that its silence delays nothing."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tests.agent.machines import FIXTURES

from wattledger_agent.cgroup_names import PodName
from wattledger_agent.kubelet import ASK_SECONDS, KubeletNames, https_fetch, pod_names

SECOND = 1_000_000_000
PODS = (FIXTURES / "kubernetes_cgroup_v2/kubelet/pods.json").read_bytes()


class Kubelet:
    """Counts what it is asked; answers when it is let."""

    def __init__(self, answer: bytes | Exception) -> None:
        self.answer = answer
        self.asked = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def fetch(self) -> bytes:
        """One question."""
        self.asked += 1
        assert self.may_answer.wait(10)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_pods_are_named_by_uid_and_static_ones_by_hash() -> None:
    """A static pod's groups bear the hash of its manifest, and its mirror another uid."""
    names = pod_names(PODS)
    assert names["1f3e5a7c-0b2d-4c6e-8f10-a1b2c3d4e5f6"] == PodName("ml", "train-0")
    assert names["9f86d081884c7d659a2feaa0c55ad015"] == PodName("kube-system", "kube-proxy-node1")


@pytest.mark.parametrize("answer", [b"", b"no", b"[]", b"{}", b'{"items": 3}'])
def test_what_is_no_list_of_pods_is_refused(answer: bytes) -> None:
    """Whatever stands at the address."""
    with pytest.raises(ValueError, match=r"Expecting value|no PodList"):
        pod_names(answer)


def test_items_that_are_no_pods_are_passed_over() -> None:
    """The others are still named."""
    items = [None, 3, {}, {"metadata": 3}, {"metadata": {"uid": 3, "name": "x"}}, {"metadata": {"uid": "u", "name": "n"}}]
    assert pod_names(json.dumps({"items": items}).encode()) == {"u": PodName("", "n")}


def test_a_kubelet_that_hangs_delays_nothing() -> None:
    """The question waits in a thread; no second one is asked meanwhile."""
    kubelet = Kubelet(PODS)
    kubelet.may_answer.clear()
    names = KubeletNames(kubelet.fetch)
    names.look(0, has_unknown=True)
    names.look(1000 * SECOND, has_unknown=True)
    assert (dict(names.names), kubelet.asked) == ({}, 1)
    kubelet.may_answer.set()
    names.wait(10)
    assert len(names.names) == 5


def test_it_is_asked_soon_for_unknown_pods_and_seldom_otherwise() -> None:
    """A node starts pods now and then; names do not change."""
    kubelet = Kubelet(PODS)
    names = KubeletNames(kubelet.fetch)
    for second in range(0, 100, 5):
        names.look(second * SECOND, has_unknown=False)
        names.wait(10)
    assert kubelet.asked == 1
    names.look(round((ASK_SECONDS + 100) * SECOND), has_unknown=True)
    names.wait(10)
    assert kubelet.asked == 2


def test_a_refusal_is_told_and_leaves_the_names() -> None:
    """What is known stays; an operator reads what to do."""
    kubelet = Kubelet(PODS)
    names = KubeletNames(kubelet.fetch)
    names.look(0, has_unknown=True)
    names.wait(10)
    kubelet.answer = OSError("HTTP Error 403: Forbidden")
    names.look(100 * SECOND, has_unknown=True)
    names.wait(10)
    assert names.names
    assert "403" in names.problem
    assert "`nodes/pods`" in names.problem


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """As the kubelet: pods, for those who bear the token."""
        allowed = self.headers.get("Authorization") == "Bearer secret" and self.path == "/pods"
        self.send_response(200 if allowed else 401)
        self.end_headers()
        self.wfile.write(PODS if allowed else b"Unauthorized")

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.fixture
def address() -> Iterator[str]:
    """Where a kubelet answers."""
    with HTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_token_is_sent_as_it_stands_in_its_file(address: str, tmp_path: Path) -> None:
    """It is read anew each time, for Kubernetes renews it."""
    token = tmp_path / "token"
    token.write_text("old\n")
    names = KubeletNames(https_fetch(address + "/", str(token), ""))
    names.look(0, has_unknown=True)
    names.wait(10)
    assert "401" in names.problem
    token.write_text("secret\n")
    names.look(100 * SECOND, has_unknown=True)
    names.wait(10)
    assert (len(names.names), names.problem) == (5, "")
