"""A whole collector, started and stopped: what its configuration says of transport holds."""

import asyncio
import socket
import ssl
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.certificates import Authority
from tests.collector.fleets import MEASURED, SimulatedHost, assignments

from wattledger_collector.config import Configuration, Http, InventorySettings, Server, Site, StoreSettings, Tls
from wattledger_collector.factor_files import load_catalog
from wattledger_collector.service import Addresses, Service, ServiceError, notify
from wattledger_collector.store import open_store


def test_with_an_authority_http_asks_for_a_certificate(tmp_path: Path) -> None:
    """`http.tls.ca` lets in those that it signed, and nobody else."""
    authority = Authority()
    ca = authority.write(tmp_path)
    ours = authority.sign(ips=("127.0.0.1",)).write(tmp_path, "ours")
    theirs = Authority("another").sign(ips=("127.0.0.1",)).write(tmp_path, "theirs")
    tls = Tls(certificate=str(ours[0]), key=str(ours[1]), ca=str(ca))
    configuration = Configuration(
        server=Server(port=0), http=Http(port=0, tls=tls), store=StoreSettings(path=str(tmp_path / "ledger.sqlite"))
    )

    def ask(addresses: Addresses, pair: tuple[Path, Path] | None) -> int:
        context = ssl.create_default_context(cafile=str(ca))
        if pair is not None:
            context.load_cert_chain(*pair)
        with httpx.Client(verify=context) as client:
            return client.get(f"https://{addresses.http}/healthz").status_code

    async def scene() -> None:
        service = Service(configuration, load_catalog())
        try:
            addresses = await service.start()
            assert await asyncio.to_thread(ask, addresses, ours) == 200
            for pair in (None, theirs):
                with pytest.raises(httpx.TransportError):
                    await asyncio.to_thread(ask, addresses, pair)
        finally:
            await service.stop()

    asyncio.run(scene())


def test_of_two_services_on_one_store_one_shows_the_sites(tmp_path: Path) -> None:
    """The first that starts; once it has stopped, the next that starts has them at once."""

    def configuration(name: str) -> Configuration:
        return Configuration(
            server=Server(name=name, port=0),
            http=Http(port=0),
            store=StoreSettings(path=str(tmp_path / "ledger.sqlite")),
            site=(Site("hall", "DE"),),
        )

    async def shows_sites(service: Service) -> bool:
        addresses = await service.start()
        async with httpx.AsyncClient() as client:
            return "wattledger_site_info" in (await client.get(f"http://{addresses.http}/metrics")).text

    async def scene() -> None:
        services = [Service(configuration(name), load_catalog()) for name in ("one", "two", "three")]
        try:
            assert await shows_sites(services[0])
            assert not await shows_sites(services[1])
            await services[0].stop()
            assert await shows_sites(services[2])
        finally:
            for service in services:
                await service.stop()

    asyncio.run(scene())


def test_a_supervisor_is_told_and_one_that_does_not_listen_is_no_reason_to_end(tmp_path: Path) -> None:
    """Only a leading @ means an abstract socket: the folders of a template unit have one within their names."""
    notify("READY=1", "")
    notify("READY=1", str(tmp_path / "nobody"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "user@1000"))
        systemd.settimeout(5.0)
        notify("READY=1", str(tmp_path / "user@1000"))
        assert systemd.recv(64) == b"READY=1"


DECLARED = """
organisation = "O"
approach = "operational_control"

[[holding]]
site = "hall"
situation = "{situation}"
has_control = true
evidence = "contract 7"

[[residual]]
market = "DE"
grams_per_kwh = 700
evidence = "decree"
"""


def test_what_is_declared_counts_from_then_on(tmp_path: Path) -> None:
    """Scopes and residual mix of the inventory file enter the counters, and an edited file changes no interval."""
    path, file = tmp_path / "ledger.sqlite", tmp_path / "inventory.toml"
    start = 1_700_000_100
    host = SimulatedHost("a", MEASURED, start)
    store = open_store(path, create=True)
    store.add_assignments(assignments([host]))
    store.commit([host.hello()])
    configuration = Configuration(
        server=Server(port=0),
        http=Http(port=0),
        store=StoreSettings(path=str(path)),
        inventory=InventorySettings(file=str(file)),
        site=(Site("hall", "DE", Decimal("1.25")),),
    )

    async def emissions() -> dict[tuple[str, str, str], float]:
        service = Service(configuration, load_catalog())
        addresses = await service.start()
        try:
            async with httpx.AsyncClient() as client:
                text = (await client.get(f"http://{addresses.http}/metrics")).text
        finally:
            await service.stop()
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return {
            (sample.labels["method"], sample.labels["scope"], sample.labels["basis"]): sample.value
            for sample in samples
            if sample.name.endswith("emissions_grams_total")
        }

    file.write_text(DECLARED.format(situation="colocated"))
    store.commit([host.batch(start + 800)])
    kwh = 138.5 * 800 / 3.6e6
    colocated = asyncio.run(emissions())
    grid = colocated["location", "2", "production"] / kwh
    assert grid > 100
    assert colocated == pytest.approx(
        {
            ("location", "2", "production"): kwh * grid,
            ("location", "3.8", "production"): kwh * grid / 4,
            ("market", "2", "residual"): kwh * 700,
            ("market", "3.8", "production"): kwh * grid / 4,
        }
    )
    file.write_text(DECLARED.format(situation="cloud"))
    for until in (900, 1700):
        store.commit([host.batch(start + until)])
    cloud = asyncio.run(emissions())
    assert all(cloud[series] > grams for series, grams in colocated.items())
    assert cloud["location", "3.1", "production"] == pytest.approx(kwh * grid * 1.25)
    store.close()


def test_a_declaration_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    """The sentence names the file; one that is missing as well as one that says nothing of how sites are had."""
    file = tmp_path / "inventory.toml"
    configuration = Configuration(
        server=Server(port=0),
        http=Http(port=0),
        store=StoreSettings(path=str(tmp_path / "ledger.sqlite")),
        inventory=InventorySettings(file=str(file)),
    )

    async def scene() -> None:
        service = Service(configuration, load_catalog())
        try:
            await service.start()
        finally:
            await service.stop()

    with pytest.raises(ServiceError, match=r"inventory\.toml: .*; correct `inventory\.file`"):
        asyncio.run(scene())
    file.write_text('organisation = "O"\napproach = "operational_control"\nholding = []\n')
    with pytest.raises(ServiceError, match=r"inventory\.toml has no \[\[holding\]\]"):
        asyncio.run(scene())
