"""The log when its key was handed over: entries of both keys, each proven under a checkpoint of its own key."""

from pathlib import Path

import pytest
from tests.support.receipts import SIGNER, envelopes, hand_over

from tunewarden.errors import Error
from tunewarden.transparency.directory_log import DirectoryLog
from tunewarden.transparency.key import LogSigner
from tunewarden_receipts import merkle, receipt
from tunewarden_receipts.key_chain import KeyChain
from tunewarden_receipts.note import open_checkpoint


def test_a_former_keys_entry_is_not_appended_again_under_a_new_key(tmp_path: Path) -> None:
    statement, other = (receipt.build(receipt.parse_entry(one)) for one in envelopes()[:2])  # type: ignore[arg-type]  # of format 2
    old = DirectoryLog.create(tmp_path / "log", SIGNER)
    [first] = old.append_proven([(receipt.sign(statement, SIGNER), 0)])
    new_signer = LogSigner(SIGNER.name, bytes([9] * 32))
    handed = receipt.sign(receipt.build(hand_over(SIGNER, new_signer)), SIGNER)
    for _ in range(2):
        note = old.hand_over(handed, new_signer)
        assert old.size() == 2
    stored = receipt.bundle(handed, 1, old.inclusion_proof(1, 2), note, None)
    chain = KeyChain(SIGNER.key).extended(stored)
    new = DirectoryLog(tmp_path / "log", LogSigner(SIGNER.name, bytes([9] * 32), chain=chain))
    # The attempt began before the rotation: its statement is there, under the old key.
    again, later = new.append_proven(
        [(receipt.sign(statement, new_signer), 0), (receipt.sign(other, new_signer), 0)]
    )
    assert (again.index, again.entry) == (first.index, first.entry)
    assert (later.index, new.size()) == (2, 3)
    for one, key in ((again, SIGNER.key), (later, new_signer.key)):
        checkpoint = open_checkpoint(one.checkpoint, key)
        assert checkpoint.size == one.size
        assert merkle.verify_inclusion(
            merkle.leaf_hash(one.entry), one.index, one.size, one.proof, checkpoint.root
        )
    assert new.checkpoint_over(0) == note
    assert new.checkpoint_over(2) == new.checkpoint()
    # One that began after it is another entry, though it says the same.
    [anew] = new.append_proven([(receipt.sign(statement, new_signer), 2)])
    assert anew.index == 3
    with pytest.raises(Error, match="does not verify with the log's key"):
        old.checkpoint()
