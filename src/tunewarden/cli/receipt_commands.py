"""Commands about receipts. They need neither a server nor Linux."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from tunewarden import config
from tunewarden.cli.options import data_option, json_option, refusing
from tunewarden.cli.output import show_json
from tunewarden_receipts.cli import verified
from tunewarden_receipts.receipt import LogKeyError, ReceiptError, VerifiedReceipt
from tunewarden_receipts.summary import summary


@click.group()
def receipts() -> None:
    """Signed proofs of deletions."""


@receipts.command(
    "verify", epilog="\b\nExample:\n  tunewarden receipts verify receipt.json --log-key log.pem"
)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--log-key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The log's public key (PEM or C2SP vkey). [default: that of --data]",
)
@click.option(
    "--hand-overs",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="What proves newer keys, if the log's key was rotated: /log/hand-overs of the server. [default: those of --data]",
)
@json_option
@data_option
@refusing
def receipts_verify(
    file: Path,
    log_key: Path | None,
    hand_overs: Path | None,
    data: Path | None,
    *,
    as_json: bool,
) -> None:
    """Check a receipt offline; exit status 1 if it is not valid, 2 if nothing was checked.

    Take the key from a source you trust, once: /.well-known/tunewarden-log-key of the server.
    """
    proof = None if hand_overs is None else hand_overs.read_bytes()
    if log_key is not None:
        key = log_key.read_bytes()
    else:
        from tunewarden.cli import local_operations  # noqa: PLC0415  it runs on Linux alone

        key, found = local_operations.log_keys(config.load(data=data))
        proof = proof or found
    try:
        receipt = verified(file, key, proof)
    except LogKeyError as error:
        raise click.UsageError(error.reason) from error
    except ReceiptError as error:
        raise click.ClickException(error.reason) from error
    if as_json:
        show_json(_content(receipt))
    else:
        click.echo(summary(receipt), nl=False)


def _content(receipt: VerifiedReceipt) -> dict[str, object]:
    """Return a valid receipt's content: the signed statement, and its place in the log."""
    return {
        "object": "receipt.verification",
        "statement": json.loads(receipt.statement),
        "disclosed": None if receipt.disclosed is None else asdict(receipt.disclosed),
        "log": {"origin": receipt.checkpoint.origin, "size": receipt.checkpoint.size},
        "index": receipt.index,
        "key_id": receipt.key_id,
    }
