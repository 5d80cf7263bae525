"""`tunewarden doctor`."""

import sys
from dataclasses import asdict
from pathlib import Path

import click

from tunewarden import config
from tunewarden.cli import doctor as checks
from tunewarden.cli.exit_codes import ExitCode
from tunewarden.cli.options import data_option, dry_run_option, json_option, refusing
from tunewarden.cli.output import listing, show_json


@click.command()
@click.option(
    "--deep", is_flag=True, help="Also look for remnants in every place of the inventory."
)
@click.option("--sweep", is_flag=True, help="Erase orphaned blobs and keys; no server may run.")
@dry_run_option
@json_option
@data_option
@refusing
def doctor(data: Path | None, *, deep: bool, sweep: bool, dry_run: bool, as_json: bool) -> None:
    """Check the data directory and this machine; exit status 1 if something is wrong.

    A base that is still loading after a start of the server is not wrong: `wait`, not `FAIL`.
    `--sweep --dry-run` erases nothing and shows for each remnant whether a sweep would erase it, like `--deep`.
    """
    if dry_run and not sweep:
        raise click.UsageError("--dry-run requires --sweep.")
    settings = config.of_this_machine(data)
    if sweep and not dry_run:
        click.echo(f"{checks.sweep(settings)} remnants were erased.", err=True)
    is_well = True
    findings = []
    for finding in checks.examine(settings, is_deep=deep or dry_run):
        is_well &= finding.is_well
        if as_json:
            findings.append({"object": "finding", **asdict(finding)})
        else:
            click.echo(f"{_word(finding)} {finding.what}: {finding.found}")
    if as_json:
        show_json(listing(findings))
    sys.exit(ExitCode.DONE if is_well else ExitCode.FAILED)


def _word(finding: checks.Finding) -> str:
    if finding.is_pending:
        return "wait"
    return "ok  " if finding.is_well else "FAIL"
