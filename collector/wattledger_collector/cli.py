"""The command `wattledger-collector`. Data goes to standard output, talk to standard error.

Exit status: 0 all went well, 1 something is wrong that the text tells, 2 the arguments are wrong.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from wattledger_collector.backup import backup, restore
from wattledger_collector.command_setup import CONFIGURATION_PATH_DEFAULT
from wattledger_collector.commands import add_commands
from wattledger_collector.config import PORT_MAX, ConfigurationError
from wattledger_collector.configuration import load_configuration
from wattledger_collector.factor_catalog import UnknownZoneError
from wattledger_collector.factors import FactorFileError
from wattledger_collector.import_commands import add_imports
from wattledger_collector.records import StoreError


def main(arguments: list[str] | None = None) -> None:
    """Run the command; exits."""
    parsed = _parser().parse_args(arguments)
    # gRPC's C core writes lines of its own to standard error; what matters of them is in our own words.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    logging.basicConfig(
        level=logging.DEBUG if parsed.verbose else logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr
    )
    # Migrations tell every step at this level; an operator wants to know of the collector.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        sys.exit(parsed.run(parsed))
    except (ConfigurationError, FactorFileError, StoreError, UnknownZoneError) as error:
        sys.exit(f"wattledger-collector: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wattledger-collector", description="Books every joule once, and shows energy and CO2e."
    )
    parser.add_argument("--verbose", action="store_true", help="tell more on standard error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_quickstart(commands)
    add_commands(commands)
    add_imports(commands)
    _add_copies(commands)
    return parser


def _add_serve(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("serve", help="take agents, book, and show, until stopped")
    parser.add_argument(
        "--config",
        type=Path,
        default=CONFIGURATION_PATH_DEFAULT,
        help=f"collector.toml (default: {CONFIGURATION_PATH_DEFAULT})",
    )
    parser.set_defaults(run=_serve)


def _add_quickstart(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("quickstart", help="a collector and an agent of this machine, for a first look")
    parser.add_argument("--zone", help="grid zone, such as DE or US-CAMX; else that of the system's time zone, as assumed")
    parser.add_argument("--state-dir", type=Path, default=Path("state"), help="where ledger and spool are kept")
    parser.add_argument("--http-port", type=_port, default=9790, help="page and metrics; 0: any free port")
    parser.add_argument("--grpc-port", type=_port, default=9791, help="agents; 0: any free port")
    parser.add_argument("--duration-seconds", type=float, help="stop by itself after so long")
    parser.add_argument("--demo", action="store_true", help="add 40 simulated hosts, one of which becomes less efficient")
    parser.set_defaults(run=_quickstart)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > PORT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: write 1 to {PORT_MAX}, or 0 for any free one")
    return int(text)


def _add_copies(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    copy = commands.add_parser("backup", help="copy the ledger, while collectors run")
    copy.add_argument("target", type=Path, help="the file to write")
    back = commands.add_parser("restore", help="put a backup in the ledger's place, while no collector runs")
    back.add_argument("source", type=Path, help="a file made by backup")
    back.add_argument("--force", action="store_true", help="replace the ledger that is there")
    back.add_argument(
        "--forget-statements",
        action="store_true",
        help="also if the log loses statements by it",
    )
    for parser, run in ((copy, _backup), (back, _restore)):
        parser.add_argument("--store", type=Path, help="the ledger (default: the one that --config names)")
        parser.add_argument("--config", type=Path, default=CONFIGURATION_PATH_DEFAULT, help="collector.toml")
        parser.set_defaults(run=run)


def _serve(parsed: argparse.Namespace) -> int:
    # Imported here: the other commands need neither gRPC's memory nor its time.
    from wattledger_collector.server import ServerError
    from wattledger_collector.service import Service, ServiceError, run
    from wattledger_collector.tls import TlsError

    configuration, catalog = load_configuration(parsed.config)

    async def serve() -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        await run(Service(configuration, catalog), stopping)

    try:
        asyncio.run(serve())
    except (ServerError, ServiceError, TlsError) as error:
        print(f"wattledger-collector: {error}", file=sys.stderr)
        return 1
    return 0


def _quickstart(parsed: argparse.Namespace) -> int:
    from wattledger_collector.quickstart import Options, quickstart

    return quickstart(
        Options(
            zone=parsed.zone,
            state_dir=parsed.state_dir,
            http_port=parsed.http_port,
            grpc_port=parsed.grpc_port,
            duration_seconds=parsed.duration_seconds,
            demo=parsed.demo,
        )
    )


def _store_path(parsed: argparse.Namespace) -> Path:
    if parsed.store is not None:
        return Path(parsed.store)
    configuration, _ = load_configuration(parsed.config)
    return Path(configuration.store.path)


def _backup(parsed: argparse.Namespace) -> int:
    size = backup(_store_path(parsed), parsed.target)
    print(f"{parsed.target}: {size} bytes, checked")
    return 0


def _restore(parsed: argparse.Namespace) -> int:
    done = restore(parsed.source, _store_path(parsed), force=parsed.force, forget_statements=parsed.forget_statements)
    print(
        f"restored; the counters of {done.hosts} hosts are withheld until their agents have sent again what the copy lacks"
    )
    if done.carried:
        print(
            f"statements made since the backup stay in the log: {', '.join(map(str, done.carried))}; keep their bundles, "
            "which can be written again only if all that they state comes again"
        )
    elif done.log_size:
        print(f"the log of statements goes on after {done.log_size} leaves: nobody may have been given a longer one")
    if done.is_log_unknown:
        print("the ledger that was replaced could not be read: compare its newest checkpoint before you close a period")
    return 0


if __name__ == "__main__":
    main()
