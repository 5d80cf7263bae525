"""The console's `receipt.js` judges each receipt as `tunewarden-receipts` does, here in Node's WebCrypto."""

import base64
import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.properties.test_receipt_mutations import mutated
from tests.support import odd_receipts
from tests.support.receipts import SIGNER
from tests.unit.receipts import test_key_chain as chains

import tunewarden
from tunewarden.transparency.key import LogSigner
from tunewarden_receipts import receipt
from tunewarden_receipts.key_chain import verify_in_chain
from tunewarden_receipts.note import LogKey
from tunewarden_receipts.receipt import ReceiptError

# A receipt, a key, and for some the hand-overs to later keys.
Case = tuple[bytes, bytes] | tuple[bytes, bytes, bytes]
MUTANTS = 2_000
CONTROLS = 600
NODE = shutil.which("node")
HARNESS = Path(__file__).with_name("verify_receipts.mjs")
MODULE = Path(tunewarden.__file__).parent / "console" / "static" / "receipt.js"
PEM, VKEY = SIGNER.public_pem(), SIGNER.vkey().encode()
# What a check of receipt.js is about; a valid receipt has none.
STEPS = {"form", "statement", "disclosure", "checkpoint", "inclusion"}

pytestmark = pytest.mark.skipif(NODE is None, reason="Node is not here: 10 tests of receipt.js")


def judged(cases: Sequence[Case], module: Path = MODULE) -> list[dict[str, Any]]:
    """What the module says of receipts, each with the text of a key, and hand-overs to others where it has three parts."""
    lines = (_line(*case) for case in cases)
    assert NODE is not None
    done = subprocess.run(
        [NODE, HARNESS, module], input="".join(lines), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == len(cases)
    return said


def _line(data: bytes, key: bytes, document: bytes | None = None) -> str:
    case = {"receipt": base64.b64encode(data).decode(), "key": key.decode()}
    if document is not None:
        case["handOvers"] = base64.b64encode(document).decode()
    return json.dumps(case) + "\n"


def reason_of(data: bytes, key: bytes, *documents: bytes) -> str | None:
    """Why the Python verifier refuses a receipt, or None."""
    try:
        if documents:
            verify_in_chain(data, key, *documents)
        else:
            receipt.verify(data, key)
    except ReceiptError as error:
        return error.reason
    return None


def assert_same_verdicts(cases: Sequence[Case]) -> Counter[str]:
    steps: Counter[str] = Counter()
    for case, said in zip(cases, judged(cases), strict=True):
        reason = reason_of(*case)
        assert ("step" in said) == (reason is not None), (case, said, reason)
        assert said.get("step", "form") in {*STEPS, "key"}, said
        steps[said.get("step", "valid")] += 1
    return steps


def test_genuine_receipts_of_every_kind_verify() -> None:
    genuine = odd_receipts.genuine()
    for data, said in zip(genuine, judged([(one, PEM) for one in genuine]), strict=True):
        proven = receipt.verify(data, PEM)
        statement = json.loads(proven.statement)
        subject = statement["subject"][0]["name"]
        if not statement["predicateType"].endswith("/deletion-case/v2"):
            # The id that people know; inside it has another.
            subject = json.loads(data).get("disclosure", {}).get("artifactId", subject)
        assert said == {
            "subject": subject,
            "index": str(proven.index),
            "size": str(proven.checkpoint.size),
            "keyId": proven.key_id,
        }


def test_every_changed_receipt_is_refused() -> None:
    cases = [
        (data, (PEM, VKEY)[number % 2])
        for number, (_, data) in enumerate(mutated(20261201, MUTANTS))
    ]
    steps = assert_same_verdicts(cases)
    assert steps.total() == MUTANTS
    assert set(steps) == STEPS, "the changes reach every check"


def test_a_careless_signer_gets_the_same_verdict() -> None:
    """Signed and logged in an odd form: most are refused, a few are still of the format."""
    odd = [(data, PEM) for data in odd_receipts.carelessly_signed(20261201, MUTANTS)]
    steps = assert_same_verdicts(odd)
    assert steps.keys() >= {"valid", "form", "disclosure"}


def test_an_envelope_that_no_log_can_hold_is_refused() -> None:
    """R10, by both."""
    large = odd_receipts.with_residuals(["x" * 500] * 110)
    small = odd_receipts.with_residuals(["x" * 500] * 80)
    assert len(large) < receipt.MAX_RECEIPT_BYTES
    assert reason_of(large, PEM) == "The envelope is larger than an entry of the log can be."
    assert set(assert_same_verdicts([(large, PEM), (small, PEM)])) == {"form", "valid"}


def test_keys_are_read_alike() -> None:
    """With another key nothing verifies; a malformed one is no key; white space around one is."""
    [genuine, *_] = odd_receipts.genuine()
    stranger = LogSigner(SIGNER.name, bytes(32))
    other_name = LogKey.parse(PEM).vkey("another.example/1").encode()
    keys = [
        PEM, VKEY, b"\n " + PEM + b"\n", PEM.replace(b"\n", b"\r\n"), VKEY + b"\n",
        stranger.public_pem(), stranger.vkey().encode(), other_name,
        b"", b"x", PEM[:-30], VKEY[:-1], VKEY + b"+", VKEY.replace(b"+", b" "), PEM * 2, b"A" * 5_000,
        VKEY.replace(b"/1+", b"/1+0"), PEM.replace(b"MCow", b"MCo_"), b"x y+0+AA==",
    ]  # fmt: skip
    steps = assert_same_verdicts([(genuine, key) for key in keys])
    assert steps == {"valid": 5, "statement": 2, "checkpoint": 1, "key": 11}


def test_a_chain_of_keys_is_judged_alike() -> None:
    """R30 to R34: every way in which a hand-over can be wrong, and every one of its bytes."""
    made = chains.CHAIN.document()
    late = chains.stored(
        chains.ENTRIES,
        4,
        5,
        lambda size, root: chains.THIRD.sign_hand_over(size, root, chains.SECOND),
    )
    again = [*chains.ENTRIES[:4], chains.entry(SIGNER, chains.THIEF, 2)]
    stolen = chains.stored(again, 4, 5, SIGNER.sign_checkpoint)
    longer = chains.stored(chains.ENTRIES, 3, 6, SIGNER.sign_checkpoint)
    keys = [PEM, VKEY, chains.SECOND.public_pem(), chains.THIRD.public_pem(), b"no key"]
    keys += [chains.RENAMED.vkey().encode(), chains.THIEF.public_pem()]
    documents = [
        made,
        chains.document(),
        *(
            chains.document(*some)
            for some in (
                [chains.FIRST_HAND],
                [chains.SECOND_HAND],
                [chains.SECOND_HAND, chains.FIRST_HAND],
                [chains.FIRST_HAND, chains.SECOND_HAND, chains.SECOND_HAND],
                *([one, chains.SECOND_HAND] for one in chains.MUTANTS.values()),
            )
        ),
        *(made[:at] + bytes([made[at] ^ 1]) + made[at + 1 :] for at in range(0, len(made), 29)),
        b"",
        b"[]",
        made + b"\n",
    ]
    receipts = [late, stolen, longer, chains.FIRST_HAND, chains.SECOND_HAND, b"{}"]
    cases = [(one, key, made) for one in receipts for key in keys]
    cases += [(late, PEM, document) for document in documents]
    cases += [(chains.FIRST_HAND, VKEY, document) for document in documents]
    steps = assert_same_verdicts(cases)
    assert steps.keys() >= {"valid", "key", "statement"}


SIGNATURE = "if (!(await verifiesEd25519(key.public, signature"
INCLUSION = "if (!(await verifyInclusion("
DISCLOSURE = "if (!(await commit(hmac"
FORM = "if (!isSame(utf8(canonical("


@pytest.mark.parametrize(
    ("name", "skipped"),
    [
        # The leaf hash covers the signature too: without both, a changed one passes.
        ("receipt.js", (SIGNATURE, INCLUSION)),
        ("receipt.js", (INCLUSION,)),
        ("receipt.js", (DISCLOSURE,)),
        ("canonical.js", (FORM,)),
    ],
)
def test_control_a_module_that_skips_a_check_lets_mutants_through(
    tmp_path: Path, name: str, skipped: tuple[str, ...]
) -> None:
    copy = tmp_path / "static"
    shutil.copytree(MODULE.parent, copy)
    source = (copy / name).read_text("utf-8")
    for check in skipped:
        assert check in source
        source = source.replace(check, check.replace("if (", "if (false && "))
    (copy / name).write_text(source, "utf-8")
    sample = [(data, PEM) for _, data in mutated(20261201, CONTROLS)]
    said = judged(sample, copy / "receipt.js")
    passed = sum("step" not in one for one in said)
    print(f"accepted without {skipped}: {passed} of {CONTROLS}")
    assert passed
