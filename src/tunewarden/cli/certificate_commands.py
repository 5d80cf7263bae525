"""Commands about certificates of engines on other hosts. They work on the server's machine only."""

from pathlib import Path

import click

from tunewarden import config
from tunewarden.cli.options import data_option, json_option, refusing
from tunewarden.cli.output import listing, show_json
from tunewarden.clock import SystemClock
from tunewarden.engines import certificates as engine_certificates
from tunewarden.engines.certificates import DAYS, DAYS_MAX, Certificate


@click.group()
def certificates() -> None:
    """Certificates of engines on other hosts."""


@certificates.command(
    "issue",
    epilog="\b\nExample:\n  tunewarden certificates issue gpu-1.example 10.0.0.7 --out gpu-1",
)
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="A directory, to be copied to the engine's host.",
)
@click.option(
    "--days",
    type=click.IntRange(1, DAYS_MAX),
    default=DAYS,
    show_default=True,
    help="How long it is valid.",
)
@json_option
@data_option
@refusing
def certificates_issue(
    hosts: tuple[str, ...], out: Path, days: int, data: Path | None, *, as_json: bool
) -> None:
    """Make a certificate for an engine that is reached by these names and addresses.

    Writes engine.crt, engine.key and ca.crt. The first call makes the authority and the gateway's own certificate too.
    """
    settings = config.of_this_machine(data)
    written = engine_certificates.issue(
        settings.certificates, hosts, out, SystemClock().now(), days=days
    )
    if as_json:
        show_json({"object": "certificate", "files": [str(path) for path in written]})
        return
    for path in written:
        click.echo(path)


@certificates.command("renew")
@json_option
@data_option
@refusing
def certificates_renew(data: Path | None, *, as_json: bool) -> None:
    """Make another certificate of the gateway; a running server uses it from its next connection on."""
    settings = config.of_this_machine(data)
    _show([engine_certificates.renew(settings.certificates, SystemClock().now())], as_json=as_json)


@certificates.command("list")
@json_option
@data_option
@refusing
def certificates_list(data: Path | None, *, as_json: bool) -> None:
    """List the authority's and the gateway's certificates, and when they end; those of engines are not kept."""
    settings = config.of_this_machine(data)
    _show(list(engine_certificates.kept(settings.certificates)), as_json=as_json)


def _show(found: list[Certificate], *, as_json: bool) -> None:
    shown = [
        {
            "id": one.name,
            "object": "certificate",
            "subject": one.subject,
            "ends_at": int(one.ends_at.timestamp()),
        }
        for one in found
    ]
    if as_json:
        show_json(listing(shown))
        return
    for one in found:
        click.echo(f"{one.name}\t{one.subject}\t{one.ends_at:%Y-%m-%d}")
