"""Proofs of entries that are in the log, under the newest checkpoint by the key that signed them."""

from tunewarden.transparency.log import Log
from tunewarden_receipts import receipt


def of(log: Log, index: int) -> tuple[list[bytes], bytes]:
    """Return the inclusion proof of an entry, and its key's newest checkpoint. Raises Error(UNAVAILABLE)."""
    checkpoint = log.checkpoint_over(index)
    return log.inclusion_proof(index, int(checkpoint.split(b"\n")[1])), checkpoint


def receipt_of(log: Log, index: int) -> bytes:
    """Return the receipt of an entry that discloses nothing, as an audit digest does. Raises Error(UNAVAILABLE)."""
    proof, checkpoint = of(log, index)
    return receipt.bundle(log.entry(index), index, proof, checkpoint, None)
