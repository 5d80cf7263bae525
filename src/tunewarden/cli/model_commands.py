"""Commands about models."""

from pathlib import Path

import click

from tunewarden.cli import client, deleting, exporting, forms, lineage, waiting
from tunewarden.cli.options import (
    data_option,
    dry_run_option,
    force_option,
    json_option,
    refusing,
    yes_option,
)
from tunewarden.cli.output import show_json, shown_time


@click.group()
def models() -> None:
    """Fine-tuned models."""


@models.command(
    "import", epilog="\b\nExample:\n  tunewarden models import ./my-lora --base my-base"
)
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--base", "base_name", required=True, help="The base model it was trained on.")
@click.option("--suffix", default="", help="A readable name, part of the model's id.")
@click.option(
    "--metadata",
    "pairs",
    multiple=True,
    metavar="NAME=VALUE",
    help="A pair of its metadata, several times. trained_on=ID declares what it learned from.",
)
@json_option
@data_option
@refusing
def models_import(
    directory: Path,
    base_name: str,
    suffix: str,
    pairs: tuple[str, ...],
    data: Path | None,
    *,
    as_json: bool,
) -> None:
    """Import the PEFT LoRA in DIRECTORY; print its id when it answers."""
    if any("=" not in one for one in pairs):
        raise click.UsageError("--metadata takes NAME=VALUE.")
    metadata = {name: value for name, _, value in (one.partition("=") for one in pairs)}
    with client.opened(data) as server:
        model = forms.import_adapter(server, directory, base_name, suffix, metadata)
        waiting.until_it_answers(server, model["id"])
    if as_json:
        show_json(model)
    else:
        click.echo(model["id"])


@models.command("list")
@json_option
@data_option
@refusing
def models_list(data: Path | None, *, as_json: bool) -> None:
    """List bases and fine-tuned models: id, owner, creation time."""
    with client.opened(data) as server:
        found = server.get("models")
    if as_json:
        show_json(found)
        return
    for model in found["data"]:
        click.echo(f"{model['id']}\t{model['owned_by']}\t{shown_time(model['created'])}")


@models.command("show")
@click.argument("model_id")
@json_option
@data_option
@refusing
def models_show(model_id: str, data: Path | None, *, as_json: bool) -> None:
    """Show one model, and which engines have loaded it."""
    with client.opened(data) as server:
        model = server.get("models", model_id)
        if "archived" in model:  # a fine-tuned one
            model["engines"] = server.get("models", model_id, "engines")["data"]
    if as_json:
        show_json(model)
        return
    for one in model.pop("engines", ()):
        reason = "" if one["reason"] is None else f": {one['reason']}"
        model[f"engine {one['engine']}"] = f"{one['state']}{reason}"
    for name, value in model.items():
        click.echo(f"{name}: {shown_time(value) if name == 'created' else value}")


@models.command("delete", epilog="\b\nExample:\n  tunewarden models delete ft:… --dry-run")
@click.argument("model_id")
@force_option
@yes_option
@dry_run_option
@json_option
@data_option
@refusing
def models_delete(
    model_id: str, data: Path | None, *, force: bool, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Delete a model and its job's checkpoints, for good, and print the deletion's id.

    They are gone when this returns.
    """
    deleting.delete(
        "models", model_id, data, force=force, yes=yes, dry_run=dry_run, as_json=as_json
    )


@models.command("lineage", epilog="\b\nExample:\n  tunewarden models lineage ft:…")
@click.argument("model_id")
@json_option
@data_option
@refusing
def models_lineage(model_id: str, data: Path | None, *, as_json: bool) -> None:
    """Show what a model learned from, and what learned from it: direction, kind, id, state.

    What an Owner declared in `trained_on` is marked: it was not seen here.
    """
    lineage.show("models", model_id, data, as_json=as_json)


@models.command("export", epilog="\b\nExample:\n  tunewarden models export ft:… --to ./my-lora")
@click.argument("model_id")
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="The directory to make. [default: the id, here]",
)
@json_option
@data_option
@refusing
def models_export(model_id: str, to: Path | None, data: Path | None, *, as_json: bool) -> None:
    """Write a model's PEFT LoRA into a new directory, in plaintext, and print its path.

    What left is out of reach: each export is in the log, and every later receipt of a deletion names it.
    """
    made = exporting.export(model_id, to, data)
    if as_json:
        show_json(made)
    else:
        click.echo(made["directory"])


def _change_command(name: str, fields: dict[str, bool], said: str) -> None:
    """Add a command that changes one thing of a model."""

    @models.command(name, help=said)
    @click.argument("model_id")
    @json_option
    @data_option
    @refusing
    def change(model_id: str, data: Path | None, *, as_json: bool) -> None:
        with client.opened(data) as server:
            model = server.post("models", model_id, fields=fields)
        if as_json:
            show_json(model)
        else:
            click.echo(model["id"])


_change_command("archive", {"archived": True}, "Stop serving a model; it can be undone.")
_change_command("unarchive", {"archived": False}, "Serve an archived model again.")
_change_command("protect", {"protected": True}, "Let a model be deleted with --force only.")
_change_command("unprotect", {"protected": False}, "Let a model be deleted without --force again.")
