"""A headless Chromium, driven by the DevTools protocol over its pipe: no web driver, no websocket, no free port.

Knows nothing of the page. Source of truth: https://chromedevtools.github.io/devtools-protocol/, `--remote-debugging-pipe`.
"""

import base64
import json
import os
import select
import shlex
import struct
import subprocess
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ANSWER_SECONDS_MAX = 30.0

_KEY_CODES = {"Tab": 9, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}


class BrowserError(Exception):
    """Chromium ended, did not answer, or a script on the page failed."""


class Browser:
    """One page in one Chromium process. A context manager; the process ends with it."""

    def __init__(self, chromium: str, *, width: int = 1280, height: int = 1000) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="wattledger-chromium-")
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        flags = (
            "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-dev-shm-usage --remote-debugging-pipe "
            "--disable-background-networking --hide-scrollbars --force-device-scale-factor=1"
        )
        # Chromium reads commands from descriptor 3 and answers on 4.
        command = (
            f"exec {shlex.quote(chromium)} {flags} --user-data-dir={shlex.quote(self._profile.name)} "
            f"--window-size={width},{height} about:blank 3<&{to_read} 4>&{to_write}"
        )
        self._process = subprocess.Popen(
            ["bash", "-c", command], pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_read)
        os.close(to_write)
        self._number = 0
        self._buffer = b""
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._session = ""
        targets = self._call("Target.getTargets")["targetInfos"]
        target = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)
        # Its children may write a moment longer than it lives.
        for _ in range(50):
            try:
                self._profile.cleanup()
                return
            except OSError:
                time.sleep(0.1)

    def prefer(self, scheme: str) -> None:
        """Prefer `light` or `dark`."""
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def resize(self, width: int, height: int) -> None:
        """Give the page another size."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, url: str) -> None:
        """Go to an address, with nothing noted of the page before; returns when the page is there."""
        self.leave()
        self.requests.clear()
        self.complaints.clear()
        self._call("Page.navigate", url=url)
        self.wait_for(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def leave(self) -> None:
        """Go to an empty page, so that no more requests are made."""
        self._call("Page.navigate", url="about:blank")

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression on the page."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise BrowserError(f"{expression}: {answer['exceptionDetails'].get('exception', {}).get('description')}")
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 15.0) -> Any:
        """The first true value of an expression."""
        end = time.monotonic() + seconds
        while True:
            value = self.evaluate(expression)
            if value:
                return value
            if time.monotonic() > end:
                raise BrowserError(f"{expression} did not become true within {seconds} s; {self.complaints}")
            time.sleep(0.1)

    def press(self, key: str) -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self._call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=9 if key == "Tab" else 0
            )

    def point_at(self, x: float, y: float) -> None:
        """Move the mouse."""
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path: Path | None = None, *, whole: bool = False) -> "Image":
        """A picture of the window or of the whole page; kept in a file if a path is given."""
        data = base64.b64decode(self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"])
        if path is not None:
            path.write_bytes(data)
        return Image.read(data)

    def print_to_pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self._call("Page.printToPDF", printBackground=False, preferCSSPageSize=True)["data"])

    def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + ANSWER_SECONDS_MAX
        while True:
            answer = self._receive(end)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(parameters["exceptionDetails"].get("exception", parameters["exceptionDetails"])))
            case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                self.complaints.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")

    def _receive(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            readable, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self._from, 1 << 20) if readable else b""
            if not data:
                raise BrowserError("Chromium ended or did not answer")
            self._buffer += data
        message, self._buffer = self._buffer.split(b"\0", 1)
        answer: dict[str, Any] = json.loads(message)
        return answer


@dataclass(frozen=True, slots=True)
class Image:
    """Pixels of a screenshot, three bytes each, row by row."""

    width: int
    height: int
    rows: tuple[bytes, ...]

    @classmethod
    def read(cls, png: bytes) -> "Image":
        """Decode a PNG as Chromium makes it: 8 bits, RGB or RGBA, not interlaced."""
        chunks: dict[bytes, bytes] = {}
        at = 8
        while at < len(png):
            (length,) = struct.unpack(">I", png[at : at + 4])
            kind = png[at + 4 : at + 8]
            chunks[kind] = chunks.get(kind, b"") + png[at + 8 : at + 8 + length]
            at += 12 + length
        width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
        assert depth == 8
        size = {2: 3, 6: 4}[colour]
        data = zlib.decompress(chunks[b"IDAT"])
        stride = width * size
        rows: list[bytes] = []
        before = bytes(stride)
        for y in range(height):
            start = y * (stride + 1)
            before = _unfilter(data[start], bytearray(data[start + 1 : start + 1 + stride]), before, size)
            rows.append(before if size == 3 else b"".join(before[i : i + 3] for i in range(0, stride, 4)))
        return cls(width, height, tuple(rows))

    def count_unlike(self, left: int, top: int, width: int, height: int, *, tolerance: int = 8) -> int:
        """Pixels of a rectangle that differ from its most frequent colour."""
        counts: dict[bytes, int] = {}
        for row in self.rows[top : top + height]:
            for x in range(left, left + width):
                pixel = row[3 * x : 3 * x + 3]
                counts[pixel] = counts.get(pixel, 0) + 1
        ground = max(counts, key=lambda pixel: counts[pixel])
        return sum(
            count
            for pixel, count in counts.items()
            if max(abs(a - b) for a, b in zip(pixel, ground, strict=True)) > tolerance
        )

    def colours(self, left: int, top: int, width: int, height: int) -> dict[tuple[int, int, int], int]:
        """How often each colour occurs in a rectangle."""
        counts: dict[tuple[int, int, int], int] = {}
        for row in self.rows[top : top + height]:
            for x in range(left, left + width):
                pixel = (row[3 * x], row[3 * x + 1], row[3 * x + 2])
                counts[pixel] = counts.get(pixel, 0) + 1
        return counts


def _unfilter(kind: int, row: bytearray, above: bytes, size: int) -> bytes:
    """Undo one of PNG's five row filters (https://www.w3.org/TR/png-3/#9Filters)."""
    for i in range(len(row)):
        left = row[i - size] if i >= size else 0
        corner = above[i - size] if i >= size else 0
        match kind:
            case 1:
                row[i] = (row[i] + left) & 255
            case 2:
                row[i] = (row[i] + above[i]) & 255
            case 3:
                row[i] = (row[i] + (left + above[i]) // 2) & 255
            case 4:
                row[i] = (row[i] + _paeth(left, above[i], corner)) & 255
    return bytes(row)


def _paeth(left: int, above: int, corner: int) -> int:
    guess = left + above - corner
    distances = (abs(guess - left), abs(guess - above), abs(guess - corner))
    return (left, above, corner)[distances.index(min(distances))]
