"""Receipts: signed statements that stand in the log, and their verification, offline.

The form is normative in docs/receipt-format.md (R1 …): an in-toto Statement in a DSSE envelope
(Ed25519); the envelope's canonical bytes are a leaf of the log; the receipt is the envelope with a
C2SP tlog-proof. Verifying needs the receipt, the log's public key, and nothing else of ours.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import rfc8785

from tunewarden.deletion import merkle
from tunewarden.deletion.facts import BlobsErasedFacts, DeletionFacts, Facts
from tunewarden.deletion.facts import from_statement as _from_statement
from tunewarden.deletion.facts import to_statement as _to_statement
from tunewarden.deletion.note import (
    Checkpoint,
    LogKey,
    decode_base64,
    encode_base64,
    open_checkpoint,
    parse_hash,
    parse_number,
)
from tunewarden.errors import Error, Kind

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MEDIA_TYPE = "application/vnd.tunewarden.receipt.v1+json"
PROOF_HEADER = "c2sp.org/tlog-proof@v1"
MAX_ENVELOPE_BYTES = 65_535  # an entry of C2SP tlog-tiles
MAX_RECEIPT_BYTES = 262_144
MAX_KEY_BYTES = 4_096


class ReceiptError(Error):
    """A receipt, entry or checkpoint that proves nothing; the message says at which check."""

    def __init__(self, reason: str) -> None:
        super().__init__(Kind.INVALID, reason, code="receipt_invalid")
        self.reason = reason


class Signer(Protocol):
    """What signs receipts: the log's own key (`log_key.LogSigner`)."""

    @property
    def key(self) -> LogKey:
        """Return the public key."""

    def sign(self, message: bytes) -> bytes:
        """Return 64 bytes of Ed25519."""


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """What a receipt proves: the key's owner stated `facts` and logged them as leaf `index`."""

    facts: Facts
    statement: bytes
    envelope: bytes
    index: int
    checkpoint: Checkpoint
    key_id: str


def build_deletion(facts: DeletionFacts) -> bytes:
    """Return the canonical statement of a deletion; `ValueError` if a fact has a wrong form."""
    return rfc8785.dumps(_to_statement(facts))


def build_blobs_erased(facts: BlobsErasedFacts) -> bytes:
    """Return the canonical statement that blobs were erased; `ValueError` as above."""
    return rfc8785.dumps(_to_statement(facts))


def pre_authentication(payload: bytes) -> bytes:
    """Return the bytes that a DSSE signature covers. DSSE v1 protocol, PAE."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(statement: bytes, signer: Signer) -> bytes:
    """Return the DSSE envelope in canonical JSON: the log entry. Same input, same bytes.

    `Error` TOO_LARGE if it would not fit into one entry of the log.
    """
    signature = signer.sign(pre_authentication(statement))
    envelope = rfc8785.dumps(
        {
            "payload": encode_base64(statement),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": signer.key.digest(), "sig": encode_base64(signature)}],
        }
    )
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise Error(Kind.TOO_LARGE, "The receipt is larger than an entry of the log can be.")
    return envelope


def bundle(envelope: bytes, index: int, proof: Sequence[bytes], checkpoint: bytes) -> bytes:
    """Return the receipt to download: the envelope, its place in the log, the signed checkpoint.

    `proof` is the inclusion proof of leaf `index` in the tree of `checkpoint`, a signed note.
    """
    lines = [PROOF_HEADER, f"index {index}", *map(encode_base64, proof), ""]
    rest = {"mediaType": MEDIA_TYPE, "proof": "\n".join(lines) + "\n" + checkpoint.decode()}
    # The envelope is canonical already, and its name comes first: RFC 8785, 3.2.3.
    return b'{"envelope":' + envelope + b"," + rfc8785.dumps(rest)[1:]


def verify(receipt: bytes, log_key: bytes) -> VerifiedReceipt:
    """Return what a receipt proves; `ReceiptError`, and no other exception, if it proves nothing.

    `log_key` is the log's public key, got from a source you trust, as PEM or C2SP vkey; a vkey
    also fixes the log's name.
    """
    key = _parsed_key(log_key)
    value = _parsed(receipt, MAX_RECEIPT_BYTES, "The receipt")
    if not isinstance(value, dict) or value.keys() != {"envelope", "mediaType", "proof"}:
        raise ReceiptError("The receipt has other members than a receipt has.")
    if value["mediaType"] != MEDIA_TYPE or not isinstance(value["proof"], str):
        raise ReceiptError("The receipt is of another kind or version.")
    statement, facts = _opened(value["envelope"], key)
    envelope = rfc8785.dumps(value["envelope"])
    with _refusing("The proof is malformed"):
        index, proof, note = _parsed_proof(value["proof"])
    with _refusing("The log's checkpoint cannot be trusted"):
        checkpoint = open_checkpoint(note, key)
    leaf = merkle.leaf_hash(envelope)
    if not merkle.verify_inclusion(leaf, index, checkpoint.size, proof, checkpoint.root):
        raise ReceiptError("The statement is not the log's entry that the proof speaks of.")
    return VerifiedReceipt(facts, statement, envelope, index, checkpoint, key.digest())


def verify_entry(entry: bytes, log_key: bytes) -> Facts:
    """Return the facts of a log entry whose signature verifies; else `ReceiptError`."""
    value = _parsed(entry, MAX_ENVELOPE_BYTES, "The entry")
    return _opened(value, _parsed_key(log_key))[1]


def verify_consistency(
    old: bytes, new: bytes, proof: Sequence[bytes], log_key: bytes
) -> tuple[Checkpoint, Checkpoint]:
    """Return two checkpoints of which the newer only appended; else `ReceiptError`. I11."""
    key = _parsed_key(log_key)
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
def _refusing(what: str) -> Iterator[None]:
    """Turn what parsers raise into the one error; everything they raise is a `ValueError`."""
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise ReceiptError(f"{what}: {error}.") from error


def _parsed_key(log_key: bytes) -> LogKey:
    with _refusing("The log key is neither an Ed25519 key in PEM nor a vkey"):
        if len(log_key) > MAX_KEY_BYTES:
            raise ValueError("it is too long")
        return LogKey.parse(log_key)


def _parsed(data: bytes, limit_bytes: int, what: str) -> object:
    """Return the value of JSON that is exactly its own canonical form. RFC 8785."""
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
    """Return the statement's bytes and facts out of a parsed envelope whose signature verifies."""
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
    parsed = _parsed(statement, MAX_ENVELOPE_BYTES, "The statement")
    with _refusing("The statement is not of a known form"):
        return statement, _from_statement(parsed)


def _parsed_proof(text: str) -> tuple[int, list[bytes], bytes]:
    """Return (index, hashes, signed note) of a C2SP tlog-proof without extra data."""
    head, separator, note = text.partition("\n\n")
    header, index, *hashes = [*head.split("\n"), ""][: merkle.MAX_PROOF_HASHES + 4]
    if not separator or header != PROOF_HEADER or not index.startswith("index "):
        raise ValueError("it is not a tlog-proof")
    if hashes.pop() or len(hashes) > merkle.MAX_PROOF_HASHES:
        raise ValueError("it is too long")
    return parse_number(index.removeprefix("index ")), list(map(parse_hash, hashes)), note.encode()


def summary(receipt: VerifiedReceipt) -> str:
    """Return what a verified receipt says, as lines for a person. No line says more than a fact."""
    facts, checkpoint = receipt.facts, receipt.checkpoint
    lines = [
        (facts.kind if isinstance(facts, DeletionFacts) else "artifact", facts.artifact_id),
        ("manifest", f"sha256:{facts.manifest_sha256}"),
        ("deletion", facts.deletion_id),
        *(_deletion_lines(facts) if isinstance(facts, DeletionFacts) else _erased_lines(facts)),
        ("software", facts.software),
        ("log", f"{checkpoint.origin}, entry {receipt.index} of {checkpoint.size}"),
        ("log key", f"sha256:{receipt.key_id}"),
    ]
    return "".join(f"{name + ':':<14}{text}\n" for name, text in lines)


def _deletion_lines(facts: DeletionFacts) -> Iterator[tuple[str, str]]:
    yield "organization", facts.organization_id
    yield "requested", f"{facts.requested_at} by {facts.requested_by}"
    yield "committed", f"{facts.committed_at}, epoch {facts.epoch}"
    yield "fenced", facts.fenced_at
    for worker in facts.fence:
        yield "  worker", f"{worker.worker} {worker.how}"
    yield "evicted", facts.evicted_at
    for engine in facts.engines:
        zeroed = "weights zeroed" if engine.zeroed else "weights not known to be zeroed"
        yield "  engine", f"{engine.engine} {engine.how}, {engine.aborted} aborted, {zeroed}"
    key = facts.key
    yield "key erased", f"{facts.key_erased_at}, {key.id} of shard {key.shard}"
    yield "  keyring", f"generation {key.generation_before} -> {key.generation_after}"
    yield "  method", key.method
    yield "  assurance", key.assurance
    yield "sealed blobs", f"{facts.blobs.count} ({facts.blobs.size_bytes} bytes)"
    for residual in facts.residuals:
        yield "remains", residual


def _erased_lines(facts: BlobsErasedFacts) -> Iterator[tuple[str, str]]:
    yield "blobs erased", f"{facts.erased_at}: {facts.count} in {facts.versions} versions"
    yield "  bytes", str(facts.size_bytes)
    for name in facts.failures:
        yield "not erased", name
