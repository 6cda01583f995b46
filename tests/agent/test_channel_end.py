"""A closed channel says in the catalog where it ended, so that a lost record with its last values loses no energy."""

from tests.agent.metering import BOOT, GAP_SECONDS, at, counter, spec

from wattledger_agent import wire
from wattledger_agent.meter import Meter
from wattledger_agent.readings import Component, Gone, Role
from wattledger_protos.v1 import telemetry_pb2 as pb

NODE = spec("node", role=Role.METER, domain="board", source="bmc", component=Component.OTHER, bound=1000.0)
GPU = spec("gpu/0", source="nvidia", domain="board", component=Component.GPU)


def lived(state: bytes | None = None) -> Meter:
    """A meter whose GPU used 300 J and went in the fourth row, after one that failed for a second."""
    meter = Meter(state=state, integral_gap_seconds_max=GAP_SECONDS)
    meter.offer([NODE, GPU], at(0))
    meter.observe([counter(NODE, 0), counter(GPU, 1_000)], at(0))
    meter.observe([counter(NODE, 500_000_000), counter(GPU, 0)], at(1))
    meter.observe([counter(NODE, 900_000_000), counter(GPU, 300_000_000)], at(2))
    meter.observe([counter(NODE, 1_500_000_000), Gone(GPU.key, "off the bus")], at(4))
    return meter


def ends(catalog: pb.Catalog) -> dict[str, pb.ChannelEnd]:
    """The ends that a catalog states, by device and domain."""
    return {f"{row.device} {row.domain}": row.end for row in catalog.channels if row.HasField("end")}


def test_a_channel_of_a_part_that_is_gone_says_its_last_sums_and_when() -> None:
    """Its energy and gaps are those of its last reading, not of the row in which it was found to be gone."""
    meter = lived()
    cut = meter.cut(at(4))
    assert cut is not None
    catalog = pb.Catalog.FromString(cut.catalog)
    assert ends(catalog) == {
        "gpu/0 board": pb.ChannelEnd(
            boot_id=BOOT,
            clock=wire.clock_pair(at(2)),
            energy_microjoules=300_000_000,
            gap_lower_microjoules=0,
            gap_upper_microjoules=100_000_000,
        )
    }
    payload = pb.Payload.FromString(cut.payload)
    (column,) = [column for column in payload.columns if column.channel == 2]
    end = catalog.channels[1].end
    assert column.first_energy_microjoules + sum(column.energy_delta_microjoules) == end.energy_microjoules
    assert column.gap_upper_microjoules == end.gap_upper_microjoules


def test_the_end_stays_in_every_later_catalog() -> None:
    """Also in those of an agent that started again: any record may be the one that is lost."""
    cut = lived().cut(at(4))
    assert cut is not None
    again = Meter(state=cut.state, integral_gap_seconds_max=GAP_SECONDS)
    again.offer([NODE], at(5))
    again.observe([counter(NODE, 1_600_000_000)], at(5))
    assert ends(again.catalog()) == ends(pb.Catalog.FromString(cut.catalog))


def test_a_residual_that_closes_with_its_meter_says_its_end_too() -> None:
    """What the meter saw after the last joint reading was counted by nobody, and is not in it."""
    meter = lived()
    meter.observe([Gone(NODE.key, "the controller was taken out")], at(6))
    found = ends(meter.catalog())
    # The last joint reading, with what the GPU's channel had counted.
    assert found["node residual"].energy_microjoules == 1_500_000_000 - 300_000_000
    assert found["node residual"].gap_lower_microjoules == -100_000_000
    assert found["node board"].energy_microjoules == 1_500_000_000


def test_an_open_channel_has_no_end() -> None:
    """An end of 0 would be one."""
    meter = Meter(state=None, integral_gap_seconds_max=GAP_SECONDS)
    meter.offer([NODE, GPU], at(0))
    meter.observe([counter(NODE, 5), counter(GPU, 5)], at(0))
    assert ends(meter.catalog()) == {}
