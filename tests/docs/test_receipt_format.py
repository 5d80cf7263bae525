"""docs/receipt-format.md is true: its vectors are ours, and its commands verify and refuse."""

import re
import subprocess
from pathlib import Path

import pytest
from tests.fakes.receipts import BLOBS_ERASED, DELETION, SIGNER, envelopes, receipts

from tunewarden.deletion import merkle, receipt
from tunewarden.deletion.log_key import LogSigner

DOCUMENT = (Path(__file__).parents[2] / "docs/receipt-format.md").read_text()
BLOCKS = re.findall(r"^```(\w+) ([\w-]+)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
COMMANDS = "".join(text for language, name, text in BLOCKS if (language, name) == ("sh", "verify"))
VECTORS = {name: text.removesuffix("\n") for language, name, text in BLOCKS if language == "text"}


def run(directory: Path, data: bytes, key: bytes) -> subprocess.CompletedProcess[str]:
    (directory / "receipt.json").write_bytes(data)
    (directory / "log.pem").write_bytes(key)
    return subprocess.run(
        ["sh", "-c", COMMANDS],
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
        "statement": receipt.build_deletion(DELETION).decode(),
        "signature": envelopes(signer)[1].decode().split('"sig":"')[1].split('"')[0],
        "blobs-erased": receipt.build_blobs_erased(BLOBS_ERASED).decode(),
        "leaves": "\n".join(leaf.hex() for leaf in leaves),
        "root": merkle.root(0, 3, merkle.nodes_of(leaves)).hex(),
        "receipt": receipts(signer)[1].decode(),
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
    assert verified.facts == DELETION


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_commands_verify_a_receipt(tmp_path: Path, index: int) -> None:
    done = run(tmp_path, receipts()[index], (VECTORS["pem"] + "\n").encode())
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Signature Verified Successfully") == 2
    assert done.stdout.endswith(f"Logged: entry {index} of 3\n")


def test_the_commands_verify_in_a_log_of_any_shape(tmp_path: Path) -> None:
    entry = envelopes()[1]
    for size in (1, 2, 5, 8, 13):
        for index in {0, size // 2, size - 1}:
            leaves = [merkle.leaf_hash(b"%d" % number) for number in range(size)]
            leaves[index] = merkle.leaf_hash(entry)
            nodes = merkle.nodes_of(leaves)
            note = SIGNER.sign_checkpoint(size, merkle.root(0, size, nodes))
            data = receipt.bundle(entry, index, merkle.inclusion_proof(index, size, nodes), note)
            done = run(tmp_path, data, SIGNER.public_pem())
            assert done.stdout.endswith(f"Logged: entry {index} of {size}\n"), done.stderr


def test_the_commands_refuse_what_was_changed(tmp_path: Path) -> None:
    good = receipts()[1]
    other = receipts()[0]
    swapped = good.split(b',"mediaType"')[0] + b',"mediaType"' + other.split(b',"mediaType"')[1]
    changed = {
        "payload": good.replace(b"eyJfdHlw", b"eyJfdHlx"),
        "signature": good.replace(b'"sig":"y', b'"sig":"z'),
        "key id": good.replace(b'"keyid":"a0', b'"keyid":"a1'),
        "index": good.replace(b"index 1", b"index 0"),
        "size": good.replace(b"\\n3\\n", b"\\n4\\n"),
        "sibling": good.replace(b"\\npn6", b"\\npn7"),
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
