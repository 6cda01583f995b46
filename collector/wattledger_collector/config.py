"""collector.toml: what it may say, checked whole before anything runs.

No files, no clock: text in, a frozen Configuration out; `configuration.py` reads the file and applies it. Every mistake is
named at once, each in a sentence with its remedy. Source of truth: the table in the README, which a test compares.
"""

import difflib
import ipaddress
import tomllib
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import msgspec

from wattledger_collector.facility import Category
from wattledger_collector.factor_catalog import FactorCatalog, UnknownZoneError
from wattledger_collector.factors import seconds_of_day
from wattledger_collector.records import SITE_UNASSIGNED

PUE_MIN = Decimal(1)
# The worst published averages are near 3; what lies above is a percentage or a slip.
PUE_MAX = Decimal(10)
PORT_MAX = 65_535
STALENESS_SECONDS_MAX = 86_400  # A gauge older than a day is no present value.
SITES_MAX = 10_000  # Each is a label value of several metrics.
# Providers renew their figures every five minutes at most, and count the questions.
EVERY_SECONDS_MIN = 60
EVERY_SECONDS_MAX = 7 * 86_400
# An hour back finds the last value; beyond two months a file is the better way.
HISTORY_SECONDS_MIN = 3_600
HISTORY_SECONDS_MAX = 62 * 86_400
FACTOR_SOURCES_MAX = 32  # Each has a thread of its own.


class ConfigurationError(ValueError):
    """The configuration can't be used. problems: one sentence each, with the remedy."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Certificate files (PEM). ca: the authority of the agents' certificates; without it no client certificate is asked."""

    certificate: str
    key: str
    ca: str = ""


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where agents connect. name: id of this collector, empty for the machine's host name. port 0: any free one."""

    name: str = ""
    address: str = "127.0.0.1"
    port: int = 9791
    insecure: bool = False
    tls: Tls | None = None


class Http(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the page, the API and /metrics are."""

    address: str = "127.0.0.1"
    port: int = 9790
    insecure: bool = False
    tls: Tls | None = None


class StoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """path: the SQLite database."""

    path: str = "/var/lib/wattledger-collector/ledger.sqlite"


class Silence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """staleness_seconds: gauges of a host that has said nothing for so long vanish."""

    staleness_seconds: int = 60


class FactorSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A provider that is asked for factors again and again.

    areas: by zone, what the provider calls it, where it has another name. key_file: its first line is the provider's key.
    history_seconds: how far back the first question reaches, and how long a late revision is looked for. address: another
    one than the provider's own, such as a proxy's; for `csv` the file.
    """

    provider: str
    zones: tuple[str, ...]
    areas: dict[str, str] = {}
    key_file: str = ""
    every_seconds: int = 900
    history_seconds: int = 172_800
    address: str = ""


class FactorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """files: the operator's own factor tables; they win over the bundled ones. Relative to the configuration's folder."""

    files: tuple[str, ...] = ()
    source: tuple[FactorSource, ...] = ()


class InventorySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """file: what the organisation declares beside its meters (`declared.py`); empty: nothing."""

    file: str = ""


class StatementSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """key: the file of the key that signs statements, relative to the configuration's folder; empty: beside the database."""

    key: str = ""


class Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A data hall. zone: of the electricity grid; empty: emissions are not reckoned. pue: facility energy / IT energy.

    valid_from: the day (UTC) from which zone and PUE hold; without it a new site's hold for all time and a changed site's
    from the next interval. factors: the sources for the site's zone, best first, each used where those before have nothing.
    pue_from, pue_to: the days between which the PUE was determined, the last not included. pue_category: where IT energy was
    measured for it (`facility.Category`); None: not stated. pue_evidence: the document that says so.
    """

    name: str
    zone: str = ""
    pue: Decimal = Decimal(1)
    valid_from: date | None = None
    factors: tuple[str, ...] = ()
    pue_from: date | None = None
    pue_to: date | None = None
    pue_category: int | None = None
    pue_evidence: str = ""


class HostRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hosts whose id or `hostname` label matches name, and whose labels match all of labels, are of the site.

    Patterns are shell globs (`*`, `?`, `[ab]`). The first rule that matches holds.
    """

    site: str
    name: str = ""
    labels: dict[str, str] = {}


class Configuration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of collector.toml."""

    server: Server = Server()
    http: Http = Http()
    store: StoreSettings = StoreSettings()
    silence: Silence = Silence()
    statements: StatementSettings = StatementSettings()
    factors: FactorSettings = FactorSettings()
    inventory: InventorySettings = InventorySettings()
    site: tuple[Site, ...] = ()
    host: tuple[HostRule, ...] = ()


def parse_configuration(text: str) -> Configuration:
    """Read and check collector.toml, zones excepted (see check_zones). Raises ConfigurationError."""
    try:
        # Decimals stay exact, to the digit that was written.
        tree = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError([f"the configuration is not TOML: {error}; correct that place"]) from error
    problems = _unknown_keys(tree, Configuration, "")
    if not problems:
        problems = _wrong_types(tree)
    if problems:
        raise ConfigurationError(problems)
    configuration = msgspec.convert(tree, Configuration)
    problems = [
        *_check_listeners(configuration),
        *_check_sites(configuration),
        *_check_rules(configuration),
        *_check_sources(configuration),
        *_check_ladders(configuration),
    ]
    seconds = configuration.silence.staleness_seconds
    if not 1 <= seconds <= STALENESS_SECONDS_MAX:
        problems.append(f"silence.staleness_seconds is {seconds}: choose 1 to {STALENESS_SECONDS_MAX}")
    if not configuration.store.path:
        problems.append("store.path is empty: name the database's file")
    if problems:
        raise ConfigurationError(problems)
    return configuration


def check_zones(
    configuration: Configuration,
    catalog: FactorCatalog,
    *,
    stored_zones: Collection[str] = (),
    stored_sources: Collection[str] = (),
) -> None:
    """Raise ConfigurationError, with near matches, if nobody has factors of a site's zone, or of a source that it names.

    stored_zones, stored_sources: what the ledger has beside the catalog.
    """
    problems = []
    asked = {zone for source in configuration.factors.source for zone in source.zones}
    known = catalog.sources | {source.provider for source in configuration.factors.source} | set(stored_sources)
    for index, site in enumerate(configuration.site):
        if site.zone and site.zone not in asked and site.zone not in stored_zones:
            try:
                catalog.require(site.zone)
            except UnknownZoneError as error:
                problems.append(f"site[{index}].zone of site {site.name!r}: {error}")
        for name in site.factors:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                remedy = f"did you mean {near[0]!r}?" if near else "`wattledger-collector factors show ZONE` shows them"
                problems.append(f"site[{index}].factors of site {site.name!r} names no source with {name!r}: {remedy}")
    if problems:
        raise ConfigurationError(problems)


def ladders(configuration: Configuration) -> dict[str, tuple[str, ...]]:
    """The sources to use by zone, best first, as the sites name them."""
    return {site.zone: site.factors for site in configuration.site if site.zone and site.factors}


def site_of_host(configuration: Configuration, host: str, labels: Mapping[str, str]) -> str:
    """The site that the rules give a host.

    With one site and no rules all hosts are of that site; a host that no rule matches is of SITE_UNASSIGNED.
    """
    for rule in configuration.host:
        if rule.name and not (fnmatchcase(host, rule.name) or fnmatchcase(labels.get("hostname", ""), rule.name)):
            continue
        if all(fnmatchcase(labels.get(key, ""), pattern) and key in labels for key, pattern in rule.labels.items()):
            return rule.site
    if not configuration.host and len({site.name for site in configuration.site}) == 1:
        return configuration.site[0].name
    return SITE_UNASSIGNED


def valid_from_seconds(site: Site) -> int | None:
    """The beginning of a site's valid_from, in seconds since 1970-01-01 UTC."""
    return None if site.valid_from is None else seconds_of_day(site.valid_from)


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach a listener there; host names other than localhost count as reachable."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


_StructT = TypeVar("_StructT", bound=msgspec.Struct)

# The structs inside of each struct: keys that hold one, and keys that hold a list of them.
_TABLES: Mapping[type[msgspec.Struct], Mapping[str, type[msgspec.Struct]]] = {
    Configuration: {
        "server": Server,
        "http": Http,
        "store": StoreSettings,
        "silence": Silence,
        "factors": FactorSettings,
        "inventory": InventorySettings,
        "statements": StatementSettings,
    },
    Server: {"tls": Tls},
    Http: {"tls": Tls},
}
_LISTS: Mapping[type[msgspec.Struct], Mapping[str, type[msgspec.Struct]]] = {
    Configuration: {"site": Site, "host": HostRule},
    FactorSettings: {"source": FactorSource},
}


def _unknown_keys(tree: Mapping[str, Any], struct: type[msgspec.Struct], path: str) -> list[str]:
    """A sentence for each key that the struct lacks, at any depth."""
    valid = [field.name for field in msgspec.structs.fields(struct)]
    problems: list[str] = []
    for key, value in tree.items():
        place = f"{path}{key}"
        if key not in valid:
            near = difflib.get_close_matches(key, valid, n=1, cutoff=0.0)
            problems.append(f"unknown key {place}: did you mean {path}{near[0]}?")
        elif key in _TABLES.get(struct, {}) and isinstance(value, dict):
            problems += _unknown_keys(value, _TABLES[struct][key], f"{place}.")
        elif key in _LISTS.get(struct, {}) and isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    problems += _unknown_keys(item, _LISTS[struct][key], f"{place}[{index}].")
    return problems


def _wrong_types(tree: Mapping[str, Any]) -> list[str]:
    """A sentence for the first value of a wrong type in each table, and for each list item."""
    problems: list[str] = []
    for key, value in tree.items():
        if key in _LISTS[Configuration]:
            if not isinstance(value, list):
                problems.append(f"{key} is a table of its own: write [[{key}]] with two brackets")
                continue
            for index, item in enumerate(value):
                problems += _wrong_type(item, _LISTS[Configuration][key], f"{key}[{index}]")
        else:
            problems += _wrong_type(value, _TABLES[Configuration][key], key)
    return problems


def _wrong_type(value: object, struct: type[_StructT], path: str) -> list[str]:
    try:
        msgspec.convert(value, struct)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        place = f"{path}{where.removesuffix('`')}"
        return [f"{place}: {what[:1].lower()}{what[1:]}; correct the value"]
    return []


def _check_listeners(configuration: Configuration) -> list[str]:
    problems: list[str] = []
    for section, listener in (("server", configuration.server), ("http", configuration.http)):
        if not 0 <= listener.port <= PORT_MAX:
            problems.append(f"{section}.port is {listener.port}: choose 1 to {PORT_MAX}, or 0 for any free one")
        if listener.tls is not None:
            # A server with TLS but no authority would accept any agent's word for which host it is.
            for name in ("certificate", "key") if section == "http" else ("certificate", "key", "ca"):
                if not getattr(listener.tls, name):
                    problems.append(f"{section}.tls.{name} is missing or empty: name its PEM file")
        if not listener.address:
            problems.append(f"{section}.address is empty: write 127.0.0.1, or an address of this machine")
        elif set(listener.address) <= set("0123456789.") and not _is_address(listener.address):
            problems.append(f"{section}.address {listener.address!r} is no IP address: write it as in 192.0.2.7")
        elif listener.tls is None and not is_loopback(listener.address) and not listener.insecure:
            problems.append(
                f"{section}.address {listener.address} can be reached from other machines without TLS: "
                f"add [{section}.tls], listen on 127.0.0.1, or say {section}.insecure = true in so many words"
            )
    ports = (configuration.server.port, configuration.http.port)
    if ports[0] == ports[1] != 0 and configuration.server.address == configuration.http.address:
        problems.append(f"server.port and http.port are both {ports[0]}: give each its own")
    return problems


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_sites(configuration: Configuration) -> list[str]:
    problems: list[str] = []
    seen: dict[tuple[str, int | None], int] = {}
    for index, site in enumerate(configuration.site):
        path = f"site[{index}]"
        if not site.name.strip() or not site.name.isprintable():
            problems.append(f"{path}.name {site.name!r} is no name: write letters, digits and hyphens")
        if site.name == SITE_UNASSIGNED:
            problems.append(f"{path}.name {site.name!r} is kept for hosts that no rule assigns: choose another")
        # The comparisons are false for NaN as well.
        if not PUE_MIN <= (site.pue if site.pue.is_finite() else Decimal(0)) <= PUE_MAX:
            problems.append(
                f"{path}.pue of site {site.name!r} is {site.pue}: facility energy / IT energy is {PUE_MIN} to {PUE_MAX}, "
                f"write 1.3 for 30 % overhead"
            )
        problems += _check_evidence(site, path)
        key = (site.name, valid_from_seconds(site))
        if key in seen:
            problems.append(f"{path} repeats site[{seen[key]}] {site.name!r}: keep one, or give each its own valid_from")
        seen.setdefault(key, index)
    if len(configuration.site) > SITES_MAX:
        problems.append(f"there are {len(configuration.site)} sites: at most {SITES_MAX} are possible")
    return problems


def _check_evidence(site: Site, path: str) -> list[str]:
    """Sentences on what a PUE rests on."""
    problems: list[str] = []
    if (site.pue_from is None) != (site.pue_to is None):
        given, other = ("pue_from", "pue_to") if site.pue_to is None else ("pue_to", "pue_from")
        problems.append(f"{path}.{given} of site {site.name!r} has no {other}: a PUE describes a time, name both its ends")
    elif site.pue_from is not None and site.pue_to is not None and site.pue_to <= site.pue_from:
        problems.append(
            f"{path}.pue_to of site {site.name!r} is {site.pue_to}, not after pue_from {site.pue_from}: "
            "it is the first day after the time that the PUE describes"
        )
    if site.pue_category is not None and site.pue_category not in tuple(Category):
        problems.append(
            f"{path}.pue_category of site {site.name!r} is {site.pue_category}: choose 1 (IT energy at the "
            "output of the UPS), 2 (of the PDU) or 3 (at the IT's input)"
        )
    if not site.pue_evidence.isprintable():
        problems.append(f"{path}.pue_evidence of site {site.name!r} is no single line of text: name the document")
    return problems


def _check_sources(configuration: Configuration) -> list[str]:
    problems: list[str] = []
    seen: dict[tuple[str, str], int] = {}
    for index, source in enumerate(configuration.factors.source):
        path = f"factors.source[{index}]"
        if not source.zones:
            problems.append(f"{path}.zones of {source.provider!r} is empty: name at least one zone")
        for zone in source.zones:
            if not zone or any(character.isspace() or character == "/" for character in zone):
                problems.append(f"{path}.zones has {zone!r}: use letters, digits and hyphens, such as DE or US-CAL-CISO")
            first = seen.setdefault((source.provider, zone), index)
            if first != index:
                problems.append(
                    f"{path} asks {source.provider!r} for zone {zone!r}, as factors.source[{first}] does: keep one"
                )
        for zone in source.areas:
            if zone not in source.zones:
                problems.append(f"{path}.areas names {zone!r}, which is not in its zones: add it there, or take it out")
        if not EVERY_SECONDS_MIN <= source.every_seconds <= EVERY_SECONDS_MAX:
            problems.append(
                f"{path}.every_seconds is {source.every_seconds}: choose {EVERY_SECONDS_MIN} to {EVERY_SECONDS_MAX}"
            )
        if not HISTORY_SECONDS_MIN <= source.history_seconds <= HISTORY_SECONDS_MAX:
            problems.append(
                f"{path}.history_seconds is {source.history_seconds}: choose {HISTORY_SECONDS_MIN} to {HISTORY_SECONDS_MAX}"
            )
    if len(configuration.factors.source) > FACTOR_SOURCES_MAX:
        problems.append(f"there are {len(configuration.factors.source)} factors.source: at most {FACTOR_SOURCES_MAX} may be")
    return problems


def _check_ladders(configuration: Configuration) -> list[str]:
    """A zone has one ladder: which factors a kWh is multiplied by can't hang on who else is in the zone."""
    problems: list[str] = []
    first: dict[str, Site] = {}
    for index, site in enumerate(configuration.site):
        if not site.factors:
            continue
        if not site.zone:
            problems.append(f"site[{index}].factors of site {site.name!r} is of no use without a zone: name the zone")
        if len(set(site.factors)) < len(site.factors):
            problems.append(f"site[{index}].factors of site {site.name!r} names a source twice: keep the first")
        other = first.setdefault(site.zone, site)
        if other.factors != site.factors:
            problems.append(
                f"site[{index}].factors of site {site.name!r} differs from that of site {other.name!r} in the same zone "
                f"{site.zone}: give both the same"
            )
    return problems


def _check_rules(configuration: Configuration) -> list[str]:
    problems: list[str] = []
    names = sorted({site.name for site in configuration.site})
    for index, rule in enumerate(configuration.host):
        if rule.site not in names:
            near = difflib.get_close_matches(rule.site, names, n=1, cutoff=0.5)
            remedy = f"did you mean {near[0]!r}?" if near else "add a [[site]] of that name"
            problems.append(f"host[{index}].site {rule.site!r} is no site: {remedy}")
        if not rule.name and not rule.labels:
            problems.append(f'host[{index}] matches nothing: give it a name pattern (name = "*" for all) or labels')
    return problems
