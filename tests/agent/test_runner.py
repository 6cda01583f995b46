"""A replay goes on after a restart: at once, and with nothing twice."""

from pathlib import Path

from wattledger_agent.meter import Meter
from wattledger_agent.runner import LastInstant, pause_seconds, unplayed_rows
from wattledger_agent.sources.replay import ReplaySource


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
