"""Commands about what was deleted: deletions, receipts, and a keyring that was restored."""

from pathlib import Path

import click

from tunewarden import config
from tunewarden.cli.options import data_option, refusing, shown_time

RECEIPT_BYTES_MAX = 4 * 1024 * 1024


@click.group()
def deletions() -> None:
    """What was deleted. Uses OPENAI_BASE_URL and OPENAI_API_KEY, or --data."""


@deletions.command("list")
@data_option
@refusing
def deletions_list(data: Path | None) -> None:
    """List deletions, newest first: id, status, time, model or file."""
    from tunewarden.cli import doors  # noqa: PLC0415

    with doors.opened(data) as door:
        for one in door.deletions():
            when = shown_time(one["requested_at"])
            what = one[one["object"].partition(".")[0]]
            click.echo(f"{one['id']}\t{one['status']}\t{when}\t{what}")


@deletions.command("show")
@click.argument("deletion_id")
@click.option(
    "--receipt",
    "receipt_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the receipt to this file.",
)
@data_option
@refusing
def deletions_show(deletion_id: str, receipt_file: Path | None, data: Path | None) -> None:
    """Show one deletion."""
    from tunewarden.cli import doors  # noqa: PLC0415

    with doors.opened(data) as door:
        for name, value in door.deletion(deletion_id).items():
            is_time = name.endswith("_at") and value is not None
            click.echo(f"{name}: {shown_time(value) if is_time else value}")
        if receipt_file is not None:
            receipt_file.write_bytes(door.receipt(deletion_id))


@click.group()
def receipt() -> None:
    """Signed proof of deletions."""


@receipt.command("verify")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--log-key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The log's public key (PEM or C2SP vkey). [default: that of --data]",
)
@data_option
@refusing
def receipt_verify(file: Path, log_key: Path | None, data: Path | None) -> None:
    """Check a receipt offline; exit status 1 if it proves nothing.

    Take the key from a source you trust, once: /.well-known/tunewarden-log-key of the server.
    """
    from tunewarden.deletion.receipt import summary, verify  # noqa: PLC0415

    if log_key is not None:
        key = log_key.read_bytes()
    else:
        from tunewarden.app import open_app  # noqa: PLC0415

        key = open_app(config.load(data=data)).open_log()[1].public_pem()
    if file.stat().st_size > RECEIPT_BYTES_MAX:
        raise click.ClickException("The file is too large for a receipt.")
    click.echo(summary(verify(file.read_bytes(), key)))
