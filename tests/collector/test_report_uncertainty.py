"""Reports in every form tell the same 95 % interval of every total, and what of it is assumed."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Executable, Row
from tests.collector.closed_ledgers import BEGIN, CATALOG, DAY, MWH, Ledger, row
from tests.collector.two_sites import BERLIN, FROM, TO, make_ledger

from wattledger_collector.cli import _parser
from wattledger_collector.database import connect
from wattledger_collector.records import ChannelInfo, Component, Quality
from wattledger_collector.report import make_period, make_report
from wattledger_collector.report_uncertainty import intervals_of, sensors_of, site_intervals_of
from wattledger_collector.store import SqliteStore

WORDS = ("--from", FROM, "--to", TO, "--time-zone", "Europe/Berlin")


def test_table_and_json_have_the_interval_of_each_total(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the site and of all: half-widths, and what rests on an assumed band; energy without a figure has none."""
    ledger = tmp_path / "ledger.sqlite"
    make_ledger(ledger)
    outs = []
    for form in ((), ("--json",)):
        parsed = _parser().parse_args(["report", "--store", str(ledger), *WORDS, *form])
        assert parsed.run(parsed) == 0
        outs.append(capsys.readouterr().out)
    table, tree = outs[0], json.loads(outs[1])
    assert table.count("95 % interval: ") == 2
    assert "(assumed bands of factors DE OWID-Ember for 100 %)" in table
    (emission,) = tree["emissions"]
    grams = float(emission["grams"])
    interval = emission["interval"]
    assert float(interval["lower_grams"]) == pytest.approx(grams * (0.02**2 + 0.15**2) ** 0.5)
    assert (interval["assumed_sensors"], interval["assumed_factors"]) == ([], ["DE OWID-Ember"])
    hall = next(site for site in tree["sites"] if site["site"] == "hall")
    assert hall["emissions"][0]["interval"] == interval


def test_a_report_and_a_statement_have_one_interval(tmp_path: Path) -> None:
    """Two sensors of which one states no band: where a host's lifetime is the period, both tell the same."""
    ledger = Ledger(tmp_path)
    ledger.book("a", [row(3 * MWH)])
    ledger.book("b", [row(MWH)], source="nvml", band=(0.0, 0.0))
    closed = ledger.close()
    stated = closed.statement.tree["uncertainty"][0]
    period = make_period(BEGIN, BEGIN + DAY, BERLIN, 900)
    made = make_report(ledger.store, CATALOG, period, now_seconds=BEGIN + DAY)
    sensors = sensors_of(ledger.store, BEGIN)
    (found,) = intervals_of(made, sensors).values()
    assert f"{found.interval.lower_grams:.6f}" == stated["lower_grams"]
    assert list(found.sensors_assumed) == stated["assumed"]["sensors"] == ["nvml"]
    assert f"{found.sensors_assumed_grams:.6f}" == stated["assumed"]["sensor_grams"]
    (of_hall,) = site_intervals_of(made, sensors)["hall"].values()
    assert of_hall.interval == found.interval
    ledger.store.close()


class Counting(SqliteStore):
    """A store that counts its queries."""

    queries = 0

    def rows(self, query: Executable, values: Mapping[str, int | str | None] | None = None) -> Iterator[Row[Any]]:
        """The rows of one query."""
        self.queries += 1
        return super().rows(query, values)

    def load_channels(self, host: str, epoch: bytes) -> dict[int, ChannelInfo]:
        """One epoch's catalog."""
        self.queries += 1
        return super().load_channels(host, epoch)


def test_sensors_of_many_hosts_are_read_at_once(tmp_path: Path) -> None:
    """A thousand hosts are as many questions to the database as one."""
    counts = []
    for hosts in (1, 12):
        (tmp_path / str(hosts)).mkdir()
        ledger = Ledger(tmp_path / str(hosts))
        for number in range(hosts):
            ledger.book(f"host-{number}", [row(MWH)])
        ledger.store.close()
        store = Counting(ledger.store.path, connect(ledger.store.path))
        (sensor,) = sensors_of(store, BEGIN)["hall", Component.CPU, Quality.COUNTER, False]
        assert (sensor.source, sensor.share, sensor.is_stated) == ("rapl", 1.0, True)
        counts.append(store.queries)
        store.close()
    assert counts[0] == counts[1]
