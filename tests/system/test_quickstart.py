"""A newcomer's first command: figures within a minute, and whatever ends it, the energy goes on from where it was."""

import json
import os
import re
import signal
import time
from pathlib import Path

from tests.system.programs import COLLECTOR, Program, children, get, is_alive, metric, wait_until

from wattledger_agent.clock import HostClock, dmi_uuid, machine_id
from wattledger_agent.spool import Spool
from wattledger_collector.store import open_store

FIRST_FIGURE_SECONDS_MAX = 60.0
# The agent's farewell, on a busy machine.
END_SECONDS_MAX = 15.0


class Quickstart:
    """The command in a folder; started as often as a test wants."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.state = folder / "state"
        self._folder = folder
        self._more = more
        self._starts = 0

    def start(self) -> "Running":
        """Start it."""
        self._starts += 1
        ports = ("--http-port", "0", "--grpc-port", "0")
        command = ["quickstart", "--zone", "DE", "--state-dir", str(self.state), *ports, *self._more]
        return Running(Program(COLLECTOR, command, self._folder / f"quickstart-{self._starts}.log"))


class Running:
    """One run of the command."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.begun = time.monotonic()

    @property
    def url(self) -> str:
        """Where the page is; empty while it has not been said."""
        found = re.search(r"page +(http://\S+)/", self.program.said)
        return found.group(1) if found else ""

    @property
    def programs(self) -> list[int]:
        """Process ids of the agent and whatever else it started."""
        return children(self.program.pid)

    def metric(self, family: str) -> float | None:
        """A family's sum on `/metrics`; None while there is none."""
        text = get(f"{self.url}/metrics") if self.url else None
        return None if text is None else metric(text, family)

    def host(self) -> str:
        """The id of the one host on `/metrics`."""
        (host,) = set(re.findall(r'wattledger_host_info\{host="([^"]+)"', get(f"{self.url}/metrics") or ""))
        return str(host)

    def wait_for_energy(self) -> float:
        """Wait for committed energy; returns the joules."""
        wait_until(lambda: (self.metric("wattledger_host_energy_joules_total") or 0.0) > 0.0, "energy")
        return self.metric("wattledger_host_energy_joules_total") or 0.0

    def wait_for_first_figure(self) -> float:
        """Wait for a power on the page and in `/metrics`; returns the seconds since the start."""
        wait_until(lambda: self.url != "", "the address", FIRST_FIGURE_SECONDS_MAX)
        assert "<html" in (get(f"{self.url}/") or "")
        wait_until(lambda: self._page_watts() is not None, "a power on the page", FIRST_FIGURE_SECONDS_MAX)
        wait_until(lambda: self.metric("wattledger_host_power_watts") is not None, "a power", FIRST_FIGURE_SECONDS_MAX)
        return time.monotonic() - self.begun

    def _page_watts(self) -> float | None:
        """What the page shows as present power: it is drawn from this answer."""
        text = get(f"{self.url}/api/v1/fleet")
        if text is None:
            return None
        watts = json.loads(text)["power"]["watts"]
        return None if watts is None else float(watts)


def spooled_sequence(state: Path) -> int:
    """The last sequence in the agent's spool."""
    clock = HostClock()
    spool = Spool.open(
        state / "agent" / "spool",
        machine_id=machine_id(),
        dmi_uuid=dmi_uuid(),
        opening=clock.instant(),
        new_epoch=lambda: os.urandom(16),
    )
    try:
        return spool.next_sequence - 1
    finally:
        spool.close()


def committed_sequences(state: Path) -> list[int]:
    """Of each epoch in the ledger."""
    store = open_store(state / "ledger.sqlite", create=False)
    try:
        return [cursor.committed_sequence for cursor in store.cursors()]
    finally:
        store.close()


def test_figures_within_a_minute_that_survive_a_kill(tmp_path: Path) -> None:
    """Power appears; killed with its agent and started again, host and energy go on; Ctrl-C leaves nothing behind."""
    quickstart = Quickstart(tmp_path)
    first = quickstart.start()
    with first.program:
        seconds = first.wait_for_first_figure()
        print(f"first power figure on the page and in /metrics after {seconds:.1f} s")
        assert seconds <= FIRST_FIGURE_SECONDS_MAX
        before, host = first.wait_for_energy(), first.host()
        (agent,) = first.programs
        first.program.kill()
        os.kill(agent, signal.SIGKILL)
    wait_until(lambda: not is_alive(agent), "the agent's end")

    second = quickstart.start()
    with second.program:
        second.wait_for_first_figure()
        after = second.wait_for_energy()
        assert after >= before
        assert second.host() == host
        wait_until(lambda: (second.metric("wattledger_host_energy_joules_total") or 0.0) > after, "more energy")
        (agent,) = second.programs
        # A sample is taken each second: one is in no record yet when the end comes.
        time.sleep(1.2)
        assert second.program.stop(signal.SIGINT) == 0, second.program.said
    assert not is_alive(agent)
    assert "Traceback" not in second.program.said
    # One account from the first start to the last second, all of it booked.
    assert committed_sequences(quickstart.state) == [spooled_sequence(quickstart.state)]


def test_an_agent_does_not_outlive_a_killed_collector(tmp_path: Path) -> None:
    """Killed alone, quickstart takes its agent along, which ends in good order; a start at once waits for it."""
    quickstart = Quickstart(tmp_path)
    first = quickstart.start()
    with first.program:
        before = first.wait_for_energy()
        (agent,) = first.programs
        first.program.kill()
    second = quickstart.start()
    with second.program:
        try:
            wait_until(lambda: not is_alive(agent), "the first agent's end", END_SECONDS_MAX)
        except AssertionError:
            os.kill(agent, signal.SIGKILL)
            raise
        assert second.wait_for_energy() >= before
        assert second.program.stop() == 0, second.program.said
    assert committed_sequences(quickstart.state) == [spooled_sequence(quickstart.state)]


def test_a_dead_agent_ends_it_with_a_status(tmp_path: Path) -> None:
    """Figures that stand still would look like an idle machine."""
    running = Quickstart(tmp_path).start()
    with running.program:
        wait_until(lambda: running.url != "", "the address")
        (agent,) = running.programs
        os.kill(agent, signal.SIGKILL)
        assert running.program.wait() == 1
        assert "the agent ended with status -9" in running.program.said


def test_the_demonstration_has_simulated_hosts_that_say_so(tmp_path: Path) -> None:
    """Forty of them beside this machine, in a site of their own; it ends by itself when its time is over."""
    running = Quickstart(tmp_path, "--demo", "--duration-seconds", "12").start()
    with running.program:
        wait_until(lambda: running.metric("wattledger_host_info") == 41.0, "41 hosts")
        text = get(f"{running.url}/metrics") or ""
        assert metric(text, "wattledger_host_info", {"site": "simulated"}) == 40.0
        assert len(running.programs) == 2
        programs = running.programs
        assert running.program.wait() == 0, running.program.said
    assert not any(map(is_alive, programs))
    assert "Traceback" not in running.program.said
