"""Checks that receipts are those of all members of a case, and of nothing else."""

from collections.abc import Sequence

from tunewarden_receipts import merkle
from tunewarden_receipts.deletion_case import CaseLeaf, members_commitment
from tunewarden_receipts.receipt import ReceiptError, VerifiedReceipt
from tunewarden_receipts.statement import Deleted


def check_members(case: VerifiedReceipt, members: Sequence[VerifiedReceipt]) -> CaseLeaf:
    """Return what a verified summary states, if `members` are the verified receipts of all members of its case.

    Raises `ReceiptError`: one is missing, or is of something else.
    """
    leaf, disclosed = case.facts, case.disclosed
    if not isinstance(leaf, CaseLeaf) or disclosed is None:
        raise ReceiptError("The receipt is not the summary of a case.")
    for one in members:
        if not isinstance(one.facts, Deleted):
            raise ReceiptError("A member's receipt is not of a deletion.")
        if one.key_id != case.key_id or one.checkpoint.origin != case.checkpoint.origin:
            raise ReceiptError("A member's receipt is of another log than the case's.")
    if len(members) != leaf.count:
        raise ReceiptError(f"The case has {leaf.count} members, not {len(members)}.")
    hashes = [merkle.leaf_hash(one.envelope) for one in members]
    if members_commitment(bytes.fromhex(disclosed.salt), hashes).root != leaf.root:
        raise ReceiptError("These are not the members that the case commits to.")
    return leaf
