"""The command `wattledger-agent`. Data goes to standard output, talk to standard error.

Exit status: 0 all went well, 1 something is wrong that the text tells, 2 the arguments are wrong.
"""

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from wattledger_agent.clock import ClockError, HostClock
from wattledger_agent.config import AgentConfig, CollectorConfig, ConfigError, parse_config
from wattledger_agent.inventory import Roots, find_sources
from wattledger_agent.workload_setup import open_workloads

CONFIG_DEFAULT = Path("/etc/wattledger/agent.toml")

# Of recordings: a month is more than anybody records, and below 20 ms the sensors have nothing new.
SECONDS_MIN, SECONDS_MAX = 0.02, 31 * 86_400.0

# An hour shows every cadence and most wraps; what changes in it is some 20 MB in memory on a large server.
HOUR_SECONDS = 3600.0


def main(arguments: list[str] | None = None) -> None:
    """Run the command; exits."""
    parsed = _parser().parse_args(arguments)
    # gRPC's C core writes lines of its own to standard error; what matters of them is in our own words.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    logging.basicConfig(
        level=logging.DEBUG if parsed.verbose else logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr
    )
    if not sys.platform.startswith("linux"):
        sys.exit(f"The agent reads Linux sensors, and this is {sys.platform}. Run it on Linux.")
    try:
        status = _run(parsed)
        sys.stdout.flush()
        sys.exit(status)
    except (ClockError, ConfigError) as error:
        sys.exit(str(error))
    except BrokenPipeError:
        # The reader (`head`) has seen enough; what is left goes nowhere, so that the flush at exit is silent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.exit(130)


def _run(parsed: argparse.Namespace) -> int:
    if parsed.command == "replay":
        return _replay(parsed)
    roots = Roots(parsed.sysfs_root, parsed.procfs_root)
    if parsed.command == "simulate":
        return _simulate(parsed, roots)
    config = _load(parsed.config)
    if parsed.command == "record":
        return _record(parsed, config, roots)
    if parsed.command == "run":
        return _run_agent(config, roots, _stopping(parsed))
    if parsed.command == "once":
        return _once(config, roots, as_json=parsed.json)
    return _doctor(config, roots, as_json=parsed.json)


# Each command imports what it alone needs: an agent that runs for months carries nothing of the others in its memory.


def _doctor(config: AgentConfig, roots: Roots, *, as_json: bool) -> int:
    from wattledger_agent import doctor

    report = doctor.diagnose(config, roots)
    print(doctor.as_json(report) if as_json else doctor.as_text(report))
    return doctor.exit_status(report.findings)


def _run_agent(config: AgentConfig, roots: Roots, stopping: threading.Event) -> int:
    from wattledger_agent import runner
    from wattledger_agent.shipper import ShipperError

    try:
        runner.run(config, roots, stopping)
    except (runner.RunError, ShipperError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _simulate(parsed: argparse.Namespace, roots: Roots) -> int:
    from wattledger_agent.shipper import ShipperError
    from wattledger_agent.simulate import simulate
    from wattledger_agent.spool import SpoolError

    collector = CollectorConfig(address=parsed.collector)
    try:
        simulate(parsed.hosts, collector, parsed.state_dir, roots, _stopping(parsed))
    except (SpoolError, ShipperError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _record(parsed: argparse.Namespace, config: AgentConfig, roots: Roots) -> int:
    from datetime import UTC, datetime

    from wattledger_agent.machine_record import RecordError, record

    try:
        recorded = record(
            config.sources,
            roots,
            parsed.out,
            duration_seconds=parsed.duration_seconds,
            period_seconds=parsed.period_seconds,
            today=datetime.now(UTC),
        )
    except RecordError as error:
        print(error, file=sys.stderr)
        return 1
    print(recorded.as_text())
    return 0


def _replay(parsed: argparse.Namespace) -> int:
    import tempfile

    from wattledger_agent import machine_replay
    from wattledger_agent.machine import MachineError, open_machine

    with tempfile.TemporaryDirectory(prefix="wattledger-replay-") as workspace:
        try:
            machine = open_machine(parsed.folder, Path(workspace) / "machine")
            outcome = machine_replay.play(machine, parsed.seconds, period_seconds=parsed.period_seconds)
        except MachineError as error:
            print(error, file=sys.stderr)
            return 1
    print(machine_replay.as_json(outcome) if parsed.json else machine_replay.as_text(outcome))
    return 0 if outcome.accounts else 1


def _stopping(parsed: argparse.Namespace) -> threading.Event:
    """Set by a signal to stop, and on demand by the end of standard input."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    if parsed.until_stdin_closes:
        threading.Thread(target=_stop_at_end_of_input, args=(stopping,), name="stdin", daemon=True).start()
    return stopping


def _stop_at_end_of_input(stopping: threading.Event) -> None:
    # The kernel closes a pipe whatever ends the program at its other end, so no agent outlives the one that started it.
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    stopping.set()


def _once(config: AgentConfig, roots: Roots, *, as_json: bool) -> int:
    from wattledger_agent import once

    clock = HostClock(roots.procfs)
    inventory = find_sources(config.sources, roots, processes=config.workloads.enabled, seconds_max=once.OPEN_SECONDS_MAX)
    workloads = open_workloads(config, roots, inventory)
    snapshot = once.look(inventory, clock.instant, workloads=workloads)
    print(once.as_json(snapshot) if as_json else once.as_text(snapshot))
    return 0 if snapshot.lines else 1


def _load(path: Path | None) -> AgentConfig:
    """The file named, else the default one if it is there, else the defaults. Raises ConfigError."""
    if path is None and not CONFIG_DEFAULT.exists():
        return AgentConfig()
    path = path or CONFIG_DEFAULT
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}. Name another with --config.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the configuration {path} is not UTF-8 text: {error}. Save it as UTF-8.") from error
    return parse_config(text, origin=str(path))


def _seconds(text: str) -> float:
    seconds = float(text)
    if not SECONDS_MIN <= seconds <= SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"{text} s; from {SECONDS_MIN:g} to {SECONDS_MAX:.0f}")
    return seconds


def _hour(text: str) -> float:
    seconds = float(text)
    if not 0.0 <= seconds <= HOUR_SECONDS:
        raise argparse.ArgumentTypeError(f"{text} s; from 0 (a single look) to {HOUR_SECONDS:.0f}")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wattledger-agent", description="Meters this host's power and energy.")
    parser.add_argument("--verbose", action="store_true", help="tell more on standard error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="meter this host and deliver to the collector, until stopped")
    one = commands.add_parser("once", help="read every source once and show the tree of channels")
    look = commands.add_parser("doctor", help="say what can be measured here, what can't, and the remedy")
    simulation = commands.add_parser("simulate", help="run simulated hosts, labelled so, for a look at a fleet")
    # Each has a stream and a thread.
    simulation.add_argument("--hosts", type=int, default=40, choices=range(1, 201), metavar="1..200", help="how many")
    simulation.add_argument("--collector", default="127.0.0.1:9791", help="host:port on this machine")
    simulation.add_argument("--state-dir", type=Path, default=Path("simulated"), help="where their spools are kept")
    record = commands.add_parser("record", help="write what this host's sensors show to a folder, without names")
    record.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    record.add_argument(
        "--duration-seconds", type=_hour, default=60.0, help="how long to look; a minute if not given, an hour at most"
    )
    record.add_argument("--period-seconds", type=_seconds, default=1.0, help="time between two looks")
    replay = commands.add_parser("replay", help="meter a recorded machine, and say what would have been booked")
    replay.add_argument("folder", type=Path, metavar="DIR", help="what `record` has written; nothing of this host is read")
    replay.add_argument("--seconds", type=_seconds, help="recorded time to play; as long as was recorded if not given")
    replay.add_argument("--period-seconds", type=_seconds, default=1.0, help="time between two samples")
    for command in (run, one, look, record):
        command.add_argument("--config", type=Path, help=f"agent.toml; {CONFIG_DEFAULT} or the defaults if not given")
    for command in (run, one, look, record, simulation):
        command.add_argument("--sysfs-root", type=Path, default=Path("/sys"), help="where sysfs is mounted")
        command.add_argument("--procfs-root", type=Path, default=Path("/proc"), help="where procfs is mounted")
    for command in (run, simulation):
        command.add_argument(
            "--until-stdin-closes",
            action="store_true",
            help="stop when standard input ends, for programs that start an agent of their own",
        )
    for command in (one, look, replay):
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser


if __name__ == "__main__":
    main()
