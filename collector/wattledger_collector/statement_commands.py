"""The commands of statements: `statement close|list|show|bundle|checkpoint` and so on, and `verify`.

No policy: arguments in, text out; data goes to stdout, complaints to stderr. Exit status 0: done, 1: refused. Sources of
truth: `closing.py`, `bundle.py`, `verify.py`, `witness.py`.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from wattledger_collector.command_setup import (
    add_inventory_argument,
    add_store_arguments,
    console,
    guarded,
    load_declared,
    load_named,
    open_named,
    print_json,
)
from wattledger_collector.config import Configuration
from wattledger_collector.factor_store import load_factors
from wattledger_collector.report import make_period, parse_instant, parse_time_zone
from wattledger_collector.store import SqliteStore
from wattledger_collector.verify_arguments import add_arguments

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from wattledger_collector.closing import Progress as TellProgress
    from wattledger_collector.command_setup import Run, Subparsers


class StatementError(ValueError):
    """A statement's command can't be done; the text says why and what to do."""


def add_statements(subparsers: "Subparsers") -> None:
    """Add the commands."""
    parser = subparsers.add_parser("statement", help="close periods, and hand out what proves their figures")
    actions = parser.add_subparsers(required=True, metavar="close|list|show|bundle|disclose|checkpoint|...")
    _add_close(actions)
    listed = actions.add_parser("list", help="all statements")
    listed.add_argument("--json", action="store_true", help="a JSON list")
    _finish(listed, _list)
    shown = actions.add_parser("show", help="one statement")
    shown.add_argument("number", nargs="?", type=int, help="its number (default: the newest)")
    shown.add_argument("--json", action="store_true", help="the statement itself, byte for byte as it is hashed")
    _finish(shown, _show)
    bundled = actions.add_parser("bundle", help="write a statement with all that is needed to check it")
    bundled.add_argument("number", nargs="?", type=int, help="its number (default: the newest)")
    bundled.add_argument("--out", type=Path, required=True, metavar="PLACE", help="a new folder, or a new file.zip")
    _finish(bundled, _bundle)
    disclosed = actions.add_parser("disclose", help="write one host's day with its proof, and nothing of other hosts")
    disclosed.add_argument("number", nargs="?", type=int, help="the statement's number (default: the newest)")
    disclosed.add_argument("--host", required=True, metavar="ID", help="the host, as `host list` names it")
    disclosed.add_argument("--day", required=True, metavar="DATE", help="the day (UTC), as 2026-01-31")
    disclosed.add_argument("--out", type=Path, required=True, metavar="PLACE", help="a new folder, or a new file.zip")
    _finish(disclosed, _disclose)
    _add_log(actions)


def add_verify(subparsers: "Subparsers") -> None:
    """Add `verify`, which reads no ledger."""
    parser = subparsers.add_parser("verify", help="check a statement's bundle, without network and ledger")
    add_arguments(parser)
    parser.set_defaults(run=_verify)


def _add_close(actions: "Subparsers") -> None:
    action = actions.add_parser("close", help="state a period; again: restate it, if something has changed")
    action.add_argument("--from", dest="from_", required=True, metavar="TIME", help="ISO date or datetime, included")
    action.add_argument("--to", required=True, metavar="TIME", help="ISO date or datetime, not included")
    action.add_argument("--time-zone", default="UTC", metavar="NAME", help="IANA time zone of the times (default: UTC)")
    action.add_argument("--site", help="this site alone")
    add_inventory_argument(action)
    _add_key(action)
    _finish(action, _close)


def _add_log(actions: "Subparsers") -> None:
    action = actions.add_parser("checkpoint", help="print the log's newest signed checkpoint")
    action.add_argument("--since", type=int, metavar="LEAVES", help="as a request to a witness that saw so many")
    action.add_argument("--keys", action="store_true", help="the log's public keys instead, the newest last")
    action.add_argument("--time-stamp-request", type=Path, metavar="FILE", help="write a request (RFC 3161) for it, too")
    _finish(action, _checkpoint)
    action = actions.add_parser("witness", help="sign another ledger's checkpoint, if it continues what was seen before")
    action.add_argument("file", type=Path, help="a checkpoint, or a request made with --since")
    action.add_argument("--name", required=True, help="the witness's name, such as auditor.example/witness")
    action.add_argument("--state", type=Path, required=True, metavar="FOLDER", help="where key and memory are kept")
    action.add_argument("--log-key", action="append", default=[], metavar="KEY", help="the log's key, at the first time")
    action.set_defaults(run=_mendable(_witness))
    action = actions.add_parser("cosigned", help="keep a checkpoint that a witness has signed; later bundles carry it")
    action.add_argument("file", type=Path, help="what the witness printed")
    _finish(action, _cosigned)
    action = actions.add_parser(
        "time-stamped", help="keep what a time-stamping authority answered (RFC 3161); later bundles carry it"
    )
    action.add_argument("file", type=Path, help="the answer to what --time-stamp-request wrote")
    action.add_argument(
        "--tsa-certificate",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="its certificate or its root's, PEM",
    )
    _finish(action, _time_stamped)
    action = actions.add_parser("rotate-key", help="take a new signing key, which the old one vouches for")
    _add_key(action)
    _finish(action, _rotate)


def _add_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="the signing key, made if there is none (default: as configured, else beside the database)",
    )


def _finish(action: argparse.ArgumentParser, run: "Run") -> None:
    add_store_arguments(action)
    action.set_defaults(run=_mendable(run))


def _mendable(run: "Run") -> "Run":
    """Errors of statements, too, become one sentence."""

    def mend(arguments: argparse.Namespace) -> int:
        # Imported here: other commands need neither numpy nor cryptography.
        from wattledger_collector.bundle import BundleError
        from wattledger_collector.closing import ClosingError
        from wattledger_collector.signed_note import NoteError
        from wattledger_collector.signing_keys import KeyFileError
        from wattledger_collector.time_stamps import TimeStampError
        from wattledger_collector.witness import WitnessError

        try:
            return run(arguments)
        except (StatementError, BundleError, ClosingError, NoteError, KeyFileError, TimeStampError, WitnessError) as error:
            print(f"wattledger-collector: {error}", file=sys.stderr)
            return 1

    return guarded(mend)


def _verify(arguments: argparse.Namespace) -> int:
    from wattledger_collector.verify import run

    return run(arguments)


def _close(arguments: argparse.Namespace) -> int:
    from wattledger_collector.closing import Maker, close_period
    from wattledger_collector.statement_output import write_statement

    time_zone = parse_time_zone(arguments.time_zone)
    begin, end = parse_instant(arguments.from_, time_zone), parse_instant(arguments.to, time_zone)
    configuration, catalog = load_named(arguments)
    declaration = load_declared(arguments)
    with _store(arguments, configuration) as store, _progress("closing", begin, end) as tell:
        period = make_period(begin, end, time_zone, store.interval_seconds)
        closed = close_period(
            store,
            catalog.with_recorded(load_factors(store)),
            period,
            Maker(_key(arguments, configuration, store), f"wattledger {version('wattledger')}", declaration),
            now_seconds=int(time.time()),
            site=arguments.site,
            progress=tell,
        )
    if not closed.is_new:
        print(f"nothing has changed since statement {closed.statement.number}, which stands", file=sys.stderr)
    write_statement(closed.statement, console())
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from wattledger_collector.statement_output import write_list
    from wattledger_collector.statement_store import statement_headers

    with _opened(arguments) as store:
        statements = statement_headers(store)
    if arguments.json:
        print_json([{"statement": each.number, "sha256": each.sha256, **_summary(each.tree)} for each in statements])
    elif statements:
        write_list(statements, console())
    else:
        print("No period is closed yet: `statement close` makes the first statement.")
    return 0


def _summary(tree: dict[str, Any]) -> dict[str, Any]:
    return {
        "period": tree["period"],
        "site": tree["boundary"]["site"],
        "closed_at": tree["closed_at"],
        "edition": tree["edition"],
        "replaces": tree["replaces"]["number"] if tree["replaces"] else None,
        "totals": tree["totals"]["all"],
    }


def _show(arguments: argparse.Namespace) -> int:
    from wattledger_collector.statement_output import write_statement
    from wattledger_collector.statement_store import load_statement

    with _opened(arguments) as store:
        statement = load_statement(store, arguments.number)
    if arguments.json:
        sys.stdout.write(statement.canonical.decode())
    else:
        write_statement(statement, console())
    return 0


def _bundle(arguments: argparse.Namespace) -> int:
    from wattledger_collector.bundle import write_bundle
    from wattledger_collector.statement_store import load_statement

    with _opened(arguments) as store:
        statement = load_statement(store, arguments.number)
        period = statement.tree["period"]
        with _progress("writing", period["from_seconds"], period["to_seconds"]) as tell:
            size = write_bundle(store, statement, arguments.out, tell)
    print(f"{arguments.out}: statement {statement.number}, {size} bytes; check it with `wattledger-collector verify`")
    return 0


def _disclose(arguments: argparse.Namespace) -> int:
    from wattledger_collector.disclosure import write_disclosure
    from wattledger_collector.statement_store import load_statement

    with _opened(arguments) as store:
        statement = load_statement(store, arguments.number)
        size = write_disclosure(store, statement, arguments.host, arguments.day, arguments.out)
    print(
        f"{arguments.out}: host {arguments.host} on {arguments.day} of statement {statement.number}, {size} bytes; check it "
        "with `wattledger-collector verify`"
    )
    return 0


def _checkpoint(arguments: argparse.Namespace) -> int:
    from wattledger_collector.merkle import consistency_proof
    from wattledger_collector.statement_store import checkpoints, leaf_secret, log_keys, log_leaves
    from wattledger_collector.time_stamps import make_nonce, time_stamp_request
    from wattledger_collector.witness import Request

    with _opened(arguments) as store:
        if arguments.keys:
            print("\n".join(map(str, log_keys(store))))
            return 0
        signed = checkpoints(store)
        if not signed:
            raise StatementError("the log is empty: `statement close` makes the first statement")
        newest = signed[-1]
        if arguments.time_stamp_request is not None:
            digest = sha256(newest.checkpoint.text.encode()).digest()
            request = time_stamp_request(digest, make_nonce(leaf_secret(store), digest))
            _write(arguments.time_stamp_request, request)
        if arguments.since is None:
            sys.stdout.write(str(newest))
            return 0
        if not 0 <= arguments.since <= newest.checkpoint.size:
            raise StatementError(f"the log has {newest.checkpoint.size} leaves, and never had {arguments.since}")
        proof = consistency_proof(log_leaves(store, newest.checkpoint.size), arguments.since)
        sys.stdout.write(str(Request(arguments.since, tuple(proof), newest)))
    return 0


def _time_stamped(arguments: argparse.Namespace) -> int:
    from wattledger_collector.statement_store import checkpoints, keep_time_stamp, leaf_secret
    from wattledger_collector.time_stamps import (
        OtherImprintError,
        TimeStampError,
        check_authority,
        load_trusted,
        make_nonce,
        read_time_stamp,
    )

    answer = _bytes(arguments.file)
    with _opened(arguments) as store:
        for signed in reversed(checkpoints(store)):
            digest = sha256(signed.checkpoint.text.encode()).digest()
            try:
                stamp = read_time_stamp(answer, digest)
            except OtherImprintError:
                continue
            if stamp.nonce != make_nonce(leaf_secret(store), digest):
                raise TimeStampError(
                    f"{arguments.file} answers another request: write one with `statement checkpoint --time-stamp-request`"
                )
            trusted = [each for path in arguments.tsa_certificate for each in load_trusted(_bytes(path))]
            if trusted:
                check_authority(stamp, trusted)
            is_new = keep_time_stamp(store, signed, answer)
            what = "kept" if is_new else "there already"
            who = stamp.authority if trusted else f"{stamp.authority}; name its certificate to have checked who that is"
            print(f"{what}: the log of {signed.checkpoint.size} leaves, {stamp.at.isoformat()}, by {who}")
            return 0
    raise TimeStampError(f"{arguments.file} is of no checkpoint of this ledger")


def _witness(arguments: argparse.Namespace) -> int:
    from wattledger_collector.signed_note import KIND_WITNESS, verifier_key
    from wattledger_collector.signing_keys import load_or_make_key
    from wattledger_collector.witness import parse_request, read_seen, witness

    folder: Path = arguments.state
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = load_or_make_key(folder / "witness.key")
    request = parse_request(_text(arguments.file))
    memory = folder / "witness.json"
    logs: dict[str, Any] = json.loads(_text(memory)) if memory.exists() else {}
    origin = request.signed.checkpoint.origin
    seen = read_seen(logs[origin]) if origin in logs else None
    signed, now = witness(request, seen, arguments.log_key, arguments.name, key, int(time.time()))
    # Kept before the signature is given away: after a crash in between, nothing was signed that is not remembered.
    _replace(memory, json.dumps({**logs, origin: now.tree}, indent=2, sort_keys=True))
    sys.stdout.write(str(signed))
    print(f"witness key: {verifier_key(key, arguments.name, KIND_WITNESS)}", file=sys.stderr)
    return 0


def _cosigned(arguments: argparse.Namespace) -> int:
    from wattledger_collector.signed_note import parse_checkpoint
    from wattledger_collector.statement_store import keep_cosignatures

    with _opened(arguments) as store:
        added = keep_cosignatures(store, parse_checkpoint(_text(arguments.file)))
    print(f"{added} new signature{'' if added == 1 else 's'} kept")
    return 0


def _rotate(arguments: argparse.Namespace) -> int:
    from wattledger_collector.signed_note import verifier_key
    from wattledger_collector.signing_keys import replace_key
    from wattledger_collector.statement_store import log_keys, origin_of, sign_again

    configuration, _ = load_named(arguments)
    with _store(arguments, configuration) as store:
        if not log_keys(store):
            raise StatementError("no statement was signed yet: the first `statement close` makes the key")

        def vouch(old: "Ed25519PrivateKey", new: "Ed25519PrivateKey") -> None:
            sign_again(store, [old, new])

        def is_vouched(key: "Ed25519PrivateKey") -> bool:
            return verifier_key(key, origin_of(store)) == log_keys(store)[-1]

        replace_key(_key_path(arguments, configuration, store), vouch, is_vouched)
        print(log_keys(store)[-1])
    return 0


def _key_path(arguments: argparse.Namespace, configuration: Configuration | None, store: SqliteStore) -> Path:
    """The file that the arguments name, else the configuration, else the one beside the database."""
    from wattledger_collector.signing_keys import KEY_FILE_NAME

    named: Path | None = arguments.key
    if named is None and configuration is not None and configuration.statements.key:
        named = Path(configuration.statements.key)
    return store.path.parent / KEY_FILE_NAME if named is None else named


def _key(arguments: argparse.Namespace, configuration: Configuration | None, store: SqliteStore) -> "Ed25519PrivateKey":
    from wattledger_collector.signing_keys import load_or_make_key
    from wattledger_collector.statement_store import log_keys

    path = _key_path(arguments, configuration, store)
    if not path.exists() and log_keys(store):
        # One made in silence would be a stranger's to all who know the log.
        raise StatementError(
            f"the log was signed with a key that is not at {path}: put it back, or name it with --key; a rotation that was "
            f"cut off is finished by `statement rotate-key`; for a lost one make another with "
            f"`openssl genpkey -algorithm ed25519` and publish it"
        )
    return load_or_make_key(path)


@contextmanager
def _opened(arguments: argparse.Namespace) -> Iterator[SqliteStore]:
    with _store(arguments, None if arguments.store else load_named(arguments)[0]) as store:
        yield store


def _store(arguments: argparse.Namespace, configuration: Configuration | None) -> "closing[SqliteStore]":
    return closing(open_named(arguments, None if configuration is None else configuration.store.path))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StatementError(f"cannot read {path}: {error}; name a text file in UTF-8") from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StatementError(f"cannot read {path} ({error.strerror}): name another file") from error


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise StatementError(f"cannot write {path} ({error.strerror}): name another file") from error


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


@contextmanager
def _progress(what: str, from_seconds: int, to_seconds: int) -> "Iterator[TellProgress]":
    """A bar on standard error, where somebody looks at it."""
    from wattledger_collector.statement_output import day_of

    bar = Progress(
        TextColumn(what), BarColumn(), TextColumn("{task.fields[day]}"), TimeRemainingColumn(),
        console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True,
    )  # fmt: skip
    with bar:
        task = bar.add_task(what, total=to_seconds - from_seconds, day="")

        def tell(seconds: int) -> None:
            bar.update(task, completed=seconds - from_seconds, day=day_of(seconds))

        yield tell
