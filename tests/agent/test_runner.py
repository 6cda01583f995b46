"""An agent from its start to its end, in this process; and a replay that goes on after a restart.

Who it is, which spool it has, and that it says in a sentence when it can't run.
"""

import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.agent.fake_nvml import FakeNvml
from tests.agent.metering import at

from wattledger_agent.clock import ClockError, dmi_uuid, machine_id
from wattledger_agent.commands import Answer
from wattledger_agent.config import (
    AgentConfig,
    CollectorConfig,
    CpuConfig,
    EstimateConfig,
    FakeConfig,
    NvidiaConfig,
    RaplConfig,
    ReplayConfig,
    SourcesConfig,
)
from wattledger_agent.inventory import Roots
from wattledger_agent.meter import Meter
from wattledger_agent.runner import LastInstant, Notifier, RunError, host_id, pause_seconds, run, unplayed_rows
from wattledger_agent.shipper import ShipperError
from wattledger_agent.sources.replay import ReplaySource
from wattledger_agent.spool import Spool
from wattledger_protos.v1 import telemetry_pb2 as pb

# Nobody listens there: no unprivileged program may.
NOBODY = CollectorConfig(address="127.0.0.1:1")
NOTHING = SourcesConfig(
    rapl=RaplConfig(enabled=False),
    nvidia=NvidiaConfig(enabled=False),
    cpu=CpuConfig(enabled=False),
    estimate=EstimateConfig(enabled=False),
)


def config_of(
    folder: Path, *, sources: SourcesConfig | None = None, collector: CollectorConfig = NOBODY, host: str = ""
) -> AgentConfig:
    """A simulated host that samples as fast as it may."""
    return AgentConfig(
        host=host,
        state_dir=str(folder),
        period_seconds=0.02,
        flush_seconds=0.04,
        sources=sources or SourcesConfig(fake=FakeConfig(packages=1)),
        collector=collector,
    )


def open_spool(folder: Path) -> Spool:
    """The agent's spool, as a second agent would open it."""
    return Spool.open(
        folder / "spool",
        machine_id=machine_id(),
        dmi_uuid=dmi_uuid(),
        opening=at(0),
        new_epoch=lambda: os.urandom(16),
    )


def run_for(config: AgentConfig, seconds: float) -> None:
    """Run an agent for a while."""
    stopping = threading.Event()
    timer = threading.Timer(seconds, stopping.set)
    timer.start()
    try:
        run(config, Roots(), stopping)
    finally:
        timer.cancel()
        timer.join()


def test_an_agent_without_a_collector_keeps_everything(tmp_path: Path) -> None:
    """It meters into its spool, ends when told to, and goes on with the same account at its next start."""
    run_for(config_of(tmp_path), 0.3)
    spool = open_spool(tmp_path)
    first, epoch = spool.unacknowledged_records, spool.epoch
    spool.close()
    run_for(config_of(tmp_path), 0.3)
    spool = open_spool(tmp_path)

    assert first >= 3
    assert spool.unacknowledged_records > first
    assert spool.epoch == epoch
    newest = spool.find(spool.next_sequence - 1)
    assert newest is not None
    assert {column.gap_upper_microjoules for column in pb.Payload.FromString(newest.payload).columns} == {0}
    spool.close()


def test_a_host_has_one_id_for_ever(tmp_path: Path) -> None:
    """Made at the first start and kept; a configured one wins; where a certificate names it there is none."""
    made = host_id(config_of(tmp_path / "state"))

    assert made.startswith("host-")
    assert host_id(config_of(tmp_path / "state")) == made
    assert host_id(config_of(tmp_path / "other")) != made
    assert host_id(config_of(tmp_path / "state", host="web-1")) == "web-1"
    tls = CollectorConfig(address="127.0.0.1:1", ca_file="a", certificate_file="b", key_file="c")
    assert host_id(config_of(tmp_path / "tls", collector=tls)) == ""
    assert not (tmp_path / "tls").exists()


def test_a_lost_id_is_not_made_up_again(tmp_path: Path) -> None:
    """Another id would be another host: an operator decides."""
    (tmp_path / "host-id").write_text("")

    with pytest.raises(RunError, match=r"host-id is empty.*host list.*remove it"):
        host_id(config_of(tmp_path))


def test_a_file_in_place_of_the_state_folder_is_named(tmp_path: Path) -> None:
    """With the way out."""
    (tmp_path / "state").write_text("")

    for host in ("", "web-1"):
        with pytest.raises(RunError, match=rf"{tmp_path}/state.*Move (it )?away.* set `state_dir` to another"):
            run_for(config_of(tmp_path / "state", host=host), 0.0)


def test_a_host_with_nothing_to_read_says_so(tmp_path: Path) -> None:
    """And leaves no lock behind."""
    with pytest.raises(RunError, match=r"no sensor can be read.*wattledger-agent doctor"):
        run_for(config_of(tmp_path, sources=NOTHING), 0.0)
    open_spool(tmp_path).close()


def test_a_driver_that_is_slow_to_open_keeps_no_other_sensor_waiting(tmp_path: Path) -> None:
    """The controller is asked while the driver still starts, though it stands after it in the list of sources."""
    asked = threading.Event()
    in_time: list[bool] = []

    def start(number: int) -> int:
        in_time.append(asked.wait(5.0))
        return 0

    def answer(argv: Sequence[str], seconds_max: float) -> Answer:
        asked.set()
        return Answer(0, "Instantaneous power reading: 300 Watts\nPower reading state is: activated\n", "")

    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/ipmi0").touch()
    nvml = FakeNvml([], fail={"nvmlInit": start})
    roots = Roots(sysfs=tmp_path / "sys", devices=tmp_path / "dev", commands=answer, nvml=nvml)
    stopping = threading.Event()
    stopping.set()

    run(config_of(tmp_path / "state", sources=SourcesConfig()), roots, stopping)

    assert in_time[:1] == [True]


def test_a_host_without_a_boot_says_so(tmp_path: Path) -> None:
    """Missing, or no id at all."""
    with pytest.raises(ClockError, match=r"cannot read the boot id at .*No such file.*--procfs-root"):
        run(config_of(tmp_path), Roots(procfs=tmp_path / "proc"), threading.Event())
    boot = tmp_path / "proc/sys/kernel/random/boot_id"
    boot.parent.mkdir(parents=True)
    boot.write_text("no id")
    with pytest.raises(ClockError, match=r"badly formed.*--procfs-root"):
        run(config_of(tmp_path), Roots(procfs=tmp_path / "proc"), threading.Event())


def test_a_plain_stream_to_another_machine_is_refused(tmp_path: Path) -> None:
    """Before anything is metered; and the spool is free again."""
    away = CollectorConfig(address="192.0.2.1:9791")
    with pytest.raises(ShipperError, match="is not loopback and no certificates are given"):
        run_for(config_of(tmp_path, collector=away), 0.0)
    open_spool(tmp_path).close()


def test_a_start_waits_for_an_agent_that_is_just_ending(tmp_path: Path) -> None:
    """The one before may still write its last record when its supervisor has started the next."""
    holder = open_spool(tmp_path)
    timer = threading.Timer(0.3, holder.close)
    timer.start()
    begun = time.monotonic()
    run_for(config_of(tmp_path), 0.5)
    timer.join()

    assert time.monotonic() - begun >= 0.3
    spool = open_spool(tmp_path)
    assert spool.unacknowledged_records > 0
    spool.close()


def test_a_recording_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With the remedy of the source."""
    replay = SourcesConfig(replay=ReplayConfig(path=str(tmp_path / "nothing.csv")))
    with pytest.raises(RunError, match=r"nothing\.csv.*No such file"):
        run_for(config_of(tmp_path, sources=replay, host="recorded"), 0.0)


def test_systemd_is_told(tmp_path: Path) -> None:
    """Ready once metering has begun, then a word at times, for its watchdog."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5.0)
        notifier = Notifier(str(tmp_path / "notify"))
        notifier.ready()
        notifier.alive()
        notifier.alive()
        assert [systemd.recv(64), systemd.recv(64)] == [b"READY=1", b"WATCHDOG=1"]
        systemd.settimeout(0.05)
        with pytest.raises(TimeoutError):
            systemd.recv(64)


def test_systemd_is_told_how_delivery_stands(tmp_path: Path) -> None:
    """With the word for its watchdog: `systemctl status` shows it, and doctor asks for it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5.0)
        Notifier(str(tmp_path / "notify"), lambda: "metering and delivering").alive()
        assert systemd.recv(64) == b"WATCHDOG=1\nSTATUS=metering and delivering"


def test_a_supervisor_that_does_not_listen_is_no_reason_to_end(tmp_path: Path) -> None:
    """A container may name a socket that it does not show."""
    notifier = Notifier(str(tmp_path / "notify"))
    notifier.ready()
    notifier.alive()


def test_only_a_leading_at_sign_means_an_abstract_socket(tmp_path: Path) -> None:
    """The folders of a template unit have one within their names."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "user@1000"))
        systemd.settimeout(5.0)
        Notifier(str(tmp_path / "user@1000")).ready()
        assert systemd.recv(64) == b"READY=1"


def test_a_replay_goes_on_at_once(tmp_path: Path) -> None:
    """After a restart the rows that are in the state are passed over without their pauses."""
    path = tmp_path / "r.csv"
    path.write_text("timestamp,power_watts\n" + "".join(f"2025-10-31 {hour:02}:00,100\n" for hour in range(10)))
    replay = ReplaySource(path)
    specs = replay.open()
    before = Meter(state=None, integral_gap_seconds_max=0.0)
    before.offer(specs, replay.opening())
    rows = list(replay.rows())
    for now, readings in rows[:6]:
        before.observe(readings, now)
    cut = before.cut(rows[5][0])
    assert cut is not None
    meter = Meter(state=cut.state, integral_gap_seconds_max=0.0)
    meter.offer(specs, replay.opening())
    last = LastInstant(replay.opening())

    played, pauses = [], []
    for now, _ in unplayed_rows(replay, meter, last):
        pauses.append(pause_seconds(last.now, now, 7200.0))
        played.append(now)
        last.now = now

    assert played == [now for now, _ in rows[6:]]
    assert pauses == [0.5] * 4


def test_as_fast_as_possible_is_without_pauses(tmp_path: Path) -> None:
    """Speed 0 never waits."""
    path = tmp_path / "r.csv"
    path.write_text("timestamp,power_watts\n2025-10-31 08:00,100\n")
    replay = ReplaySource(path)
    replay.open()
    ((now, _),) = replay.rows()
    assert pause_seconds(replay.opening(), now, 0.0) == 0.0
