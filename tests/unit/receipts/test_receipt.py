"""Receipts: what they say, that they verify, and that nothing else does."""

import hmac
import json
import string
from dataclasses import fields, replace
from hashlib import sha256
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings, strategies
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]  # it does not list its names
from tests.support.receipts import (
    BLOBS_ERASED,
    DELETION,
    ERASED_LEAF,
    ERASED_SHOWN,
    LEAF,
    SALT,
    SHOWN,
    SIGNER,
    envelopes,
    receipts,
    statement_1,
)

from tunewarden.transparency.key import LogSigner
from tunewarden_receipts import commitments, leaf, merkle, receipt
from tunewarden_receipts.canonical import canonical
from tunewarden_receipts.note import encode_base64
from tunewarden_receipts.receipt import ReceiptError
from tunewarden_receipts.summary import summary

PEM, VKEY = SIGNER.public_pem(), SIGNER.vkey().encode()
OTHER = LogSigner(SIGNER.name, bytes(32))


def resigned(change: dict[str, Any], signer: LogSigner = SIGNER) -> bytes:
    """Return a receipt, alone in its log, over a statement with changed members."""
    statement = json.loads(receipt.build(LEAF)) | change
    return alone(receipt.sign(rfc8785.dumps(statement), signer), signer)


def alone(envelope: bytes, signer: LogSigner = SIGNER) -> bytes:
    checkpoint = signer.sign_checkpoint(1, merkle.leaf_hash(envelope))
    return receipt.bundle(envelope, 0, [], checkpoint, SHOWN)


@pytest.mark.parametrize("key", [PEM, VKEY, VKEY + b"\n"])
def test_a_receipt_verifies_with_the_logs_key_alone(key: bytes) -> None:
    verified = receipt.verify(receipts()[1], key)
    assert verified.facts == LEAF
    assert verified.disclosed == SHOWN
    assert verified.statement == receipt.build(LEAF)
    assert verified.envelope == envelopes()[1]
    assert (verified.index, verified.checkpoint.size) == (1, 3)
    assert verified.checkpoint.origin == "log.tunewarden.example/1"
    assert receipt.verify(receipts()[2], key).facts == ERASED_LEAF


def test_a_receipt_of_format_1_verifies_for_ever() -> None:
    verified = receipt.verify(receipts(form=1)[1], PEM)
    assert (verified.facts, verified.disclosed) == (DELETION, None)
    assert receipt.verify(receipts(form=1)[2], VKEY).facts == BLOBS_ERASED
    assert receipt.verify_entry(envelopes(form=1)[1], PEM) == DELETION
    of_a_file = replace(DELETION, artifact_id="file-1", engines=(), kind="file")
    assert receipt.verify_entry(receipt.sign(statement_1(of_a_file), SIGNER), PEM) == of_a_file


def test_the_same_facts_give_the_same_bytes() -> None:
    assert receipts() == receipts()
    assert envelopes() == envelopes()


def test_an_entry_of_the_log_gives_its_facts_back() -> None:
    assert receipt.verify_entry(envelopes()[1], PEM) == LEAF
    assert receipt.verify_entry(envelopes()[2], VKEY) == ERASED_LEAF
    with pytest.raises(ReceiptError, match="another key"):
        receipt.verify_entry(envelopes(OTHER)[1], PEM)
    with pytest.raises(ReceiptError, match="canonical"):
        receipt.verify_entry(envelopes()[1] + b"\n", PEM)


def test_a_statement_says_what_was_passed_in_and_nothing_else() -> None:
    """I17: every text and number of the statement is a fact or a name of the format."""
    statement = json.loads(receipt.build(LEAF))
    assert statement.keys() == {"_type", "subject", "predicateType", "predicate"}
    stated = {*_leaves(statement["predicate"]), *_leaves(statement["subject"])}
    assert stated == {
        value
        for field in fields(LEAF)
        for value in _leaves_of(LEAF, field.name)
        if field.name != "kind"
    }
    assert statement["predicateType"] == "https://tunewarden.dev/model-deletion/v2"


def test_a_statement_names_nobody() -> None:
    """I9: who is not shown the salt learns no name, and cannot link two deletions of one organization."""
    said = [receipt.build(one).decode() for one in (LEAF, ERASED_LEAF)]
    names = [DELETION.artifact_id, DELETION.organization_id, DELETION.requested_by]
    names += [
        DELETION.manifest_sha256,
        SALT.hex(),
        "acme",
        "support",
        "worker-0",
        "host-0",
        "embedded",
    ]
    assert [name for name in names for text in said if name in text] == []
    other = leaf.DeletionLeaf.of(replace(SHOWN, salt="11" * 32), **_public(LEAF))
    held, others = leaf.committed(LEAF), leaf.committed(other)
    del held["exports"]  # an empty list has the same root everywhere
    assert [name for name in held if held[name] and held[name] == others[name]] == []


def _public(made: leaf.DeletionLeaf) -> dict[str, Any]:
    return {
        field.name: getattr(made, field.name)
        for field in fields(made)
        if field.name not in {*leaf.committed(made), "commitments"}
    }


_JSON = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers(-(2**53) + 1, 2**53 - 1)
    | strategies.text(strategies.characters(exclude_categories=["Cs"])),
    lambda inner: (
        strategies.lists(inner, max_size=4)
        | strategies.dictionaries(
            strategies.text(string.ascii_letters + string.digits), inner, max_size=4
        )
    ),
)


@given(_JSON)
@settings(max_examples=300)
def test_what_is_written_is_rfc_8785(value: object) -> None:
    assert canonical(value) == rfc8785.dumps(value)  # type: ignore[arg-type]  # any JSON


def test_a_commitment_is_an_hmac_of_name_and_value() -> None:
    expected = hmac.new(SALT, b"artifactId:" + DELETION.artifact_id.encode(), "sha256").hexdigest()
    assert commitments.commit(SALT, "artifactId", DELETION.artifact_id) == expected
    empty = commitments.commit_list(SALT, "fence", [])
    assert empty == commitments.ListCommitment(0, sha256().hexdigest())
    listed = commitments.commit_list(SALT, "failures", ["a"])
    assert listed.root == merkle.leaf_hash(hmac.digest(SALT, b"failures:a", "sha256")).hex()
    worker = commitments.commit(SALT, "fence", {"worker": "w", "how": "gone"})
    assert worker == hmac.new(SALT, b'fence:{"how":"gone","worker":"w"}', "sha256").hexdigest()
    with pytest.raises(ValueError, match="32 bytes"):
        commitments.commit(b"", "artifactId", "x")


@pytest.mark.parametrize("name", [field.name for field in fields(SHOWN)][1:])
def test_a_value_that_is_not_the_one_committed_to_is_refused(name: str) -> None:
    stored = json.loads(receipts()[1])
    others: dict[str, Any] = {
        "artifact_id": "ft:tiny:acme:support:b1B2c3D4",
        "blobs": replace(DELETION.blobs, count=3),
        "fence": DELETION.fence[::-1],
        "engines": (leaf.EvictedEngine("embedded", "zeroed", aborted=1),),
        "hosts": (),
        "manifest_sha256": "00" * 32,
        "exports": (leaf.Export(DELETION.requested_at, "key_1"),),
        "lineage": (),
        "erased": ERASED_SHOWN.erased,
        "failures": (),
        "exported": leaf.Export(DELETION.requested_at, "key_1"),
    }
    changed = replace(SHOWN, **{name: others.get(name, "another")})
    stored["disclosure"] = leaf.disclosure_json(changed)
    with pytest.raises(ReceiptError, match="not the one that the log's entry commits to"):
        receipt.verify(rfc8785.dumps(stored), PEM)
    less: dict[str, Any] = {name: None}
    stored["disclosure"] = leaf.disclosure_json(replace(SHOWN, **less))
    assert receipt.verify(rfc8785.dumps(stored), PEM).facts == LEAF, "less may be shown"


def test_a_disclosure_without_its_salt_or_with_anothers_is_refused() -> None:
    stored = json.loads(receipts()[1])
    for salt in ({}, {"salt": "00" * 32}, {"salt": "00"}, {"salt": SHOWN.salt, "more": 1}):
        stored["disclosure"] = leaf.disclosure_json(SHOWN) | {"salt": None} | salt
        stored["disclosure"] = {k: v for k, v in stored["disclosure"].items() if v is not None}
        with pytest.raises(ReceiptError, match="disclosure"):
            receipt.verify(rfc8785.dumps(stored), PEM)


def test_a_receipt_and_its_statement_are_of_one_format() -> None:
    first, second = json.loads(receipts(form=1)[1]), json.loads(receipts()[1])
    mixed = first | {"disclosure": second["disclosure"], "mediaType": second["mediaType"]}
    bare = {name: value for name, value in second.items() if name != "disclosure"}
    for changed in (mixed, bare | {"mediaType": first["mediaType"]}):
        with pytest.raises(ReceiptError, match="two formats"):
            receipt.verify(rfc8785.dumps(changed), PEM)
    for changed in (bare, second | {"mediaType": first["mediaType"]}):
        with pytest.raises(ReceiptError, match="kind or version"):
            receipt.verify(rfc8785.dumps(changed), PEM)


def test_a_deleted_file_has_a_statement_of_its_own_type() -> None:
    of_a_file = replace(LEAF, kind="file")
    statement = receipt.build(of_a_file)
    assert json.loads(statement)["predicateType"] == "https://tunewarden.dev/file-deletion/v2"
    entry = receipt.sign(statement, SIGNER)
    assert receipt.verify_entry(entry, PEM) == of_a_file


def _leaves(value: object) -> set[object]:
    if isinstance(value, dict):
        return set().union(*(_leaves(item) for item in value.values()))
    if isinstance(value, (list, tuple)):
        return set().union(*(_leaves(item) for item in value))
    return {(type(value), value)}


def _leaves_of(made: object, name: str) -> set[object]:
    value = getattr(made, name)
    items = value if isinstance(value, tuple) else (value,)
    found: set[object] = set()
    for item in items:
        if hasattr(item, "__dataclass_fields__"):
            found |= set().union(*(_leaves_of(item, field.name) for field in fields(item)))
        else:
            found |= _leaves(item)
    return found


def test_securesystemslib_reads_and_verifies_the_envelope() -> None:
    document = json.loads(envelopes()[1])
    known = Envelope.from_dict(json.loads(envelopes()[1]))
    key_id = document["signatures"][0]["keyid"]
    key = SSlibKey(key_id, "ed25519", "ed25519", {"public": SIGNER.key.public.hex()})
    assert known.verify([key], 1) == {key_id: key}
    assert known.pae() == receipt.pre_authentication(receipt.build(LEAF))
    assert known.payload == receipt.build(LEAF)


def test_the_pre_authentication_encoding_is_that_of_dsse() -> None:
    payload = "ünïcode".encode()
    known = Envelope(payload, receipt.PAYLOAD_TYPE, {})
    assert receipt.pre_authentication(payload) == known.pae()


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("deletion_id", ""),
        ("deletion_id", "jane.doe@example.com"),
        ("internal_id", "Jane Doe"),
        ("internal_id", "m_x\n"),
        ("internal_id", "a" * 257),
        ("manifest_sha256", "9F" * 32),
        ("requested_at", "2026-11-22T10:00:00Z"),
        ("requested_at", "2026-11-22T10:00:00.000000+00:00"),
        ("committed_at", "2026-13-22T10:00:00.000000Z"),
        ("epoch", -1),
        ("epoch", True),
        ("epoch", 2**53),
        ("epoch", 1.0),
        ("fence", commitments.ListCommitment(-1, "00" * 32)),
        ("fence", commitments.ListCommitment(1, "00")),
        ("fence", None),
        ("memory", "safe"),
        ("residuals", ("\x1b[2J all is well",)),
        ("residuals", ("looks \u202e different",)),
        ("residuals", ("a" * 513,)),
        ("software", ""),
    ],
)
def test_a_fact_of_the_wrong_form_is_never_signed(change: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        receipt.build(replace(LEAF, **{change: value}))


def test_a_receipt_that_does_not_fit_into_an_entry_is_an_error() -> None:
    large = replace(LEAF, residuals=tuple("x" * 500 for _ in range(100)))
    with pytest.raises(ValueError, match="larger than an entry"):
        receipt.sign(receipt.build(large), SIGNER)


def test_another_logs_key_is_refused() -> None:
    renamed = LogSigner("log.tunewarden.example/2", bytes(range(32)))
    with pytest.raises(ReceiptError, match="another key"):
        receipt.verify(receipts()[1], OTHER.public_pem())
    with pytest.raises(ReceiptError, match="another log's"):
        receipt.verify(receipts()[1], renamed.vkey().encode())


def test_an_envelope_signed_by_another_key_is_refused_even_in_our_log() -> None:
    forged = json.loads(receipt.sign(receipt.build(LEAF), OTHER))
    with pytest.raises(ReceiptError, match="another key"):
        receipt.verify(alone(rfc8785.dumps(forged)), PEM)
    forged["signatures"][0]["keyid"] = SIGNER.key.digest()
    with pytest.raises(ReceiptError, match="does not verify"):
        receipt.verify(alone(rfc8785.dumps(forged)), PEM)


def test_a_receipt_is_not_proven_by_another_entrys_proof() -> None:
    first, second, third = map(json.loads, receipts())
    for ours, theirs in ((first, second), (second, third), (third, first)):
        swapped = rfc8785.dumps(ours | {"proof": theirs["proof"]})
        with pytest.raises(ReceiptError, match="not the log's entry"):
            receipt.verify(swapped, PEM)


def test_a_checkpoint_signed_by_another_key_is_refused() -> None:
    ours, theirs = json.loads(receipts()[1]), json.loads(receipts(OTHER)[1])
    with pytest.raises(ReceiptError, match="signature does not verify"):
        receipt.verify(rfc8785.dumps(ours | {"proof": theirs["proof"]}), PEM)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "known form"),
        ({"predicateType": "https://tunewarden.dev/model-deletion/v1"}, "known form"),
        ({"predicateType": "https://tunewarden.dev/model-deletion/v3"}, "known form"),
        ({"predicate": {}}, "known form"),
        ({"predicate": []}, "known form"),
        ({"subject": []}, "known form"),
        ({"subject": [{"name": "a"}]}, "known form"),
        ({"more": 1}, "known form"),
    ],
)
def test_a_signed_statement_of_another_form_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ReceiptError, match=reason):
        receipt.verify(resigned(change), PEM)


def test_a_signed_statement_that_is_not_canonical_is_refused() -> None:
    pretty = json.dumps(json.loads(receipt.build(LEAF)), indent=1).encode()
    with pytest.raises(ReceiptError, match="not canonical"):
        receipt.verify(alone(receipt.sign(pretty, SIGNER)), PEM)


def _with_proof(text: str) -> bytes:
    return rfc8785.dumps(json.loads(receipts()[1]) | {"proof": text})


PROOF = json.loads(receipts()[1])["proof"]


@pytest.mark.parametrize(
    "proof",
    [
        "",
        PROOF.replace("proof@v1", "proof@v2"),
        PROOF.replace("index 1", "extra YQ==\nindex 1"),
        PROOF.replace("index 1", "index 01"),
        PROOF.replace("index 1", "index +1"),
        PROOF.replace("index 1", "index \u0661"),
        PROOF.replace("index 1", "index 4"),
        PROOF.replace("\n\n", "\n", 1),
        PROOF.replace("=\n\n", "=\n" + "A" * 43 + "=\n\n", 1),
        PROOF.replace("=\n\n", "=\n" + ("A" * 43 + "=\n") * 64 + "\n", 1),
        PROOF.replace("\n3\n", "\n03\n"),
        PROOF.replace("\n3\n", "\n4\n"),
        PROOF.replace("=\n\n— ", "=\nextension\n\n— "),
        PROOF.replace("— ", "- "),
        PROOF.rstrip("\n"),
        PROOF + "\n",
        PROOF + PROOF.splitlines()[-1] + "\n",
        PROOF.replace("\n", "\r\n"),
    ],
)
def test_a_proof_of_another_form_is_refused(proof: str) -> None:
    with pytest.raises(ReceiptError):
        receipt.verify(_with_proof(proof), PEM)


def test_signatures_of_witnesses_are_ignored() -> None:
    """C2SP signed-note: signatures of unknown keys must be ignored; ours must be there."""
    witness = f"— witness.example {encode_base64(bytes(76))}\n"
    assert receipt.verify(_with_proof(PROOF + witness), PEM).facts == LEAF
    text, _, _ = PROOF.rpartition("— ")
    with pytest.raises(ReceiptError, match="does not verify"):
        receipt.verify(_with_proof(text + witness), PEM)
    with pytest.raises(ReceiptError, match="not a signed note"):
        receipt.verify(_with_proof(PROOF + witness * 17), PEM)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"1",
        b'"',
        b"\xff",
        b"\xef\xbb\xbf" + receipts()[1],
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"9" * 10_000,
        b"NaN",
        b'{"envelope":{},"mediaType":"","proof":"\\ud800"}',
        b'{"envelope":{},"envelope":{},"mediaType":"","proof":""}',
        receipts()[1] + b" ",
        receipts()[1] + b"\n",
        b" " * 300_000,
        json.dumps(json.loads(receipts()[1]), indent=1).encode(),
        json.dumps(json.loads(receipts()[1]), separators=(",", ":")).encode(),
    ],
    ids=range(18),
)
def test_bytes_that_are_no_receipt_give_the_one_error(data: bytes) -> None:
    with pytest.raises(ReceiptError):
        receipt.verify(data, PEM)


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"\xff",
        b"x" * 5000,
        PEM.replace(b"PUBLIC", b"PRIVATE"),
        PEM[:-30],
        PEM.replace(b"MCowBQYDK2Vw", b"MCowBQYDK2Vu"),  # X25519
        VKEY.replace(b"+", b"-"),
        VKEY[:-4],
        VKEY.replace(b"/1+", b"/2+"),
        b"name+00000000+AQ==",
        SIGNER.key.digest().encode(),
    ],
)
def test_a_key_that_is_none_gives_the_one_error(key: bytes) -> None:
    with pytest.raises(ReceiptError, match="log key"):
        receipt.verify(receipts()[1], key)


def test_checkpoints_of_one_history_are_consistent_and_others_are_not() -> None:
    leaves = [merkle.leaf_hash(b"%d" % number) for number in range(9)]
    nodes = merkle.nodes_of(leaves)
    notes = {n: SIGNER.sign_checkpoint(n, merkle.root(0, n, nodes)) for n in (4, 9)}
    proof = merkle.consistency_proof(4, 9, nodes)
    old, new = receipt.verify_consistency(notes[4], notes[9], proof, VKEY)
    assert (old.size, new.size) == (4, 9)
    forked = SIGNER.sign_checkpoint(4, sha256(b"fork").digest())
    elsewhere = LogSigner("log.tunewarden.example/2", bytes(range(32)))
    moved = elsewhere.sign_checkpoint(4, merkle.root(0, 4, nodes))
    for first, second, path, reason in (
        (forked, notes[9], proof, "only appended"),
        (notes[4], notes[9], proof[:-1], "only appended"),
        (notes[9], notes[4], proof, "only appended"),
        (notes[4], notes[9], proof * 64, "only appended"),
        (notes[4], b"", proof, "cannot be trusted"),
        (moved, notes[9], proof, "two logs"),
    ):
        with pytest.raises(ReceiptError, match=reason):
            receipt.verify_consistency(first, second, path, PEM)


def test_the_summary_names_every_fact() -> None:
    text = summary(receipt.verify(receipts()[1], PEM))
    for made in (SHOWN, LEAF):
        names = [field.name for field in fields(made)]
        hidden = {"salt", "commitments", "manifest_sha256"} if made is LEAF else {"salt"}
        for name in set(names) - hidden - (set(leaf.committed(LEAF)) if made is LEAF else set()):
            for _, value in _typed(made, name):
                assert value is None or str(value) in text, (name, value)
    assert "embedded zeroed, 1 aborted: weights overwritten, read back as zeros" in text
    erased = summary(receipt.verify(receipts()[2], PEM))
    assert "not erased: blobs/9f/adapter_config.json.age" in erased
    stored = json.loads(receipts()[1]) | {"disclosure": {"salt": SHOWN.salt}}
    hidden_text = summary(receipt.verify(rfc8785.dumps(stored), PEM))
    assert DELETION.artifact_id not in hidden_text
    assert "  worker:     2, not disclosed" in hidden_text


def test_the_summary_of_format_1_names_every_fact() -> None:
    text = summary(receipt.verify(receipts(form=1)[1], PEM))
    for _, value in (pair for field in fields(DELETION) for pair in _typed(DELETION, field.name)):
        assert isinstance(value, bool) or str(value) in text
    assert "weights not known to be zeroed" in text
    erased = summary(receipt.verify(receipts(form=1)[2], PEM))
    assert "not erased:   blobs/9f/adapter_config.json.age" in erased


def _typed(made: object, name: str) -> list[tuple[object, object]]:
    return [value for value in _leaves_of(made, name) if isinstance(value, tuple)]
