"""The Merkle tree: the published roots, and proofs that show what is so and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger_collector.merkle import (
    ProofError,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_hash,
)

# The test vectors of RFC 6962 implementations, as published with transparency-dev/merkle (Apache-2.0).
ENTRIES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PUBLISHED = [leaf_hash(bytes.fromhex(entry)) for entry in ENTRIES]
LEAVES = [leaf_hash(bytes([number])) for number in range(40)]


@pytest.mark.parametrize("size", range(9))
def test_the_roots_are_the_published_ones(size: int) -> None:
    """Each tree of the published entries has the published root."""
    assert root_hash(PUBLISHED[:size]).hex() == ROOTS[size]


def test_every_leaf_of_every_tree_can_be_shown() -> None:
    """An inclusion proof is as short as the tree is deep, and leads to the root."""
    for size in range(1, len(LEAVES) + 1):
        root = root_hash(LEAVES[:size])
        for index in range(size):
            proof = inclusion_proof(LEAVES[:size], index)
            assert len(proof) <= (size - 1).bit_length()
            check_inclusion(LEAVES[index], index, size, proof, root)


def test_every_tree_is_shown_to_be_the_beginning_of_every_later_one() -> None:
    """A consistency proof leads to both roots."""
    for size in range(len(LEAVES) + 1):
        for earlier in range(size + 1):
            proof = consistency_proof(LEAVES[:size], earlier)
            check_consistency(earlier, root_hash(LEAVES[:earlier]), size, root_hash(LEAVES[:size]), proof)


@given(st.integers(1, 40), st.data())
def test_a_leaf_is_shown_at_its_own_place_alone(size: int, data: st.DataObject) -> None:
    """Another leaf, another place, another root, and any change of the proof are refused."""
    index = data.draw(st.integers(0, size - 1))
    root, proof = root_hash(LEAVES[:size]), inclusion_proof(LEAVES[:size], index)
    with pytest.raises(ProofError):
        check_inclusion(leaf_hash(b"another"), index, size, proof, root)
    with pytest.raises(ProofError):
        check_inclusion(LEAVES[index], index, size, proof, root_hash(LEAVES[: size + 1] + LEAVES[:1]))
    with pytest.raises(ProofError, match="longer than the tree is deep"):
        check_inclusion(LEAVES[index], index, size, [*proof, LEAVES[0]], root)
    if size > 1:
        other = data.draw(st.integers(0, size - 1).filter(lambda number: number != index))
        with pytest.raises(ProofError):
            check_inclusion(LEAVES[index], other, size, proof, root)
        with pytest.raises(ProofError):
            check_inclusion(LEAVES[index], index, size, proof[1:], root)


@given(st.integers(2, 40), st.data())
def test_a_rewritten_history_is_refused(size: int, data: st.DataObject) -> None:
    """Whichever of the earlier leaves was changed, removed or moved, no honest proof hides it."""
    earlier = data.draw(st.integers(1, size - 1))
    place = data.draw(st.integers(0, earlier - 1))
    changed = [*LEAVES[:place], leaf_hash(b"changed"), *LEAVES[place + 1 : size]]
    removed = [*LEAVES[:place], *LEAVES[place + 1 : size + 1]]
    moved = [*LEAVES[1:size], LEAVES[0]]
    for rewritten in (changed, removed, moved):
        with pytest.raises(ProofError, match="history was rewritten"):
            check_consistency(
                earlier,
                root_hash(LEAVES[:earlier]),
                len(rewritten),
                root_hash(rewritten),
                consistency_proof(rewritten, earlier),
            )


def test_a_tree_that_shrank_or_split_is_refused() -> None:
    """Fewer leaves than before, or other leaves in the same number, are no continuation."""
    with pytest.raises(ProofError, match="only 3"):
        check_consistency(4, root_hash(LEAVES[:4]), 3, root_hash(LEAVES[:3]), [])
    with pytest.raises(ProofError, match="rewritten"):
        check_consistency(3, root_hash(LEAVES[:3]), 3, root_hash(LEAVES[1:4]), [])
    with pytest.raises(ProofError, match="empty tree"):
        check_consistency(0, LEAVES[0], 3, root_hash(LEAVES[:3]), [])


def test_hashes_of_a_wrong_length_are_no_proof() -> None:
    """A proof is whole hashes, and no more than a tree can be deep."""
    root = root_hash(LEAVES[:2])
    with pytest.raises(ProofError, match="32 bytes"):
        check_inclusion(LEAVES[0], 0, 2, [b"short"], root)
    with pytest.raises(ProofError, match="at most 64"):
        check_consistency(1, LEAVES[0], 2, root, [LEAVES[1]] * 65)
    with pytest.raises(ProofError, match="longer than the tree is deep"):
        check_consistency(1, LEAVES[0], 2, root, [LEAVES[1]] * 2)


def test_proofs_that_are_no_proofs_are_refused() -> None:
    """A place beyond the tree, a proof that is empty, one that ends too early, and one where none is needed."""
    leaves, roots = LEAVES[:7], [root_hash(LEAVES[:size]) for size in range(8)]
    with pytest.raises(ProofError, match="leaf 7 can't be in a tree of 7"):
        check_inclusion(leaves[0], 7, 7, inclusion_proof(leaves, 0), roots[7])
    with pytest.raises(ProofError, match="leaf -1 can't be in a tree of 7"):
        check_inclusion(leaves[0], -1, 7, inclusion_proof(leaves, 0), roots[7])
    # Shown in a tree of 4, and told to be of 8: only the depth gives it away.
    with pytest.raises(ProofError, match="ends below the root"):
        check_inclusion(leaves[0], 0, 8, inclusion_proof(leaves[:4], 0), roots[4])
    proof = consistency_proof(leaves, 3)
    with pytest.raises(ProofError, match="the consistency proof is empty"):
        check_consistency(3, roots[3], 7, roots[7], [])
    with pytest.raises(ProofError, match="ends below the root"):
        check_consistency(3, roots[3], 7, roots[7], proof[:-1])
    for earlier, size in ((0, 7), (7, 7)):
        with pytest.raises(ProofError, match="a tree that is the same, or was empty, needs no proof"):
            check_consistency(earlier, roots[earlier], size, roots[size], proof)


def test_there_is_no_proof_of_what_is_not_there() -> None:
    """A leaf or a beginning beyond the tree is a slip of the caller."""
    with pytest.raises(IndexError):
        inclusion_proof(LEAVES[:3], 3)
    with pytest.raises(IndexError):
        consistency_proof(LEAVES[:3], 4)
