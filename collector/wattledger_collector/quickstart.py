"""`wattledger-collector quickstart`: a collector and an agent of this machine, in one state folder, with one command.

Everything is real; what it writes into the folder can be carried on with `serve` and `wattledger-agent run`. The agent is a
program of its own, started as one: the two halves share no code.
"""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from wattledger_collector.config import Configuration, HostRule, Http, Server, Site, StoreSettings
from wattledger_collector.factor_catalog import FactorCatalog
from wattledger_collector.factor_files import load_catalog, propose_zone, system_time_zone
from wattledger_collector.server import ServerError
from wattledger_collector.service import Addresses, Service, ServiceError, run

log = logging.getLogger("wattledger.quickstart")

SITE = "here"
DEMO_SITE = "simulated"
DEMO_HOSTS = 40

# Who takes a first look does not wait ten seconds for the first energy; each flush is one fsync.
FLUSH_SECONDS = 2.0

# The agent writes its last record and hands it over; longer means that it hangs.
AGENT_STOP_SECONDS_MAX = 10.0

# How soon the end of a program is seen.
WATCH_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says. zone: None: propose one. duration_seconds: None: until stopped."""

    zone: str | None
    state_dir: Path
    http_port: int
    grpc_port: int
    duration_seconds: float | None
    demo: bool


def quickstart(options: Options) -> int:
    """Run until stopped; returns the exit status. Raises StoreError, ConfigurationError or UnknownZoneError."""
    if not sys.platform.startswith("linux"):
        print(f"Wattledger reads Linux sensors, and this is {sys.platform}. Run it on Linux.", file=sys.stderr)
        return 1
    catalog = load_catalog()
    zone, is_assumed = _zone(options.zone, catalog)
    configuration = _configuration(options, zone)
    try:
        options.state_dir.mkdir(parents=True, exist_ok=True)
        _write_collector_toml(options, configuration)
    except OSError as error:
        reason = "there is a file of that name" if isinstance(error, FileExistsError) else error.strerror
        print(
            f"wattledger-collector: cannot use the state folder {options.state_dir}: {reason}. Name one that you can write "
            "to with --state-dir.",
            file=sys.stderr,
        )
        return 1
    try:
        return asyncio.run(_run(options, configuration, catalog, zone, is_assumed))
    except (ServiceError, ServerError) as error:
        print(f"wattledger-collector: {error}", file=sys.stderr)
        return 1


def _zone(asked: str | None, catalog: FactorCatalog) -> tuple[str | None, bool]:
    """The zone, and whether it was proposed by us. Raises UnknownZoneError."""
    if asked is not None:
        catalog.require(asked)
        return asked, False
    return propose_zone(system_time_zone(), catalog), True


def _configuration(options: Options, zone: str | None) -> Configuration:
    sites = [Site(name=SITE, zone=zone or "", pue=Decimal(1))]
    rules = [HostRule(site=SITE, name="*")]
    if options.demo:
        sites.append(Site(name=DEMO_SITE, zone=zone or "", pue=Decimal("1.3")))
        rules.insert(0, HostRule(site=DEMO_SITE, labels={"simulated": "true"}))
    return Configuration(
        server=Server(port=options.grpc_port),
        http=Http(port=options.http_port),
        store=StoreSettings(path=str((options.state_dir / "ledger.sqlite").resolve())),
        site=tuple(sites),
        host=tuple(rules),
    )


async def _run(
    options: Options, configuration: Configuration, catalog: FactorCatalog, zone: str | None, is_assumed: bool
) -> int:
    """Run collector and programs until a signal, the set time, or the end of a program; returns the exit status."""
    stopping, collector_stopping = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if options.duration_seconds is not None:
        loop.call_later(options.duration_seconds, stopping.set)
    service = Service(
        configuration, catalog, time_zone=system_time_zone() or "UTC", assumed=is_assumed, notice=_notice(zone, is_assumed)
    )
    started: asyncio.Future[Addresses] = loop.create_future()
    running = asyncio.create_task(run(service, collector_stopping, started=started))
    while not started.done() and not running.done():
        await asyncio.sleep(0.01)
    if not started.done():
        await running  # Raises what went wrong.
    programs = _start(options, started.result())
    try:
        _greet(options, started.result(), zone, is_assumed)
        status = await _watch(programs, running, stopping)
    finally:
        # The collector goes last: it books what the agent spooled in its last seconds.
        await asyncio.to_thread(_end, programs)
        collector_stopping.set()
        await running
    return status


Programs = list[tuple[str, "subprocess.Popen[bytes]"]]


def _start(options: Options, addresses: Addresses) -> Programs:
    """The agent, and with --demo the simulated hosts, as programs that end with us."""
    agent_toml = options.state_dir / "agent.toml"
    _write(
        agent_toml,
        f"state_dir = {_text(options.state_dir / 'agent')}\nflush_seconds = {FLUSH_SECONDS}\n\n"
        f'[collector]\naddress = "{addresses.grpc}"\n',
    )
    commands = {"the agent": ["run", "--config", str(agent_toml)]}
    if options.demo:
        commands["the simulation"] = [
            *("simulate", "--hosts", str(DEMO_HOSTS), "--collector", addresses.grpc),
            *("--state-dir", str(options.state_dir / "simulated")),
        ]
    return [
        (
            name,
            subprocess.Popen(
                [sys.executable, "-m", "wattledger_agent.cli", *command, "--until-stdin-closes"],
                # Never written to: it closes when we end, however that happens, and then the program ends too.
                stdin=subprocess.PIPE,
                # Ctrl-C is for us alone; the programs are told in order.
                start_new_session=True,
            ),
        )
        for name, command in commands.items()
    ]


async def _watch(programs: Programs, running: "asyncio.Task[None]", stopping: asyncio.Event) -> int:
    """Wait for the end: 0 if it was wanted, 1 if a program or the collector ended by itself."""
    while not stopping.is_set() and not running.done():
        for name, program in programs:
            if program.poll() is not None:
                log.error("%s ended with status %d; its last words stand above", name, program.returncode)
                return 1
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), WATCH_SECONDS)
    return int(not stopping.is_set())


def _end(programs: Programs) -> None:
    """Have the programs stop, and wait for it."""
    for _, program in programs:
        program.terminate()
    for name, program in programs:
        try:
            program.wait(AGENT_STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            log.error("%s did not stop within %.0f s and is ended by force", name, AGENT_STOP_SECONDS_MAX)
            program.kill()
            program.wait()
        if program.stdin is not None:
            program.stdin.close()


def _greet(options: Options, addresses: Addresses, zone: str | None, is_assumed: bool) -> None:
    said = zone or "none: emissions are not reckoned (give one: make run ZONE=DE)"
    if is_assumed and zone is not None:
        said += " (assumed from the time zone; give yours: make run ZONE=...)"
    print(
        f"\n  page     http://{addresses.http}/\n  metrics  http://{addresses.http}/metrics\n  agents   {addresses.grpc}\n"
        f"  zone     {said}\n  state    {options.state_dir.resolve()}\n\n"
        "  Ctrl-C stops it; started again, it goes on from there.\n",
        flush=True,
    )


def _notice(zone: str | None, is_assumed: bool) -> str:
    if zone is None:
        return "No grid zone is set, so emissions are not reckoned. Start with a zone: make run ZONE=DE."
    if is_assumed:
        return f"The grid zone {zone} is assumed from this machine's time zone. Start with yours: make run ZONE=DE."
    return ""


def _write_collector_toml(options: Options, configuration: Configuration) -> None:
    lines = ["# Written by quickstart at each start. Copy it to carry on with: wattledger-collector serve --config FILE"]
    lines += ["", "[server]", f"port = {configuration.server.port}", "", "[http]", f"port = {configuration.http.port}"]
    lines += ["", "[store]", f"path = {_text(Path(configuration.store.path))}"]
    for site in configuration.site:
        lines += ["", "[[site]]", f'name = "{site.name}"', f'zone = "{site.zone}"', f"pue = {site.pue}"]
    for rule in configuration.host:
        lines += ["", "[[host]]", f'site = "{rule.site}"']
        lines += [f'name = "{rule.name}"'] if rule.name else []
        lines += [f"labels = {{ {', '.join(f'{key} = {json.dumps(value)}' for key, value in rule.labels.items())} }}"][
            : len(rule.labels)
        ]
    _write(options.state_dir / "collector.toml", "\n".join(lines) + "\n")


def _text(path: Path) -> str:
    """A TOML string; JSON's strings are a part of TOML's."""
    return json.dumps(str(path.resolve()))


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)
