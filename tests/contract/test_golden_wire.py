"""Messages of each release, as they went over the wire: a later collector must still read and book them alike.

A release adds a folder with `python -m tests.contract.golden_messages VERSION` and never changes one that is there.
"""

from pathlib import Path

import pytest
from google.protobuf import text_format
from tests.contract.golden_messages import CHANNELS, GOLDEN, NOW_NANOSECONDS, messages

from wattledger_agent import __version__
from wattledger_collector.ledger import book, open_stream
from wattledger_collector.records import Booking
from wattledger_collector.wire import check_batch, check_catalog, check_hello
from wattledger_protos.v1 import telemetry_pb2 as pb

RELEASES = sorted(GOLDEN.iterdir())


def read(release: Path, name: str) -> pb.AgentMessage:
    """A golden message from its bytes."""
    return pb.AgentMessage.FromString((release / f"{name}.bin").read_bytes())


def test_this_release_has_its_messages() -> None:
    """They are made before the release, and what the agent makes now is what stands there."""
    folder = GOLDEN / __version__
    for name, message in messages().items():
        assert (folder / f"{name}.bin").read_bytes() == message.SerializeToString(deterministic=True), name


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

    booking = book(batch, opened.host_after, opened.cursor_after, catalog.channels, interval_seconds=900, collector="golden")

    assert batch.undecodable == ""
    assert booking.evidence == ()
    booked = {catalog.channels[row.channel].domain: row.energy_microjoules for row in booking.energy}
    assert booked == CHANNELS
