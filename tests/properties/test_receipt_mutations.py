"""10,000 changed receipts, none accepted; the same changes to a receipt nobody checks are (I4)."""

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable

import pytest
import rfc8785
from tests.support.receipts import SIGNER, receipts

from tunewarden.transparency.key import LogSigner
from tunewarden_receipts import receipt
from tunewarden_receipts.note import decode_base64, encode_base64
from tunewarden_receipts.receipt import ReceiptError
from tunewarden_receipts.statement import from_statement

MUTATIONS = int(os.environ.get("TUNEWARDEN_MUTATIONS", "10000"))
SEED = int(os.environ.get("TUNEWARDEN_SEED", "20261122"))
OURS = receipts() + receipts(form=1)
STRANGER = LogSigner(SIGNER.name, bytes(32))
THEIRS = receipts(STRANGER) + receipts(STRANGER, form=1)


def flip_a_bit(draw: random.Random, data: bytes) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def set_a_byte(draw: random.Random, data: bytes) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]


def insert_bytes(draw: random.Random, data: bytes) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + draw.choice([b" ", b"\n", b"\\", b"=", b"A", b"\0", b"{}"]) + data[at:]


def cut_out(draw: random.Random, data: bytes) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + data[at + 1 + draw.randrange(80) :]


def truncate(draw: random.Random, data: bytes) -> bytes:
    return data[: draw.randrange(len(data))]


def swap_two_parts(draw: random.Random, data: bytes) -> bytes:
    a, b, c = sorted(draw.sample(range(len(data) + 1), 3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def repeat_a_part(draw: random.Random, data: bytes) -> bytes:
    a, b = sorted(draw.sample(range(len(data) + 1), 2))
    return data[:b] + data[a:b] + data[b:]


def change_base64(draw: random.Random, data: bytes) -> bytes:
    """Change one character of base64 to another one, so that only the meaning is wrong."""
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    at = draw.choice([n for n, byte in enumerate(data) if byte in letters])
    return data[:at] + bytes([draw.choice(letters)]) + data[at + 1 :]


def change_a_fact(draw: random.Random, data: bytes) -> bytes:
    """Change a value in the signed statement and encode everything properly again."""
    document = json.loads(data)
    statement = json.loads(receipt.verify(data, SIGNER.public_pem()).statement)
    predicate = statement["predicate"]
    name = draw.choice(sorted(predicate))
    value = predicate[name]
    others = [value + 1, -1] if isinstance(value, int) else [[], {}, "x"]
    predicate[name] = draw.choice([other for other in others if other != value])
    document["envelope"]["payload"] = encode_base64(rfc8785.dumps(statement))
    return rfc8785.dumps(document)


def change_what_is_disclosed(draw: random.Random, data: bytes) -> bytes:
    """Change, swap or add a value of the disclosure; leaving one out is allowed (R21)."""
    document = json.loads(data)
    shown = document.setdefault("disclosure", {"salt": "00" * 32})
    name = draw.choice(sorted(shown))
    value = shown[name]
    if isinstance(value, str):
        at = draw.randrange(len(value))
        shown[name] = value[:at] + draw.choice("0123456789abcdef") + value[at + 1 :]
    elif isinstance(value, list) and value:
        shown[name] = draw.choice([value[1:], value + value[:1], [*value[:-1], {}]])
    else:
        shown[draw.choice(["failures", "lineage", "exports", "more"])] = draw.choice([[], ["x"], 1])
    return rfc8785.dumps(document)


def move_a_part(draw: random.Random, data: bytes) -> bytes:
    """Put a part of another receipt of this log, or of another log, in place of ours."""
    document, donor = json.loads(data), json.loads(draw.choice([*OURS, *THEIRS]))
    part = draw.choice(["proof", "envelope", "payload", "signatures", "lines", "disclosure"])
    if part in {"proof", "envelope"}:
        document[part] = donor[part]
    elif part == "disclosure":
        document[part] = donor.get(part)
    elif part == "lines":
        lines, others = document["proof"].split("\n"), donor["proof"].split("\n")
        at = draw.randrange(min(len(lines), len(others)))
        document["proof"] = "\n".join([*lines[:at], others[at], *lines[at + 1 :]])
    else:
        document["envelope"][part] = donor["envelope"][part]
    return rfc8785.dumps(document)


def reorder_lines(draw: random.Random, data: bytes) -> bytes:
    document = json.loads(data)
    lines = document["proof"].split("\n")
    a, b = draw.sample(range(len(lines)), 2)
    lines[a], lines[b] = lines[b], lines[a]
    document["proof"] = "\n".join(lines)
    return rfc8785.dumps(document)


def change_the_structure(draw: random.Random, data: bytes) -> bytes:
    document = json.loads(data)
    target = draw.choice([document, document["envelope"], document["envelope"]["signatures"][0]])
    name = draw.choice(sorted(target))
    value = draw.choice([None, 0, "", [], {}, [target[name]], {"a": target[name]}, True])
    target[draw.choice([name, "more"])] = value
    return rfc8785.dumps(document)


def write_anew(draw: random.Random, data: bytes) -> bytes:
    document = json.loads(data)
    return json.dumps(document, indent=draw.choice([None, 0, 1, 2])).encode()


KINDS: list[Callable[[random.Random, bytes], bytes]] = [
    flip_a_bit,
    set_a_byte,
    insert_bytes,
    cut_out,
    truncate,
    swap_two_parts,
    repeat_a_part,
    change_base64,
    change_a_fact,
    change_what_is_disclosed,
    move_a_part,
    reorder_lines,
    change_the_structure,
    write_anew,
]


def mutated(seed: int, count: int) -> list[tuple[str, bytes]]:
    """Return `count` receipts that differ from every good one, and the kind of change."""
    draw = random.Random(seed)
    made: list[tuple[str, bytes]] = []
    while len(made) < count:
        kind = KINDS[len(made) % len(KINDS)]
        data = kind(draw, draw.choice(OURS))
        if data not in OURS:
            made.append((kind.__name__, data))
    return made


def test_no_changed_receipt_is_accepted() -> None:
    started = time.monotonic()
    keys = (SIGNER.public_pem(), SIGNER.vkey().encode())
    refused: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for number, (kind, data) in enumerate(mutated(SEED, MUTATIONS)):
        try:
            receipt.verify(data, keys[number % 2])
        except ReceiptError as error:
            refused[kind] += 1
            reasons[error.reason.partition(":")[0]] += 1
            continue
        raise AssertionError(f"accepted, seed {SEED}, number {number}, {kind}: {data!r}")
    seconds = time.monotonic() - started
    print(f"seed {SEED}: {refused.total()} refused, 0 accepted, {seconds:.1f} s")
    print(f"kinds {dict(refused)}\nreasons {dict(reasons)}")
    assert refused.total() == MUTATIONS
    # The changes reach every check, not only the first one.
    assert len(reasons) >= 10


def test_control_the_same_changes_get_past_a_verifier_that_skips_a_check() -> None:
    """Each skipped check must let some of the same mutations through, or they test nothing."""
    sample = [data for _, data in mutated(SEED, 3_000)]

    def accepts(skip: str) -> int:
        return sum(_accepts_without(skip, data) for data in sample)

    counts = {
        skip: accepts(skip) for skip in ("canonical form", "signature", "inclusion", "disclosure")
    }
    print(f"accepted without the check of: {counts}")
    assert all(counts.values())
    assert accepts("nothing") == 0


def _accepts_without(skip: str, data: bytes) -> bool:
    """Return whether a sloppy verifier, made of the same parts, takes a receipt."""
    try:
        if skip == "canonical form":
            data = rfc8785.dumps(json.loads(data))
        if skip == "signature":
            document = json.loads(data)
            from_statement(json.loads(decode_base64(document["envelope"]["payload"])))
            return True
        if skip == "disclosure":
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(receipt, "check_disclosure", lambda *_: None)
                receipt.verify(data, SIGNER.public_pem())
            return True
        if skip == "inclusion":
            document = json.loads(data)
            receipt.verify_entry(rfc8785.dumps(document["envelope"]), SIGNER.public_pem())
            return True
        receipt.verify(data, SIGNER.public_pem())
    except (ReceiptError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False
    return True
