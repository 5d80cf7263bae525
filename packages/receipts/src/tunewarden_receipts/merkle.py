"""The Merkle tree of RFC 6962: hashes, roots, proofs and their verification. Pure.

A tree is seen through `Nodes`: a function from (level, index) to the hash of the complete subtree
over the leaves `[index << level, (index + 1) << level)`; level 0 is the leaf hashes. So the same
code serves a list in memory and tiles on disk. All hashes are 32 bytes of SHA-256.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256

HASH_BYTES = 32
# A tree of more than 2**63 leaves does not exist, so no honest proof is longer.
MAX_PROOF_HASHES = 63

Nodes = Callable[[int, int], bytes]


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of one entry. RFC 6962 §2.1."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node. RFC 6962 §2.1."""
    return sha256(b"\x01" + left + right).digest()


def complete_root(hashes: Sequence[bytes]) -> bytes:
    """Return the root over 2**k hashes (a complete tree), in one pass a level."""
    level = list(hashes)
    while len(level) > 1:
        pairs = iter(level)
        level = [node_hash(left, right) for left, right in zip(pairs, pairs, strict=True)]
    return level[0]


def nodes_of(leaf_hashes: Sequence[bytes]) -> Nodes:
    """Return `Nodes` over leaf hashes in memory."""
    return lambda level, index: complete_root(leaf_hashes[index << level : (index + 1) << level])


def _split(size: int) -> int:
    """Return the largest power of two below `size` (`size` > 1): where the RFC divides a tree."""
    return 1 << ((size - 1).bit_length() - 1)


def root(start: int, end: int, nodes: Nodes) -> bytes:
    """Return MTH(D[start:end]), RFC 6962 §2.1.

    The range must be one that occurs in a tree: `start` is a multiple of the smallest power of two
    that is not below `end - start`.
    """
    size = end - start
    if size == 0:
        return sha256().digest()
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return nodes(level, start >> level)
    middle = start + _split(size)
    return node_hash(root(start, middle, nodes), root(middle, end, nodes))


def inclusion_proof(index: int, size: int, nodes: Nodes) -> list[bytes]:
    """Return PATH(index, D[0:size]) from the leaf's sibling to the root's child, RFC 6962 §2.1.1.

    `ValueError` unless 0 <= index < size.
    """
    return [sibling for _, sibling in sided_path(index, size, nodes)]


def sided_path(index: int, size: int, nodes: Nodes) -> list[tuple[bool, bytes]]:
    """Return the inclusion proof with whether each hash is the left one: it verifies without index and size.

    `ValueError` unless 0 <= index < size.
    """
    if not 0 <= index < size:
        raise ValueError("the index is not in the tree")
    path: list[tuple[bool, bytes]] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append((False, root(middle, end, nodes)))
            end = middle
        else:
            path.append((True, root(start, middle, nodes)))
            start = middle
    path.reverse()
    return path


def root_of_path(leaf: bytes, path: Sequence[tuple[bool, bytes]]) -> bytes:
    """Return the root that a leaf hash and its `sided_path` lead to."""
    result = leaf
    for is_left, sibling in path:
        result = node_hash(sibling, result) if is_left else node_hash(result, sibling)
    return result


def consistency_proof(first: int, second: int, nodes: Nodes) -> list[bytes]:
    """Return PROOF(first, D[0:second]), RFC 6962 §2.1.2; empty if `first` is 0 or `second`.

    `ValueError` unless 0 <= first <= second.
    """
    if not 0 <= first <= second:
        raise ValueError("the sizes are not in order")
    if first in {0, second}:
        return []
    path: list[bytes] = []
    start, end = 0, second
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            path.append(root(middle, end, nodes))
            end = middle
        else:
            path.append(root(start, middle, nodes))
            start = middle
    if start > 0:  # otherwise the old root is itself the start, and the verifier has it
        path.append(root(start, end, nodes))
    path.reverse()
    return path


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], tree_root: bytes
) -> bool:
    """Return whether `proof` shows the leaf hash at `index` under `tree_root`. RFC 9162 §2.1.3.2."""
    if not 0 <= index < size:
        return False
    position, last, result = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            result = node_hash(sibling, result)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            result = node_hash(result, sibling)
        position >>= 1
        last >>= 1
    return last == 0 and result == tree_root


def verify_consistency(
    first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Return whether the tree of `second` leaves only appended to that of `first`. RFC 9162 §2.1.4.2."""
    if not 0 <= first <= second:
        return False
    if first == second:
        return not proof and first_root == second_root
    if first == 0:
        return not proof and first_root == sha256().digest()
    # A complete old tree is a node of the new one: its root takes the place of the first hash.
    path = [first_root, *proof] if first & (first - 1) == 0 else list(proof)
    if not path:
        return False
    position, last = first - 1, second - 1
    while position & 1:
        position >>= 1
        last >>= 1
    old = new = path[0]
    for hashed in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old, new = node_hash(hashed, old), node_hash(hashed, new)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            new = node_hash(new, hashed)
        position >>= 1
        last >>= 1
    return last == 0 and old == first_root and new == second_root
