"""A growing Merkle tree by its border: the roots of its complete subtrees, from which it can go on without its leaves.

Hashes in, hashes out. Source of truth: RFC 6962 section 2.1; the border of a tree of n leaves has a subtree for each 1 in
the binary form of n, largest first.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256

from wattledger_collector.merkle import HASH_BYTES, node_hash


class Border:
    """The border of a tree. Raises ValueError if size and hashes don't belong together."""

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        if size < 0 or len(hashes) != size.bit_count() or any(len(each) != HASH_BYTES for each in hashes):
            raise ValueError(f"a tree of {size} leaves has no border of {len(hashes)} hashes")
        self.size = size
        self._hashes = list(hashes)

    def append(self, leaves: Iterable[bytes]) -> None:
        """Add hashes of leaves."""
        for leaf in leaves:
            digest = leaf
            # Like adding 1 to a number: each 1 at its end carries.
            for _ in range((~self.size & (self.size + 1)).bit_length() - 1):
                digest = node_hash(self._hashes.pop(), digest)
            self._hashes.append(digest)
            self.size += 1

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """The roots of the complete subtrees, largest first."""
        return tuple(self._hashes)

    def root(self) -> bytes:
        """The hash of the whole tree."""
        if not self._hashes:
            return sha256(b"").digest()
        digest = self._hashes[-1]
        for left in reversed(self._hashes[:-1]):
            digest = node_hash(left, digest)
        return digest

    def pack(self) -> bytes:
        """All hashes in one string."""
        return b"".join(self._hashes)


def unpack(size: int, packed: bytes) -> Border:
    """A border from `pack`. Raises ValueError."""
    return Border(size, split_hashes(packed))


def split_hashes(packed: bytes) -> list[bytes]:
    """Hashes from one string of them."""
    return [packed[at : at + HASH_BYTES] for at in range(0, len(packed), HASH_BYTES)]
