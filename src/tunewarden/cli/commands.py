"""Every command. Results go to standard output, alone on their line; all else to standard error."""

import sys
from pathlib import Path
from typing import Any

import click

from tunewarden import __version__, config
from tunewarden.cli.data_commands import backup, keyring
from tunewarden.cli.deletion_commands import deletions, receipt
from tunewarden.cli.file_commands import files
from tunewarden.cli.finetune_commands import finetune
from tunewarden.cli.options import data_option, plain, refusing, shown_time


@click.group()
@click.version_option(__version__)
def cli() -> None:
    """A self-hosted, OpenAI-compatible home for fine-tuned models, where delete means deleted."""


@cli.command()
@data_option
@click.option("--host", help="Address to listen on. [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on. [default: 8800]")
@click.option("--workers", type=click.IntRange(1, 256), help="Gateway processes. [default: 1]")
@click.option("--demo", is_flag=True, help="Make a small real base model and a fine-tune of it.")
@refusing
def serve(
    data: Path | None, host: str | None, port: int | None, workers: int | None, *, demo: bool
) -> None:
    """Start the server. The first start makes an organization and an Owner key."""
    from tunewarden.cli import serve as serving  # noqa: PLC0415  loads the whole server

    serving.run(config.load(data=data, host=host, port=port, workers=workers), demo=demo)


@cli.group()
def base() -> None:
    """Base models."""


@base.command("add")
@click.argument("name")
@click.option(
    "--path", help="A local Hugging Face directory, or a hub id where the network allows."
)
@click.option("--engine-url", help="An OpenAI-compatible server, such as http://127.0.0.1:8000/v1.")
@click.option(
    "--engine-key-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file with the API key that this server asks for; it is copied, mode 0600.",
)
@data_option
@refusing
def base_add(
    name: str,
    path: str | None,
    engine_url: str | None,
    engine_key_file: Path | None,
    data: Path | None,
) -> None:
    """Register a base model called NAME; return when it answers."""
    if (path is None) == (engine_url is None):
        raise click.UsageError("Give either --path or --engine-url.")
    if engine_key_file is not None and engine_url is None:
        raise click.UsageError("--engine-key-file goes with --engine-url.")
    from tunewarden.cli import base_commands  # noqa: PLC0415

    base_commands.add(
        config.load(data=data),
        name,
        path=path,
        engine_url=engine_url,
        engine_key_file=engine_key_file,
    )
    click.echo(name)


@base.command("list")
@data_option
@refusing
def base_list(data: Path | None) -> None:
    """List base models: name, kind, location, and `key` where its engine is sent one."""
    from tunewarden.app import open_app  # noqa: PLC0415
    from tunewarden.registry import bases  # noqa: PLC0415
    from tunewarden.serving import engine_keys  # noqa: PLC0415

    settings = config.load(data=data)
    for one in bases.list_all(open_app(settings).database):
        key = "\tkey" if engine_keys.has(settings.engine_keys, one.name) else ""
        click.echo(f"{one.name}\t{one.kind}\t{one.location}{key}")


@cli.group()
def models() -> None:
    """Fine-tuned models. Uses OPENAI_BASE_URL and OPENAI_API_KEY, or --data."""


@models.command("import")
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--base", "base_name", required=True, help="The base model it was trained on.")
@click.option("--suffix", default="", help="A name for people; it stands in the model's id.")
@data_option
@refusing
def models_import(directory: Path, base_name: str, suffix: str, data: Path | None) -> None:
    """Import the PEFT LoRA in DIRECTORY; print its id when it answers."""
    from tunewarden.cli import doors, waiting  # noqa: PLC0415

    with doors.opened(data) as door:
        model = door.bring_in(directory, base_name, suffix)
        waiting.until_it_answers(door, data, model["id"])
    click.echo(model["id"])


@models.command("list")
@data_option
@refusing
def models_list(data: Path | None) -> None:
    """List bases and fine-tuned models: id, owner, creation time."""
    from tunewarden.cli import doors  # noqa: PLC0415

    with doors.opened(data) as door:
        for model in door.models():
            click.echo(f"{model['id']}\t{model['owned_by']}\t{shown_time(model['created'])}")


@models.command("show")
@click.argument("model_id")
@data_option
@refusing
def models_show(model_id: str, data: Path | None) -> None:
    """Show one model."""
    from tunewarden.cli import doors  # noqa: PLC0415

    with doors.opened(data) as door:
        for name, value in door.model(model_id).items():
            click.echo(f"{name}: {shown_time(value) if name == 'created' else value}")


@models.command("delete")
@click.argument("model_id")
@click.option("--yes", is_flag=True, help="Do not ask; for scripts.")
@data_option
@refusing
def models_delete(model_id: str, data: Path | None, *, yes: bool) -> None:
    """Delete a model and its job's checkpoints, for good. They are gone when this returns."""
    from tunewarden.cli import doors  # noqa: PLC0415

    with doors.opened(data) as door:
        plan = door.deletion_plan(model_id)
        if not yes:
            _refuse_if_needed(plan)
            click.echo(f"This deletes {model_id} for good. It cannot be undone.", err=True)
            if plan["checkpoints"]:
                click.echo("These checkpoints of its job go with it:", err=True)
            for checkpoint in plan["checkpoints"]:
                click.echo(f"  {plain(checkpoint)}", err=True)
            if click.prompt("Type the model's id to delete it", err=True) != model_id:
                raise click.ClickException("The id does not match. Nothing was deleted.")
        deletion = door.delete(model_id)
    click.echo(deletion)


def _refuse_if_needed(plan: dict[str, Any]) -> None:
    """Do not ask for what would be refused. Raises click.ClickException."""
    jobs = ", ".join(plain(one["id"]) for one in plan["blockers"][:5])
    if jobs:
        raise click.ClickException(
            f"{plain(plan['model'])} is needed by a fine-tuning job that has not ended: {jobs}."
            " Cancel it or wait for it, then delete."
        )


@cli.group()
def keys() -> None:
    """API keys."""


@keys.command("create")
@click.option(
    "--role", type=click.Choice(["owner", "reader"]), required=True, help="What its user may do."
)
@click.option("--name", default="key", help="For people.")
@click.option("--organization", help="Made if it is new. [default: the first one]")
@click.option("--scope", "scopes", multiple=True, help="Restrict the key; may be given again.")
@data_option
@refusing
def keys_create(
    role: str, name: str, organization: str | None, scopes: tuple[str, ...], data: Path | None
) -> None:
    """Make a key and print it, this once."""
    from tunewarden.app import open_app  # noqa: PLC0415
    from tunewarden.identity import keys as operations  # noqa: PLC0415
    from tunewarden.identity import organizations  # noqa: PLC0415
    from tunewarden.identity.policy import Role  # noqa: PLC0415

    with open_app(config.load(data=data)).database.write() as tx:
        chosen = organization or organizations.first_name(tx)
        key, text = operations.create(
            tx, organization=chosen, role=Role(role), name=name, scopes=scopes
        )
    click.echo(f"{key.id} for {role} in {chosen}; it is shown this once:", err=True)
    click.echo(text)


@keys.command("list")
@data_option
@refusing
def keys_list(data: Path | None) -> None:
    """List keys: id, name, role, organization, scopes, state."""
    from tunewarden.app import open_app  # noqa: PLC0415
    from tunewarden.identity import keys as operations  # noqa: PLC0415

    for key in operations.list_all(open_app(config.load(data=data)).database):
        state = "active" if key.revoked_at is None else "revoked"
        scopes = key.scopes or "unrestricted"
        click.echo(f"{key.id}\t{key.name}\t{key.role}\t{key.organization}\t{scopes}\t{state}")


@keys.command("revoke")
@click.argument("key_id")
@data_option
@refusing
def keys_revoke(key_id: str, data: Path | None) -> None:
    """Revoke a key, at once and for good."""
    from tunewarden.app import open_app  # noqa: PLC0415
    from tunewarden.identity import keys as operations  # noqa: PLC0415

    with open_app(config.load(data=data)).database.write() as tx:
        operations.revoke(tx, key_id)
    click.echo(key_id)


@cli.command()
@click.option(
    "--deep", is_flag=True, help="Also look for remnants in every place of the inventory."
)
@click.option("--sweep", is_flag=True, help="Erase orphaned blobs and keys; no server may run.")
@data_option
@refusing
def doctor(data: Path | None, *, deep: bool, sweep: bool) -> None:
    """Check the data directory and this machine; exit status 1 if something is wrong."""
    from tunewarden.cli import doctor as checks  # noqa: PLC0415

    settings = config.load(data=data)
    if sweep:
        click.echo(f"{checks.sweep(settings)} remnants were erased.", err=True)
    is_well = True
    for finding in checks.examine(settings, is_deep=deep):
        click.echo(f"{'ok  ' if finding.is_well else 'FAIL'} {finding.what}: {finding.found}")
        is_well &= finding.is_well
    sys.exit(0 if is_well else 1)


for group in (files, finetune, deletions, receipt, backup, keyring):
    cli.add_command(group)
