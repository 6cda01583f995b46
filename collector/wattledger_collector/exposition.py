"""The text of `/metrics`: the fleet view's series by an own encoder, the collector's own metrics by prometheus-client.

Renders and holds nothing but label prefixes; reads no clock. A host's labels rarely change and its values always do, so a
series costs one format of a number instead of ten microseconds. Sources of truth: Prometheus text format 0.0.4 and
OpenMetrics 1.0; names after https://prometheus.io/docs/practices/naming/.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from prometheus_client import CollectorRegistry, Summary
from prometheus_client.exposition import choose_encoder

from wattledger_collector.fleet import FleetView
from wattledger_collector.fleet_host import ChannelName, HostEntry
from wattledger_collector.fleet_live import LiveReading, SeriesKey
from wattledger_collector.metrics import FAMILIES, Family
from wattledger_collector.records import (
    MICROJOULES_PER_JOULE,
    NANOSECONDS_PER_SECOND,
    HostState,
    Role,
)

# A shard of a fleet of a million hosts then still has a thousand.
SHARDS_MAX = 1024

_UTILIZATION_FAMILIES = {
    1: "wattledger_utilization_ratio",
    2: "wattledger_memory_utilization_ratio",
    3: "wattledger_steal_ratio",
}


class Format(Enum):
    """A text format and its content type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of the hosts, in [0, of). Shard 0 has the sites and the collector's own metrics too."""

    index: int = 0
    of: int = 1

    def __post_init__(self) -> None:
        if not (1 <= self.of <= SHARDS_MAX and 0 <= self.index < self.of):
            raise ValueError(
                f"shard={self.index}&of={self.of} is no shard: of has to be in 1..{SHARDS_MAX} and shard in 0..of-1"
            )

    def has(self, host: str) -> bool:
        """Whether the host is in this part; the same on every collector and release."""
        return self.of == 1 or zlib.crc32(host.encode()) % self.of == self.index


def negotiate(accept: str) -> Format:
    """The format that an Accept header prefers; plain text where it names neither."""
    weights: dict[str, float] = {}
    for part in accept.split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        quality = next((p.removeprefix("q=") for p in parameters if p.startswith("q=")), "1")
        try:
            weights[media.lower()] = max(weights.get(media.lower(), 0.0), float(quality))
        except ValueError:
            continue
    openmetrics = weights.get("application/openmetrics-text", 0.0)
    return Format.OPENMETRICS if openmetrics > 0 and openmetrics >= weights.get("text/plain", 0.0) else Format.TEXT


def label_text(labels: Mapping[str, str]) -> str:
    """Labels in braces, escaped; nothing for no labels."""
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


@dataclass(slots=True)
class _HostText:
    """What stands before each value of one host, made once."""

    site: str
    common: dict[str, str]
    one: dict[str, str] = field(default_factory=dict)
    energy_keys: tuple[SeriesKey, ...] | None = None
    energy: list[str] = field(default_factory=list)
    channel_keys: tuple[ChannelName, ...] | None = None
    channels: list[tuple[str, str] | None] = field(default_factory=list)
    power: dict[SeriesKey, str] = field(default_factory=dict)
    devices: dict[tuple[str, str], str] = field(default_factory=dict)
    info: tuple[str, str] = ("", "")

    def single(self, family: str, **more: str) -> str:
        """The prefix of a family with the host's common labels, and of more that tell its series apart."""
        name = family + "".join(more.values())
        prefix = self.one.get(name)
        if prefix is None:
            prefix = self.one[name] = family + label_text({**self.common, **more}) + " "
        return prefix


class Exposition:
    """Renders `/metrics`.

    registry: the collector's own metrics; its families must not be named like those in metrics.FAMILIES.
    insecure_transport: whether agents may connect without TLS from other machines.
    """

    def __init__(self, view: FleetView, *, registry: CollectorRegistry, insecure_transport: bool, version: str) -> None:
        self._view = view
        self._registry = registry
        self._insecure_transport = insecure_transport
        self._version = version
        self._texts: dict[str, _HostText] = {}
        self._duration = Summary(
            "wattledger_collector_scrape_seconds",
            "Time that rendering /metrics took.",
            registry=registry,
        )

    def render(self, now_seconds: float, form: Format = Format.TEXT, shard: Shard | None = None) -> bytes:
        """All series of a shard, in the format asked for. now_seconds: since 1970-01-01 UTC."""
        shard = shard or Shard()
        lines: dict[str, list[str]] = {family.name: [] for family in FAMILIES}
        for entry in self._view.hosts():
            if shard.has(entry.host):
                self._render_host(entry, now_seconds, lines)
        if shard.index == 0:
            self._render_fleet(now_seconds, lines)
        parts = []
        for family in FAMILIES:
            if lines[family.name]:
                parts.append(_header(family, form))
                parts.extend(lines[family.name])
        body = "\n".join(parts).encode() + b"\n" if parts else b""
        if shard.index == 0:
            body += self._own_metrics(form)
        return body + b"# EOF\n" if form is Format.OPENMETRICS else body

    def observe(self, seconds: float) -> None:
        """Note how long a scrape took; the next one shows it."""
        self._duration.observe(seconds)

    def _own_metrics(self, form: Format) -> bytes:
        encode, _ = choose_encoder(form.value)
        return encode(self._registry).removesuffix(b"# EOF\n")

    def _text(self, entry: HostEntry) -> _HostText:
        text = self._texts.get(entry.host)
        if text is None or text.site != entry.site:
            text = self._texts[entry.host] = _HostText(entry.site, {"host": entry.host, "site": entry.site})
        return text

    def _render_host(self, entry: HostEntry, now_seconds: float, lines: dict[str, list[str]]) -> None:
        # A retired host is history: its energy stays in the site's totals, its own series would only pile up.
        if entry.state is HostState.RETIRED:
            return
        text = self._text(entry)
        lines["wattledger_host_info"].append(self._info(entry, text))
        if entry.last_sample_utc_nanoseconds:
            family = "wattledger_host_last_sample_timestamp_seconds"
            lines[family].append(f"{text.single(family)}{entry.last_sample_utc_nanoseconds / NANOSECONDS_PER_SECOND}")
        if entry.is_exposed:
            self._render_counters(entry, text, lines)
        live = entry.fresh_live(now_seconds, self._view.staleness_seconds)
        if live is not None and not entry.is_recorded:
            self._render_live(live, text, lines)

    def _render_counters(self, entry: HostEntry, text: _HostText, lines: dict[str, list[str]]) -> None:
        energy = entry.energy
        if text.energy_keys is not energy.keys:
            family = "wattledger_host_energy_joules_total"
            text.energy = [family + label_text({**text.common, **_series_labels(key)}) + " " for key in energy.keys]
            text.energy_keys = energy.keys
        lines["wattledger_host_energy_joules_total"] += [
            f"{prefix}{microjoules / MICROJOULES_PER_JOULE}"
            for prefix, microjoules in zip(text.energy, energy.microjoules, strict=True)
        ]
        channels = entry.channel_totals
        if text.channel_keys is not channels.keys:
            text.channels = [_channel_prefix(name, text.common) for name in channels.keys]
            text.channel_keys = channels.keys
        for prefixed, microjoules in zip(text.channels, channels.microjoules, strict=True):
            if prefixed is not None:
                lines[prefixed[0]].append(f"{prefixed[1]}{microjoules / MICROJOULES_PER_JOULE}")
        if energy.keys:
            family = "wattledger_host_created_timestamp_seconds"
            lines[family].append(f"{text.single(family)}{entry.created_utc_nanoseconds / NANOSECONDS_PER_SECOND}")

    def _render_live(self, live: LiveReading, text: _HostText, lines: dict[str, list[str]]) -> None:
        power = lines["wattledger_host_power_watts"]
        for key, milliwatts in live.power:
            prefix = text.power.get(key)
            if prefix is None:
                labels = {**text.common, **_series_labels(key)}
                prefix = text.power[key] = "wattledger_host_power_watts" + label_text(labels) + " "
            power.append(f"{prefix}{milliwatts / 1000}")
        for utilization in live.utilizations:
            family = _UTILIZATION_FAMILIES.get(utilization.kind)
            if family is not None:
                device = (family, utilization.device)
                prefix = text.devices.get(device)
                if prefix is None:
                    labels = {**text.common, "device": utilization.device}
                    prefix = text.devices[device] = family + label_text(labels) + " "
                lines[family].append(f"{prefix}{utilization.ppm / 1_000_000}")
        for family, value in (
            ("wattledger_agent_spool_bytes", live.spool_bytes),
            ("wattledger_agent_spool_unacknowledged_records", live.spool_unacknowledged_records),
            ("wattledger_agent_spool_thinned_samples_total", live.spool_thinned_samples),
        ):
            lines[family].append(f"{text.single(family)}{value}")
        for health in live.sources:
            for family, value in (
                ("wattledger_agent_source_reads_total", health.reads),
                ("wattledger_agent_source_failures_total", health.failures),
                ("wattledger_agent_source_deadline_misses_total", health.deadline_misses),
            ):
                lines[family].append(f"{text.single(family, source=health.source)}{value}")

    def _info(self, entry: HostEntry, text: _HostText) -> str:
        hostname = entry.labels.get("hostname", "")
        key = f"{entry.record.state}\0{hostname}"
        if text.info[0] != key:
            labels = {**text.common, "state": entry.record.state, "hostname": hostname}
            text.info = (key, f"wattledger_host_info{label_text(labels)} 1")
        return text.info[1]

    def _render_fleet(self, now_seconds: float, lines: dict[str, list[str]]) -> None:
        view = self._view

        def add(family: str, value: float, **labels: str) -> None:
            lines[family].append(f"{family}{label_text(labels)} {value}")

        for series, microjoules in view.site_counters():
            labels = {"component": series.component.name.lower(), "method": series.method.name.lower()}
            add("wattledger_site_energy_joules_total", microjoules / MICROJOULES_PER_JOULE, site=series.site, **labels)
        for total in view.emission_counters():
            add(
                "wattledger_site_emissions_grams_total",
                float(total.grams),
                site=total.site,
                scope="2",
                method="location",
                gas=total.kind.gas,
                boundary=total.kind.boundary,
                basis=total.kind.basis,
                metering="modelled" if total.is_modelled else "measured",
            )
        self._render_sites(view.sites(), now_seconds, add)
        for site, coverage in view.coverage(now_seconds).items():
            add("wattledger_covered_seconds", coverage.covered_seconds, site=site)
            add("wattledger_expected_seconds", coverage.expected_seconds, site=site)
            if coverage.ratio is not None:
                add("wattledger_coverage_ratio", coverage.ratio, site=site)
        for (site, state), hosts in sorted(view.agents(now_seconds).items()):
            add("wattledger_agents", hosts, site=site, state=state)
        add("wattledger_insecure_transport", int(self._insecure_transport))
        add("wattledger_collector_info", 1, collector=view.collector, version=self._version)

    def _render_sites(self, sites: Iterable[str], now_seconds: float, add: Callable[..., None]) -> None:
        withheld = self._view.withheld()
        for site in sites:
            basis = self._view.basis(site, now_seconds)
            factor = basis.factor
            if factor is not None:
                add("wattledger_grid_carbon_intensity_grams_per_kwh", float(factor.value), site=site, gas=factor.kind.gas)
            add("wattledger_site_factor_missing", int(factor is None), site=site)
            add(
                "wattledger_site_info",
                1,
                site=site,
                zone=basis.zone or "",
                pue="" if basis.pue is None else str(basis.pue),
                factor="" if factor is None else factor.id,
                assumed=str(basis.assumed).lower(),
            )
            add("wattledger_hosts_withheld", withheld.get(site, 0), site=site)


def _series_labels(key: SeriesKey) -> dict[str, str]:
    return {"component": key.component.name.lower(), "method": key.method.name.lower()}


def _channel_prefix(name: ChannelName, common: Mapping[str, str]) -> tuple[str, str] | None:
    """Family and prefix of a flow's counter; None for what is not exposed, since it would be summed twice."""
    labels = {**common, "device": name.device, "domain": name.domain, "source": name.source}
    if name.is_booked:
        family = "wattledger_channel_energy_joules_total"
        labels |= _series_labels(name.series)
    elif name.role is Role.METER and not name.is_nested:
        family = "wattledger_meter_energy_joules_total"
        labels["method"] = name.series.method.name.lower()
    else:
        return None
    return family, family + label_text(labels) + " "


def _header(family: Family, form: Format) -> str:
    # OpenMetrics names a counter's family without the suffix of its samples.
    name = family.name.removesuffix("_total") if form is Format.OPENMETRICS and family.kind == "counter" else family.name
    return f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}"
