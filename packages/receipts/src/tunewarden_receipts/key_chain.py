"""The keys that a log had, one after another: from the one that you trust to the one that signs now.

Each hand-over is proven twice: the former key signed the entry that names the new one, and both signed the checkpoint
of the log that ends with it. The entries up to that one are the former key's, and those after it the new one's.
"""

import json
from bisect import bisect_left
from dataclasses import dataclass, replace
from itertools import pairwise

import rfc8785

from tunewarden_receipts.canonical import canonical
from tunewarden_receipts.key_hand_over import KeyHandOverLeaf
from tunewarden_receipts.note import LogKey, open_checkpoint
from tunewarden_receipts.receipt import (
    ReceiptError,
    VerifiedReceipt,
    parse_entry,
    parse_key,
    verify,
)

MEDIA_TYPE = "application/vnd.tunewarden.log-key-hand-overs.v1+json"
MAX_HAND_OVERS = 100
MAX_DOCUMENT_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class HandOver:
    """A proven hand-over: entry `index` of the log names `key`; the note `checkpoint` ends with it, signed by both."""

    index: int
    sequence: int
    key: LogKey
    checkpoint: bytes
    receipt: bytes


@dataclass(frozen=True, slots=True)
class KeyChain:
    """A log's first key, as far as is known, and the proven hand-overs from it on."""

    first: LogKey
    hand_overs: tuple[HandOver, ...] = ()

    @property
    def newest(self) -> LogKey:
        """Return the key that signs now."""
        return self.hand_overs[-1].key if self.hand_overs else self.first

    @property
    def last_index(self) -> int:
        """Return the entry of the last hand-over; -1 if there was none."""
        return self.hand_overs[-1].index if self.hand_overs else -1

    def keys(self) -> list[LogKey]:
        """Return all keys, oldest first."""
        return [self.first, *(one.key for one in self.hand_overs)]

    def of_entry(self, index: int) -> LogKey:
        """Return the key that signs an entry."""
        return self.keys()[self._before(index)]

    def after_entry(self, index: int) -> HandOver | None:
        """Return the hand-over that ended the time of the key that signed an entry; None if that is the newest."""
        at = self._before(index)
        return self.hand_overs[at] if at < len(self.hand_overs) else None

    def named(self, key_id: str) -> LogKey | None:
        """Return the key with this fingerprint, or None."""
        return next((key for key in self.keys() if key.digest() == key_id), None)

    def verified(self, stored: bytes) -> VerifiedReceipt:
        """Return what a receipt proves that one of the keys signed in its time; else `ReceiptError`."""
        key = self.named(_key_id_of(stored))
        if key is None:
            raise ReceiptError(
                "The statement names a key that the log key that you trust does not lead to."
            )
        found = verify(stored, key.pem())
        ended = self.after_entry(found.index)
        is_late = ended is not None and found.checkpoint.size > ended.index + 1
        if self.of_entry(found.index) != key or is_late:
            raise ReceiptError("The statement is signed by a key that was not the log's then.")
        if {one.name for one in self.keys()} - {None, found.checkpoint.origin}:
            raise ReceiptError("The checkpoint is another log's.")
        return found

    def extended(self, stored: bytes) -> "KeyChain":
        """Return the chain with one more hand-over, from its receipt; `ReceiptError` if it is not one."""
        verified = verify(stored, self.newest.pem())
        leaf, checkpoint = verified.facts, verified.checkpoint
        if not isinstance(leaf, KeyHandOverLeaf):
            raise ReceiptError("The entry hands nothing over.")
        previous, new = leaf.keys()
        if previous.public != self.newest.public or self.newest.name not in {None, previous.name}:
            raise ReceiptError("The hand-over is from another key.")
        if self.named(new.digest()) is not None:
            raise ReceiptError("The hand-over is to a key that the log had before.")
        if self.hand_overs and leaf.sequence != self.hand_overs[-1].sequence + 1:
            raise ReceiptError("A hand-over before this one is missing.")
        if verified.index <= self.last_index or checkpoint.size != verified.index + 1:
            raise ReceiptError("The hand-over's checkpoint does not end with it.")
        try:
            open_checkpoint(verified.note, new)
        except ValueError as error:
            raise ReceiptError(f"The new key did not sign the hand-over: {error}.") from error
        found = HandOver(verified.index, leaf.sequence, new, verified.note, stored)
        return replace(self, hand_overs=(*self.hand_overs, found))

    def without_last(self) -> "KeyChain":
        """Return the chain before its last hand-over."""
        return replace(self, hand_overs=self.hand_overs[:-1])

    def document(self) -> bytes:
        """Return the hand-overs as one canonical JSON document, which `parse` reads."""
        found = [json.loads(one.receipt) for one in self.hand_overs]
        return canonical({"handOvers": found, "mediaType": MEDIA_TYPE})

    @staticmethod
    def parse(document: bytes, first: LogKey | None = None) -> "KeyChain":
        """Return the proven chain from the key `first` on, or of the whole document; else `ReceiptError`."""
        found = _receipts(document)
        pairs = [_leaf_of(one).keys() for one in found]
        if any(one[1] != other[0] for one, other in pairwise(pairs)):
            raise ReceiptError("The hand-overs are malformed: one does not follow on another.")
        if first is None:
            if not pairs:
                raise ReceiptError("There are no hand-overs.")
            first = pairs[0][0]
        known = [former.public for former, _ in pairs] + [new.public for _, new in pairs[-1:]]
        if known and first.public not in known:
            raise ReceiptError("The hand-overs do not begin with the log key that you trust.")
        chain = KeyChain(first)
        for one in found[known.index(first.public) if known else 0 :]:
            chain = chain.extended(one)
        return chain

    def _before(self, index: int) -> int:
        """Return how many hand-overs stand before an entry."""
        return bisect_left([one.index for one in self.hand_overs], index)


def verify_in_chain(stored: bytes, log_key: bytes, document: bytes) -> VerifiedReceipt:
    """Return what a receipt proves, signed by the key `log_key` or by one that it leads to; else `ReceiptError`.

    `document` has the log's hand-overs. A receipt of a former key must be of its time: no entry after its hand-over.
    """
    return KeyChain.parse(document, parse_key(log_key)).verified(stored)


def _receipts(document: bytes) -> list[bytes]:
    """Return the receipts in a document, as canonical JSON, unverified; `ReceiptError` for another document."""
    try:
        return _read(document)
    except (ValueError, RecursionError) as error:
        raise ReceiptError(f"The hand-overs are malformed: {error}.") from error


def _read(document: bytes) -> list[bytes]:
    if len(document) > MAX_DOCUMENT_BYTES:
        raise ValueError("the document is too large")
    value = json.loads(document.decode())
    if not isinstance(value, dict) or value.get("mediaType") != MEDIA_TYPE:
        raise ValueError("the document is of another kind or version")
    found = value["handOvers"] if value.keys() == {"handOvers", "mediaType"} else None
    if not isinstance(found, list) or len(found) > MAX_HAND_OVERS:
        raise ValueError("the document has other members than hand-overs")
    if rfc8785.dumps(value) != document:
        raise ValueError("the document's bytes were changed or written anew")
    return [rfc8785.dumps(one) for one in found]


def _leaf_of(stored: bytes) -> KeyHandOverLeaf:
    """Return the statement in a hand-over's receipt, unverified."""
    try:
        leaf = parse_entry(rfc8785.dumps(json.loads(stored)["envelope"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ReceiptError("The hand-overs are malformed: one is not a receipt.") from error
    if not isinstance(leaf, KeyHandOverLeaf):
        raise ReceiptError("The hand-overs are malformed: an entry hands nothing over.")
    return leaf


def _key_id_of(stored: bytes) -> str:
    """Return the fingerprint that a receipt names, unverified; empty if it names none."""
    try:
        return str(json.loads(stored)["envelope"]["signatures"][0]["keyid"])
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return ""
