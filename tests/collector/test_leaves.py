"""Leaves: their headers are the canonical JSON that a library makes of them at once."""

import json
from typing import Any

import numpy as np
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from wattledger_collector.leaves import DayColumns, Series, make_leaves, make_salt, sums_by_interval
from wattledger_collector.records import Component, Quality

SECRET = b"s" * 32
DAY_SECONDS = 86_400

series_of_any_name = st.builds(
    Series,
    host=st.text(min_size=1, max_size=4),
    site=st.text(min_size=1, max_size=4),
    component=st.sampled_from(Component),
    quality=st.sampled_from(Quality),
    recorded=st.booleans(),
    edition=st.integers(0, 3),
    sensor=st.text(max_size=4),
    lower_ratio=st.floats(0, 1),
    upper_ratio=st.sampled_from([0.0, 0.03, 1.0, 1e-7]),
)


def columns_of(series: list[Series], first_seconds: int, intervals: int = 2) -> DayColumns:
    """A day of these series, each cell another number."""
    numbers = np.arange(len(series) * intervals, dtype=np.int64).reshape(len(series), intervals)
    return DayColumns(first_seconds, 900, tuple(sorted(series)), numbers - 3, numbers * 7)


@given(st.lists(series_of_any_name, min_size=1, max_size=6), st.integers(0, 40_000))
def test_a_header_is_canonical_json_whatever_its_names(series: list[Series], day: int) -> None:
    """Made of parts, each once for a fleet, it is what RFC 8785 says of the whole."""
    columns = columns_of(series, day * DAY_SECONDS)
    hosts = sorted({each.host for each in series})
    leaves = list(make_leaves(columns, SECRET))
    assert [leaf.host for leaf in leaves] == hosts
    for leaf in leaves:
        own = [each for each in columns.series if each.host == leaf.host]
        size = int.from_bytes(leaf.entry[:4], "big")
        tree: dict[str, Any] = {
            "host": leaf.host,
            "day": columns.day,
            "first_interval_seconds": day * DAY_SECONDS,
            "intervals": 2,
            "interval_seconds": 900,
            "salt": make_salt(SECRET, leaf.host, columns.day).hex(),
            "series": [
                {
                    "site": each.site,
                    "component": each.component.name.lower(),
                    "quality": each.quality.name.lower(),
                    "recorded": each.recorded,
                    "edition": each.edition,
                    "sensor": each.sensor,
                    "lower": each.lower_ratio,
                    "upper": each.upper_ratio,
                }
                for each in own
            ],
        }
        assert leaf.entry[4 : 4 + size] == rfc8785.dumps(tree)
        assert json.loads(leaf.entry[4 : 4 + size]) == tree
        assert len(leaf.entry) == 4 + size + len(own) * 2 * 2 * 8


def test_sums_are_of_the_series_of_each_day() -> None:
    """Also where days have as many series, and others."""
    first, other = (
        Series(host, "hall", component, Quality.COUNTER, False, 0, "rapl", 0.0, 0.0)
        for host, component in (("a", Component.CPU), ("b", Component.GPU))
    )
    days = [columns_of([first, other], 0), columns_of([first, other._replace(component=Component.CPU)], DAY_SECONDS)]
    found = [list(sums_by_interval(day, ("component",))) for day in days]
    assert found[0] == [((Component.CPU,), [-3, -2], [0, 7]), ((Component.GPU,), [-1, 0], [14, 21])]
    assert found[1] == [((Component.CPU,), [-4, -2], [14, 28])]
