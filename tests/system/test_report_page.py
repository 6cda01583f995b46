"""The report's page in a real Chromium: bars are as long as their figures, nothing overflows, no network is asked."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.collector.two_sites import FROM, TO, make_ledger
from tests.system.browser import Browser
from tests.system.conftest import RequireProgram

from wattledger_collector.cli import _parser

pytestmark = pytest.mark.system

# Boxes of the page that are wider than their place, or text that runs out of its box; what scrolls by itself is no fault.
OVERFLOWS = """
[...document.querySelectorAll('body *')].filter(e => {
  if (e.closest('svg') || e.closest('.frame') || getComputedStyle(e).display === 'none') return false;
  const box = e.getBoundingClientRect();
  return e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline' ||
         box.right > document.documentElement.clientWidth + 1;
}).map(e => e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 40))
"""

# Text in a chart that leaves its picture, or runs into its neighbour on the same line.
CHART_TEXTS = """
[...document.querySelectorAll('svg.chart')].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  const boxes = [...svg.querySelectorAll('text')].map(t => [t.getBoundingClientRect(), t.textContent]);
  const out = boxes.filter(([b]) => b.left < frame.left - 1 || b.right > frame.right + 1 || b.bottom > frame.bottom + 1);
  const met = boxes.filter(([b], i) => boxes.some(([c], j) => j < i && Math.abs(b.top - c.top) < 4 && b.left < c.right &&
    c.left < b.right));
  return [...out, ...met].map(([, text]) => text);
})
"""

BARS = "[...document.querySelectorAll('#days-chart rect.bar')].map(r => r.getBoundingClientRect().height)"
FIGURES = "[...document.querySelectorAll('#days-table tbody tr')].map(r => Number(r.cells[2].textContent))"
ROW_BARS = """
[...document.querySelectorAll('#sites-table tbody tr, #components-table tbody tr, #qualities-table tbody tr')].map(r => [
  r.closest('table').id, r.querySelector('rect.bar').getBoundingClientRect().width /
  r.querySelector('rect.ground').getBoundingClientRect().width, Number(r.cells[2].textContent)])
"""
GROUND = "getComputedStyle(document.documentElement).backgroundColor"


@pytest.fixture(scope="module")
def chromium(require_program: RequireProgram) -> Iterator[Browser]:
    """One Chromium for all tests."""
    with Browser(require_program("chromium", package="chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sites over four days and the year before."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"
    make_ledger(path)
    return path


@pytest.fixture
def page(ledger: Path, tmp_path: Path) -> str:
    """The address of the report, written by the command."""
    store = shutil.copy(ledger, tmp_path / "ledger.sqlite")
    out = tmp_path / "report.html"
    words = ["report", "--store", str(store), "--from", FROM, "--to", TO, "--time-zone", "Europe/Berlin", "--html"]
    parsed = _parser().parse_args([*words, "--out", str(out)])
    assert parsed.run(parsed) == 0
    return out.as_uri()


def test_bars_are_as_long_as_their_figures(chromium: Browser, page: str) -> None:
    """Every bar of every chart has the length that its table's figure has, to a thousandth of the longest."""
    chromium.resize(1100, 1000)
    chromium.open(page)

    heights, figures = chromium.evaluate(BARS), chromium.evaluate(FIGURES)
    assert len(heights) == len(figures) == 4
    for height, figure in zip(heights, figures, strict=True):
        assert height / max(heights) == pytest.approx(figure / max(figures), abs=0.001)
    rows: list[Any] = chromium.evaluate(ROW_BARS)
    longest: dict[str, float] = {}
    for table, _, figure in rows:
        longest[table] = max(longest.get(table, 0.0), figure)
    assert len(rows) == 5
    for table, share, figure in rows:
        assert share == pytest.approx(figure / longest[table], abs=0.001)


@pytest.mark.parametrize("width", [1280, 900, 400])
def test_nothing_overflows(chromium: Browser, page: str, width: int) -> None:
    """No box runs out of the window, no label out of its chart or into its neighbour."""
    chromium.resize(width, 900)
    chromium.open(page)

    assert chromium.evaluate(OVERFLOWS) == []
    assert chromium.evaluate(CHART_TEXTS) == []


def test_the_page_stands_alone(chromium: Browser, page: str) -> None:
    """It asks for itself and nothing else, and the browser has nothing to complain of."""
    chromium.open(page)

    assert chromium.requests == [page]
    assert chromium.complaints == []
    assert chromium.evaluate("document.title").startswith("Energy and emissions, 2024-03-29 to 2024-04-01")


def test_it_is_light_and_dark_and_printed_light(chromium: Browser, page: str) -> None:
    """The ground follows what the reader prefers; paper stays white."""
    chromium.resize(1100, 1000)
    chromium.open(page)
    grounds = []
    for scheme in ("light", "dark"):
        chromium.prefer(scheme)
        grounds.append(chromium.evaluate(GROUND))
    assert grounds == ["rgb(255, 255, 255)", "rgb(16, 22, 28)"]

    pdf = chromium.print_to_pdf()

    chromium.prefer("light")
    assert pdf.startswith(b"%PDF-")
    # Four days, two sites and three tables of evidence are a few pages, and none is left nearly empty by breaks.
    assert 1 <= pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") + pdf.count(b"/Type/Page/") <= 5
