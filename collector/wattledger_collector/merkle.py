"""The Merkle tree of RFC 6962: one hash for a list of entries, and short proofs of what is in it and of what came before.

Keeps nothing and reads nothing: lists of bytes in, hashes and proofs out. Source of truth: RFC 6962 section 2.1 for the tree
and the proofs, RFC 9162 sections 2.1.3.2 and 2.1.4.2 for the steps of checking them. Leaves and nodes are hashed under
different first bytes, so that no node can be passed off as an entry.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256

HASH_BYTES = 32

# A tree of 2^63 entries is deeper than any log; a longer proof is none.
PROOF_HASHES_MAX = 64

_LEAF, _NODE = b"\x00", b"\x01"


class ProofError(ValueError):
    """A proof does not show what it is said to; the text says which step fails."""


def leaf_hash(entry: bytes) -> bytes:
    """The hash of one entry."""
    return sha256(_LEAF + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees."""
    return sha256(_NODE + left + right).digest()


def root_hash(leaves: Iterable[bytes]) -> bytes:
    """The hash of the whole tree over these leaf hashes, in order; of no leaves, SHA-256 of nothing.

    Holds one hash for each level, so that leaves may come from a stream.
    """
    # Complete subtrees from the left, as (height, hash); two of the same height become one, like the digits of a counter.
    subtrees: list[tuple[int, bytes]] = []
    for leaf in leaves:
        height, digest = 0, leaf
        while subtrees and subtrees[-1][0] == height:
            digest = node_hash(subtrees.pop()[1], digest)
            height += 1
        subtrees.append((height, digest))
    if not subtrees:
        return sha256(b"").digest()
    _, root = subtrees.pop()
    while subtrees:
        root = node_hash(subtrees.pop()[1], root)
    return root


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The hashes that lead from leaf `index` to the root, nearest first. Raises IndexError."""
    if not 0 <= index < len(leaves):
        raise IndexError(f"there is no leaf {index} in a tree of {len(leaves)}")
    proof: list[bytes] = []
    begin, end = 0, len(leaves)
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            proof.append(root_hash(leaves[middle:end]))
            end = middle
        else:
            proof.append(root_hash(leaves[begin:middle]))
            begin = middle
    return proof[::-1]


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the tree of `size` leaves with this root has the leaf at `index`. Raises ProofError."""
    if not 0 <= index < size:
        raise ProofError(f"leaf {index} can't be in a tree of {size}")
    _check_length(proof)
    node, last, digest = index, size - 1, leaf
    for step in proof:
        if last == 0:
            raise ProofError("the inclusion proof is longer than the tree is deep")
        if node & 1 or node == last:
            digest = node_hash(step, digest)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            digest = node_hash(digest, step)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError("the inclusion proof ends below the root")
    if digest != root:
        raise ProofError(f"leaf {index} is not in the tree with root {root.hex()}")


def consistency_proof(leaves: Sequence[bytes], earlier_size: int) -> list[bytes]:
    """The hashes that show that the tree of the first `earlier_size` leaves is the beginning of this one.

    Empty where both are the same, or the earlier one is empty. Raises IndexError.
    """
    if not 0 <= earlier_size <= len(leaves):
        raise IndexError(f"a tree of {len(leaves)} has no beginning of {earlier_size}")
    if earlier_size in (0, len(leaves)):
        return []
    proof: list[bytes] = []
    begin, end, is_whole = 0, len(leaves), True
    while end != earlier_size:
        middle = begin + _split(end - begin)
        if earlier_size <= middle:
            proof.append(root_hash(leaves[middle:end]))
            end = middle
        else:
            proof.append(root_hash(leaves[begin:middle]))
            begin, is_whole = middle, False
    if not is_whole:
        # Where it is the whole earlier tree, who checks has its hash already.
        proof.append(root_hash(leaves[begin:end]))
    return proof[::-1]


def check_consistency(earlier_size: int, earlier_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the earlier tree is the beginning of the later one: nothing rewritten, removed or moved.

    Raises ProofError.
    """
    _check_length(proof)
    if earlier_size > size:
        raise ProofError(f"the earlier tree has {earlier_size} leaves, the later one only {size}")
    if earlier_size in (0, size):
        if proof:
            raise ProofError("a tree that is the same, or was empty, needs no proof")
        if earlier_size == size and earlier_root != root:
            raise ProofError(f"two trees of {size} leaves have different roots: history was rewritten")
        if earlier_size == 0 and earlier_root != root_hash([]):
            raise ProofError("the root of the empty tree is not that of no leaves")
        return
    # The earlier tree itself stands at the proof's beginning where it is complete.
    path = [earlier_root, *proof] if earlier_size & (earlier_size - 1) == 0 else list(proof)
    if not path:
        raise ProofError("the consistency proof is empty")
    node, last = earlier_size - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    earlier = later = path[0]
    for step in path[1:]:
        if last == 0:
            raise ProofError("the consistency proof is longer than the tree is deep")
        if node & 1 or node == last:
            earlier, later = node_hash(step, earlier), node_hash(step, later)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            later = node_hash(later, step)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError("the consistency proof ends below the root")
    if earlier != earlier_root:
        raise ProofError("the proof does not lead to the earlier root: history was rewritten")
    if later != root:
        raise ProofError("the proof does not lead to the later root: history was rewritten, or the proof is damaged")


def _split(size: int) -> int:
    """The largest power of two below size; size > 1."""
    return 1 << (size - 1).bit_length() - 1


def _check_length(proof: Sequence[bytes]) -> None:
    if len(proof) > PROOF_HASHES_MAX or any(len(step) != HASH_BYTES for step in proof):
        raise ProofError(f"a proof has at most {PROOF_HASHES_MAX} hashes of {HASH_BYTES} bytes each")
