"""A log's keys, one after another: what leads from the key that somebody trusts to a later one, and what does not."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import rfc8785
from tests.support.receipts import SIGNER, envelopes, hand_over

from tunewarden.transparency.key import LogSigner
from tunewarden_receipts import merkle, receipt
from tunewarden_receipts.key_chain import HandOver, KeyChain, verify_in_chain
from tunewarden_receipts.key_hand_over import KeyHandOverLeaf
from tunewarden_receipts.note import Checkpoint
from tunewarden_receipts.receipt import LogKeyError, ReceiptError

SECOND, THIRD, THIEF = (LogSigner(SIGNER.name, bytes([n] * 32)) for n in (1, 2, 3))


def entry(former: LogSigner, new: LogSigner, sequence: int = 1) -> bytes:
    return receipt.sign(receipt.build(hand_over(former, new, sequence)), former)


def stored(
    entries: Sequence[bytes], index: int, size: int, note: Callable[[int, bytes], bytes]
) -> bytes:
    """Return the receipt of an entry, in a log of these entries, under the note of its first `size`."""
    nodes = merkle.nodes_of([merkle.leaf_hash(one) for one in entries])
    proof = merkle.inclusion_proof(index, size, nodes)
    checkpoint = note(size, merkle.root(0, size, nodes))
    return receipt.bundle(entries[index], index, proof, checkpoint, None)


def handed(entries: Sequence[bytes], index: int, former: LogSigner, new: LogSigner) -> bytes:
    return stored(
        entries, index, index + 1, lambda size, root: new.sign_hand_over(size, root, former)
    )


# Entries 0 to 2 are deletions of the first key, 3 and 4 hand over, 5 is the third key's.
ENTRIES = [
    *envelopes(SIGNER),
    entry(SIGNER, SECOND),
    entry(SECOND, THIRD, 2),
    envelopes(THIRD)[0],
]
FIRST_HAND = handed(ENTRIES, 3, SIGNER, SECOND)
SECOND_HAND = handed(ENTRIES, 4, SECOND, THIRD)
CHAIN = KeyChain(SIGNER.key).extended(FIRST_HAND).extended(SECOND_HAND)


def document(*receipts: bytes) -> bytes:
    hands = tuple(HandOver(0, 0, SIGNER.key, b"", one) for one in receipts)
    return KeyChain(SIGNER.key, hands).document()


def test_a_chain_leads_from_each_of_its_keys_to_the_newest() -> None:
    made = CHAIN.document()
    assert made == document(FIRST_HAND, SECOND_HAND)
    assert KeyChain.parse(made, SIGNER.key) == CHAIN
    assert KeyChain.parse(made).newest.public == THIRD.key.public
    assert len(KeyChain.parse(made, SECOND.key).hand_overs) == 1
    assert KeyChain.parse(made, THIRD.key) == KeyChain(THIRD.key)
    assert KeyChain.parse(document(), SIGNER.key) == KeyChain(SIGNER.key)
    assert [CHAIN.of_entry(index).public for index in range(6)] == [
        *[SIGNER.key.public] * 4,
        SECOND.key.public,
        THIRD.key.public,
    ]


def test_receipts_of_hand_overs_verify_with_the_key_that_signed_them_alone() -> None:
    for hand, signer in ((FIRST_HAND, SIGNER), (SECOND_HAND, SECOND)):
        assert isinstance(receipt.verify(hand, signer.public_pem()).facts, KeyHandOverLeaf)
    with pytest.raises(ReceiptError, match="another key"):
        receipt.verify(FIRST_HAND, SECOND.public_pem())


def test_a_later_key_is_believed_with_the_hand_overs_only() -> None:
    late = stored(ENTRIES, 4, 5, lambda size, root: THIRD.sign_hand_over(size, root, SECOND))
    digest = stored(ENTRIES, 5, 6, THIRD.sign_checkpoint)
    for pinned in (SIGNER.public_pem(), SIGNER.vkey().encode(), SECOND.public_pem()):
        verify_in_chain(late, pinned, CHAIN.document())
        # The deletion discloses nothing here, which a receipt of a deletion must: its key is believed all the same.
        with pytest.raises(ReceiptError, match="two formats"):
            verify_in_chain(digest, pinned, CHAIN.document())
        with pytest.raises(ReceiptError, match="does not lead to"):
            verify_in_chain(
                digest, pinned, document(*([FIRST_HAND] if pinned != SECOND.public_pem() else []))
            )
    with pytest.raises(ReceiptError, match="names another key"):
        receipt.verify(late, SIGNER.public_pem())
    with pytest.raises(LogKeyError):
        verify_in_chain(late, b"no key", CHAIN.document())


def test_an_earlier_key_is_not_believed_because_a_later_one_is_trusted() -> None:
    with pytest.raises(ReceiptError, match="does not lead to"):
        verify_in_chain(FIRST_HAND, THIRD.public_pem(), CHAIN.document())


def test_a_former_key_signs_nothing_after_its_hand_over() -> None:
    again = [*ENTRIES[:4], entry(SIGNER, THIEF, 2)]
    late = stored(again, 4, 5, SIGNER.sign_checkpoint)
    receipt.verify(late, SIGNER.public_pem())  # alone, the stolen key signs well
    with pytest.raises(ReceiptError, match="not the log's then"):
        verify_in_chain(late, SIGNER.public_pem(), CHAIN.document())
    # Nor is an entry of its time believed under a checkpoint after it.
    longer = stored(ENTRIES, 3, 6, SIGNER.sign_checkpoint)
    with pytest.raises(ReceiptError, match="not the log's then"):
        verify_in_chain(longer, SIGNER.public_pem(), CHAIN.document())


def only_old_key(size: int, root: bytes) -> bytes:
    return SIGNER.sign_checkpoint(size, root)


def only_new_key(size: int, root: bytes) -> bytes:
    return SECOND.sign_checkpoint(size, root)


def other_root(size: int, root: bytes) -> bytes:
    return SECOND.sign_hand_over(size, bytes(32), SIGNER)


def thief_beside(size: int, root: bytes) -> bytes:
    checkpoint = Checkpoint(SIGNER.name, size, root)
    line = checkpoint.line(SECOND.key, THIEF.sign(checkpoint.text().encode()))
    return SIGNER.sign_checkpoint(size, root) + line.encode()


RENAMED = LogSigner("log.tunewarden.example/2", bytes([1] * 32))
MUTANTS = {
    "the new key did not sign": stored(ENTRIES, 3, 4, only_old_key),
    "the old key did not sign the checkpoint": stored(ENTRIES, 3, 4, only_new_key),
    "another root": stored(ENTRIES, 3, 4, other_root),
    "a signature of somebody else in the new key's name": stored(ENTRIES, 3, 4, thief_beside),
    "a checkpoint that goes on": stored(
        ENTRIES, 3, 5, lambda size, root: SECOND.sign_hand_over(size, root, SIGNER)
    ),
    "signed by the new key": handed(
        [*ENTRIES[:3], receipt.sign(receipt.build(hand_over(SIGNER, SECOND)), SECOND)],
        3,
        SIGNER,
        SECOND,
    ),
    "signed by a thief": handed(
        [*ENTRIES[:3], receipt.sign(receipt.build(hand_over(SIGNER, THIEF)), THIEF)],
        3,
        SIGNER,
        THIEF,
    ),
    "from another key": handed([*ENTRIES[:3], entry(THIEF, SECOND)], 3, THIEF, SECOND),
    "names another key than signed the checkpoint": handed(
        [*ENTRIES[:3], entry(SIGNER, THIRD)], 3, SIGNER, SECOND
    ),
    "no hand-over": handed(ENTRIES, 2, SIGNER, SECOND),
    "of another entry": stored(
        [*ENTRIES[:3], entry(SIGNER, THIEF)],
        3,
        4,
        lambda size, root: SECOND.sign_hand_over(size, root, SIGNER),
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_changed_hand_over_is_refused(mutant: str) -> None:
    KeyChain(SIGNER.key).extended(FIRST_HAND)  # the control
    with pytest.raises(ReceiptError):
        KeyChain(SIGNER.key).extended(MUTANTS[mutant])
    with pytest.raises(ReceiptError):
        KeyChain.parse(document(MUTANTS[mutant], SECOND_HAND), SIGNER.key)


def test_every_changed_byte_of_the_hand_overs_is_refused() -> None:
    made = CHAIN.document()
    late = SECOND_HAND
    verify_in_chain(late, SIGNER.public_pem(), made)
    for at in range(0, len(made), 7):
        changed = made[:at] + bytes([made[at] ^ 1]) + made[at + 1 :]
        with pytest.raises(ReceiptError):
            verify_in_chain(late, SIGNER.public_pem(), changed)


def test_hand_overs_in_another_order_or_number_are_refused() -> None:
    for wrong in (
        document(SECOND_HAND, FIRST_HAND),
        document(FIRST_HAND, FIRST_HAND),
        document(FIRST_HAND, SECOND_HAND, SECOND_HAND),
    ):
        with pytest.raises(ReceiptError):
            KeyChain.parse(wrong, SIGNER.key)
    with pytest.raises(ReceiptError, match="that you trust"):
        KeyChain.parse(document(SECOND_HAND), SIGNER.key)
    with pytest.raises(ReceiptError, match="that you trust"):
        KeyChain.parse(CHAIN.document(), THIEF.key)


def test_a_key_that_the_log_had_does_not_come_back() -> None:
    back = [*ENTRIES[:4], entry(SECOND, SIGNER, 2)]
    chain = KeyChain(SIGNER.key).extended(FIRST_HAND)
    with pytest.raises(ReceiptError, match="had before"):
        chain.extended(handed(back, 4, SECOND, SIGNER))


def test_hand_overs_skip_no_number() -> None:
    skipped = [*ENTRIES[:4], entry(SECOND, THIRD, 3)]
    chain = KeyChain(SIGNER.key).extended(FIRST_HAND)
    with pytest.raises(ReceiptError, match="before this one is missing"):
        chain.extended(handed(skipped, 4, SECOND, THIRD))


@pytest.mark.parametrize(
    "change",
    [
        {"previous_key_id": THIEF.key.digest()},
        {"new_key_id": THIEF.key.digest()},
        {"new_key": THIEF.vkey()},
        {"new_key": SIGNER.vkey(), "new_key_id": SIGNER.key.digest()},
        {"new_key": RENAMED.vkey(), "new_key_id": RENAMED.key.digest()},
        {"new_key": "no key"},
    ],
)
def test_a_statement_of_two_keys_that_do_not_fit_is_none(change: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"."):
        replace(hand_over(SIGNER, SECOND), **change)  # type: ignore[arg-type]  # all of these are texts


def test_documents_that_are_none_are_refused() -> None:
    value = json.loads(CHAIN.document())
    for wrong in (
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        rfc8785.dumps({**value, "more": 1}),
        rfc8785.dumps({**value, "handOvers": {}}),
        rfc8785.dumps({**value, "handOvers": [1]}),
        rfc8785.dumps({**value, "handOvers": [{}]}),
        rfc8785.dumps({**value, "handOvers": value["handOvers"] * 51}),
        CHAIN.document() + b"\n",
        b" " * 2_000_000,
    ):
        with pytest.raises(ReceiptError):
            KeyChain.parse(wrong, SIGNER.key)
