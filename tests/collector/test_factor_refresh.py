"""Renewing factors: asked on time, back off, ask for what was missed, and nobody waits."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import httpx
import pytest
from grpc import aio
from tests.collector.batches import WATT
from tests.collector.bookings import INTERVAL, energy, following, opening
from tests.collector.test_server import Agent

from wattledger_collector.accounting import BasisFinder, account
from wattledger_collector.config import Configuration, FactorSettings, FactorSource, Http, Server, Site, StoreSettings
from wattledger_collector.factor_fetch import FetchError
from wattledger_collector.factor_files import load_catalog
from wattledger_collector.factor_live import LiveFactors
from wattledger_collector.factor_refresh import FactorRefresh, SourceRefresh, delay_seconds
from wattledger_collector.factor_sources.provider import AnswerError, Request
from wattledger_collector.factor_store import load_factors, record_factors
from wattledger_collector.factors import Tier
from wattledger_collector.records import (
    MICROJOULES_PER_KWH,
    AssignmentRow,
    CommitOutcome,
    Component,
    Quality,
    RollupRow,
    SiteRow,
)
from wattledger_collector.service import Service
from wattledger_collector.store import SqliteStore, open_store

FIXTURES = Path(__file__).parent.parent / "fixtures/factors"
HOUR = 3600
DAY = 86_400


def at(text: str) -> int:
    """Seconds of an ISO time."""
    return int(datetime.fromisoformat(text).timestamp())


MAY_1 = at("2024-05-01T14:00Z")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """An empty ledger."""
    with closing(open_store(tmp_path / "ledger.sqlite", create=True)) as opened:
        yield opened


def answer(name: str) -> str:
    """A recorded answer."""
    return (FIXTURES / name).read_text(encoding="utf-8")


class Quarters:
    """A provider's side of eCO2mix: each quarter that is asked for, up to the present; it can be away."""

    def __init__(self) -> None:
        self.is_away = False
        self.now = MAY_1
        self.asked: list[tuple[str, str]] = []

    def __call__(self, request: Request) -> str:
        """The answer."""
        begin, end = request.url.split("date%27")[1][:17], request.url.split("date%27")[2][:17]
        self.asked.append((begin, end))
        if self.is_away:
            raise FetchError("odre can't be reached")
        first, last = at(begin), min(at(end), self.now - 900)
        rows = [
            f'{{"date_heure": "{datetime.fromtimestamp(each, UTC).isoformat()}", "taux_co2": {each // 900 % 50}}}'
            for each in range(first, last, 900)
        ]
        return f"[{','.join(rows)}]"


def france(store: SqliteStore, fetch: Callable[[Request], str], **changes: int) -> SourceRefresh:
    """A source of French quarters."""
    settings = FactorSource(provider="rte-eco2mix", zones=("FR",), history_seconds=changes.get("history", 2 * HOUR))
    return SourceRefresh(settings, store, fetch=fetch, started_seconds=MAY_1, names={"FR": "France"})


def test_an_outage_loses_nothing(store: SqliteStore) -> None:
    """After three days without an answer all of them are asked for, and the series has no hole."""
    provider = Quarters()
    source = france(store, provider)
    source.refresh(MAY_1)
    provider.is_away = True
    for hours in range(1, 73, 12):
        with pytest.raises(FetchError):
            source.refresh(MAY_1 + hours * HOUR)

    provider.is_away, provider.now = False, MAY_1 + 3 * DAY
    source.refresh(MAY_1 + 3 * DAY)

    rows = sorted(load_factors(store), key=lambda row: row.valid_from_seconds)
    begins = [row.valid_from_seconds for row in rows]
    assert begins == list(range(MAY_1 - 2 * HOUR, MAY_1 + 3 * DAY - 900, 900))
    assert {row.name for row in rows} == {"France"}


def test_revisions_are_looked_for_as_far_back_as_configured(store: SqliteStore) -> None:
    """A second question begins there, and not at the newest value."""
    provider = Quarters()
    source = france(store, provider, history=6 * HOUR)
    source.refresh(MAY_1)
    provider.now = MAY_1 + HOUR
    source.refresh(MAY_1 + HOUR)

    assert provider.asked == [("2024-05-01T08:00Z", "2024-05-01T14:00Z"), ("2024-05-01T09:00Z", "2024-05-01T15:00Z")]


def test_a_long_outage_is_asked_for_in_parts_that_the_provider_takes(store: SqliteStore) -> None:
    """A hundred days are four questions of at most 31."""
    provider = Quarters()
    source = france(store, provider)
    source.refresh(MAY_1)
    provider.asked.clear()
    provider.now = MAY_1 + 100 * DAY

    source.refresh(MAY_1 + 100 * DAY)

    assert [begin[:10] for begin, _ in provider.asked] == ["2024-05-01", "2024-06-01", "2024-07-02", "2024-08-02"]
    assert provider.asked[-1][1] == "2024-08-09T14:00Z"


def test_a_late_revision_is_a_row_that_names_what_it_supersedes(store: SqliteStore, tmp_path: Path) -> None:
    """An estimate of 314 becomes 331, a null 310; what is the same again adds nothing."""
    key = tmp_path / "key"
    key.write_text("secret\n")
    answers = iter([answer("electricity_maps/de.json"), answer("electricity_maps/de_revised.json")])
    settings = FactorSource(provider="electricitymaps", zones=("DE",), key_file=str(key))
    source = SourceRefresh(settings, store, fetch=lambda _: next(answers), started_seconds=MAY_1)

    assert source.refresh(MAY_1) == 3
    assert source.refresh(MAY_1 + DAY) == 2

    rows = load_factors(store)
    assert [(f"{row.value:f}", row.tier) for row in rows[3:]] == [("310", Tier.F0_MEASURED), ("331", Tier.F0_MEASURED)]
    assert [bool(row.supersedes) for row in rows] == [False, False, False, False, True]
    assert rows[4].supersedes == rows[2].id
    assert len({row.document_sha256 for row in rows}) == 2


@pytest.mark.parametrize(
    ("provider", "zone", "path", "change", "asked"),
    [
        ("electricitymaps", "DE", "electricity_maps/de.json", ("302", "303"), "2024-05-01T14:00Z"),
        ("watttime", "US-CAL-CISO", "watttime/moer.json", ("870.0", "871.0"), "2024-05-01T01:00Z"),
        ("uk-carbon-intensity", "GB", "uk_carbon_intensity/day.json", ("263", "264"), "2024-05-01T14:00Z"),
        ("rte-eco2mix", "FR", "rte_eco2mix/2023-09-21.json", ('"taux_co2": 13', '"taux_co2": 14'), "2023-09-22T00:00Z"),
        ("entsoe", "DE", "entsoe/de.xml", ("<quantity>1000", "<quantity>1001"), "2024-05-01T13:00Z"),
        ("eia930", "US-MIDA-PJM", "eia930/pjm.json", ("16293", "16294"), "2022-03-13T09:00Z"),
    ],
)
def test_each_provider_keeps_its_rows_over_an_outage_and_a_late_revision(
    store: SqliteStore, tmp_path: Path, provider: str, zone: str, path: str, change: tuple[str, str], asked: str
) -> None:
    """The same answer adds nothing, an outage takes nothing, and a value that is revised later is one row more."""
    key, now = tmp_path / "key", at(asked)
    key.write_text("anna:pass")
    answers = {"now": answer(path)}

    def fetch(request: Request) -> str:
        if request.url.endswith("/login"):
            return answer("watttime/login.json")
        if not answers["now"]:
            raise FetchError("away")
        return answers["now"]

    settings = FactorSource(provider=provider, zones=(zone,), key_file=str(key), history_seconds=2 * HOUR)
    source = SourceRefresh(settings, store, fetch=fetch, started_seconds=now)
    count = source.refresh(now)
    before = load_factors(store)
    assert len(before) == count > 1
    assert source.refresh(now) == 0
    answers["now"] = ""
    with pytest.raises(FetchError, match="away"):
        source.refresh(now + 60)
    assert load_factors(store) == before

    answers["now"] = answer(path).replace(*change, 1)
    assert source.refresh(now + 120) == 1

    (revised,) = (row for row in load_factors(store) if row not in before)
    (first,) = (row for row in before if row.id == revised.supersedes)
    assert (first.zone, first.valid_from_seconds, first.kind) == (zone, revised.valid_from_seconds, revised.kind)
    assert first.value != revised.value
    assert load_factors(store, as_of_seconds=now + 60) == before


def test_a_zone_that_fails_does_not_keep_the_others(store: SqliteStore) -> None:
    """The first failure is told, after all were asked."""

    settings = FactorSource(provider="uk-carbon-intensity", zones=("XX", "GB"), areas={"XX": "area-1"})
    calls: list[str] = []

    def counted(request: Request) -> str:
        calls.append(request.url)
        if len(calls) == 1:
            raise FetchError("away")
        return answer("uk_carbon_intensity/day.json")

    source = SourceRefresh(settings, store, fetch=counted, started_seconds=MAY_1)
    with pytest.raises(FetchError, match="away"):
        source.refresh(MAY_1)

    assert len(calls) == 2
    assert {row.zone for row in load_factors(store)} == {"GB"}


def test_a_malformed_answer_records_nothing(store: SqliteStore) -> None:
    """Neither its good rows."""
    text = (FIXTURES / "uk_carbon_intensity/day.json").read_text().replace("258", '"much"')
    settings = FactorSource(provider="uk-carbon-intensity", zones=("GB",))
    source = SourceRefresh(settings, store, fetch=lambda _: text, started_seconds=MAY_1)

    with pytest.raises(AnswerError, match="expected a number"):
        source.refresh(MAY_1)
    assert load_factors(store) == []


def test_the_key_is_read_each_time_and_told_to_nobody(store: SqliteStore, tmp_path: Path) -> None:
    """A key can be changed while the collector runs; a file without one is named, and not what is in it."""
    key = tmp_path / "key"
    seen: list[str] = []

    def fetch(request: Request) -> str:
        seen.append(request.headers["auth-token"])
        return answer("electricity_maps/de.json")

    settings = FactorSource(provider="electricitymaps", zones=("DE",), key_file=str(key))
    source = SourceRefresh(settings, store, fetch=fetch, started_seconds=MAY_1)
    for text in ("first\n", "second"):
        key.write_text(text)
        source.refresh(MAY_1)
    assert seen == ["first", "second"]

    key.write_text("two\nlines")
    with pytest.raises(FetchError, match="is no key") as caught:
        source.refresh(MAY_1)
    assert "lines" not in str(caught.value).replace("its one line", "")
    key.unlink()
    with pytest.raises(FetchError, match="cannot read the key"):
        source.refresh(MAY_1)


def test_a_login_comes_before_the_question(store: SqliteStore, tmp_path: Path) -> None:
    """User and password are sent to the login alone, and its token with the question."""
    key = tmp_path / "key"
    key.write_text("anna:pass")
    asked: list[Request] = []

    def fetch(request: Request) -> str:
        asked.append(request)
        return answer("watttime/login.json" if request.url.endswith("/login") else "watttime/moer.json")

    settings = FactorSource(provider="watttime", zones=("US-CAL-CISO",), key_file=str(key), history_seconds=HOUR)
    SourceRefresh(settings, store, fetch=fetch, started_seconds=MAY_1).refresh(MAY_1)

    assert asked[0].headers["Authorization"].startswith("Basic ")
    assert asked[1].headers == {"Authorization": "Bearer abc.def.ghi"}
    assert "region=CAISO_NORTH" in asked[1].url
    assert len(load_factors(store)) == 3


def test_bundled_tables_are_recorded_like_answers(store: SqliteStore) -> None:
    """A yearly table is asked for once, has no age, and says nothing new the second time."""
    settings = FactorSource(provider="bundled", zones=("CN",), areas={"CN": "china.csv"})
    china = (Path(__file__).parent.parent.parent / "collector/wattledger_collector/bundled_factors/china.csv").read_text()
    source = SourceRefresh(settings, store, fetch=lambda _: china, started_seconds=MAY_1)
    now = at("2026-06-01T00:00Z")

    assert source.refresh(now) >= 3
    assert source.refresh(now + DAY) == 0
    assert source.health(now).ages == {}


def test_waiting_doubles_with_each_failure_and_ends_at_an_hour() -> None:
    """With chance in the middle; a provider's own wish is kept, and success goes back to the rhythm."""
    waits = [delay_seconds(900, failures, 0, lambda: 0.5) for failures in (0, 1, 2, 3, 7, 100)]

    assert waits == [900, 60, 120, 240, 3600, 3600]
    assert delay_seconds(900, 1, 0, lambda: 0.0) == 30
    assert delay_seconds(900, 1, 0, lambda: 0.999) == pytest.approx(90, abs=0.1)
    assert delay_seconds(900, 1, 7200, lambda: 0.5) == 7200


def test_ages_and_failures_are_of_who_asks(store: SqliteStore) -> None:
    """From the end of the newest value; a collector that does not ask shows nothing."""
    provider, now = Quarters(), [float(MAY_1)]
    settings = (FactorSource(provider="rte-eco2mix", zones=("FR",)),)
    refresh = FactorRefresh(settings, store, names={}, fetch=provider, clock=lambda: now[0])
    (source,) = refresh.sources
    now[0] += 300
    assert refresh.health()[0].ages == {"FR": 300.0}

    source.refresh(MAY_1)
    now[0] = MAY_1 + 2 * HOUR

    # The newest quarter ended at 13:45.
    assert refresh.health()[0].ages == {"FR": 2 * HOUR + 900.0}
    idle = FactorRefresh(settings, store, names={}, fetch=provider, is_asking=lambda: False)
    assert idle.health() == []


def test_a_failure_is_counted_and_tried_again(store: SqliteStore) -> None:
    """The thread goes on, whatever the answer, and ends when it is told to."""
    tried = threading.Event()

    def fetch(_: Request) -> str:
        tried.set()
        return "<html>"

    settings = (FactorSource(provider="rte-eco2mix", zones=("FR",)),)
    refresh = FactorRefresh(settings, store, names={}, fetch=fetch)
    refresh.start()
    assert tried.wait(5)
    refresh.stop()

    assert refresh.health()[0].failures == 1


def test_a_fault_in_one_answer_does_not_end_the_source(store: SqliteStore) -> None:
    """What nobody thought of is counted like any failure, and the thread lives to ask again."""
    tried = threading.Event()

    def fetch(_: Request) -> str:
        tried.set()
        raise KeyError("nobody thought of it")

    settings = (FactorSource(provider="rte-eco2mix", zones=("FR",)),)
    refresh = FactorRefresh(settings, store, names={}, fetch=fetch)
    refresh.start()
    assert tried.wait(5)
    refresh.stop()

    assert refresh.health()[0].failures == 1


def test_a_number_of_thousands_of_digits_is_an_answer_that_is_refused(store: SqliteStore) -> None:
    """The reader of JSON raises another error for it than for what is no JSON."""
    settings = FactorSource(provider="uk-carbon-intensity", zones=("GB",))
    source = SourceRefresh(settings, store, fetch=lambda _: "9" * 5_000, started_seconds=MAY_1)

    with pytest.raises(AnswerError, match="thousands of digits"):
        source.refresh(MAY_1)


def test_what_others_record_is_seen_by_who_holds_the_finder(store: SqliteStore) -> None:
    """An import by another program changes the basis, also where nothing held before."""
    live = LiveFactors(store, load_catalog(ladders={"FR": ("rte-eco2mix",)}))
    store.add_sites([SiteRow("hall", 0, "FR", "1.2", False, 0)])
    live.finder.replace(LiveFactors(store, load_catalog(ladders={"FR": ("rte-eco2mix",)})).finder)
    assert live.finder.find("hall", MAY_1 - HOUR).factor is None

    with closing(open_store(store.path, create=False)) as other:
        france(other, Quarters()).refresh(MAY_1)
    assert live.renew()

    basis = live.finder.find("hall", MAY_1 - HOUR)
    assert basis.factor is not None
    assert basis.factor.source == "rte-eco2mix"
    assert [seconds for _, seconds in live.finder.split("hall", MAY_1 - HOUR, MAY_1 - HOUR + 1800)] == [900, 900]
    assert not live.renew()


def test_what_is_shown_of_hours_is_bounded_and_of_years_is_not(store: SqliteStore) -> None:
    """A page of a week of quarters, beside all years of the country."""
    france(store, Quarters(), history=30 * DAY).refresh(MAY_1)
    live = LiveFactors(store, load_catalog())

    shown = live.factors("FR")

    hours = [row for row in shown if not row.is_long]
    assert len(hours) == 672
    assert hours[-1].valid_to_seconds == MAY_1 - 900
    assert len(shown) - len(hours) == len(load_catalog().factors("FR"))


def test_a_real_day_of_quarters_is_joined_exactly(store: SqliteStore) -> None:
    """A kWh in each quarter of 2023-09-21 in France: the grams are the sum of the real values, to the last digit."""
    asked = at("2023-09-22T00:00Z")
    source = SourceRefresh(
        FactorSource(provider="rte-eco2mix", zones=("FR",)),
        store,
        fetch=lambda _: answer("rte_eco2mix/2023-09-21.json"),
        started_seconds=asked,
    )
    source.refresh(asked)
    begin = at("2023-09-21T00:00Z")
    catalog = load_catalog(ladders={"FR": ("rte-eco2mix",)}).with_recorded(load_factors(store))
    finder = BasisFinder([SiteRow("hall", 0, "FR", "1.25", False, 0)], catalog)
    rollups = [
        RollupRow("hall", begin + each * 900, Component.CPU, Quality.COUNTER, False, MICROJOULES_PER_KWH, 900 * 10**9)
        for each in range(96)
    ]

    (line,) = account(rollups, finder, 900)

    values = {
        record["fields"]["date_heure"]: record["fields"]["taux_co2"]
        for record in json.loads(answer("rte_eco2mix/2023-09-21.json"))["records"]
    }
    assert len(values) == 97
    of_day = sum(value for moment, value in values.items() if at(moment) < begin + DAY)
    assert line.grams == Fraction(of_day) * Fraction("1.25")
    assert line.basis.tier is Tier.F0_MEASURED
    assert len(line.factors) == 96


def test_a_ladder_falls_back_where_the_provider_has_nothing(store: SqliteStore) -> None:
    """Quarters where there are some, the yearly figure of the country for the rest."""
    france(store, Quarters()).refresh(MAY_1)
    catalog = load_catalog(ladders={"FR": ("rte-eco2mix", "OWID-Ember")}).with_recorded(load_factors(store))

    sources = [catalog.factor_at("FR", moment).factor for moment in (MAY_1 - HOUR, MAY_1 - DAY, MAY_1 + DAY)]
    assert [factor.source for factor in sources if factor] == ["rte-eco2mix", "OWID-Ember", "OWID-Ember"]


def test_booking_and_page_go_on_while_a_provider_hangs(tmp_path: Path) -> None:
    """A fetch that never returns holds its own thread; commits, metrics and the end of the service do not wait for it."""
    is_hanging, release = threading.Event(), threading.Event()

    def hang(_: Request) -> str:
        is_hanging.set()
        release.wait(30)
        return "[]"

    configuration = Configuration(
        server=Server(port=0),
        http=Http(port=0),
        store=StoreSettings(path=str(tmp_path / "ledger.sqlite")),
        factors=FactorSettings(source=(FactorSource(provider="rte-eco2mix", zones=("FR",)),)),
        site=(Site("hall", "FR"),),
    )

    async def scene() -> None:
        service = Service(configuration, load_catalog(), fetch=hang)
        try:
            addresses = await service.start()
            assert await asyncio.to_thread(is_hanging.wait, 10)
            # The process can end while it hangs.
            assert [thread.daemon for thread in threading.enumerate() if thread.name == "factors-rte-eco2mix"] == [True]
            with closing(open_store(tmp_path / "ledger.sqlite", create=False)) as store:
                store.add_assignments([AssignmentRow("a", 0, "hall", 0)])
                first = opening()
                for booking in (first, following(first, [energy(5)])):
                    assert store.commit([booking]) == [CommitOutcome.COMMITTED]
                assert sum(row.energy_microjoules for row in store.rollups(0, 2 * INTERVAL)) == 5
            async with httpx.AsyncClient() as client:
                text = (await client.get(f"http://{addresses.http}/metrics", timeout=10)).text
            assert 'wattledger_factor_age_seconds{source="rte-eco2mix",zone="FR"}' in text
        finally:
            begun = time.monotonic()
            await service.stop()
            assert time.monotonic() - begun < 10
            release.set()

    asyncio.run(scene())


def test_a_batch_is_booked_while_a_provider_hangs(tmp_path: Path) -> None:
    """An agent says Hello and sends batches to the service itself: they are acknowledged and in the ledger meanwhile."""
    is_hanging, release, has_returned = threading.Event(), threading.Event(), threading.Event()

    def hang(_: Request) -> str:
        is_hanging.set()
        release.wait(30)
        has_returned.set()
        return "[]"

    configuration = Configuration(
        server=Server(port=0),
        http=Http(port=0),
        store=StoreSettings(path=str(tmp_path / "ledger.sqlite")),
        factors=FactorSettings(source=(FactorSource(provider="rte-eco2mix", zones=("FR",)),)),
        site=(Site("hall", "FR"),),
    )

    async def scene() -> None:
        service = Service(configuration, load_catalog(), fetch=hang)
        try:
            addresses = await service.start()
            assert await asyncio.to_thread(is_hanging.wait, 20)
            async with aio.insecure_channel(addresses.grpc) as channel:
                agent = Agent(channel)
                assert await agent.open() == 0
                assert [await agent.book(1, 10), await agent.book(2, 30)] == [1, 2]
                await agent.finish()
            with closing(open_store(tmp_path / "ledger.sqlite", create=False)) as store:
                assert sum(row.energy_microjoules for row in store.host_energy(0, 2**40)) == 30 * WATT
            assert not has_returned.is_set()
        finally:
            release.set()
            await service.stop()

    asyncio.run(scene())


def test_a_running_service_renews_its_factors(tmp_path: Path) -> None:
    """What a provider gives is in the ledger and in the API without a restart."""
    provider = Quarters()
    provider.now = int(time.time())
    configuration = Configuration(
        server=Server(port=0),
        http=Http(port=0),
        store=StoreSettings(path=str(tmp_path / "ledger.sqlite")),
        factors=FactorSettings(source=(FactorSource(provider="rte-eco2mix", zones=("FR",), history_seconds=HOUR),)),
        site=(Site("hall", "FR", factors=("rte-eco2mix", "OWID-Ember")),),
    )

    async def scene() -> None:
        service = Service(configuration, load_catalog(), fetch=provider)
        try:
            addresses = await service.start()
            async with httpx.AsyncClient() as client:
                for _ in range(100):
                    answer = (await client.get(f"http://{addresses.http}/api/v1/factors?zone=FR", timeout=10)).text
                    if "rte-eco2mix" in answer:
                        return
                    await asyncio.sleep(0.05)
            raise AssertionError(answer)
        finally:
            await service.stop()

    asyncio.run(scene())


def test_recording_beside_a_commit_waits_for_neither(store: SqliteStore) -> None:
    """A year of quarters is planned outside of the transaction that writes, so that commits go on between."""
    provider = Quarters()
    provider.now = MAY_1
    source = france(store, provider, history=60 * DAY)
    source.refresh(MAY_1)
    rows = load_factors(store)

    again = record_factors(store, rows, now_seconds=MAY_1)

    assert (len(rows), again.added) == (60 * 96 - 1, ())
