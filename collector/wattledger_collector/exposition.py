"""The text of `/metrics`: the fleet view's series by an own encoder, the collector's own metrics by prometheus-client.

Renders and holds nothing but label prefixes; reads no clock. A host's labels rarely change and its values always do, so a
series costs one format of a number instead of ten microseconds. Sources of truth: Prometheus text format 0.0.4 and
OpenMetrics 1.0; names after https://prometheus.io/docs/practices/naming/.
"""

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from prometheus_client import CollectorRegistry, Summary
from prometheus_client.exposition import choose_encoder

from wattledger_collector import live_text, workload_text
from wattledger_collector.emission_counters import Superseded
from wattledger_collector.fleet import FleetView
from wattledger_collector.fleet_host import ChannelName, HostEntry
from wattledger_collector.host_text import HostText, label_text
from wattledger_collector.live_text import render_live, series_labels
from wattledger_collector.metrics import FAMILIES, Family
from wattledger_collector.records import (
    MICROJOULES_PER_JOULE,
    NANOSECONDS_PER_SECOND,
    HostState,
)
from wattledger_collector.workload_text import render_workloads

# A shard of a fleet of a million hosts then still has a thousand.
SHARDS_MAX = 1024

_METHODS = {
    False: ("wattledger_site_emissions_grams_total", "location"),
    True: ("wattledger_site_market_based_emissions_grams_total", "market"),
}

# Of intervals that were counted before tiers were kept.
_TIER_UNSTATED = "unstated"

# Families with one series a host.
_SINGLE_FAMILIES = (
    "wattledger_host_created_timestamp_seconds",
    "wattledger_host_last_sample_timestamp_seconds",
    *live_text.SINGLE_FAMILIES,
    *workload_text.SINGLE_FAMILIES,
)


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
        self._texts: dict[str, HostText] = {}
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

    def _text(self, entry: HostEntry) -> HostText:
        text = self._texts.get(entry.host)
        if text is None or text.site != entry.site:
            text = self._texts[entry.host] = HostText(entry.host, entry.site, _SINGLE_FAMILIES)
        return text

    def _render_host(self, entry: HostEntry, now_seconds: float, lines: dict[str, list[str]]) -> None:
        # A retired host is history: its energy stays in the site's totals, its own series would only pile up.
        # One that another collector serves is shown there.
        if entry.state is HostState.RETIRED or not self._view.is_shown(entry, now_seconds):
            return
        text = self._text(entry)
        lines["wattledger_host_info"].append(text.label_info(entry.record.state, entry.record.shown_name))
        if entry.last_sample_utc_nanoseconds:
            family = "wattledger_host_last_sample_timestamp_seconds"
            lines[family].append(f"{text.singles[family]}{entry.last_sample_utc_nanoseconds / NANOSECONDS_PER_SECOND}")
        if entry.is_exposed and entry.energy.keys:
            self._render_counters(entry, text, lines)
            render_workloads(entry.workloads.shown(now_seconds), text, lines)
        live = entry.fresh_live(now_seconds, self._view.staleness_seconds)
        if live is not None and not entry.is_recorded:
            render_live(live, entry.ignored_live_values, text, lines)

    def _render_counters(self, entry: HostEntry, text: HostText, lines: dict[str, list[str]]) -> None:
        family = "wattledger_host_created_timestamp_seconds"
        lines[family].append(f"{text.singles[family]}{entry.created_utc_nanoseconds / NANOSECONDS_PER_SECOND}")
        family, energy = "wattledger_host_energy_joules_total", entry.energy
        template = text.template(family, energy.keys, series_labels)
        lines[family].append(template % tuple([value / MICROJOULES_PER_JOULE for value in energy.microjoules]))
        for family, totals in (
            ("wattledger_channel_energy_joules_total", entry.channel_totals),
            ("wattledger_meter_energy_joules_total", entry.meter_totals),
        ):
            if totals.keys:
                template = text.template(family, totals.keys, _flow_labels)
                lines[family].append(template % tuple([value / MICROJOULES_PER_JOULE for value in totals.microjoules]))

    def _render_fleet(self, now_seconds: float, lines: dict[str, list[str]]) -> None:
        view = self._view

        def add(family: str, value: float, **labels: str) -> None:
            lines[family].append(f"{family}{label_text(labels)} {value}")

        if view.is_site_exposer(now_seconds):
            self._render_totals(now_seconds, add)
            self._render_sites(view.sites(), now_seconds, add)
        for (site, state), hosts in sorted(view.agents(now_seconds).items()):
            add("wattledger_agents", hosts, site=site, state=state)
        add("wattledger_insecure_transport", int(self._insecure_transport))
        add("wattledger_collector_info", 1, collector=view.collector, version=self._version)

    def _render_totals(self, now_seconds: float, add: Callable[..., None]) -> None:
        view = self._view
        for series, microjoules in view.site_counters():
            labels = {"component": series.component.name.lower(), "method": series.method.name.lower()}
            add("wattledger_site_energy_joules_total", microjoules / MICROJOULES_PER_JOULE, site=series.site, **labels)
        self._render_emissions(add)
        for site, coverage in view.coverage(now_seconds).items():
            add("wattledger_covered_seconds", coverage.covered_seconds, site=site)
            add("wattledger_expected_seconds", coverage.expected_seconds, site=site)
            if coverage.ratio is not None:
                add("wattledger_coverage_ratio", coverage.ratio, site=site)
            if coverage.estimated_ratio is not None:
                add("wattledger_estimated_ratio", coverage.estimated_ratio, site=site)

    def _render_emissions(self, add: Callable[..., None]) -> None:
        view = self._view
        for each, grams in view.emission_counters():
            # Two families, since a sum over the labels of one would count every gram twice.
            family, method = _METHODS[each.is_market]
            add(
                family,
                float(grams),
                site=each.site,
                scope=each.scope,
                method=method,
                gas=each.kind.gas,
                gwp=each.kind.gwp,
                boundary=each.kind.boundary,
                basis=each.kind.basis,
                metering="modelled" if each.is_modelled else "measured",
            )
        for tier, energy in view.energy_by_tier():
            add(
                "wattledger_site_quality_energy_joules_total",
                energy / MICROJOULES_PER_JOULE,
                site=tier.site,
                metering=tier.metering,
                factor_tier=tier.tier or _TIER_UNSTATED,
            )
        for site, metering, energy in view.uncovered_energy():
            joules = energy / MICROJOULES_PER_JOULE
            add("wattledger_site_uncovered_energy_joules", joules, site=site, metering=metering)
        superseded = view.superseded_seconds()
        for site in view.sites():
            for is_long, resolution in ((True, "yearly"), (False, "hourly")):
                seconds = superseded.get(Superseded(site, is_long), 0)
                add("wattledger_site_superseded_seconds", seconds, site=site, resolution=resolution)

    def _render_sites(self, sites: Iterable[str], now_seconds: float, add: Callable[..., None]) -> None:
        withheld = self._view.withheld()
        for site in sites:
            basis = self._view.basis(site, now_seconds)
            factor = basis.factor
            if factor is not None:
                kind = factor.kind
                add(
                    "wattledger_grid_carbon_intensity_grams_per_kwh",
                    float(factor.value),
                    site=site,
                    signal=kind.signal,
                    gas=kind.gas,
                    boundary=kind.boundary,
                    basis=kind.basis,
                )
                age = max(0.0, now_seconds - factor.valid_to_seconds)
                add("wattledger_site_factor_age_seconds", age, site=site)
            add("wattledger_site_factor_missing", int(factor is None), site=site)
            add(
                "wattledger_site_info",
                1,
                site=site,
                zone=basis.zone or "",
                pue="" if basis.pue is None else str(basis.pue),
                factor="" if factor is None else factor.id,
                tier=basis.tier,
                provisional=str(basis.provisional).lower(),
                assumed=str(basis.assumed).lower(),
            )
            add("wattledger_hosts_withheld", withheld.get(site, 0), site=site)


def _flow_labels(name: ChannelName) -> dict[str, str]:
    labels = {"device": name.device, "domain": name.domain, "source": name.source}
    series = series_labels(name.series)
    return labels | (series if name.is_booked else {"method": series["method"]})


def _header(family: Family, form: Format) -> str:
    # OpenMetrics names a counter's family without the suffix of its samples.
    name = family.name.removesuffix("_total") if form is Format.OPENMETRICS and family.kind == "counter" else family.name
    return f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}"
