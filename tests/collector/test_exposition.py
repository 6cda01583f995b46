"""The text of /metrics: equal under the official parsers, exact, sharded without loss, safe to sum."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry, Counter, Metric, generate_latest
from prometheus_client.openmetrics import parser
from prometheus_client.parser import text_string_to_metric_families as parse_text
from tests.collector.fake_store import FakeStore
from tests.collector.fleets import (
    COLLECTOR,
    GPUS,
    MEASURED,
    MODELLED,
    SimulatedFleet,
    SimulatedHost,
    add_details,
    assignments,
    load,
    site_rows,
)

from wattledger_collector.exposition import Exposition, Format, Shard, negotiate
from wattledger_collector.fleet import FleetView
from wattledger_collector.host_text import label_text
from wattledger_collector.metrics import FAMILIES
from wattledger_collector.records import MICROJOULES_PER_JOULE, Booking
from wattledger_collector.store import SqliteStore, open_store
from wattledger_collector.workload_records import IdlePolicy, Workload, WorkloadKind
from wattledger_protos.v1 import telemetry_pb2 as pb

T = 1_700_000_100 // 900 * 900 + 60
# prometheus-client does not say what this takes and returns.
parse_openmetrics: Callable[[str], Iterable[Metric]] = parser.text_string_to_metric_families
WORKLOAD_ENERGY = "wattledger_workload_energy_joules_total"
AWKWARD = 'a"b\\c\nd %s {é}'


POD = Workload(WorkloadKind.KUBERNETES_POD, "uid-1", "shop", "db-0", IdlePolicy.BY_USAGE)
# All that a host's first part, of 120 W, was spent on.
WORKLOADS = {
    POD: 70_000,
    POD._replace(id="uid-2", name=AWKWARD.replace("\n", " ")): 20_000,
    Workload(WorkloadKind.IDLE, "", "", "", IdlePolicy.BY_USAGE): 25_000,
    Workload(WorkloadKind.UNATTRIBUTED, "", "", "", IdlePolicy.BY_USAGE): 4_000,
    Workload(WorkloadKind.OTHER, "", "", "", IdlePolicy.BY_USAGE): 1_000,
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A real store, for what is read again from it."""
    store = open_store(tmp_path / "ledger.db", create=True)
    yield store
    store.close()


def make_fleet(hosts: list[SimulatedHost], stored: SqliteStore | None = None) -> SimulatedFleet:
    """A fleet in one site, with two steps behind it."""
    store = stored or FakeStore()
    store.add_sites(site_rows())
    store.add_assignments(assignments(hosts))
    view = FleetView(collector=COLLECTOR, interval_seconds=900)
    load(view, store, T)
    fleet = SimulatedFleet(view, hosts, stored)
    fleet.open(T)
    fleet.step(T + 7)
    fleet.step(T + 20)
    return fleet


def make_exposition(fleet: SimulatedFleet, registry: CollectorRegistry | None = None) -> Exposition:
    """An exposition with the collector's own metrics in a registry."""
    return Exposition(fleet.view, registry=registry or CollectorRegistry(), insecure_transport=True, version="1.2.3")


def samples(families: Iterable[Metric]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All samples by name and labels; a doubled one fails."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def test_both_formats_are_equal_under_the_official_parsers(store: SqliteStore) -> None:
    """What prometheus-client reads from our text is what it reads from its own encoding of it, in both formats."""
    host = SimulatedHost("a", GPUS, T, workloads=WORKLOADS)
    fleet = make_fleet([host, SimulatedHost(AWKWARD, MODELLED, T)], store)
    fleet.view.on_live("a", add_details(host.live()), T + 20)
    fleet.view.on_live(AWKWARD, add_details(fleet.hosts[1].live(), 'g"p\\u %s'), T + 20)
    exposition = make_exposition(fleet)
    text = exposition.render(T + 20).decode()
    openmetrics = exposition.render(T + 20, Format.OPENMETRICS).decode()

    class Again:
        """The families as parsed, to be encoded by prometheus-client."""

        def collect(self) -> Iterable[Metric]:
            """All families."""
            return parse_text(text)

    registry = CollectorRegistry()
    registry.register(Again())
    theirs = list(parse_text(generate_latest(registry).decode()))
    assert theirs == list(parse_text(text))
    assert samples(parse_openmetrics(openmetrics)) == samples(parse_text(text))
    assert {dict(labels).get("host") for _, labels in samples(theirs)} >= {"a", AWKWARD}


def test_every_family_has_the_labels_of_the_table(store: SqliteStore) -> None:
    """The table of metrics, from which documentation is made, is what is exposed."""
    host = SimulatedHost("a", GPUS, T, workloads=WORKLOADS)
    fleet = make_fleet([host], store)
    fleet.view.on_live("a", add_details(host.live()), T + 20)
    families = {family.name: family for family in parse_text(make_exposition(fleet).render(T + 20).decode())}
    known = {family.name.removesuffix("_total") if family.kind == "counter" else family.name: family for family in FAMILIES}
    for name, family in families.items():
        if name in known:
            assert family.type == known[name].kind
            assert family.documentation == known[name].help
            for sample in family.samples:
                assert tuple(sample.labels) == known[name].labels
    # Only what needs a meter is absent here.
    assert {name for name in known if name not in families} == {"wattledger_meter_energy_joules"}


def test_energy_summed_over_all_labels_is_what_was_booked() -> None:
    """Site, host and channel counters each sum to the ledger's total, within float precision."""
    fleet = make_fleet([SimulatedHost("a", GPUS, T), SimulatedHost("b", MODELLED, T), SimulatedHost("c", MEASURED, T)])
    found = samples(parse_text(make_exposition(fleet).render(T + 20).decode()))
    booked = fleet.booked_microjoules / MICROJOULES_PER_JOULE
    for scope in ("site", "host", "channel"):
        name = f"wattledger_{scope}_energy_joules_total"
        assert sum(value for (family, _), value in found.items() if family == name) == pytest.approx(booked, rel=1e-15)


def test_workloads_sum_to_what_they_were_divided_from(store: SqliteStore) -> None:
    """Idle, unattributed and other are series as well, so that all labels together are the part's energy."""
    fleet = make_fleet([SimulatedHost("a", GPUS, T, workloads=WORKLOADS)], store)
    found = samples(parse_text(make_exposition(fleet).render(T + 20).decode()))
    energy = {dict(labels)["workload"]: value for (name, labels), value in found.items() if name == WORKLOAD_ENERGY}
    assert energy["db-0"] == 70 * 20
    assert energy["idle"] == 25 * 20
    assert sum(energy.values()) == 120 * 20
    labels = {
        "host": "a", "site": "hall", "kind": "kubernetes_pod", "namespace": "shop", "workload": "db-0",
        "idle_policy": "by_usage",
    }  # fmt: skip
    assert found["wattledger_workload_cpu_seconds_total", tuple(sorted(labels.items()))] == 5.0
    more = {"component": "cpu", "method": "counter"}
    assert (WORKLOAD_ENERGY, tuple(sorted({**labels, **more}.items()))) in found
    assert found["wattledger_workloads_left_out", (("host", "a"), ("site", "hall"))] == 0


def test_a_workload_that_was_not_seen_lately_is_not_shown(store: SqliteStore) -> None:
    """It vanishes after a quarter of an hour; its host's other counters stay."""
    exposition = make_exposition(make_fleet([SimulatedHost("a", GPUS, T, workloads=WORKLOADS)], store))
    shown = {name for name, _ in samples(parse_text(exposition.render(T + 20 + 900).decode()))}
    later = {name for name, _ in samples(parse_text(exposition.render(T + 20 + 901).decode()))}
    assert {name for name in shown - later if "workload" in name} == {
        WORKLOAD_ENERGY, "wattledger_workload_cpu_seconds_total", "wattledger_workloads_left_out"
    }  # fmt: skip
    assert "wattledger_host_energy_joules_total" in later


def test_workloads_of_a_withheld_host_are_hidden(store: SqliteStore) -> None:
    """After a restore they wait with their host's counters."""
    host = SimulatedHost("a", GPUS, T, workloads=WORKLOADS)
    fleet = make_fleet([host], store)
    assert host.host is not None
    before = host.host
    host.host = msgspec.structs.replace(before, withheld=True, version=before.version + 1)
    booking = Booking(before, host.host, host.cursor, host.cursor) if host.cursor else None
    assert booking is not None
    fleet.commit([booking], T + 21)
    found = {name for name, _ in samples(parse_text(make_exposition(fleet).render(T + 21).decode()))}
    assert WORKLOAD_ENERGY not in found
    assert "wattledger_host_power_watts" in found


def test_details_of_devices_are_shown() -> None:
    """Gauges of one family are told apart by a label; reasons that hold clocks down have their names."""
    host = SimulatedHost("a", GPUS, T)
    fleet = make_fleet([host])
    live = add_details(host.live())
    live.gauges.add(device="gpu/GPU-1", gauge=pb.GAUGE_TEMPERATURE_CELSIUS, value=float("nan"))
    fleet.view.on_live("a", live, T + 20)
    found = samples(parse_text(make_exposition(fleet).render(T + 20).decode()))

    def value(name: str, **labels: str) -> float | None:
        common = {"host": "a", "site": "hall"}
        return found.get((f"wattledger_{name}", tuple(sorted({**common, **labels}.items()))))

    gpu = "gpu/GPU-1"
    assert value("device_temperature_celsius", device=gpu) == 61.5
    assert value("device_clock_hertz", device=gpu, clock="compute") == 1.98e9
    assert value("device_clock_hertz", device=gpu, clock="memory") == 2.6e9
    assert value("device_power_limit_watts", device=gpu) == 700
    assert value("device_power_watts", device=gpu, window="average") == 420.25
    assert value("device_power_watts", device=gpu, window="instant") == 433
    assert value("device_throttle_reasons", device=gpu, reason="sw_power_cap") == 1
    assert value("device_throttle_reasons", device=gpu, reason="hw_thermal_slowdown") == 1
    assert value("device_throttle_reasons", device=gpu, reason="gpu_idle") is None
    assert value("device_processes", device=gpu) == 3
    assert value("source_reading_age_seconds", device=gpu) == 12.5
    assert value("sm_active_ratio", device=gpu) == 0.25
    assert value("tensor_active_ratio", device=gpu) == 0.25
    names = {"source": "ipmi", "domain": "node", "reference_source": "redfish", "reference_domain": "node"}
    assert value("cross_check_disagreement_ratio", device="node", **names) == -0.031
    assert value("agent_energy_joules_total") == 2.5
    assert value("agent_wakeups_total") == 77
    counts = ("failed_reads", "unbelieved_readings", "ignored_readings", "ignored_rows", "thinned_rows")
    assert [value(f"agent_{name}_total") for name in counts] == [1, 2, 3, 4, 5]
    assert value("live_values_ignored_total") == 1


def test_an_agent_that_does_not_tell_of_itself_has_no_such_series() -> None:
    """What is not told is absent, not zero."""
    found = {name for name, _ in samples(parse_text(make_exposition(make_fleet([SimulatedHost("a", MEASURED, T)])).render(
        T + 20).decode()))}  # fmt: skip
    assert not {"wattledger_agent_energy_joules_total", "wattledger_agent_wakeups_total"} & found
    assert "wattledger_agent_failed_reads_total" not in found
    assert not {name for name in found if name.startswith("wattledger_device_")}


def test_shards_share_the_series_without_loss() -> None:
    """All shards together are the whole; none has a series of another."""
    exposition = make_exposition(make_fleet([SimulatedHost(f"host-{number}", MEASURED, T) for number in range(40)]))
    whole = samples(parse_text(exposition.render(T + 20).decode()))
    parts = [samples(parse_text(exposition.render(T + 20, Format.TEXT, Shard(index, 4)).decode())) for index in range(4)]
    assert all(parts)
    assert sum(len(part) for part in parts) == len(whole)
    assert {key: value for part in parts for key, value in part.items()} == whole


def test_the_collectors_own_metrics_are_in_the_text() -> None:
    """Whatever is in the registry is exposed beside the fleet, in both formats."""
    registry = CollectorRegistry()
    Counter("wattledger_collector_batches", "Batches.", registry=registry).inc(3)
    exposition = make_exposition(make_fleet([SimulatedHost("a", MEASURED, T)]), registry)
    exposition.observe(0.25)
    for form, parse in ((Format.TEXT, parse_text), (Format.OPENMETRICS, parse_openmetrics)):
        found = samples(parse(exposition.render(T + 20, form).decode()))
        assert found["wattledger_collector_batches_total", ()] == 3
        assert found["wattledger_collector_scrape_seconds_sum", ()] == 0.25
        assert found["wattledger_insecure_transport", ()] == 1


def test_the_factor_in_use_says_what_it_is() -> None:
    """Its type is on the intensity, its tier and whether it stands in on the site's info; the estimated part is told."""
    exposition = make_exposition(make_fleet([SimulatedHost("a", (*MEASURED, *MODELLED), T)]))
    found = samples(parse_text(exposition.render(T + 20).decode()))
    by_name = {name: (dict(labels), value) for (name, labels), value in found.items()}
    labels, value = by_name["wattledger_grid_carbon_intensity_grams_per_kwh"]
    assert {"signal": "average", "boundary": "lifecycle", "gas": "CO2e", "basis": "production"}.items() <= labels.items()
    assert value > 0
    labels, _ = by_name["wattledger_site_info"]
    assert (labels["tier"], labels["provisional"]) == ("F5", "false")
    _, value = by_name["wattledger_estimated_ratio"]
    assert 0 < value < 1


def test_gauges_of_a_silent_host_vanish() -> None:
    """Power and utilization of a host that is silent are gone; its counters are there."""
    fleet = make_fleet([SimulatedHost("a", MEASURED, T)])
    exposition = make_exposition(fleet)
    before = {name for name, labels in samples(parse_text(exposition.render(T + 80).decode())) if ("host", "a") in labels}
    after = {name for name, labels in samples(parse_text(exposition.render(T + 81).decode())) if ("host", "a") in labels}
    assert {"wattledger_host_power_watts", "wattledger_utilization_ratio", "wattledger_agent_spool_bytes"} <= before - after
    assert {"wattledger_host_energy_joules_total", "wattledger_host_last_sample_timestamp_seconds"} <= after


def power_of(exposition: Exposition, now: int) -> dict[tuple[tuple[str, str], ...], float]:
    """Samples of power by labels."""
    found = samples(parse_text(exposition.render(now).decode()))
    return {labels: value for (name, labels), value in found.items() if name == "wattledger_host_power_watts"}


def test_a_host_that_moves_gets_new_labels() -> None:
    """Cached label text is made anew when the site has changed."""
    host = SimulatedHost("a", MODELLED, T)
    fleet = make_fleet([host])
    exposition = make_exposition(fleet)
    exposition.render(T + 20)
    fleet.view.set_plan(site_rows("annex"), assignments([host], "annex"))
    fleet.step(T + 30)
    labels = (("component", "other"), ("host", "a"), ("method", "model"), ("site", "annex"))
    assert power_of(exposition, T + 30) == {labels: 210.0}


def test_a_host_whose_parts_change_gets_new_labels() -> None:
    """Cached label text is made anew when as many, but other parts report."""
    host = SimulatedHost("a", MEASURED[:1], T)
    fleet = make_fleet([host])
    exposition = make_exposition(fleet)
    exposition.render(T + 20)
    host.parts = MODELLED
    fleet.step(T + 30)
    labels = (("component", "other"), ("host", "a"), ("method", "model"), ("site", "hall"))
    assert power_of(exposition, T + 30) == {labels: 210.0}


def test_an_empty_collector_is_exposed() -> None:
    """Before the first agent the text is valid in both formats."""
    exposition = make_exposition(make_fleet([]))
    found = samples(parse_openmetrics(exposition.render(T, Format.OPENMETRICS).decode()))
    assert found["wattledger_collector_info", (("collector", COLLECTOR), ("version", "1.2.3"))] == 1


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Format.TEXT),
        ("*/*", Format.TEXT),
        ("text/plain", Format.TEXT),
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            Format.OPENMETRICS,
        ),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.9", Format.TEXT),
        ("application/openmetrics-text;q=0", Format.TEXT),
        ("application/openmetrics-text;q=x,;;,", Format.TEXT),
    ],
)
def test_the_preferred_format_is_chosen(accept: str, form: Format) -> None:
    """OpenMetrics only where it is asked for and not liked less."""
    assert negotiate(accept) is form


@pytest.mark.parametrize(("index", "of"), [(-1, 1), (1, 1), (0, 0), (0, 1025)])
def test_an_impossible_shard_is_refused(index: int, of: int) -> None:
    """The error says which shards there are."""
    with pytest.raises(ValueError, match=r"is no shard: of has to be in 1\.\.1024"):
        Shard(index, of)


def test_labels_are_escaped() -> None:
    """Quotes, backslashes and line feeds, and nothing else."""
    assert label_text({"a": 'x"\\\n%'}) == '{a="x\\"\\\\\\n%"}'
    assert label_text({}) == ""
    assert label_text({"a": "é"}) == '{a="é"}'
