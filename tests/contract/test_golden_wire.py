"""Messages of each release, as they went over the wire: a later collector must still read and book them alike.

A release adds a folder with `python -m tests.contract.golden_messages VERSION` and never changes one that is there.
"""

from pathlib import Path

import pytest
from google.protobuf import text_format
from tests.contract.golden_messages import ACCOUNTED_MICROJOULES, CHANNELS, GOLDEN, NOW_NANOSECONDS, messages

from wattledger_agent import __version__
from wattledger_collector.ledger import book, open_stream
from wattledger_collector.live_details import read_details
from wattledger_collector.records import Booking
from wattledger_collector.wire import check_batch, check_catalog, check_hello
from wattledger_protos.v1 import telemetry_pb2 as pb

RELEASES = sorted(GOLDEN.iterdir())


def read(release: Path, name: str) -> pb.AgentMessage:
    """A golden message from its bytes."""
    return pb.AgentMessage.FromString((release / f"{name}.bin").read_bytes())


def test_this_release_has_its_messages() -> None:
    """They are made before the release."""
    assert GOLDEN / __version__ in RELEASES


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_the_agent_still_makes_them(release: Path) -> None:
    """What the agent makes now is what stands there."""
    for name, message in messages(release.name).items():
        assert (release / f"{name}.bin").read_bytes() == message.SerializeToString(deterministic=True), name


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_each_field_still_means_the_same(release: Path) -> None:
    """The bytes read as the text beside them: no field was renumbered, re-typed or dropped."""
    paths = sorted(release.glob("*.bin"))
    assert len(paths) >= 4
    for path in paths:
        text = text_format.Parse(path.with_suffix(".txtpb").read_text(), pb.AgentMessage())
        assert pb.AgentMessage.FromString(path.read_bytes()) == text, path.name


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_each_release_is_booked(release: Path) -> None:
    """Hello, catalog and batch pass today's checks, and the batch's energy is booked to the microjoule."""
    hello = check_hello(read(release, "hello").hello)
    catalog = check_catalog(read(release, "catalog").catalog)
    batch = check_batch(read(release, "batch").batch)
    opened = open_stream(hello, None, None, [], now_utc_nanoseconds=NOW_NANOSECONDS, collector="golden")
    assert isinstance(opened, Booking)

    booking = book(
        batch,
        opened.host_after,
        opened.cursor_after,
        catalog.channels,
        interval_seconds=900,
        collector="golden",
        new_channels=tuple(catalog.channels.values()),
    )

    assert batch.undecodable == ""
    assert booking.evidence == ()
    booked = {catalog.channels[row.channel].domain: row.energy_microjoules for row in booking.energy}
    assert booked == CHANNELS
    accounted = sum(row.energy_microjoules for row in booking.workloads.energy) if booking.workloads else None
    assert accounted == (ACCOUNTED_MICROJOULES if batch.payload and batch.payload.workload_accounts else None)


def test_a_release_with_more_to_tell_is_understood_whole() -> None:
    """Accounts, the end of a closed channel and present values of devices, as they went over the wire."""
    release = GOLDEN / "0.2.0"
    catalog = check_catalog(read(release, "catalog").catalog)
    (gone,) = (info for info in catalog.channels.values() if info.device == "gpu/GPU-0")
    assert gone.closed
    assert gone.end is not None
    assert gone.end.energy_microjoules == CHANNELS["board"]
    payload = check_batch(read(release, "batch").batch).payload
    assert payload is not None
    assert {account.name or account.kind for account in payload.workload_accounts} >= {"db-0"}
    details = read_details(read(release, "live").live)
    assert (details.throttles, details.ignored) == ((("gpu/GPU-0", "sw_power_cap"),), 0)
