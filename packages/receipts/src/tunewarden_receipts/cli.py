"""The command `tunewarden-receipts`: `verify` checks a receipt, `verify-case` the receipts of a case and its members.

`tunewarden receipts verify` calls the same check.

Exit status: 0 the receipt is valid, 1 it is not, 2 nothing was checked.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from tunewarden_receipts.cases import check_members
from tunewarden_receipts.key_chain import MAX_DOCUMENT_BYTES, verify_in_chain
from tunewarden_receipts.receipt import (
    MAX_KEY_BYTES,
    MAX_RECEIPT_BYTES,
    LogKeyError,
    ReceiptError,
    VerifiedReceipt,
    verify,
)
from tunewarden_receipts.summary import summary

DISTRIBUTION = "tunewarden-receipts"
KEY_SOURCE = "Take it from a source you trust, once: /.well-known/tunewarden-log-key of the server."


def verified(file: Path, log_key: bytes, hand_overs: bytes | None = None) -> VerifiedReceipt:
    """Return what the receipt in a file proves, by the log key or by one that its hand-overs lead to.

    Raises `ReceiptError` if it is not valid, `LogKeyError` for a malformed key, `OSError` for an unreadable file.
    """
    stored = _read(file, MAX_RECEIPT_BYTES)
    if hand_overs is None:
        return verify(stored, log_key)
    return verify_in_chain(stored, log_key, hand_overs)


def check(file: Path, log_key: bytes, hand_overs: bytes | None = None) -> str:
    """Return what the receipt in a file says, as text. Raises what `verified` raises."""
    return summary(verified(file, log_key, hand_overs))


def check_case(
    file: Path, members: Sequence[Path], log_key: bytes, hand_overs: bytes | None = None
) -> str:
    """Return what the summary of a case says, as text, if `members` hold the receipts of all its members.

    Raises what `check` raises.
    """
    case = verified(file, log_key, hand_overs)
    found = [verified(member, log_key, hand_overs) for member in members]
    leaf = check_members(case, found)
    return f"{summary(case)}{'members:':<14}all {leaf.count} receipts are here and valid\n"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command with these arguments, or the process's; raises `SystemExit` with its status."""
    # A character that the terminal's encoding lacks must not make a valid receipt exit as an invalid one.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    parser = _parser()
    given = parser.parse_args(arguments)
    command: argparse.ArgumentParser = given.command
    if given.log_key is None:
        command.error(f"--log-key is missing: the log's public key. {KEY_SOURCE}")
    try:
        key = _read(given.log_key, MAX_KEY_BYTES)
        proof = None
        if given.hand_overs is not None:
            proof = _read(given.hand_overs, MAX_DOCUMENT_BYTES)
        if given.members is None:
            said = check(given.file, key, proof)
        else:
            said = check_case(given.file, given.members, key, proof)
    except LogKeyError as error:
        command.error(error.reason)
    except OSError as error:
        command.error(f"{error.filename} cannot be read: {error.strerror}.")
    except ReceiptError as error:
        sys.stderr.write(f"{parser.prog}: not a valid receipt: {error.reason}\n")
        sys.exit(1)
    sys.stdout.write(said)
    sys.exit(0)


def _parser() -> argparse.ArgumentParser:
    """Return the parser; what it parses has the parser of its `command`, and `members` for a case only."""
    parser = argparse.ArgumentParser(
        prog=DISTRIBUTION, description="Verifies Tunewarden's deletion receipts, offline."
    )
    parser.add_argument("--version", action="version", version=version(DISTRIBUTION))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = _command(commands, "verify", "check a receipt and print what it says")
    one.add_argument("file", type=Path, metavar="FILE", help="the receipt")
    one.set_defaults(command=one, members=None)
    case = _command(
        commands, "verify-case", "check the receipts of a case, and that they are all of them"
    )
    case.add_argument("file", type=Path, metavar="CASE", help="the receipt of the case's summary")
    case.add_argument(
        "members", type=Path, nargs="+", metavar="MEMBER", help="the receipts of its members"
    )
    case.set_defaults(command=case)
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, said: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=said,
        description=f"{said[0].upper()}{said[1:]}.",
        epilog="Exit status: 0 the receipt is valid, 1 it is not, 2 nothing was checked.",
    )
    command.add_argument(
        "--log-key",
        type=Path,
        metavar="FILE",
        help=f"the log's public key, PEM or C2SP vkey. {KEY_SOURCE}",
    )
    command.add_argument(
        "--hand-overs",
        type=Path,
        metavar="FILE",
        help="where the log's key was rotated since: /log/hand-overs of the server, which proves each new key",
    )
    return command


def _read(file: Path, limit_bytes: int) -> bytes:
    """Return a file, or one byte more than the limit, which the verifier rejects."""
    with file.open("rb") as opened:
        return opened.read(limit_bytes + 1)
