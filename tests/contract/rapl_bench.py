"""A fixture machine, its RAPL source and the real meter, joined without a clock: what the tests of RAPL's account share."""

from tests.agent.machines import Machine

from wattledger_agent.counters import Instant
from wattledger_agent.meter import Meter
from wattledger_agent.readings import ChannelKey, ChannelSpec, Role
from wattledger_agent.sources.rapl import RaplSource
from wattledger_protos.v1 import telemetry_pb2 as pb

JOULE = 1_000_000
SECOND = 1_000_000_000
BOOT = bytes(range(16))

PACKAGE_0 = ChannelKey("cpu/0", "package", "rapl")
PACKAGE_1 = ChannelKey("cpu/1", "package", "rapl")
DRAM_0 = ChannelKey("memory/0", "dram", "rapl")
DRAM_1 = ChannelKey("memory/1", "dram", "rapl")
ZONES = {PACKAGE_0: "intel-rapl:0", PACKAGE_1: "intel-rapl:1", DRAM_0: "intel-rapl:0:0", DRAM_1: "intel-rapl:1:0"}


# The register's last step, which the kernel's highest value leaves out; microjoules.
STEP = 61


class Bench:
    """A machine, its RAPL source and a meter; `tick` reads once. Seconds are boottime."""

    def __init__(
        self,
        host: Machine,
        *,
        boot_id: bytes = BOOT,
        state: bytes | None = None,
        seconds: float = 1000.0,
        psys_is_node_meter: bool = False,
    ) -> None:
        self.host = host
        self.boot_id = boot_id
        self.seconds = seconds
        self.suspended_seconds = 0.0
        self.source = RaplSource(
            host.sys,
            host.proc,
            psys_is_node_meter=psys_is_node_meter,
            opener=host.opener,
            pread=host.pread,
            settle=host.settle,
        )
        self.meter = Meter(state=state, integral_gap_seconds_max=30)
        self.specs: list[ChannelSpec] = list(self.source.open())
        self.meter.offer(self.specs, self._now())
        self.state = state
        self.energy: dict[ChannelKey, int] = {}
        self.gaps: dict[ChannelKey, tuple[int, int]] = {}
        self.reasons: list[int] = []

    def tick(self, seconds: float = 1.0) -> None:
        """Let so much time pass, read once, and take what the meter cuts."""
        self.seconds += seconds
        now = self._now()
        self.meter.observe(self.source.read(now.boottime_nanoseconds), now)
        cut = self.meter.cut(now)
        if cut is None:
            return
        self.state = cut.state
        payload = pb.Payload.FromString(cut.payload)
        channels = {channel.channel: channel for channel in pb.Catalog.FromString(cut.catalog).channels}
        for column in payload.columns:
            channel = channels[column.channel]
            key = ChannelKey(channel.device, channel.domain, channel.source)
            self.energy[key] = column.first_energy_microjoules + sum(column.energy_delta_microjoules)
            self.gaps[key] = (column.gap_lower_microjoules, column.gap_upper_microjoules)
        self.reasons.extend(detail.reason for detail in payload.gap_details)

    @property
    def booked_microjoules(self) -> int:
        """The sum of the accounted cut: leaves, and what a node's meter saw beyond them."""
        leaves = {spec.key for spec in self.specs if spec.role is Role.LEAF}
        return sum(energy for key, energy in self.energy.items() if key in leaves or key.domain == "residual")

    def restarted(self, *, boot_id: bytes = BOOT, seconds: float = 0.0) -> "Bench":
        """The agent's next run, from the state of the last record."""
        self.source.close()
        return Bench(self.host, boot_id=boot_id, state=self.state, seconds=self.seconds + seconds)

    def _now(self) -> Instant:
        boottime = round(self.seconds * SECOND)
        suspended = round(self.suspended_seconds * SECOND)
        return Instant(self.boot_id, boottime, 1_700_000_000 * SECOND + boottime, True, suspended)
