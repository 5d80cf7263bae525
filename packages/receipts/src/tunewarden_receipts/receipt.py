"""Receipts: signed, logged statements, and their offline verification.

The form is normative in docs/receipt-format.md (R1 …): an in-toto Statement in a DSSE envelope
(Ed25519); the envelope's canonical bytes are a leaf of the log; the receipt is the envelope with a
C2SP tlog-proof and, since format 2, the disclosure of what the leaf only commits to. Verifying needs the
receipt and the log's public key, and nothing else from the server.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import rfc8785

from tunewarden_receipts import merkle
from tunewarden_receipts.canonical import canonical
from tunewarden_receipts.leaf import (
    Disclosure,
    Leaf,
    check_disclosure,
    disclosure_json,
    read_disclosure,
)
from tunewarden_receipts.note import (
    Checkpoint,
    LogKey,
    decode_base64,
    encode_base64,
    open_checkpoint,
    parse_hash,
    parse_number,
)
from tunewarden_receipts.statement import Facts, Numbered, from_statement, to_statement

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MEDIA_TYPE = "application/vnd.tunewarden.receipt.v2+json"
MEDIA_TYPE_1 = "application/vnd.tunewarden.receipt.v1+json"
_MEMBERS = {
    MEDIA_TYPE: {"disclosure", "envelope", "mediaType", "proof"},
    MEDIA_TYPE_1: {"envelope", "mediaType", "proof"},
}
PROOF_HEADER = "c2sp.org/tlog-proof@v1"
MAX_ENVELOPE_BYTES = 65_535  # an entry of C2SP tlog-tiles
MAX_RECEIPT_BYTES = 262_144
MAX_KEY_BYTES = 4_096


class ReceiptError(Exception):
    """A receipt, entry or checkpoint is not valid; the message names the check that failed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LogKeyError(ReceiptError):
    """A log key is malformed, so that nothing can be verified with it."""


class Signer(Protocol):
    """Signs receipts: the log's own key, which only the server has."""

    @property
    def key(self) -> LogKey:
        """Return the public key."""

    def sign(self, message: bytes) -> bytes:
        """Return 64 bytes of Ed25519."""


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """What a receipt proves: the key's owner stated `facts` and logged them as leaf `index`.

    `disclosed` is what the leaf commits to, and the receipt shows; None in format 1, which hides nothing. `note` is the
    signed text of the checkpoint.
    """

    facts: Facts
    disclosed: Disclosure | None
    statement: bytes
    envelope: bytes
    index: int
    checkpoint: Checkpoint
    note: bytes
    key_id: str


def build(leaf: Leaf | Numbered) -> bytes:
    """Return the canonical statement of a leaf; `ValueError` if a fact has a wrong form."""
    return canonical(to_statement(leaf))


def parse(statement: bytes) -> Facts:
    """Return the facts of a statement; `ReceiptError` unless it matches one of the formats exactly."""
    parsed = _parsed(statement, MAX_ENVELOPE_BYTES, "The statement")
    with _refusing("The statement is not of a known form"):
        return from_statement(parsed)


def pre_authentication(payload: bytes) -> bytes:
    """Return the bytes that a DSSE signature covers. DSSE v1 protocol, PAE."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(statement: bytes, signer: Signer) -> bytes:
    """Return the DSSE envelope in canonical JSON: the log entry. Same input, same bytes.

    `ValueError` if it would not fit into one entry of the log.
    """
    signature = signer.sign(pre_authentication(statement))
    envelope = canonical(
        {
            "payload": encode_base64(statement),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": signer.key.digest(), "sig": encode_base64(signature)}],
        }
    )
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise ValueError("the receipt is larger than an entry of the log can be")
    return envelope


def bundle(
    envelope: bytes,
    index: int,
    proof: Sequence[bytes],
    checkpoint: bytes,
    disclosure: Disclosure | None,
) -> bytes:
    """Return the receipt to download: the envelope, its place in the log, the signed checkpoint.

    `proof` is the inclusion proof of leaf `index` in the tree of `checkpoint`, a signed note. Without a
    disclosure it is a receipt of format 1, as its envelope is.
    """
    lines = [PROOF_HEADER, f"index {index}", *map(encode_base64, proof), ""]
    kind = MEDIA_TYPE if disclosure else MEDIA_TYPE_1
    rest = {"mediaType": kind, "proof": "\n".join(lines) + "\n" + checkpoint.decode()}
    shown = canonical({"disclosure": disclosure_json(disclosure)}) if disclosure else b"{}"
    # The envelope is canonical already, and its name sorts between the others: RFC 8785, 3.2.3.
    first = shown[:-1] + (b"," if disclosure else b"")
    return first + b'"envelope":' + envelope + b"," + canonical(rest)[1:]


def media_type_of(stored: bytes) -> str:
    """Return the media type of a receipt that this server made."""
    return MEDIA_TYPE if stored.startswith(b'{"disclosure"') else MEDIA_TYPE_1


def verify(receipt: bytes, log_key: bytes) -> VerifiedReceipt:
    """Return what a receipt proves; `ReceiptError`, and no other exception, if it is not valid.

    `log_key` is the log's public key, got from a source you trust, as PEM or C2SP vkey; a vkey
    also fixes the log's name. `LogKeyError`, a `ReceiptError`, if it is neither.
    """
    key = parse_key(log_key)
    value = _parsed(receipt, MAX_RECEIPT_BYTES, "The receipt")
    kind = value.get("mediaType") if isinstance(value, dict) else None
    if not isinstance(value, dict) or value.keys() not in _MEMBERS.values():
        raise ReceiptError("The receipt has other members than a receipt has.")
    if not isinstance(kind, str) or _MEMBERS.get(kind) != value.keys():
        raise ReceiptError("The receipt is of another kind or version.")
    if not isinstance(value["proof"], str):
        raise ReceiptError("The receipt's proof is not a text.")
    statement, facts = _opened(value["envelope"], key)
    disclosed = _disclosed(value, facts)
    envelope = rfc8785.dumps(value["envelope"])
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise ReceiptError("The envelope is larger than an entry of the log can be.")
    with _refusing("The proof is malformed"):
        index, proof, note = _parsed_proof(value["proof"])
    with _refusing("The log's checkpoint cannot be trusted"):
        checkpoint = open_checkpoint(note, key)
    leaf = merkle.leaf_hash(envelope)
    if not merkle.verify_inclusion(leaf, index, checkpoint.size, proof, checkpoint.root):
        raise ReceiptError("The statement is not the log's entry that the proof speaks of.")
    return VerifiedReceipt(
        facts, disclosed, statement, envelope, index, checkpoint, note, key.digest()
    )


def verify_entry(entry: bytes, log_key: bytes) -> Facts:
    """Return the facts of a log entry whose signature verifies; else `ReceiptError`."""
    value = _parsed(entry, MAX_ENVELOPE_BYTES, "The entry")
    return _opened(value, parse_key(log_key))[1]


def entry_hash(stored: bytes) -> bytes:
    """Return the leaf hash of the entry that a receipt of this server's speaks of. RFC 6962 §2.1."""
    return merkle.leaf_hash(rfc8785.dumps(json.loads(stored)["envelope"]))


def statement_of(entry: bytes) -> str:
    """Return the statement in a log entry of this server, as base64: what it says, whichever key signed it."""
    return str(json.loads(entry)["payload"])


def names_somebody(entry: bytes) -> bool:
    """Return whether a log entry is of format 1, which has names in plaintext."""
    payload = decode_base64(json.loads(entry)["payload"])
    # Canonical JSON: no text in it can hold an unescaped quotation mark.
    return b'/v1","subject":[' in payload


def parse_entry(entry: bytes) -> Facts:
    """Return the facts of an entry of this server's log, whose signature was verified when it was written."""
    return parse(decode_base64(json.loads(entry)["payload"]))


def verify_consistency(
    old: bytes, new: bytes, proof: Sequence[bytes], log_key: bytes
) -> tuple[Checkpoint, Checkpoint]:
    """Return two checkpoints if the newer one only appended to the older one; else `ReceiptError`. I11."""
    key = parse_key(log_key)
    with _refusing("A checkpoint cannot be trusted"):
        first, second = open_checkpoint(old, key), open_checkpoint(new, key)
    if first.origin != second.origin:
        raise ReceiptError("The checkpoints are of two logs.")
    if len(proof) > merkle.MAX_PROOF_HASHES or not merkle.verify_consistency(
        first.size, second.size, first.root, second.root, proof
    ):
        raise ReceiptError("The log was not only appended to between these checkpoints.")
    return first, second


@contextmanager
def _refusing(what: str, refusal: type[ReceiptError] = ReceiptError) -> Iterator[None]:
    """Translate what parsers raise, always a `ValueError`, into `ReceiptError`."""
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise refusal(f"{what}: {error}.") from error


def parse_key(log_key: bytes) -> LogKey:
    """Return a log's public key from PEM or a C2SP vkey; `LogKeyError` if it is neither."""
    with _refusing("The log key is neither an Ed25519 key in PEM nor a vkey", LogKeyError):
        if len(log_key) > MAX_KEY_BYTES:
            raise ValueError("it is too long")
        return LogKey.parse(log_key)


def _parsed(data: bytes, limit_bytes: int, what: str) -> object:
    """Parse JSON that must be canonical. RFC 8785."""
    with _refusing(f"{what} is not canonical JSON"):
        if len(data) > limit_bytes:
            raise ValueError("it is too large")
        value: Any = json.loads(data.decode(), object_pairs_hook=_unique)
        if rfc8785.dumps(value) != data:
            raise ValueError("its bytes were changed or written anew")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


def _opened(envelope: object, key: LogKey) -> tuple[bytes, Facts]:
    """Return the statement's bytes and facts from a parsed envelope whose signature verifies."""
    match envelope:
        case {
            "payload": str(payload),
            "payloadType": str(kind),
            "signatures": [{"keyid": str(key_id), "sig": str(encoded), **more}],
            **rest,
        } if not more and not rest:
            pass
        case _:
            raise ReceiptError("The envelope is not DSSE with one signature.")
    if kind != PAYLOAD_TYPE:
        raise ReceiptError("The envelope's payload is not an in-toto statement.")
    if key_id != key.digest():
        raise ReceiptError("The statement names another key than the log's.")
    with _refusing("The envelope's base64 is malformed"):
        statement, signature = decode_base64(payload), decode_base64(encoded)
    with _refusing("The statement cannot be trusted"):
        if not key.verifies(signature, pre_authentication(statement)):
            raise ValueError("its signature does not verify")
    return statement, parse(statement)


def _disclosed(value: dict[str, Any], facts: Facts) -> Disclosure | None:
    """Return a receipt's disclosure, each value of which the facts commit to; None in format 1."""
    if isinstance(facts, Leaf) != ("disclosure" in value):
        raise ReceiptError("The receipt and its statement are of two formats.")
    if not isinstance(facts, Leaf):
        return None
    with _refusing("The disclosure cannot be trusted"):
        disclosed = read_disclosure(value["disclosure"])
        check_disclosure(facts, disclosed)
    return disclosed


def _parsed_proof(text: str) -> tuple[int, list[bytes], bytes]:
    """Return (index, hashes, signed note) of a C2SP tlog-proof without extra data."""
    head, separator, note = text.partition("\n\n")
    header, index, *hashes = [*head.split("\n"), ""][: merkle.MAX_PROOF_HASHES + 4]
    if not separator or header != PROOF_HEADER or not index.startswith("index "):
        raise ValueError("it is not a tlog-proof")
    if hashes.pop() or len(hashes) > merkle.MAX_PROOF_HASHES:
        raise ValueError("it is too long")
    return parse_number(index.removeprefix("index ")), list(map(parse_hash, hashes)), note.encode()
