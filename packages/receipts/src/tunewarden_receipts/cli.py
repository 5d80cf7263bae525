"""The command `tunewarden-receipts`: `verify FILE --log-key FILE`. `tunewarden receipts verify` calls the same check.

Exit status: 0 the receipt is valid, 1 it is not, 2 nothing was checked.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from tunewarden_receipts.receipt import (
    MAX_KEY_BYTES,
    MAX_RECEIPT_BYTES,
    LogKeyError,
    ReceiptError,
    verify,
)
from tunewarden_receipts.summary import summary

DISTRIBUTION = "tunewarden-receipts"
KEY_SOURCE = "Take it from a source you trust, once: /.well-known/tunewarden-log-key of the server."


def check(file: Path, log_key: bytes) -> str:
    """Return what the receipt in a file says, as text.

    Raises `ReceiptError` if it is not valid, `LogKeyError` for a malformed key, `OSError` for an unreadable file.
    """
    return summary(verify(_read(file, MAX_RECEIPT_BYTES), log_key))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command with these arguments, or the process's; raises `SystemExit` with its status."""
    # A character that the terminal's encoding lacks must not make a valid receipt exit as an invalid one.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    parser, command = _parsers()
    given = parser.parse_args(arguments)
    if given.log_key is None:
        command.error(f"--log-key is missing: the log's public key. {KEY_SOURCE}")
    try:
        said = check(given.file, _read(given.log_key, MAX_KEY_BYTES))
    except LogKeyError as error:
        command.error(error.reason)
    except OSError as error:
        command.error(f"{error.filename} cannot be read: {error.strerror}.")
    except ReceiptError as error:
        sys.stderr.write(f"{parser.prog}: not a valid receipt: {error.reason}\n")
        sys.exit(1)
    sys.stdout.write(said)
    sys.exit(0)


def _parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Return the command's parser and that of `verify`."""
    parser = argparse.ArgumentParser(
        prog=DISTRIBUTION, description="Verifies Tunewarden's deletion receipts, offline."
    )
    parser.add_argument("--version", action="version", version=version(DISTRIBUTION))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "verify",
        help="check a receipt and print what it says",
        description="Check a receipt and print what it says.",
        epilog="Exit status: 0 the receipt is valid, 1 it is not, 2 nothing was checked.",
    )
    command.add_argument("file", type=Path, metavar="FILE", help="the receipt")
    command.add_argument(
        "--log-key",
        type=Path,
        metavar="FILE",
        help=f"the log's public key, PEM or C2SP vkey. {KEY_SOURCE}",
    )
    return parser, command


def _read(file: Path, limit_bytes: int) -> bytes:
    """Return a file, or one byte more than the limit, which the verifier rejects."""
    with file.open("rb") as opened:
        return opened.read(limit_bytes + 1)
