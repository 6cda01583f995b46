"""Reads collector.toml and the files it names, and brings the store's dated rows into line with it.

What the file may say is in `config.py`. Rows are only added, never changed: a booked interval keeps its site, zone and PUE.
Source of truth: the store; the configuration says what shall hold from now on.
"""

import dataclasses
import difflib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from wattledger_collector.config import (
    Configuration,
    ConfigurationError,
    FactorSource,
    Site,
    Tls,
    check_zones,
    ladders,
    parse_configuration,
    site_of_host,
    valid_from_seconds,
)
from wattledger_collector.declared_files import Declaration, check_declaration, load_declaration
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factor_files import load_catalog
from wattledger_collector.factor_sources import PROVIDERS
from wattledger_collector.factor_store import stored_names
from wattledger_collector.factors import FactorFileError
from wattledger_collector.inventory import InventoryError
from wattledger_collector.records import SITE_UNASSIGNED, AssignmentRow, Host, SiteRow, Store

# The first row of a site or host holds for all time before, too: recordings and backlogs are older than the configuration.
ALL_TIME_SECONDS = 0


def load_configuration(path: Path) -> tuple[Configuration, FactorCatalog]:
    """Read and check the whole configuration and its factor files. Raises ConfigurationError.

    Paths in the result are absolute; relative ones are taken from the configuration's folder.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError([f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8"]) from error
    except OSError as error:
        raise ConfigurationError([f"cannot read {path}: {error.strerror}: name the file with --config"]) from error
    try:
        configuration = _with_absolute_paths(parse_configuration(text), path.resolve().parent)
        catalog = load_catalog((Path(name) for name in configuration.factors.files), ladders(configuration))
        _check_providers(configuration)
        zones, sources = stored_names(Path(configuration.store.path))
        check_zones(configuration, catalog, stored_zones=zones, stored_sources=sources)
        _check_files(configuration)
        _check_inventory(configuration)
    except ConfigurationError as error:
        raise ConfigurationError([f"{path}: {problem}" for problem in error.problems]) from error
    except FactorFileError as error:
        raise ConfigurationError([str(error)]) from error
    return configuration, catalog


def _with_absolute_paths(configuration: Configuration, folder: Path) -> Configuration:
    def absolute(tls: Tls | None) -> Tls | None:
        if tls is None:
            return None
        ca = str(folder / tls.ca) if tls.ca else ""
        return Tls(certificate=str(folder / tls.certificate), key=str(folder / tls.key), ca=ca)

    replace = msgspec.structs.replace
    key = configuration.statements.key
    return replace(
        configuration,
        server=replace(configuration.server, tls=absolute(configuration.server.tls)),
        http=replace(configuration.http, tls=absolute(configuration.http.tls)),
        store=replace(configuration.store, path=str(folder / configuration.store.path)),
        statements=replace(configuration.statements, key=key and str(folder / key)),
        inventory=replace(
            configuration.inventory, file=str(folder / configuration.inventory.file) if configuration.inventory.file else ""
        ),
        factors=replace(
            configuration.factors,
            files=tuple(str(folder / name) for name in configuration.factors.files),
            source=tuple(
                replace(
                    source,
                    key_file=str(folder / source.key_file) if source.key_file else "",
                    address=_absolute_address(source.address, folder),
                )
                for source in configuration.factors.source
            ),
        ),
    )


def _absolute_address(address: str, folder: Path) -> str:
    """A provider's address as it is; a file's path from the configuration's folder."""
    return address if not address or "://" in address else str(folder / address)


def _check_providers(configuration: Configuration) -> None:
    """Raise ConfigurationError for sources that could never be asked."""
    problems: list[str] = []
    for index, source in enumerate(configuration.factors.source):
        path = f"factors.source[{index}]"
        provider = PROVIDERS.get(source.provider)
        if provider is None:
            near = difflib.get_close_matches(source.provider, PROVIDERS, n=1, cutoff=0.4)
            remedy = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(PROVIDERS)}"
            problems.append(f"{path}.provider {source.provider!r} is unknown: {remedy}")
        elif provider.needs_key and not source.key_file:
            problems.append(f"{path} of {source.provider!r} needs a key: name a file that holds it in key_file")
        elif source.provider == "csv" and not source.address:
            problems.append(f"{path} of 'csv' has no address: name the file")
        elif provider.is_hourly and provider.is_average:
            problems += _without_ladder(configuration, source, path)
    if problems:
        raise ConfigurationError(problems)


def _without_ladder(configuration: Configuration, source: FactorSource, path: str) -> list[str]:
    """Sites whose figures would change their meaning, and lose their past, with the provider's first answer."""
    sites = [site.name for site in configuration.site if site.zone in source.zones and not site.factors]
    return [
        f"{path} is asked for the zone of site {name!r}, which does not say what to use before and between its answers: "
        f'write factors = ["{source.provider}", ...] there, best first'
        for name in sites
    ]


def _check_files(configuration: Configuration) -> None:
    problems: list[str] = []
    for section, tls in (("server", configuration.server.tls), ("http", configuration.http.tls)):
        if tls is None:
            continue
        for name, file in (("certificate", tls.certificate), ("key", tls.key), ("ca", tls.ca)):
            problems += _unreadable(f"{section}.tls.{name}", file)
    for index, source in enumerate(configuration.factors.source):
        problems += _unreadable(f"factors.source[{index}].key_file", source.key_file)
    if problems:
        raise ConfigurationError(problems)


def _check_inventory(configuration: Configuration) -> None:
    """Raise ConfigurationError for a declaration that can't be used."""
    try:
        if configuration.inventory.file:
            check_declaration(Path(configuration.inventory.file))
    except InventoryError as error:
        raise ConfigurationError([f"inventory.file: {error}"]) from error


def declaration_of(configuration: Configuration) -> Declaration | None:
    """What the organisation declares; None if no file is configured. Raises InventoryError and TableError."""
    file = configuration.inventory.file
    return load_declaration(Path(file)) if file else None


def _unreadable(name: str, file: str) -> list[str]:
    """A sentence if a file that is named can't be read."""
    if file:
        try:
            Path(file).read_bytes()
        except OSError as error:
            return [f"cannot read {name} {file}: {error.strerror}: correct its path or rights"]
    return []


def apply_configuration(configuration: Configuration, store: Store, now_seconds: int, *, assumed: bool = False) -> None:
    """Add the site and assignment rows by which the configuration differs from the store.

    A new site or host gets its row for all time; a change holds from the next interval, so that no booked energy moves.
    now_seconds: since 1970-01-01 UTC. assumed: the zones were proposed by the program, not given by an operator.
    """
    apply_sites(configuration.site, store, now_seconds, assumed=assumed)
    hosts = [(host.host, host.labels) for host in store.hosts()]
    assign_hosts(configuration, store, hosts, now_seconds)


def apply_sites(sites: Sequence[Site], store: Store, now_seconds: int, *, assumed: bool = False) -> list[SiteRow]:
    """Add the site rows that differ; returns them."""
    stored: dict[str, list[SiteRow]] = {}
    for row in store.sites():
        stored.setdefault(row.site, []).append(row)
    change = _next_interval(now_seconds, store.interval_seconds)
    stated: dict[str, dict[int, SiteRow]] = {}
    # Dated ones last: one that holds from the beginning leaves no time to the undated one.
    for site in sorted(sites, key=lambda site: site.valid_from is not None):
        start = _start_of(site)
        row = _site_row(site, start, now_seconds, assumed=assumed)
        stated.setdefault(site.name, {})[start] = row
    dated = {(site.name, valid_from_seconds(site)) for site in sites}
    new: list[SiteRow] = []
    for name, timeline in stated.items():
        asked = [row for start, row in timeline.items() if (name, start) in dated or name not in stored]
        new += _site_changes(stored.get(name, []), timeline, asked, change)
    if new:
        store.add_sites(new)
    return new


def _site_row(site: Site, start: int, now_seconds: int, *, assumed: bool) -> SiteRow:
    return SiteRow(
        site=site.name,
        valid_from_seconds=start,
        zone=site.zone or None,
        pue=f"{site.pue:f}",
        assumed=assumed,
        recorded_at_seconds=now_seconds,
        pue_from="" if site.pue_from is None else site.pue_from.isoformat(),
        pue_to="" if site.pue_to is None else site.pue_to.isoformat(),
        pue_category="" if site.pue_category is None else str(site.pue_category),
        pue_evidence=site.pue_evidence,
    )


def _site_changes(
    rows: Sequence[SiteRow], stated: Mapping[int, SiteRow], asked: Iterable[SiteRow], change_seconds: int
) -> list[SiteRow]:
    """The rows that one site's stored rows lack.

    stated: what the configuration says, by the instant from which it holds; asked: those whose instant it names. After
    such an instant that is new, and in any case from change_seconds on, all is as stated, also where other rows were stored
    for a later time. What lies before stays as it is.
    """
    new = [row for row in asked if not _says(_row_at(rows, row.valid_from_seconds), row, row.valid_from_seconds)]
    since = min([change_seconds, *(row.valid_from_seconds for row in new)])
    instants = {change_seconds, *stated, *(row.valid_from_seconds for row in rows)}
    for instant in sorted(instant for instant in instants if instant >= since):
        wanted, held = _row_at(list(stated.values()), instant), _row_at([*rows, *new], instant)
        if wanted is not None and not _says(held, wanted):
            new.append(dataclasses.replace(wanted, valid_from_seconds=instant))
    return new


def _row_at(rows: Sequence[SiteRow], seconds: int) -> SiteRow | None:
    """The row that holds at an instant: of those valid from one instant, the one that was recorded last."""
    valid = [row for row in rows if row.valid_from_seconds <= seconds]
    return max(reversed(valid), key=lambda row: row.valid_from_seconds, default=None)


def _says(row: SiteRow | None, other: SiteRow, start: int | None = None) -> bool:
    """Whether a row says what another does; if `start` is given, also from there."""
    if row is None or (start is not None and row.valid_from_seconds != start):
        return False
    valid, recorded = other.valid_from_seconds, other.recorded_at_seconds
    return dataclasses.replace(row, valid_from_seconds=valid, recorded_at_seconds=recorded) == other


def _start_of(site: Site) -> int:
    start = valid_from_seconds(site)
    return ALL_TIME_SECONDS if start is None else start


def assign_hosts(
    configuration: Configuration, store: Store, hosts: Iterable[tuple[str, Mapping[str, str]]], now_seconds: int
) -> list[AssignmentRow]:
    """Add an assignment for each host (id and labels) whose site by the rules is not the stored one; returns them.

    A host that no rule matches any more keeps its site: an operator may have put it there with `host replace`.
    """
    stored: dict[str, list[AssignmentRow]] = {}
    for row in sorted(store.assignments(), key=lambda row: (row.valid_from_seconds, row.recorded_at_seconds)):
        stored.setdefault(row.host, []).append(row)
    new: list[AssignmentRow] = []
    for host, labels in hosts:
        site = site_of_host(configuration, host, labels)
        rows = stored.get(host, [])
        if not rows or site not in (rows[-1].site, SITE_UNASSIGNED):
            start = _change_instant(rows, now_seconds, store.interval_seconds)
            new.append(AssignmentRow(host, start, site, now_seconds))
    if new:
        store.add_assignments(new)
    return new


class HostPlacer:
    """Gives hosts their sites by the rules when their streams open, before their first energy is booked.

    Remembers whom it has placed, since thousands of hosts that connect again must not read the table each time.
    """

    def __init__(self, configuration: Configuration, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        """clock: seconds since 1970-01-01 UTC."""
        self._configuration = configuration
        self._store = store
        self._clock = clock
        self._placed: dict[str, str] = {}

    def __call__(self, hosts: Sequence[Host]) -> None:
        """Add the assignments that are missing."""
        sites = {host.host: site_of_host(self._configuration, host.host, host.labels) for host in hosts}
        unknown = [(host.host, host.labels) for host in hosts if self._placed.get(host.host) != sites[host.host]]
        if unknown:
            assign_hosts(self._configuration, self._store, unknown, int(self._clock()))
            self._placed |= sites


def _change_instant(rows: Sequence[object], now_seconds: int, interval_seconds: int) -> int:
    """From when a new row holds: for all time if it is the first, else from the next interval."""
    if not rows:
        return ALL_TIME_SECONDS
    return _next_interval(now_seconds, interval_seconds)


def _next_interval(now_seconds: int, interval_seconds: int) -> int:
    """When the first interval begins of which nothing is booked yet."""
    return (now_seconds // interval_seconds + 1) * interval_seconds
