"""The HTTP side of a collector: `/metrics`, health, the API and the page, as one Starlette application.

Starts no server and holds no figure. Every request is a GET; nothing can be changed here. Nothing is loaded from other
machines: the page is one file, and its Content-Security-Policy says so to the browser.
"""

import base64
import gzip
import hashlib
import html
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata, resources
from zoneinfo import ZoneInfo

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from wattledger_collector.exposition import Exposition, Shard, negotiate
from wattledger_collector.fleet import FleetView
from wattledger_collector.records import Store, StoreError
from wattledger_collector.web.api import ENDPOINTS, Api, BadRequestError, Endpoint, FactorsOfZones, NotFoundError, Question

# Below this an answer fits one packet anyway.
_GZIP_BYTES_MIN = 1400
# Label text shrinks to a twentieth at the fastest level; higher ones cost more time than they save on a local network.
_GZIP_LEVEL = 1
# Several open pages then share the work of one.
_FLEET_SECONDS = 1.0

_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}


def make_app(
    view: FleetView,
    *,
    store: Store | None = None,
    catalog: FactorsOfZones | None = None,
    registry: CollectorRegistry | None = None,
    clock: Callable[[], float] = time.time,
    time_zone: str = "UTC",
    insecure_transport: bool = False,
    readiness: Callable[[], str] = lambda: "",
    agent_address: str = "",
    notice: str = "",
) -> Starlette:
    """Make the application.

    store: for history; may be used from several threads. registry: the collector's own metrics. clock: seconds since
    1970-01-01 UTC. time_zone: IANA name; where a day begins. readiness: empty if ready to take agents, else a sentence that
    says what is missing. agent_address: host:port for agents, shown to newcomers. notice: a sentence on top of the page.
    """
    version = metadata.version("wattledger")
    api = Api(view, store=store, catalog=catalog, zone=ZoneInfo(time_zone))
    exposition = Exposition(
        view,
        registry=registry if registry is not None else CollectorRegistry(),
        insecure_transport=insecure_transport,
        version=version,
    )
    settings = {
        "timeZone": time_zone,
        "agentAddress": agent_address,
        "version": version,
        "collector": view.collector,
        "insecureTransport": insecure_transport,
        "notice": notice,
    }
    page = _page(settings)

    async def metrics(request: Request) -> Response:
        try:
            shard = _shard(request.query_params)
        except ValueError as error:
            return _problem(400, str(error))
        form = negotiate(request.headers.get("accept", ""))

        def render() -> Response:
            begun = time.perf_counter()
            body = exposition.render(clock(), form, shard)
            exposition.observe(time.perf_counter() - begun)
            return _response(request, body, form.value)

        return await run_in_threadpool(render)

    async def ready(request: Request) -> Response:
        missing = readiness()
        return Response(missing or "ready\n", 503 if missing else 200, _HEADERS, "text/plain")

    routes = [
        Route("/", page),
        Route("/metrics", metrics),
        Route("/healthz", lambda request: Response("ok\n", headers=_HEADERS, media_type="text/plain")),
        Route("/readyz", ready),
        Route("/api", _api_page),
        Route("/api/v1", _api_page),
        *(Route(endpoint.path, _answer(endpoint, api, clock)) for endpoint in ENDPOINTS),
    ]
    return Starlette(routes=routes)


def _shard(query: Mapping[str, str]) -> Shard:
    texts = query.get("shard", "0"), query.get("of", "1")
    try:
        index, of = map(int, texts)
    except ValueError:
        raise ValueError(f"shard={texts[0]}&of={texts[1]} is no shard: write whole numbers, as in shard=0&of=4") from None
    return Shard(index, of)


def _answer(endpoint: Endpoint, api: Api, clock: Callable[[], float]) -> Callable[[Request], Response]:
    """A handler; Starlette runs plain functions in threads, so that a slow query stops no one else."""
    answer = _shared(endpoint.answer, _FLEET_SECONDS) if endpoint.path == "/api/v1/fleet" else endpoint.answer

    def handle(request: Request) -> Response:
        question = Question(clock(), request.path_params, request.query_params, request.url.netloc, request.url.scheme)
        try:
            tree = answer(api, question)
        except BadRequestError as error:
            return _problem(400, str(error))
        except NotFoundError as error:
            return _problem(404, str(error))
        except StoreError as error:
            return _problem(503, str(error))
        return _response(request, _encode(tree), "application/json")

    return handle


_Answer = Mapping[str, object] | Sequence[Mapping[str, object]]


def _shared(answer: Callable[[Api, Question], _Answer], seconds: float) -> Callable[[Api, Question], _Answer]:
    """The same answer for all who ask within some seconds."""
    lock = threading.Lock()
    kept: list[tuple[float, _Answer]] = []

    def shared(api: Api, question: Question) -> _Answer:
        with lock:
            if not kept or not 0 <= question.now_seconds - kept[0][0] < seconds:
                kept[:] = [(question.now_seconds, answer(api, question))]
            return kept[0][1]

    return shared


def _encode(tree: _Answer) -> bytes:
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _problem(status: int, message: str) -> Response:
    return Response(_encode({"error": message}), status, _HEADERS, "application/json")


def _response(request: Request, body: bytes, content_type: str) -> Response:
    headers = {**_HEADERS, "Content-Type": content_type, "Vary": "Accept-Encoding, Accept"}
    if len(body) >= _GZIP_BYTES_MIN and "gzip" in request.headers.get("accept-encoding", ""):
        body = gzip.compress(body, _GZIP_LEVEL, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(body, headers=headers)


def _page(settings: Mapping[str, object]) -> Callable[[Request], Response]:
    """The page as one file: styles and script are put into it, and their digests into its policy."""
    files = resources.files("wattledger_collector.web")
    style = (files / "style.css").read_text(encoding="utf-8")
    script = (files / "app.js").read_text(encoding="utf-8")
    # In a script element only "</" could end the text too early.
    data = json.dumps(settings).replace("</", "<\\/")
    document = (
        (files / "index.html")
        .read_text(encoding="utf-8")
        .replace("/* style.css */", style)
        .replace("/* app.js */", script)
        .replace("/* settings */", data)
    ).encode()
    headers = {
        **_HEADERS,
        "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; "
        f"form-action 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'",
    }

    def page(request: Request) -> Response:
        response = _response(request, document, "text/html; charset=utf-8")
        response.headers.update(headers)
        return response

    return page


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _api_page(request: Request) -> Response:
    """The list of endpoints, for people."""
    style = (
        ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto}"
        "body{padding:0 1rem}h2,dt{font:600 1rem ui-monospace,monospace}h2{margin:2rem 0 .25rem}"
        "dd{margin:0 0 .25rem 1.5rem}p{margin:.25rem 0}"
    )
    sections = []
    for endpoint in ENDPOINTS:
        example = endpoint.example or endpoint.path
        link = f'<a href="{html.escape(example)}">{html.escape(example)}</a>' if "{" not in example else ""
        parameters = "".join(
            f"<dt>{html.escape(name)}</dt><dd>{html.escape(meaning)}</dd>" for name, meaning in endpoint.parameters
        )
        sections.append(
            f"<h2>GET {html.escape(endpoint.path)}</h2><p>{html.escape(endpoint.summary)}</p>"
            + (f"<dl>{parameters}</dl>" if parameters else "")
            + (f"<p>Try it: {link}</p>" if link else "")
        )
    document = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Wattledger API</title><style>{style}</style><h1>Wattledger API</h1>"
        "<p>Read only, JSON. Energy is microjoules as text, since JSON numbers lose digits; 1 kWh = 3.6e12 microjoules. "
        'An unknown figure is null, never 0. Metrics for Prometheus are at <a href="/metrics">/metrics</a>, '
        'the page is at <a href="/">/</a>.</p>' + "".join(sections) + "</html>"
    )
    response = _response(request, document.encode(), "text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = f"default-src 'none'; style-src '{_digest(style)}'"
    return response
