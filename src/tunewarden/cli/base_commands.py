"""Commands about base models. They use paths and addresses of the server's machine, so they only work there."""

from pathlib import Path

import click

from tunewarden import config
from tunewarden.cli import local_operations
from tunewarden.cli.options import data_option, json_option, refusing
from tunewarden.cli.output import listing, show_json


@click.group()
def bases() -> None:
    """Base models."""


also_named_option = click.option(
    "--also-named",
    multiple=True,
    help="Another name that clients may use, such as meta-llama/Llama-3.1-8B-Instruct. Repeat it for several.",
)


@bases.command(
    "add",
    epilog=(
        "\b\nExamples:\n"
        "  tunewarden bases add my-base --path /models/my-base\n"
        "  tunewarden bases add my-base --engine-url http://127.0.0.1:8000/v1"
    ),
)
@click.argument("name")
@click.option("--path", help="A local Hugging Face directory, or a hub id to download.")
@click.option(
    "--engine-url",
    "engine_urls",
    multiple=True,
    help="An OpenAI-compatible server, such as http://127.0.0.1:8000/v1; fine-tuned models need a vLLM with tunewarden-vllm."
    " Repeat it for several replicas.",
)
@click.option(
    "--engine-key-file",
    "engine_key_files",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file with the API key that this server requires; it is copied, mode 0600. One for all replicas, or one for each.",
)
@also_named_option
@json_option
@data_option
@refusing
def bases_add(
    name: str,
    path: str | None,
    data: Path | None,
    *,
    engine_urls: tuple[str, ...],
    engine_key_files: tuple[Path, ...],
    also_named: tuple[str, ...],
    as_json: bool,
) -> None:
    """Register a base model as NAME; return when it answers."""
    if (path is None) == (not engine_urls):
        raise click.UsageError("Give either --path or --engine-url.")
    if engine_key_files and not engine_urls:
        raise click.UsageError("--engine-key-file requires --engine-url.")
    if len(engine_key_files) not in {0, 1, len(engine_urls)}:
        raise click.UsageError("Give one --engine-key-file for all, or one for each --engine-url.")
    of_each: tuple[Path | None, ...] = engine_key_files or (None,)
    if len(of_each) == 1:
        of_each *= len(engine_urls)
    settings = config.of_this_machine(data)
    engines = tuple(zip(engine_urls, of_each, strict=True))
    local_operations.add_base(settings, name, path=path, engines=engines, also_named=also_named)
    if not as_json:
        click.echo(name)
        return
    [added] = [one for one in local_operations.bases(settings) if one["id"] == name]
    show_json(added)


@bases.command("name")
@click.argument("name")
@also_named_option
@json_option
@data_option
@refusing
def bases_name(name: str, also_named: tuple[str, ...], data: Path | None, *, as_json: bool) -> None:
    """Give the base NAME other names, which clients may use in its place."""
    if not also_named:
        raise click.UsageError("Give --also-named.")
    settings = config.of_this_machine(data)
    local_operations.also_name(settings, name, also_named)
    if as_json:
        [named] = [one for one in local_operations.bases(settings) if one["id"] == name]
        show_json(named)
        return
    for one in also_named:
        click.echo(one)


@bases.command("list")
@json_option
@data_option
@refusing
def bases_list(data: Path | None, *, as_json: bool) -> None:
    """List base models: name, kind, location, and `key` if its engine gets an API key."""
    found = local_operations.bases(config.of_this_machine(data))
    if as_json:
        show_json(listing(found))
        return
    for one in found:
        key = "\tkey" if one["has_engine_key"] else ""
        click.echo(f"{one['id']}\t{one['kind']}\t{one['location']}{key}")
