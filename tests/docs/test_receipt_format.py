"""docs/receipt-format.md is true: its vectors are ours, and its commands verify and refuse."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.receipts import (
    BLOBS_ERASED,
    DELETION,
    ERASED_LEAF,
    LEAF,
    SALT,
    SHOWN,
    SIGNER,
    envelopes,
    receipts,
    statement_1,
)

from tunewarden.transparency.key import LogSigner
from tunewarden_receipts import merkle, receipt
from tunewarden_receipts.leaf import DeletionLeaf, Disclosure, EvictedEngine

DOCUMENT = (Path(__file__).parents[2] / "docs/receipt-format.md").read_text()
BLOCKS = re.findall(r"^```(\w+) ([\w-]+)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
COMMANDS = "".join(text for language, name, text in BLOCKS if (language, name) == ("sh", "verify"))
OPENING = "".join(text for language, name, text in BLOCKS if name in {"open", "list"})
VECTORS = {name: text.removesuffix("\n") for language, name, text in BLOCKS if language == "text"}
SIGNATURE, SIBLING = VECTORS["signature"].encode(), VECTORS["proof"].split("\n")[2].encode()[:6]
OTHER_LETTER = b"A" if SIGNATURE[:1] != b"A" else b"B"


def run(
    directory: Path, data: bytes, key: bytes, commands: str = COMMANDS
) -> subprocess.CompletedProcess[str]:
    (directory / "receipt.json").write_bytes(data)
    (directory / "log.pem").write_bytes(key)
    return subprocess.run(
        ["sh", "-c", commands],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_clauses_are_numbered_without_a_gap() -> None:
    numbers = [int(number) for number in re.findall(r"^- \*\*R(\d+)\*\*", DOCUMENT, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert {int(number) for number in re.findall(r"\bR(\d+)\b", DOCUMENT)} == set(numbers)


def test_the_vectors_are_what_we_write() -> None:
    signer = LogSigner("log.tunewarden.example/1", bytes.fromhex(VECTORS["seed"]))
    leaves = [merkle.leaf_hash(entry) for entry in envelopes(signer)]
    ours = {
        "seed": bytes(range(32)).hex(),
        "pem": signer.public_pem().decode().removesuffix("\n"),
        "vkey": signer.vkey(),
        "keyid": signer.key.digest(),
        "salt": SALT.hex(),
        "statement": receipt.build(LEAF).decode(),
        "signature": envelopes(signer)[1].decode().split('"sig":"')[1].split('"')[0],
        "blobs-erased": receipt.build(ERASED_LEAF).decode(),
        "leaves": "\n".join(leaf.hex() for leaf in leaves),
        "root": merkle.root(0, 3, merkle.nodes_of(leaves)).hex(),
        "receipt": receipts(signer)[1].decode(),
        "statement-1": statement_1(DELETION).decode(),
        "blobs-erased-1": statement_1(BLOBS_ERASED).decode(),
        "receipt-1": receipts(signer, form=1)[1].decode(),
    }
    checkpoint = signer.sign_checkpoint(3, bytes.fromhex(ours["root"])).decode()
    ours["checkpoint"] = checkpoint.removesuffix("\n")
    ours["proof"] = VECTORS["proof"]  # its text stands in the receipt, escaped
    assert ours == VECTORS
    assert VECTORS["proof"].replace("\n", "\\n") + "\\n" in ours["receipt"]
    assert f"({len(ours['statement'])} bytes)" in DOCUMENT
    assert f"has {len(envelopes()[1])} bytes)" in DOCUMENT


def test_the_verifier_accepts_the_documents_receipt() -> None:
    verified = receipt.verify(VECTORS["receipt"].encode(), VECTORS["pem"].encode())
    assert verified == receipt.verify(VECTORS["receipt"].encode(), VECTORS["vkey"].encode())
    assert (verified.facts, verified.disclosed) == (LEAF, SHOWN)
    first = receipt.verify(VECTORS["receipt-1"].encode(), VECTORS["pem"].encode())
    assert (first.facts, first.disclosed) == (DELETION, None)


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("form", [1, 2])
def test_the_commands_verify_a_receipt(tmp_path: Path, index: int, form: int) -> None:
    done = run(tmp_path, receipts(form=form)[index], (VECTORS["pem"] + "\n").encode())
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Signature Verified Successfully") == 2
    assert done.stdout.endswith(f"Logged: entry {index} of 3\n")


@pytest.mark.parametrize("engines", [1, 2, 3, 5, 8])
def test_the_commands_open_what_is_committed_to(tmp_path: Path, engines: int) -> None:
    listed = tuple(EvictedEngine(f"vllm-{n}", "zeroed", aborted=n) for n in range(engines))
    shown = replace(SHOWN, engines=listed)
    data = _alone(replace(LEAF, engines=shown.commitments()["engines"]), shown)
    done = run(tmp_path, data, SIGNER.public_pem(), COMMANDS + OPENING)
    assert done.returncode == 0, done.stderr
    assert f"artifactId: {DELETION.artifact_id}\norganizationId: " in done.stdout
    assert done.stdout.count('"engine":"vllm-') == engines
    for other in (
        replace(shown, artifact_id="ft:tiny:acme:other:a1B2c3D4"),
        replace(shown, requested_by="key_1"),
        replace(shown, manifest_sha256="00" * 32),
        replace(shown, engines=listed[1:] or (*listed, *listed)),
        replace(shown, salt="00" * 32),
    ):
        data = _alone(replace(LEAF, engines=shown.commitments()["engines"]), other)
        assert run(tmp_path, data, SIGNER.public_pem(), COMMANDS + OPENING).returncode != 0
        assert run(tmp_path, data, SIGNER.public_pem()).returncode == 0, "the entry is the same"


def _alone(leaf: DeletionLeaf, shown: Disclosure) -> bytes:
    entry = receipt.sign(receipt.build(leaf), SIGNER)
    note = SIGNER.sign_checkpoint(1, merkle.leaf_hash(entry))
    return receipt.bundle(entry, 0, [], note, shown)


def test_the_commands_verify_in_a_log_of_any_shape(tmp_path: Path) -> None:
    entry = envelopes()[1]
    for size in (1, 2, 5, 8, 13):
        for index in {0, size // 2, size - 1}:
            leaves = [merkle.leaf_hash(b"%d" % number) for number in range(size)]
            leaves[index] = merkle.leaf_hash(entry)
            nodes = merkle.nodes_of(leaves)
            note = SIGNER.sign_checkpoint(size, merkle.root(0, size, nodes))
            data = receipt.bundle(
                entry, index, merkle.inclusion_proof(index, size, nodes), note, SHOWN
            )
            done = run(tmp_path, data, SIGNER.public_pem())
            assert done.stdout.endswith(f"Logged: entry {index} of {size}\n"), done.stderr


def test_the_commands_refuse_what_was_changed(tmp_path: Path) -> None:
    good = receipts()[1]
    other = receipts()[0]
    swapped = good.split(b',"mediaType"')[0] + b',"mediaType"' + other.split(b',"mediaType"')[1]
    changed = {
        "payload": good.replace(b"eyJfdHlw", b"eyJfdHlx"),
        "signature": good.replace(b'"sig":"' + SIGNATURE[:1], b'"sig":"' + OTHER_LETTER),
        "key id": good.replace(b'"keyid":"a0', b'"keyid":"a1'),
        "index": good.replace(b"index 1", b"index 0"),
        "size": good.replace(b"\\n3\\n", b"\\n4\\n"),
        "sibling": good.replace(SIBLING, SIBLING[:-1] + bytes([SIBLING[-1] ^ 1])),
        "another entry's proof": swapped,
        "cut": good[:-2],
    }
    assert good not in changed.values()
    for name, data in changed.items():
        assert run(tmp_path, data, SIGNER.public_pem()).returncode != 0, name
    stranger = LogSigner(SIGNER.name, bytes(32))
    assert run(tmp_path, good, stranger.public_pem()).returncode != 0
    assert run(tmp_path, good, SIGNER.public_pem()).returncode == 0


def test_openssl_computes_the_key_id(tmp_path: Path) -> None:
    (tmp_path / "log.pem").write_bytes(SIGNER.public_pem())
    command = "openssl pkey -pubin -in log.pem -outform DER | sha256sum"
    assert command in DOCUMENT
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[0] == VECTORS["keyid"]
