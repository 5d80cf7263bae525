"""Exports in receipts: those that a deletion does not reach, and the entry of an export itself."""

from dataclasses import replace

import pytest
from tests.support.receipts import DELETION, LEAF, SALT, SHOWN, SIGNER, receipts

from tunewarden_receipts import leaf, merkle, receipt
from tunewarden_receipts.receipt import ReceiptError
from tunewarden_receipts.summary import summary

PEM = SIGNER.public_pem()


def test_a_deletion_names_the_exports_that_it_does_not_reach() -> None:
    exports = (
        leaf.Export(DELETION.requested_at, "key_1"),
        leaf.Export(DELETION.fenced_at, "key_2"),
    )
    shown = replace(SHOWN, exports=exports)
    stated = replace(LEAF, exports=shown.commitments()["exports"])
    text = summary(_alone(stated, shown))
    assert "exports:      2, not reached by this deletion" in text
    assert f"{DELETION.requested_at} by key_1" in text
    assert f"{DELETION.fenced_at} by key_2" in text
    assert "exports:      none" in summary(receipt.verify(receipts()[1], PEM))
    hidden = summary(_alone(stated, replace(shown, exports=None)))
    assert "2, not disclosed" in hidden
    assert "key_1" not in hidden


def test_an_export_is_an_entry_that_names_nobody_and_opens_with_its_salt() -> None:
    exported = leaf.Export(DELETION.requested_at, "key_1")
    shown = leaf.Disclosure(
        SALT.hex(),
        artifact_id=DELETION.artifact_id,
        organization_id=DELETION.organization_id,
        manifest_sha256=DELETION.manifest_sha256,
        exported=exported,
    )
    stated = leaf.ExportLeaf.of(
        shown,
        export_id="export_1",
        internal_id=DELETION.internal_id,
        exported_at=exported.exported_at,
        software="tunewarden 0.2.0",
    )
    verified = _alone(stated, shown)
    assert (verified.facts, verified.disclosed) == (stated, shown)
    for name in (DELETION.artifact_id, DELETION.organization_id, "key_1"):
        assert name.encode() not in verified.statement
        assert name in summary(verified)
    other = replace(shown, exported=leaf.Export(exported.exported_at, "key_2"))
    with pytest.raises(ReceiptError, match="not the one that the log's entry commits to"):
        _alone(stated, other)


def _alone(stated: leaf.Leaf, shown: leaf.Disclosure) -> receipt.VerifiedReceipt:
    """Return the verified receipt of the only entry of a log."""
    entry = receipt.sign(receipt.build(stated), SIGNER)
    note = SIGNER.sign_checkpoint(1, merkle.leaf_hash(entry))
    return receipt.verify(receipt.bundle(entry, 0, [], note, shown), PEM)
