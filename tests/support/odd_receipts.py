"""Receipts for verifiers in other languages: genuine ones of every kind, and ones that only a verifier may judge.

The latter are properly signed and logged, by a careless signer who does not look at what it signs: so they reach the
checks of the form, which a changed byte never does.
"""

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import rfc8785
from tests.support.receipts import DELETION, LEAF, SALT, SHOWN, SIGNER, hand_over, receipts

from tunewarden.transparency.key import LogSigner
from tunewarden_receipts import leaf, merkle, receipt
from tunewarden_receipts.audit_digest import AuditDigestLeaf
from tunewarden_receipts.deletion_case import CaseLeaf, members_commitment
from tunewarden_receipts.note import decode_base64, encode_base64

ODD: list[Any] = [
    None, True, False, 0, -1, 7, 2**53 - 1, 2**53, 1.5, 1e21, "", " ", "x", "x" * 256, "x" * 513, "é" * 512,
    "\U0001f600" * 512, "a\u200bb", "a\u00a0b", "a\u2028b", "a\ue000b", "a\x7fb", "a\x00b", "\ufeff", "0" * 64, "G" * 64,
    "A" * 64, "2026-11-22T10:00:00.000000Z", "2026-13-22T10:00:00.000000Z", "2026-11-22T10:00:00Z", "-x", "x\n",
    [], {}, [None], ["x"], ["x"] * 1001, {"count": 0, "root": "0" * 64}, {"__proto__": 1}, "zeroed", "released", "x y",
]  # fmt: skip


def genuine() -> list[bytes]:
    """Return valid receipts of each kind and both formats; the last ones name nothing that was deleted."""
    exported = leaf.Export(DELETION.requested_at, "key_1")
    names = leaf.Disclosure(SALT.hex(), SHOWN.artifact_id, SHOWN.organization_id)
    of_case = replace(names, requested_by=SHOWN.requested_by)
    of_export = replace(names, manifest_sha256=SHOWN.manifest_sha256, exported=exported)
    export = leaf.ExportLeaf.of(
        of_export,
        export_id="exp_1",
        internal_id="m_1",
        exported_at=exported.exported_at,
        software="tunewarden 0.2.0",
    )
    case = CaseLeaf(
        case_id="case_1",
        root=members_commitment(SALT, [bytes(32)]).root,
        **of_case.commitments(),
        count=1,
        hidden=0,
        requested_at=DELETION.requested_at,
        finished_at=DELETION.committed_at,
        software="tunewarden 0.2.0",
    )
    digest = AuditDigestLeaf(3, "0" * 64, DELETION.requested_at, "tunewarden 0.2.0")
    some: list[tuple[Any, leaf.Disclosure | None]] = [
        (export, of_export),
        (case, of_case),
        (digest, None),
        (hand_over(SIGNER, LogSigner(SIGNER.name, bytes([1] * 32))), None),
    ]
    more = [logged(receipt.build(stated), disclosed) for stated, disclosed in some]
    return [*receipts(), *receipts(form=1), *more]


def logged(statement: bytes, disclosed: leaf.Disclosure | None) -> bytes:
    """Return the receipt of any statement, signed as the first and only entry of a log."""
    envelope = receipt.sign(statement, SIGNER)
    checkpoint = SIGNER.sign_checkpoint(1, merkle.leaf_hash(envelope))
    return receipt.bundle(envelope, 0, [], checkpoint, disclosed)


def carelessly_signed(seed: int, count: int) -> Iterator[bytes]:
    """Yield receipts of statements with one odd value, or of disclosures with one, that a careless signer logged."""
    draw = random.Random(seed)
    originals = genuine()
    for number in range(count):
        original = json.loads(draw.choice(originals))
        statement = json.loads(decode_base64(original["envelope"]["payload"]))
        if number % 3 == 0 and "disclosure" in original:
            _change(draw, original["disclosure"])
        else:
            _change(draw, statement)
        try:
            yield _receipt_of(statement, original)
        except (ValueError, TypeError):
            continue  # no JSON that a statement could be


def _change(draw: random.Random, value: Any) -> None:
    """Replace, add or take out one member somewhere below a value."""
    places = list(_places(value))
    holder, name = draw.choice(places)
    act = draw.randrange(8)
    if act == 0 and isinstance(holder, dict):
        holder[draw.choice(["more", "internalId", "sequence", "__proto__"])] = draw.choice(ODD)
    elif act == 1:
        del holder[name]
    else:
        holder[name] = copy.deepcopy(draw.choice(ODD))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict | list):
        for name in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, name
            yield from _places(value[name])


def _receipt_of(statement: Any, original: dict[str, Any]) -> bytes:
    envelope = receipt.sign(rfc8785.dumps(statement), SIGNER)
    checkpoint = SIGNER.sign_checkpoint(1, merkle.leaf_hash(envelope))
    proof = f"{receipt.PROOF_HEADER}\nindex 0\n\n{checkpoint.decode()}"
    return rfc8785.dumps({**original, "envelope": json.loads(envelope), "proof": proof})


def with_residuals(residuals: list[str]) -> bytes:
    """Return a receipt that names these residuals, in a log that looks at no size."""
    statement = receipt.build(replace(LEAF, residuals=tuple(residuals)))
    signature = SIGNER.sign(receipt.pre_authentication(statement))
    original = json.loads(receipts()[1])
    envelope = original["envelope"]
    envelope["payload"] = encode_base64(statement)
    envelope["signatures"][0]["sig"] = encode_base64(signature)
    note = SIGNER.sign_checkpoint(1, merkle.leaf_hash(rfc8785.dumps(envelope))).decode()
    original["proof"] = f"{receipt.PROOF_HEADER}\nindex 0\n\n{note}"
    return rfc8785.dumps(original)
