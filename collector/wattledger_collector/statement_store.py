"""The statements, their log and its checkpoints in the ledger's database.

Makes no statement and reckons no figure; rows in and out. Source of truth: the tables `statement`, `log_checkpoint` and
`log_key`, to which rows are only added; a checkpoint's note alone may gain signatures.

The log's leaves are, statement by statement, the hashes of its host-days and then that of the statement itself.
"""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Select, select, update

from wattledger_collector import schema
from wattledger_collector.log_border import Border, split_hashes, unpack
from wattledger_collector.merkle import HASH_BYTES, leaf_hash
from wattledger_collector.records import StoreError
from wattledger_collector.signed_note import (
    Checkpoint,
    SignedCheckpoint,
    VerifierKey,
    parse_checkpoint,
    parse_verifier_key,
    sign,
    verifier_key,
)
from wattledger_collector.statement import Tree, canonical, digest
from wattledger_collector.store import SqliteStore

# Of the secret that the salts of leaves are derived from.
SECRET_BYTES = 32


class OvertakenError(StoreError):
    """Another statement of the same period came into the log since this one was begun; begin anew."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A statement as it is kept. log_hashes: its leaves and itself; log_first: how many leaves there were before."""

    number: int
    closure: int
    sha256: str
    canonical: bytes
    gaps: bytes
    assignments_last_id: int
    log_first: int
    log_hashes: bytes

    @property
    def tree(self) -> Tree:
        """The statement."""
        tree: Tree = json.loads(self.canonical)
        return tree

    @property
    def leaf_count(self) -> int:
        """How many host-days it has."""
        return len(self.log_hashes) // HASH_BYTES - 1

    @property
    def log_size(self) -> int:
        """How many leaves the log had with it."""
        return self.log_first + self.leaf_count + 1


@dataclass(frozen=True, slots=True)
class Draft:
    """A statement that lacks its place in the log. tree: as statement_tree made it, or with what it replaces.

    claims_after: the newest statement when it was looked up what others use of its certificates; None: it uses none.
    """

    tree: Tree
    closure: int
    gaps: bytes
    assignments_last_id: int
    leaf_hashes: Sequence[bytes]
    leaf_root: bytes
    claims_after: int | None = None


def origin_of(store: SqliteStore) -> str:
    """The name under which the ledger's log is published."""
    return f"wattledger/{store.database_id}"


def load_statement(store: SqliteStore, number: int | None) -> Stored:
    """One statement; None: the newest. Raises StoreError if there is none."""
    columns = schema.statements.c
    query = (
        select(
            columns.id,
            columns.closure_id,
            columns.sha256,
            columns.canonical,
            columns.gaps,
            columns.assignments_last_id,
            columns.log_first,
            columns.log_hashes,
        )
        .order_by(columns.id.desc())
        .limit(1)
    )
    if number is not None:
        query = query.where(columns.id == number)
    for row in store.rows(query):
        return Stored(*row)
    raise StoreError(
        "no period is closed yet: `statement close` makes the first statement"
        if number is None
        else f"there is no statement {number}: `statement list` shows all"
    )


def newest_of(store: SqliteStore, from_seconds: int, to_seconds: int, site: str | None) -> Stored | None:
    """The newest statement of this very period and site; None: there is none."""
    for (number,) in store.rows(_numbers_of(from_seconds, to_seconds, site)):
        return load_statement(store, number)
    return None


def statement_headers(store: SqliteStore) -> list[Stored]:
    """All statements in order, without their hashes and gaps."""
    columns = schema.statements.c
    query = select(
        columns.id, columns.closure_id, columns.sha256, columns.canonical, columns.assignments_last_id, columns.log_first
    ).order_by(columns.id)
    return [
        Stored(number, closure, sha256, text, b"", last_id, first, b"")
        for number, closure, sha256, text, last_id, first in store.rows(query)
    ]


def leaf_secret(store: SqliteStore) -> bytes:
    """What salts are derived from; made at its first use."""
    table = schema.leaf_secrets
    query = select(table.c.secret)
    for (secret,) in store.rows(query):
        return bytes(secret)
    with store.writing() as connection:
        found = connection.execute(query).scalar()
        if found is None:
            found = secrets.token_bytes(SECRET_BYTES)
            connection.execute(table.insert().values(id=1, secret=found))
    return bytes(found)


def last_assignment_id(store: SqliteStore) -> int:
    """The id of the newest row of an assignment; 0 if there is none."""
    columns = schema.assignments.c
    for (number,) in store.rows(select(columns.id).order_by(columns.id.desc()).limit(1)):
        return int(number)
    return 0


def append(store: SqliteStore, draft: Draft, key: Ed25519PrivateKey) -> Stored:
    """Number the statement, put it in the log with its leaves, and sign the log's new checkpoint, all in one transaction.

    Raises OvertakenError where the newest statement of its period and site is another than the one that it replaces, and
    StoreError where the key is one that another has taken the place of.
    """
    origin = origin_of(store)
    with store.writing() as connection:
        _check_replaces(connection, draft.tree)
        _check_key(connection, verifier_key(key, origin))
        previous = connection.execute(
            select(schema.statements.c.id, schema.statements.c.sha256).order_by(schema.statements.c.id.desc()).limit(1)
        ).first()
        border = _border(connection)
        number = 1 if previous is None else previous[0] + 1
        if draft.claims_after not in (None, number - 1):
            raise OvertakenError(
                f"statement {number - 1} came into the log meanwhile and may use the same certificates: close it again"
            )
        tree = {
            **draft.tree,
            "number": number,
            "previous_sha256": None if previous is None else previous[1],
            "leaves": {"count": len(draft.leaf_hashes), "root": draft.leaf_root.hex()},
            "log": {"origin": origin, "first": border.size},
        }
        text = canonical(tree)
        first = border.size
        hashes = [*draft.leaf_hashes, leaf_hash(text)]
        border.append(hashes)
        stored = Stored(
            number, draft.closure, digest(text), text, draft.gaps, draft.assignments_last_id, first, b"".join(hashes)
        )
        connection.execute(
            schema.statements.insert().values(
                id=number,
                closure_id=stored.closure,
                sha256=stored.sha256,
                canonical=text,
                gaps=stored.gaps,
                assignments_last_id=stored.assignments_last_id,
                log_first=first,
                log_hashes=stored.log_hashes,
            )
        )
        _add_checkpoint(connection, border, sign(Checkpoint(origin, border.size, border.root()), [(origin, key)]))
        _know_key(connection, verifier_key(key, origin))
    return stored


def sign_again(store: SqliteStore, keys: Sequence[Ed25519PrivateKey]) -> SignedCheckpoint:
    """A checkpoint of the log as it is, signed by all of these keys: by it the last one takes the others' place."""
    origin = origin_of(store)
    with store.writing() as connection:
        _check_key(connection, verifier_key(keys[0], origin))
        border = _border(connection)
        checkpoint = Checkpoint(origin, border.size, border.root(), str(verifier_key(keys[-1], origin)))
        signed = sign(checkpoint, [(origin, key) for key in keys])
        _add_checkpoint(connection, border, signed)
        for key in keys:
            _know_key(connection, verifier_key(key, origin))
    return signed


def checkpoints(store: SqliteStore) -> list[SignedCheckpoint]:
    """All checkpoints, in order."""
    columns = schema.log_checkpoints.c
    return [parse_checkpoint(note) for (note,) in store.rows(select(columns.note).order_by(columns.id))]


def log_keys(store: SqliteStore) -> list[VerifierKey]:
    """The public keys that checkpoints were signed with, in order."""
    columns = schema.log_keys.c
    return [parse_verifier_key(text) for (text,) in store.rows(select(columns.verifier_key).order_by(columns.id))]


def keep_cosignatures(store: SqliteStore, signed: SignedCheckpoint) -> int:
    """Keep the signatures that a checkpoint of ours has gained; how many. Raises StoreError for one that is not ours."""
    columns = schema.log_checkpoints.c
    with store.writing() as connection:
        for number, note in connection.execute(select(columns.id, columns.note).order_by(columns.id.desc())).fetchall():
            ours = parse_checkpoint(note)
            if ours.checkpoint == signed.checkpoint:
                new = [each for each in signed.signatures if each not in ours.signatures]
                more = SignedCheckpoint(ours.checkpoint, (*ours.signatures, *new))
                connection.execute(update(schema.log_checkpoints).where(columns.id == number).values(note=str(more)))
                return len(new)
    raise StoreError(
        f"this ledger never signed a checkpoint of {signed.checkpoint.size} leaves with that root: "
        "give the file that `statement checkpoint` printed, with the witness's line"
    )


def keep_time_stamp(store: SqliteStore, signed: SignedCheckpoint, answer: bytes) -> bool:
    """Keep an authority's answer beside a checkpoint of ours; whether it is new. Raises StoreError."""
    checkpoint, stamp = schema.log_checkpoints.c, schema.log_time_stamps.c
    with store.writing() as connection:
        if connection.execute(select(stamp.id).where(stamp.answer == answer)).first() is not None:
            return False
        for number, note in connection.execute(select(checkpoint.id, checkpoint.note)).fetchall():
            if parse_checkpoint(note).checkpoint == signed.checkpoint:
                connection.execute(schema.log_time_stamps.insert().values(checkpoint_id=number, answer=answer))
                return True
    raise StoreError(f"this ledger never signed a checkpoint of {signed.checkpoint.size} leaves with that root")


def time_stamps(store: SqliteStore, size: int) -> list[tuple[SignedCheckpoint, bytes]]:
    """The time stamps of checkpoints of at least so many leaves, in the order of the log."""
    checkpoint, stamp = schema.log_checkpoints.c, schema.log_time_stamps.c
    query = (
        select(checkpoint.note, stamp.answer)
        .join(schema.log_time_stamps, stamp.checkpoint_id == checkpoint.id)
        .where(checkpoint.size >= size)
        .order_by(checkpoint.id, stamp.id)
    )
    return [(parse_checkpoint(note), answer) for note, answer in store.rows(query)]


def log_leaves(store: SqliteStore, size: int) -> list[bytes]:
    """The first `size` leaves of the log."""
    columns = schema.statements.c
    leaves: list[bytes] = []
    for (hashes,) in store.rows(select(columns.log_hashes).where(columns.log_first < size).order_by(columns.id)):
        leaves.extend(split_hashes(hashes))
    return leaves[:size]


def border_at(store: SqliteStore, size: int) -> Border:
    """The border of the log's first leaves. Raises StoreError if it never was at that size."""
    if size == 0:
        return Border()
    columns = schema.log_checkpoints.c
    for (packed,) in store.rows(select(columns.border).where(columns.size == size).limit(1)):
        return unpack(size, packed)
    raise StoreError(f"the log has no checkpoint of {size} leaves: restore the latest backup")


def _numbers_of(from_seconds: int, to_seconds: int, site: str | None) -> Select[tuple[int]]:
    """The numbers of the statements of this very period and site, the newest first."""
    statement, closure = schema.statements.c, schema.closures.c
    return (
        select(statement.id)
        .join(schema.closures, closure.id == statement.closure_id)
        # For SQL, nothing equals NULL.
        .where(
            closure.from_seconds == from_seconds, closure.to_seconds == to_seconds, closure.site.is_not_distinct_from(site)
        )
        .order_by(statement.id.desc())
    )


def _check_replaces(connection: Connection, tree: Tree) -> None:
    """Raises OvertakenError if the statement would stand beside another of its period, and not in its place."""
    period = tree["period"]
    query = _numbers_of(period["from_seconds"], period["to_seconds"], tree["boundary"]["site"])
    newest = connection.execute(query.limit(1)).scalar()
    replaced = tree["replaces"]["number"] if tree["replaces"] else None
    if newest != replaced:
        raise OvertakenError(f"statement {newest} of this period was made meanwhile by another command: close it again")


def _check_key(connection: Connection, key: VerifierKey) -> None:
    """Raises StoreError for a key that was retired: who knows the log by its new one would not believe it."""
    columns = schema.log_keys.c
    known = list(connection.execute(select(columns.verifier_key).order_by(columns.id)).scalars())
    if str(key) in known[:-1]:
        raise StoreError(
            f"the log's signing key was replaced by {known[-1]}: name the file that holds that one with --key; "
            "after a rotation that was cut off, `statement rotate-key` puts it in place"
        )


def _border(connection: Connection) -> Border:
    columns = schema.log_checkpoints.c
    row: Any = connection.execute(select(columns.size, columns.border).order_by(columns.id.desc()).limit(1)).first()
    return Border() if row is None else unpack(row[0], row[1])


def _add_checkpoint(connection: Connection, border: Border, signed: SignedCheckpoint) -> None:
    connection.execute(schema.log_checkpoints.insert().values(size=border.size, note=str(signed), border=border.pack()))


def _know_key(connection: Connection, key: VerifierKey) -> None:
    columns = schema.log_keys.c
    if connection.execute(select(columns.id).where(columns.verifier_key == str(key))).first() is None:
        connection.execute(schema.log_keys.insert().values(verifier_key=str(key)))
