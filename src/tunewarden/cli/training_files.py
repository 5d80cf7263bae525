"""The files of a new fine-tuning job: given by id, or local, validated and uploaded."""

from contextlib import ExitStack
from pathlib import Path

import click

from tunewarden.cli import forms, local_files
from tunewarden.cli.client import Client, Object
from tunewarden.cli.local_files import LocalFile
from tunewarden.cli.output import plain
from tunewarden.errors import Error, Kind
from tunewarden.finetuning.hyperparameters import Method
from tunewarden.registry import file_rules

FILE_PREFIX = "file-"


def brought_in(
    server: Client, fields: Object, training: str, validation: str | None
) -> dict[str, str]:
    """Return the ids of a job's files: all local ones are validated, then uploaded. Raises Error."""
    named = {"training_file": training, "validation_file": validation}
    ids: dict[str, str] = {}
    local: dict[str, LocalFile] = {}
    with ExitStack() as open_files:
        for name, text in named.items():
            if text is None:
                continue
            path = Path(text)
            if _exists(path):
                local[name] = open_files.enter_context(local_files.opened(path))
                file_rules.check_name(path.name, file_rules.FINE_TUNE)
            elif text.startswith(FILE_PREFIX):
                ids[name] = text
            else:
                raise click.UsageError(f"File {plain(text)} does not exist.")
        if local:
            _check_model(server, fields["model"])
        method = Method(fields["method"]["type"])
        counts = {name: local[name].check(method, file=name.partition("_")[0]) for name in local}
        for name, file in local.items():
            with file.shown("Uploading"):
                ids[name] = forms.upload(server, file, file_rules.FINE_TUNE)["id"]
            click.echo(f"{plain(file.name)}: {counts[name]} examples, {ids[name]}", err=True)
    return ids


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long
        return False


def _check_model(server: Client, model: str) -> None:
    """Raise Error(NOT_FOUND) for an unknown model, before files are uploaded."""
    try:
        server.get("models", model)
    except Error as error:
        # A restricted key may create jobs without seeing models.
        if error.kind is Kind.NOT_FOUND:
            raise
