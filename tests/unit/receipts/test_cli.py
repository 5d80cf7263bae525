"""The commands that verify: what they print, and which exit status says what."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.support.receipts import LEAF, SHOWN, SIGNER, receipts

from tunewarden.cli.commands import cli
from tunewarden_receipts import merkle, receipt
from tunewarden_receipts.cli import main
from tunewarden_receipts.summary import summary

KEY = SIGNER.public_pem()


def alone(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run `tunewarden-receipts`; return its status and what it printed."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code, *capsys.readouterr()


def of_the_server(*arguments: str) -> tuple[int, str, str]:
    """Run `tunewarden receipts`; return its status and what it printed."""
    ran = CliRunner().invoke(cli, ["receipts", *arguments], catch_exceptions=False)
    return ran.exit_code, ran.stdout, ran.stderr


def files(directory: Path, data: bytes, log_key: bytes = KEY) -> list[str]:
    """Write a receipt and a key; return the arguments that have them checked."""
    (directory / "receipt.json").write_bytes(data)
    (directory / "log.pem").write_bytes(log_key)
    return ["verify", str(directory / "receipt.json"), "--log-key", str(directory / "log.pem")]


@pytest.mark.parametrize("form", [1, 2])
def test_a_valid_receipt_is_shown_with_status_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: int
) -> None:
    data = receipts(form=form)[1]
    arguments = files(tmp_path, data)
    said = summary(receipt.verify(data, KEY))
    assert alone(capsys, *arguments) == (0, said, "")
    assert of_the_server(*arguments) == (0, said, "")


def test_a_letter_that_the_terminal_lacks_does_not_make_a_receipt_invalid(tmp_path: Path) -> None:
    entry = receipt.sign(receipt.build(replace(LEAF, residuals=("Sicherung für 30 Tage",))), SIGNER)
    checkpoint = SIGNER.sign_checkpoint(1, merkle.leaf_hash(entry))
    arguments = files(tmp_path, receipt.bundle(entry, 0, [], checkpoint, SHOWN))
    ran = subprocess.run(
        [sys.executable, "-c", "from tunewarden_receipts.cli import main; main()", *arguments],
        env={"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Sicherung f\\xfcr 30 Tage" in ran.stdout


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "The receipt is not canonical JSON: "),
        (b"\xff", "The receipt is not canonical JSON: "),
        (
            b" " * (receipt.MAX_RECEIPT_BYTES + 2),
            "The receipt is not canonical JSON: it is too large.",
        ),
        (receipts()[1] + b"\n", "The receipt is not canonical JSON: its bytes were changed"),
        (receipts()[1].replace(b"vllm-0", b"vllm-9"), "The disclosure cannot be trusted: "),
    ],
    ids=["empty", "no text", "too large", "a byte more", "another value"],
)
def test_what_proves_nothing_is_one_line_with_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes, reason: str
) -> None:
    arguments = files(tmp_path, data)
    status, shown, said = alone(capsys, *arguments)
    assert (status, shown, said.count("\n")) == (1, "", 1)
    assert said.startswith(f"tunewarden-receipts: not a valid receipt: {reason}")
    status, shown, said = of_the_server(*arguments)
    assert (status, shown) == (1, "")
    assert said.startswith(f"Error: {reason}")


def test_a_log_key_that_is_no_key_is_a_mistake_of_usage_not_of_the_receipt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for log_key in (b"", b"not a key", KEY * 100):
        arguments = files(tmp_path, receipts()[1], log_key)
        for status, shown, said in (alone(capsys, *arguments), of_the_server(*arguments)):
            assert (status, shown) == (2, "")
            assert "The log key is neither an Ed25519 key in PEM nor a vkey" in said


def test_without_a_log_key_it_says_where_to_get_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, shown, said = alone(capsys, *files(tmp_path, receipts()[1])[:2])
    assert (status, shown) == (2, "")
    assert "--log-key is missing" in said
    assert "/.well-known/tunewarden-log-key" in said


def test_a_file_that_cannot_be_read_is_a_mistake_of_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = files(tmp_path, receipts()[1])
    missing = str(tmp_path / "missing")
    for arguments in (["verify", missing, *good[2:]], [*good[:3], missing]):
        status, shown, said = alone(capsys, *arguments)
        assert (status, shown) == (2, "")
        assert f"{missing} cannot be read: No such file or directory." in said
        assert of_the_server(*arguments)[0] == 2


@pytest.mark.parametrize("arguments", [(), ("verify",), ("check", "receipt.json")])
def test_other_arguments_are_refused_with_status_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    status, shown, said = alone(capsys, *arguments)
    assert (status, shown) == (2, "")
    assert said.startswith("usage: tunewarden-receipts")
