"""The tree against the test vectors of Certificate Transparency and against pymerkle."""

from hashlib import sha256

import pymerkle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewarden_receipts import merkle

# The leaves and roots that the CT implementations share (google/certificate-transparency).
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
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
NODES = merkle.nodes_of([merkle.leaf_hash(leaf) for leaf in LEAVES])


def tree(size: int) -> tuple[list[bytes], merkle.Nodes]:
    leaves = [merkle.leaf_hash(b"entry %d" % number) for number in range(size)]
    return leaves, merkle.nodes_of(leaves)


def oracle(size: int) -> pymerkle.InmemoryTree:
    known = pymerkle.InmemoryTree(algorithm="sha256")
    for number in range(size):
        known.append_entry(b"entry %d" % number)
    return known


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_certificate_transparency(size: int) -> None:
    assert merkle.root(0, size, NODES).hex() == ROOTS[size]


def test_the_known_inclusion_proofs_are_given() -> None:
    # RFC 6962 §2.1.3 draws this tree of seven: PATH(0) = [b, h, l], PATH(6) = [i, k].
    leaves, nodes = tree(7)
    b, c, d, e, f, j = leaves[1], leaves[2], leaves[3], leaves[4], leaves[5], leaves[6]
    g = merkle.node_hash(leaves[0], b)
    h, i = merkle.node_hash(c, d), merkle.node_hash(e, f)
    k, m = merkle.node_hash(g, h), merkle.node_hash(i, j)
    assert merkle.inclusion_proof(0, 7, nodes) == [b, h, m]
    assert merkle.inclusion_proof(3, 7, nodes) == [c, g, m]
    assert merkle.inclusion_proof(4, 7, nodes) == [f, j, k]
    assert merkle.inclusion_proof(6, 7, nodes) == [i, k]
    assert merkle.consistency_proof(3, 7, nodes) == [c, d, g, m]
    assert merkle.consistency_proof(4, 7, nodes) == [m]
    assert merkle.consistency_proof(6, 7, nodes) == [i, j, k]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 31, 32, 33])
def test_pymerkle_gives_the_same_roots_and_paths(size: int) -> None:
    leaves, nodes = tree(size)
    known = oracle(size)
    assert merkle.root(0, size, nodes) == known.get_root()
    for index in range(size):
        # pymerkle counts from 1 and sorts the leaf's own hash and its siblings by place.
        path = list(known.prove_inclusion(index + 1, size).path)
        path.remove(leaves[index])
        assert sorted(merkle.inclusion_proof(index, size, nodes)) == sorted(path)


def test_every_proof_of_every_small_tree_verifies() -> None:
    for size in range(1, 70):
        leaves, nodes = tree(size)
        root = merkle.root(0, size, nodes)
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, nodes)
            assert merkle.verify_inclusion(leaves[index], index, size, proof, root)
        for first in range(size + 1):
            old = merkle.root(0, first, nodes)
            proof = merkle.consistency_proof(first, size, nodes)
            assert merkle.verify_consistency(first, size, old, root, proof)


@settings(max_examples=300)
@given(st.data())
def test_a_changed_inclusion_proof_does_not_verify(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 600))
    index = data.draw(st.integers(0, size - 1))
    leaves, nodes = tree(size)
    root = merkle.root(0, size, nodes)
    proof = merkle.inclusion_proof(index, size, nodes)
    assert merkle.verify_inclusion(leaves[index], index, size, proof, root)
    other = data.draw(st.integers(0, size + 3).filter(lambda drawn: drawn != index))
    assert not merkle.verify_inclusion(leaves[index], other, size, proof, root)
    assert not merkle.verify_inclusion(leaves[index], index, size, [*proof, root], root)
    assert not merkle.verify_inclusion(sha256(root).digest(), index, size, proof, root)
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        bent = [*proof[:at], sha256(proof[at]).digest(), *proof[at + 1 :]]
        assert not merkle.verify_inclusion(leaves[index], index, size, bent, root)
        assert not merkle.verify_inclusion(leaves[index], index, size, proof[:-1], root)


@settings(max_examples=300)
@given(st.data())
def test_a_changed_consistency_proof_does_not_verify(data: st.DataObject) -> None:
    second = data.draw(st.integers(2, 600))
    first = data.draw(st.integers(1, second - 1))
    _, nodes = tree(second)
    old, new = merkle.root(0, first, nodes), merkle.root(0, second, nodes)
    proof = merkle.consistency_proof(first, second, nodes)
    assert merkle.verify_consistency(first, second, old, new, proof)
    at = data.draw(st.integers(0, len(proof) - 1))
    bent = [*proof[:at], sha256(proof[at]).digest(), *proof[at + 1 :]]
    assert not merkle.verify_consistency(first, second, old, new, bent)
    assert not merkle.verify_consistency(first, second, old, new, proof[:-1])
    assert not merkle.verify_consistency(first, second, old, new, [*proof, old])
    assert not merkle.verify_consistency(first, second, new, new, proof)
    assert not merkle.verify_consistency(first, second, old, old, proof)
    assert not merkle.verify_consistency(second, first, new, old, proof)


def test_the_edge_cases_of_consistency_are_exact() -> None:
    empty, root = bytes.fromhex(ROOTS[0]), bytes.fromhex(ROOTS[5])
    assert merkle.verify_consistency(0, 5, empty, root, [])
    assert not merkle.verify_consistency(0, 5, root, root, [])
    assert not merkle.verify_consistency(0, 5, empty, root, [root])
    assert merkle.verify_consistency(5, 5, root, root, [])
    assert not merkle.verify_consistency(5, 5, root, root, [root])
    assert not merkle.verify_consistency(4, 5, empty, root, [])
    assert not merkle.verify_consistency(3, 5, empty, root, [])


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_no_proof_is_made_for_a_leaf_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="not in the tree"):
        merkle.inclusion_proof(index, size, NODES)
    assert not merkle.verify_inclusion(b"", index, size, [], b"")


@pytest.mark.parametrize(("first", "second"), [(-1, 3), (4, 3)])
def test_no_proof_is_made_for_sizes_out_of_order(first: int, second: int) -> None:
    with pytest.raises(ValueError, match="not in order"):
        merkle.consistency_proof(first, second, NODES)
