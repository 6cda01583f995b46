"""What tests of the meter share: moments, specs, and a reader of records that trusts nothing but the wire."""

from dataclasses import dataclass, field

from wattledger_agent.counters import Instant
from wattledger_agent.meter import Cut
from wattledger_agent.readings import ChannelKey, ChannelSpec, Component, CounterReading, Method, Role
from wattledger_protos.v1 import telemetry_pb2 as pb

SECOND = 1_000_000_000
BOOT = b"b" * 16
OTHER_BOOT = b"c" * 16
UTC = 1_700_000_000 * SECOND
GAP_SECONDS = 60.0


def at(
    seconds: float, *, boot: bytes = BOOT, realtime: float | None = None, synchronised: bool = True, suspended: float = 0
) -> Instant:
    """A moment so many seconds after boot; realtime follows boottime unless given (seconds after UTC)."""
    boottime = round(seconds * SECOND)
    utc = UTC + (boottime if realtime is None else round(realtime * SECOND))
    return Instant(boot, boottime, utc, synchronised, round(suspended * SECOND))


def spec(
    device: str = "cpu/0",
    *,
    role: Role = Role.LEAF,
    method: Method = Method.COUNTER,
    bound: float = 100.0,
    parent: ChannelKey | None = None,
    wrap: int | None = None,
    source: str = "rapl",
    domain: str = "package",
    component: Component = Component.CPU,
) -> ChannelSpec:
    """A spec with a bound of 100 W: 100,000,000 microjoules a second."""
    key = ChannelKey(device, domain, source)
    return ChannelSpec(key, component, method, role, bound, parent=parent, counter_range_microjoules=wrap)


def counter(of: ChannelSpec, microjoules: int, generation: int = 0) -> CounterReading:
    """A reading of the spec's counter."""
    return CounterReading(of.key, microjoules, generation)


@dataclass
class Account:
    """What records say of one channel: its last value and gap sums, all its values by time, and its details."""

    energy: int = 0
    gap_lower: int = 0
    gap_upper: int = 0
    gap_unbounded: int = 0
    values: dict[int, int] = field(default_factory=dict)
    details: list[pb.GapDetail] = field(default_factory=list)


@dataclass
class Book:
    """All that the cuts of one epoch say, by channel number."""

    accounts: dict[int, Account] = field(default_factory=dict)
    catalog: pb.Catalog = field(default_factory=pb.Catalog)
    payloads: list[pb.Payload] = field(default_factory=list)

    def add(self, cut: Cut | None) -> None:
        """Read a record."""
        assert cut is not None
        payload = pb.Payload.FromString(cut.payload)
        self.catalog = pb.Catalog.FromString(cut.catalog)
        assert payload.catalog_hash == cut.catalog_hash == self.catalog.catalog_hash
        self.payloads.append(payload)
        times = [payload.first_boottime_nanoseconds]
        for delta in payload.boottime_delta_nanoseconds:
            assert delta > 0
            times.append(times[-1] + delta)
        assert len(times) == cut.samples
        numbers = [column.channel for column in payload.columns]
        assert numbers == sorted(set(numbers))
        for column in payload.columns:
            self._add_column(column, times)
        for detail in payload.gap_details:
            self.accounts[detail.channel].details.append(detail)

    def _add_column(self, column: pb.Column, times: list[int]) -> None:
        account = self.accounts.setdefault(column.channel, Account())
        bits = int.from_bytes(column.present_mask, "little") if column.present_mask else (1 << len(times)) - 1
        present = [time for index, time in enumerate(times) if bits >> index & 1]
        value = column.first_energy_microjoules
        assert len(column.energy_delta_microjoules) == max(len(present) - 1, 0)
        for time, delta in zip(present, [0, *column.energy_delta_microjoules], strict=False):
            value += delta
            account.values[time] = value
        account.energy = value
        account.gap_lower = column.gap_lower_microjoules
        account.gap_upper = column.gap_upper_microjoules
        account.gap_unbounded = column.gap_unbounded_count

    def numbers(self, device: str, domain: str | None = None) -> list[int]:
        """The numbers of a device's channels, oldest first."""
        return [
            channel.channel
            for channel in self.catalog.channels
            if channel.device == device and domain in (None, channel.domain)
        ]

    def account(self, device: str, domain: str | None = None) -> Account:
        """The account of a device's newest channel; an empty one if no record has named it."""
        return self.accounts.get(self.numbers(device, domain)[-1], Account())
