"""A whole collector, started and stopped: what its configuration says of transport holds."""

import asyncio
import socket
import ssl
from pathlib import Path

import httpx
import pytest
from tests.certificates import Authority

from wattledger_collector.config import Configuration, Http, Server, Site, StoreSettings, Tls
from wattledger_collector.factor_files import load_catalog
from wattledger_collector.service import Addresses, Service, notify


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
