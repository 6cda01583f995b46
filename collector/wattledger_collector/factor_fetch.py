"""Fetches a provider's answer: HTTPS by the standard library, the tables that come with the product, or a file.

Understands no answer; `factor_sources/` does. Bounded in time and size, follows no redirection (which would take a key along
to another host), and tells no query, since some providers want their key there. Source of truth: RFC 9110.
"""

import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import urlsplit

from wattledger_collector.config import is_loopback
from wattledger_collector.factor_files import read_factor_text
from wattledger_collector.factor_sources.provider import Request
from wattledger_collector.factor_sources.tables import BUNDLED_SCHEME, FILE_SCHEME
from wattledger_collector.factors import FactorFileError

# A provider that says nothing for so long is away.
SILENCE_SECONDS_MAX = 30.0
# One that says a little again and again holds its own thread alone, and no longer than this.
ANSWER_SECONDS_MAX = 120.0
# A month of quarters by twenty fuels in XML is 6 MiB.
ANSWER_BYTES_MAX = 64 * 2**20

_CHUNK_BYTES = 65_536
_USER_AGENT = "wattledger-collector"
# A provider that wants to be asked again in a year has other troubles.
_RETRY_AFTER_SECONDS_MAX = 86_400

Fetch = Callable[[Request], str]


class FetchError(Exception):
    """Nothing was fetched; the text says from where and why. retry_after_seconds: what the provider asks for, or 0."""

    def __init__(self, text: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after_seconds = retry_after_seconds


def fetch(request: Request) -> str:
    """The answer's text. Raises FetchError."""
    if request.url.startswith(BUNDLED_SCHEME):
        return _bundled(request.url.removeprefix(BUNDLED_SCHEME))
    if request.url.startswith(FILE_SCHEME):
        try:
            return read_factor_text(Path(request.url.removeprefix(FILE_SCHEME)), "correct factors.source's address")
        except FactorFileError as error:
            raise FetchError(str(error)) from error
    return _over_http(request)


def _bundled(name: str) -> str:
    resource = files("wattledger_collector") / "bundled_factors" / name
    if "/" in name or not resource.is_file():
        raise FetchError(f"no table {name!r} comes with the product: name one such as china.csv in factors.source's areas")
    return resource.read_text(encoding="utf-8")


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """Leaves a redirection as the error that it then is."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> None:
        """Follow none."""


def _over_http(request: Request) -> str:
    parts = urlsplit(request.url)
    host = parts.hostname or ""
    where = f"{host}{parts.path}"
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise FetchError(f"{where} is not asked without TLS: write an https address, or one of this machine")
    opener = urllib.request.build_opener(_NoRedirection, urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    asked = urllib.request.Request(request.url, headers={"User-Agent": _USER_AGENT, **request.headers})
    try:
        with opener.open(asked, timeout=SILENCE_SECONDS_MAX) as answer:
            body = read_answer(answer, where)
    except urllib.error.HTTPError as error:
        with error:
            raise FetchError(_refusal(error.code, where), _retry_after(error.headers.get("Retry-After", ""))) from None
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        # The reason, and not the error, whose text may hold the address.
        reason = getattr(error, "reason", None) or type(error).__name__
        raise FetchError(f"{where} can't be reached: {reason}; check the address, the network and any proxy") from None
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FetchError(f"the answer of {where} is not UTF-8 (byte {error.start})") from None


class Answer(Protocol):
    """What the standard library has of an answer. length: of its body, in bytes; None: not told."""

    length: int | None

    def read1(self, n: int = -1, /) -> bytes:
        """What is there by now, as soon as there is some; nothing at the end."""


def read_answer(answer: Answer, where: str, clock: Callable[[], float] = time.monotonic) -> bytes:
    """The whole body. where: for messages. Raises FetchError if it is too long, too slow or breaks off."""
    # Told before reading: some versions of the library count it down, some don't.
    length = answer.length
    chunks, size, until = [], 0, clock() + ANSWER_SECONDS_MAX
    # Not `read`, which waits for a whole chunk: a byte every few seconds would hold it for days.
    while (length is None or size < length) and (chunk := answer.read1(_CHUNK_BYTES)):
        chunks.append(chunk)
        size += len(chunk)
        if size > ANSWER_BYTES_MAX:
            raise FetchError(
                f"the answer of {where} has more than {ANSWER_BYTES_MAX} bytes: ask for fewer zones or less time"
            )
        if clock() > until:
            raise FetchError(f"the answer of {where} was not complete after {ANSWER_SECONDS_MAX:.0f} s")
    # Read in parts, the library takes the end of a broken connection for the end of the answer.
    if length is not None and size < length:
        raise FetchError(f"the answer of {where} broke off after {size} bytes")
    return b"".join(chunks)


def _refusal(status: int, where: str) -> str:
    match status:
        case 401 | 403:
            remedy = "check the key in key_file, and what it may ask for"
        case 404:
            remedy = "check the zone and the address"
        case 429:
            remedy = "raise every_seconds"
        case 301 | 302 | 303 | 307 | 308:
            remedy = "it has moved; set the address to where it is now"
        case _:
            remedy = "it is tried again"
    return f"{where} answered {status}: {remedy}"


def _retry_after(text: str) -> float:
    return float(min(int(text), _RETRY_AFTER_SECONDS_MAX)) if text.isdecimal() and len(text) < 10 else 0.0
