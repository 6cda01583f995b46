"""Fetching answers from a server on this machine: what goes wrong is one sentence, without a key."""

import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from wattledger_collector.factor_fetch import ANSWER_BYTES_MAX, FetchError, fetch, read_answer
from wattledger_collector.factor_sources.provider import Request

# By path: status, headers, body.
ANSWERS: Mapping[str, tuple[int, Mapping[str, str], bytes]] = {
    "/good": (200, {}, "é".encode()),
    "/latin": (200, {}, b"\xe9"),
    "/moved": (302, {"Location": "http://127.0.0.1:1/stolen"}, b""),
    "/forbidden": (401, {}, b""),
    "/busy": (429, {"Retry-After": "120"}, b""),
    "/later": (503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, b""),
    "/short": (200, {"Content-Length": "100"}, b"short"),
}


class Handler(BaseHTTPRequestHandler):
    """Answers from the table; remembers headers."""

    seen: list[Mapping[str, str]]

    def do_GET(self) -> None:
        """Answer."""
        self.seen.append(dict(self.headers.items()))
        status, headers, body = ANSWERS[self.path.partition("?")[0]]
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    """A provider on this machine."""
    Handler.seen = []
    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def test_an_answer_is_its_text(server: str) -> None:
    """Headers go with the question."""
    assert fetch(Request(f"{server}/good?api_key=secret", {"auth-token": "secret"})) == "é"
    assert Handler.seen[0]["Auth-Token"] == "secret"


@pytest.mark.parametrize(
    ("path", "sentence", "retry_after"),
    [
        ("/latin", "is not UTF-8 (byte 0)", 0),
        ("/moved", "127.0.0.1/moved answered 302: it has moved; set the address to where it is now", 0),
        ("/forbidden", "127.0.0.1/forbidden answered 401: check the key in key_file", 0),
        ("/busy", "127.0.0.1/busy answered 429: raise every_seconds", 120),
        ("/later", "127.0.0.1/later answered 503: it is tried again", 0),
    ],
)
def test_each_refusal_is_a_sentence_without_the_query(path: str, sentence: str, retry_after: float, server: str) -> None:
    """The status and the remedy; the key, which may be in the query, is not told; no redirection is followed."""
    with pytest.raises(FetchError) as caught:
        fetch(Request(f"{server}{path}?api_key=secret", {"auth-token": "secret"}))

    assert sentence in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.retry_after_seconds == retry_after
    assert len(Handler.seen) == 1


def test_a_server_that_is_not_there_is_told() -> None:
    """Port 1 has none."""
    with pytest.raises(FetchError, match=r"127\.0\.0\.1/x can't be reached: .*refused") as caught:
        fetch(Request("http://127.0.0.1:1/x?api_key=secret"))
    assert "secret" not in str(caught.value)


def test_an_answer_that_breaks_off_is_no_answer(server: str) -> None:
    """Half of a list might parse one day."""
    with pytest.raises(FetchError, match="/short broke off after 5 bytes"):
        fetch(Request(f"{server}/short"))


class Endless:
    """An answer that never ends; each part takes a second."""

    length: int | None = None

    def __init__(self, part: bytes) -> None:
        self.seconds = 0.0
        self._part = part

    def read1(self, n: int = -1, /) -> bytes:
        """Some more."""
        self.seconds += 1
        assert self.seconds < 10_000, "nobody gives up"
        return self._part[:n]


def test_an_answer_of_a_byte_a_second_is_given_up() -> None:
    """It is read as it comes, so that the limit holds between two bytes, and not between two chunks."""
    trickle = Endless(b"x")
    with pytest.raises(FetchError, match="the answer of here was not complete after 120 s"):
        read_answer(trickle, "here", lambda: trickle.seconds)
    assert trickle.seconds == 121


def test_an_answer_without_end_is_not_kept() -> None:
    """No more than the limit, and one part, is ever in memory."""
    flood = Endless(b"x" * 2**16)
    with pytest.raises(FetchError, match=f"the answer of here has more than {ANSWER_BYTES_MAX} bytes: ask for fewer zones"):
        read_answer(flood, "here", lambda: 0.0)
    assert flood.seconds == ANSWER_BYTES_MAX // 2**16 + 1


def test_other_machines_are_asked_with_tls_alone() -> None:
    """A key must not cross a network in the clear; nothing is sent."""
    for url in ("http://192.0.2.1/x?api_key=secret", "ftp://127.0.0.1/x"):
        with pytest.raises(FetchError, match="is not asked without TLS") as caught:
            fetch(Request(url))
        assert "secret" not in str(caught.value)


def test_tables_of_the_product_and_files_are_fetched_too(tmp_path: Path) -> None:
    """By name; a name is no path."""
    assert fetch(Request("bundled:china.csv")).startswith("zone,name,value")
    with pytest.raises(FetchError, match=r"no table '\.\./factors\.py' comes with the product"):
        fetch(Request("bundled:../factors.py"))
    (tmp_path / "own.csv").write_text("zone")
    assert fetch(Request(f"file:{tmp_path}/own.csv")) == "zone"
    with pytest.raises(FetchError, match=r"cannot read factor file .*none\.csv: No such file"):
        fetch(Request(f"file:{tmp_path}/none.csv"))
