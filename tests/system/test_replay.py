"""A year of a real GPU server, replayed by a real agent into a real collector, is what arithmetic on the recording says.

No product code reckons the expected figures: they are made here, from the fixture's text, in decimals and fractions.
Sources of truth: tests/fixtures/replay/PROVENANCE.md for the recording, EPA's eGRID2023 for the zone's emission rate.
"""

import csv
import gzip
import io
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tests.system.programs import AGENT, COLLECTOR, Program, get, run, wait_until

ROOT = Path(__file__).parents[1]
RECORDING = ROOT / "fixtures" / "replay" / "gpu_server_2024.csv.gz"
GOLDEN = ROOT / "golden" / "replay_report.txt"

LOCAL = ZoneInfo("America/New_York")
HOUR = timedelta(hours=1)
HOUR_SECONDS = 3600
INTERVAL_SECONDS = 900
MICROJOULES_PER_KWH = 3_600_000 * 10**6
POWER_BOUND_WATTS = 350
PUE = Fraction("1.3")

# Total output emission rate of the subregion NYUP in eGRID2023: pounds CO2e per MWh, and grams per pound (NIST SP 811).
NYUP_POUNDS_PER_MWH = Fraction("242.776")
KILOGRAMS_PER_POUND = Fraction("0.45359237")

CONFIGURATION = "collector.toml"
YEAR = ("--config", CONFIGURATION, "--from", "2024-01-01", "--to", "2025-01-01", "--time-zone", "America/New_York")

COLLECTOR_TOML = """\
[server]
port = 0
[http]
port = 0
[store]
path = "ledger.sqlite"
[[site]]
name = "ithaca"
zone = "US-NYUP"
pue = 1.3
[[host]]
site = "ithaca"
name = "*"
"""

REPLAY_TOML = """\
host = "cbsugpu05"
state_dir = "{state_dir}"
[collector]
address = "{address}"
[sources.replay]
path = "{recording}"
time_zone = "America/New_York"
device = "gpu/mean"
component = "gpu"
power_bound_watts = 350
speed = {speed}
"""

LIVE_TOML = """\
host = "live"
state_dir = "{state_dir}"
period_seconds = 0.1
flush_seconds = 0.2
[collector]
address = "{address}"
[sources.fake]
truth_path = "{truth}"
"""

REPLAY_SPEED = 20_000_000  # Recorded seconds a second: the year in less than two.


@dataclass(frozen=True, slots=True)
class Hour:
    """An hour of the year: when it begins, and its recorded mean power as text; None: it was not recorded."""

    start: datetime
    watts: str | None

    @property
    def seconds(self) -> int:
        """Seconds since 1970-01-01 UTC at its beginning."""
        return int(self.start.timestamp())

    @property
    def microjoules(self) -> Fraction:
        """Exact energy; 0 where nothing was recorded."""
        return Fraction(Decimal(self.watts or "0")) * HOUR_SECONDS * 10**6


@cache
def hours_of_the_year() -> list[Hour]:
    """All hours of the local year 2024, with the power that the fixture has for each."""
    lines = gzip.decompress(RECORDING.read_bytes()).decode().splitlines()
    assert lines[0] == "timestamp,power_watts"
    recorded: dict[str, str] = dict(line.split(",") for line in lines[1:])
    assert len(recorded) == len(lines) - 1
    hours = []
    start, end = (datetime(year, 1, 1, tzinfo=LOCAL).astimezone(UTC) for year in (2024, 2025))
    while start < end:
        # Of an hour that comes twice the one row is the first, so that the second finds it taken.
        hours.append(Hour(start, recorded.pop(f"{start.astimezone(LOCAL):%Y-%m-%d %H:%M}", None)))
        start += HOUR
    assert not recorded
    return hours


@dataclass(frozen=True, slots=True)
class Collector:
    """A running collector. agents: host:port for them. url: of its HTTP side."""

    folder: Path
    agents: str
    url: str

    @property
    def ledger(self) -> Path:
        """The database."""
        return self.folder / "ledger.sqlite"

    def report(self, *arguments: str) -> str:
        """What `wattledger-collector report` prints."""
        inside = [str(self.folder / argument) if argument == CONFIGURATION else argument for argument in arguments]
        status, output, complaint = run(COLLECTOR, "report", *inside)
        assert (status, complaint) == (0, "")
        return output

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the database holds."""
        with closing(sqlite3.connect(self.ledger)) as database:
            return database.execute(query).fetchall()

    def metrics(self) -> str:
        """What /metrics says."""
        text = get(f"{self.url}metrics")
        assert text is not None
        return text


@contextmanager
def running_collector(folder: Path) -> Iterator[Collector]:
    """Start a collector in a folder of its own, and stop it at the end."""
    folder.mkdir()
    (folder / CONFIGURATION).write_text(COLLECTOR_TOML)
    with Program(COLLECTOR, ["serve", "--config", str(folder / CONFIGURATION)], folder / "collector.log") as program:
        wait_until(lambda: "agents: " in program.said, "the collector's addresses")
        found = re.search(r"agents: (\S+), page and metrics: (http\S+)", program.said)
        assert found is not None
        yield Collector(folder, found[1], found[2])
        assert program.stop() == 0, program.said


def start_agent(collector: Collector, name: str, configuration: str) -> Program:
    """Start an agent with this configuration."""
    path = collector.folder / f"{name}.toml"
    path.write_text(configuration)
    return Program(AGENT, ["run", "--config", str(path)], path.with_suffix(".log"))


def replaying_agent(collector: Collector, speed: int = 0) -> Program:
    """Start an agent that replays the year."""
    configuration = REPLAY_TOML.format(
        state_dir=collector.folder / "recorded", address=collector.agents, recording=RECORDING, speed=speed
    )
    return start_agent(collector, "replay", configuration)


def booked_share(collector: Collector) -> float:
    """Share of the year's quarters of an hour that the ledger has."""
    ((booked,),) = collector.rows("SELECT count(*) FROM rollup WHERE recorded")
    recorded = sum(hour.watts is not None for hour in hours_of_the_year())
    return float(booked) / (recorded * HOUR_SECONDS / INTERVAL_SECONDS)


def is_met(agent: Program, collector: Collector, share: float) -> bool:
    """Whether the ledger has this share of the year, or the agent has ended."""
    return booked_share(collector) >= share or not agent.is_running


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector that took the whole year, while a live host of the same site reported to it."""
    with running_collector(tmp_path_factory.mktemp("replayed") / "collector") as collector:
        configuration = LIVE_TOML.format(
            state_dir=collector.folder / "live", address=collector.agents, truth=collector.folder / "truth.jsonl"
        )
        with start_agent(collector, "live", configuration) as live, replaying_agent(collector) as agent:
            assert agent.wait() == 0, agent.said
            assert live.stop() == 0, live.said
        yield collector


@pytest.fixture(scope="module")
def report(replayed: Collector) -> Any:
    """The year's report as JSON, parsed."""
    return json.loads(replayed.report(*YEAR, "--json"))


def test_the_recording_has_what_makes_it_hard() -> None:
    """The year has both changes of clocks, an hour lost to each, seven further holes, and powers finer than a microwatt."""
    hours = hours_of_the_year()
    missing = [f"{hour.start.astimezone(LOCAL):%m-%d %H:%M %Z}" for hour in hours if hour.watts is None]
    assert (len(hours), len(missing)) == (366 * 24, 9)
    assert "03-10 01:00 EST" in missing
    assert "11-03 01:00 EST" in missing
    assert any(hour.microjoules % 1 for hour in hours)


def test_energy_is_the_recordings_integral_to_the_microjoule(report: Any) -> None:
    """The report's energy is the sum of watts x 3600 s, in exact decimals; a share of a microjoule is still to come."""
    exact = sum(hour.microjoules for hour in hours_of_the_year())

    assert report["energy_microjoules"] == str(int(exact))
    (site,) = report["sites"]
    assert (site["site"], site["energy_microjoules"]) == ("ithaca", str(int(exact)))
    assert (site["by_component"], site["by_quality"]) == ({"gpu": str(int(exact))}, {"integral": str(int(exact))})
    assert all(line["recorded"] for line in site["lines"])


def test_each_hour_of_the_ledger_is_the_recordings(replayed: Collector) -> None:
    """Hour by hour the rows hold what was recorded, and the hours that are missing have no row: not even one of zero."""
    rows = replayed.rows(
        "SELECT interval_start_seconds, energy_microjoules, covered_nanoseconds FROM rollup WHERE recorded ORDER BY 1"
    )
    booked: dict[int, list[tuple[int, int]]] = {}
    for start, energy, covered in rows:
        booked.setdefault(start - start % HOUR_SECONDS, []).append((energy, covered))

    expected: dict[int, int] = {}
    cumulative = Fraction(0)
    for hour in hours_of_the_year():
        if hour.watts is not None:
            expected[hour.seconds] = int(cumulative + hour.microjoules) - int(cumulative)
            cumulative += hour.microjoules

    assert {hour: sum(energy for energy, _ in quarters) for hour, quarters in booked.items()} == expected
    covered_nanoseconds = INTERVAL_SECONDS * 10**9
    assert all([covered for _, covered in quarters] == [covered_nanoseconds] * 4 for quarters in booked.values())


def test_missing_hours_are_gaps_with_bounds(report: Any) -> None:
    """Each is listed with reason and bounds; together they bound the energy, and the coverage is exact."""
    hours = hours_of_the_year()
    missing = [hour for hour in hours if hour.watts is None]
    bound = POWER_BOUND_WATTS * HOUR_SECONDS * 10**6

    (site,) = report["sites"]

    gaps = site["gaps"]
    assert gaps["rows"] == [
        {
            "host": "cbsugpu05",
            "device": "gpu/mean",
            "recorded": True,
            "from": hour.start.astimezone(LOCAL).isoformat(),
            "to": (hour.start + HOUR).astimezone(LOCAL).isoformat(),
            "reason": "missing_in_recording",
            "lower_microjoules": "0",
            "upper_microjoules": str(bound),
        }
        for hour in missing
    ]
    assert (gaps["count"], gaps["lower_microjoules"], gaps["upper_microjoules"]) == (9, "0", str(9 * bound))
    assert int(site["energy_upper_microjoules"]) - int(site["energy_microjoules"]) == 9 * bound
    assert Fraction(site["coverage_exact"]) == Fraction(len(hours) - len(missing), len(hours))


def test_emissions_are_the_zones_factor_times_the_energy(report: Any) -> None:
    """kWh x PUE x grams per kWh, as one exact fraction; the factor is that of the year before, and is called so."""
    energy = int(sum(hour.microjoules for hour in hours_of_the_year()))
    grams_per_kwh = NYUP_POUNDS_PER_MWH * KILOGRAMS_PER_POUND
    expected = Fraction(energy, MICROJOULES_PER_KWH) * PUE * grams_per_kwh

    (emission,) = report["emissions"]
    assert Fraction(emission["grams_exact"]) == expected
    (factor,) = report["factors"]
    assert Fraction(factor["grams_per_kwh"]) == grams_per_kwh
    (line,) = report["sites"][0]["lines"]
    assert (line["zone"], line["pue"], line["factor_provisional"]) == ("US-NYUP", "1.3", True)


def test_recorded_energy_is_in_no_live_total(replayed: Collector) -> None:
    """The site's counter is the live host's energy alone, and no counter or power names the recorded host."""
    truths = [json.loads(line) for line in (replayed.folder / "truth.jsonl").read_text().splitlines()]
    live = sum(truths[-1]["microjoules"].values()) - sum(truths[0]["microjoules"].values())

    samples = [line for line in replayed.metrics().splitlines() if not line.startswith("#")]

    values = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in samples}
    energy = {name: value for name, value in values.items() if "energy_joules_total{" in name}
    grams = [value for name, value in values.items() if name.startswith("wattledger_site_emissions_grams_total")]
    assert live > 0
    # By component and by quality: two tellings of the same energy.
    for metric in ("wattledger_site_energy_joules_total{", "wattledger_site_quality_energy_joules_total{"):
        site = [value for name, value in energy.items() if name.startswith(metric)]
        assert sum(site) == pytest.approx(live / 10**6, rel=1e-12)
    # The page's present factor is eGRID2023's, which stands in for today.
    factor = NYUP_POUNDS_PER_MWH * KILOGRAMS_PER_POUND
    assert sum(grams) == pytest.approx(float(Fraction(live, MICROJOULES_PER_KWH) * PUE * factor), rel=1e-9)
    told = [name for name in values if "cbsugpu05" in name]
    assert [name for name in told if "energy" in name or "power" in name or "grams" in name] == []
    assert values['wattledger_agents{site="ithaca",state="recorded"}'] == 1.0


def test_a_killed_replay_loses_and_doubles_nothing(replayed: Collector, tmp_path: Path) -> None:
    """Killed twice in the middle and started again, the ledger has the same rows; a further start adds nothing."""
    with running_collector(tmp_path / "collector") as collector:
        for share in (0.3, 0.7):
            # So fast that it is done in seconds, and slow enough to be met in the middle.
            with replaying_agent(collector, speed=REPLAY_SPEED) as agent:
                wait_until(partial(is_met, agent, collector, share), "the kill's moment")
                assert agent.is_running, agent.said
            assert booked_share(collector) < 1
        for _ in range(2):
            with replaying_agent(collector) as agent:
                assert agent.wait() == 0, agent.said

        queries = (
            "SELECT * FROM rollup WHERE recorded ORDER BY 1, 2, 3, 4",
            "SELECT channel, from_utc_nanoseconds, to_utc_nanoseconds, reason, lower_microjoules, upper_microjoules FROM gap"
            " ORDER BY 2",
        )
        for query in queries:
            assert collector.rows(query) == replayed.rows(query)
        assert agent.said.count("going on after 2024-") == 2
        assert agent.said.count("nothing is new: all") == 1


def test_the_report_is_as_shown(replayed: Collector) -> None:
    """The commands in the golden file, which the README shows, print what stands below them."""
    shown = GOLDEN.read_text(encoding="utf-8")
    assert _commands_with_output(shown, replayed) == shown


def _commands_with_output(shown: str, collector: Collector) -> str:
    """The text with the output of each `$ wattledger-collector report` in it made anew."""
    made = []
    for command in re.findall(r"^\$ wattledger-collector report (.*)$", shown, flags=re.MULTILINE):
        arguments, _, target = command.partition(" > ")
        output = collector.report(*arguments.split())
        # The one figure that is another each day is when the report was made.
        output = re.sub(r"as of \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[-+]\d\d:\d\d", "as of 2026-01-15T09:00:00-05:00", output)
        lines = "".join(f"{line.rstrip()}\n" for line in output.splitlines())
        made.append(f"$ wattledger-collector report {command}\n{'' if target else lines}")
    return "\n".join(made)


def test_csv_adds_up(replayed: Collector, report: Any) -> None:
    """The CSV's energy row, gap rows and site row are the JSON's figures."""
    (site,) = report["sites"]

    rows = list(csv.DictReader(io.StringIO(replayed.report(*YEAR, "--csv"))))

    assert [row["record"] for row in rows] == [
        "energy", *["gap"] * 9, "site", "market", "scope2_location", "scope2_market",
    ]  # fmt: skip
    located, counted = rows[-2:]
    rows = rows[:-3]
    assert located["emissions_grams_exact"] == counted["emissions_grams_exact"] == rows[0]["emissions_grams_exact"]
    assert rows[0]["energy_microjoules"] == rows[-1]["energy_microjoules"] == site["energy_microjoules"]
    assert rows[0]["emissions_grams_exact"] == site["emissions"][0]["grams_exact"]
    assert sum(int(row["upper_microjoules"]) for row in rows[1:-1]) == int(site["gaps"]["upper_microjoules"])
    assert rows[-1]["coverage_exact"] == site["coverage_exact"]
