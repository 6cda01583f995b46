"""Bars as inline SVG: an axis with its unit, a title and a description for those who can't see them, and no script.

Values in, elements out; what they mean is said in `report_html.py`. Bars begin at 0, so that lengths can be compared. No
library draws them: bars are all there is, and it would bring scripts, fonts or a hundred times the code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor, log10
from xml.etree.ElementTree import Element, SubElement

WIDTH, HEIGHT = 720, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 8, 22, 26

# Labels of about 60 units do not touch each other on this width.
_LABELS_MAX = 10

_TICKS = 4


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar; label: below it, told: all that it says. series: its colour. is_partial: something is missing in it."""

    label: str
    value: Fraction
    told: str
    series: int = 0
    is_partial: bool = False


def nice_step(span: Fraction) -> Fraction:
    """A step of 1, 2 or 5 times a power of ten, of which about four make the span; span > 0."""
    rough = span / _TICKS
    power = Fraction(10) ** floor(log10(rough))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= rough * Fraction(999, 1000))


def tick_text(value: Fraction) -> str:
    """A tick's number, without useless digits."""
    text = f"{float(value):.10g}"
    return f"{float(value):,.0f}".replace(",", " ") if abs(value) >= 1000 else text


def column_chart(bars: Sequence[Bar], *, name: str, title: str, unit: str, group: int = 1) -> Element:
    """Bars side by side, in order. name: of the element; title and unit: words for people.

    group: so many bars stand together, under the label of the first of them.
    """
    top = max((bar.value for bar in bars), default=Fraction(0))
    bottom = min(Fraction(0), min((bar.value for bar in bars), default=Fraction(0)))
    step = nice_step(top - bottom) if top > bottom else Fraction(1)
    low, high = -(-bottom // step) * step if bottom == 0 else (bottom // step) * step, -(-top // step) * step
    if high == low:
        high = low + step
    chart = Element("svg", {"class": "chart", "id": name, "viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img"})
    chart.set("aria-labelledby", f"{name}-title {name}-desc")
    SubElement(chart, "title", {"id": f"{name}-title"}).text = title
    SubElement(chart, "desc", {"id": f"{name}-desc"}).text = (
        f"{len(bars)} bars, in {unit}, from {bars[0].label} to {bars[-1].label}; the table below has their figures."
        if bars
        else "No bars."
    )
    scale = Fraction(HEIGHT - _TOP - _BOTTOM) / (high - low)

    def height_of(value: Fraction) -> float:
        return float(HEIGHT - _BOTTOM - (value - low) * scale)

    _text(chart, 4, 13, f"{unit}", "start")
    tick = low
    while tick <= high:
        y = height_of(tick)
        line = {"x1": str(_LEFT), "x2": str(WIDTH - _RIGHT), "y1": f"{y:.2f}", "y2": f"{y:.2f}"}
        SubElement(chart, "line", {**line, "class": "zero" if tick == 0 else "grid"})
        _text(chart, _LEFT - 6, y + 4, tick_text(tick), "end")
        tick += step
    groups = -(-len(bars) // group)
    slot = (WIDTH - _LEFT - _RIGHT) / max(groups, 1)
    wide = min(slot * 0.8 / group, 48.0)
    every = -(-groups // _LABELS_MAX)
    zero = height_of(Fraction(0))
    for place, bar in enumerate(bars):
        beside = place % group
        centre = _LEFT + slot * (place // group + 0.5)
        middle = centre + (beside - (group - 1) / 2) * wide
        end = height_of(bar.value)
        rect = SubElement(chart, "rect", {"x": f"{middle - wide / 2:.2f}", "width": f"{wide:.2f}"})
        rect.set("y", f"{min(zero, end):.3f}")
        rect.set("height", f"{abs(zero - end):.3f}")
        rect.set("class", f"bar s{bar.series}{' partial' if bar.is_partial else ''}")
        SubElement(rect, "title").text = bar.told
        if beside == 0 and place // group % every == 0:
            _text(chart, centre, HEIGHT - 8, bar.label, "middle")
    return chart


def row_bar(value: Fraction, whole: Fraction, told: str, series: int = 0) -> Element:
    """A bar for a table's cell: as long as the value's part of the whole, which is the length of the longest."""
    chart = Element("svg", {"class": "rowbar", "viewBox": "0 0 100 8", "preserveAspectRatio": "none", "role": "img"})
    chart.set("aria-label", told)
    part = max(0.0, min(1.0, float(value / whole))) if whole > 0 else 0.0
    SubElement(chart, "rect", {"class": "ground", "x": "0", "y": "0", "width": "100", "height": "8"})
    SubElement(chart, "rect", {"class": f"bar s{series}", "x": "0", "y": "0", "width": f"{part * 100:.4f}", "height": "8"})
    return chart


def _text(chart: Element, x: float, y: float, text: str, anchor: str) -> None:
    SubElement(chart, "text", {"x": f"{x:.2f}", "y": f"{y:.2f}", "text-anchor": anchor}).text = text
