"""`tunewarden tour`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import click

from tunewarden import config
from tunewarden.cli import data_directory, server_address
from tunewarden.cli.options import data_option, json_option, refusing
from tunewarden.cli.output import show_json
from tunewarden.cli.tour_output import Shown
from tunewarden.config import Config
from tunewarden.errors import Error, Kind
from tunewarden_receipts.receipt import ReceiptError

SWAPPED = "memory_may_be_swapped"
INTRODUCTION = """\
A tour of {url}
It makes a model of its own, deletes it while it answers, and checks the proof. Nothing of yours is changed.
Each > is a call, as you can send it yourself: in Python after

   from openai import OpenAI
   client = OpenAI(base_url="{url}", api_key=KEY)

and in a shell. KEY is {key}."""


@click.command()
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write receipt, log key and checkpoints to this directory.",
)
@json_option
@data_option
@refusing
def tour(keep: Path | None, data: Path | None, *, as_json: bool) -> None:
    """See what deleting means: a model answers, is deleted in mid-stream, is gone, and its receipt is checked.

    It asks the server that --data or the environment names. Where none is named and none runs, it starts one of its own
    with the demo, on this machine only, and removes it afterwards. Half a minute. A model that a killed tour left is
    removed by a later one, after ten minutes.
    """
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise click.UsageError(f"{keep} is not empty.")
    try:
        with _server(data) as found:
            _take(*found, keep, as_json=as_json)
    except Error as error:
        if error.code != SWAPPED:
            raise
        click.echo(
            f"{error.message}\nThe demo's weights are public: the tour starts a server of its own.\n",
            err=True,
        )
        with _own_server() as found:
            _take(*found, keep, as_json=as_json)


@contextmanager
def _server(data: Path | None) -> Iterator[tuple[str, str, str]]:
    """Find or start a server; yield its address, a key of it, and where the key is. Raises Error."""
    named = config.client_settings() if data is None else None
    if named is not None:
        yield server_address.shown_url(None), named[1], "the one in your environment"
        return
    settings = config.load(data=data)
    if data_directory.server_url(settings) is not None:
        yield _of(settings)
        return
    if data is not None:
        raise Error(
            Kind.UNAVAILABLE,
            f"No server runs on {data}. Start it, `tunewarden serve --demo --data {data}`, or run the tour without --data.",
        )
    click.echo("No server runs here: the tour starts one of its own …", err=True)
    with _own_server() as found:
        yield found


@contextmanager
def _own_server() -> Iterator[tuple[str, str, str]]:
    from tunewarden.cli import tour_server  # noqa: PLC0415  half a second

    with tour_server.started() as settings:
        yield _of(settings)


def _of(settings: Config) -> tuple[str, str, str]:
    """Return the same for the server of a data directory. Raises Error(UNAUTHENTICATED), Error(UNAVAILABLE)."""
    url = data_directory.server_url(settings)
    if url is None:
        raise Error(Kind.UNAVAILABLE, f"The server on {settings.data} has stopped.")
    try:
        key = settings.owner_key.read_text("utf-8").strip()
    except FileNotFoundError as error:
        raise Error(
            Kind.UNAUTHENTICATED,
            f"{settings.owner_key} is not there. Set TUNEWARDEN_URL and TUNEWARDEN_API_KEY to an Owner's key.",
        ) from error
    return url, key, f"in {settings.owner_key}"


def _take(url: str, key: str, where: str, keep: Path | None, *, as_json: bool) -> None:
    """Take the tour, and print it. Raises Error, click.ClickException."""
    from tunewarden.cli.tour import BrokenPromiseError, Tour  # noqa: PLC0415  half a second

    shown = Shown(is_quiet=as_json)
    shown.say(INTRODUCTION.format(url=url, key=where))
    began = perf_counter()
    try:
        model, proof = Tour(url, key, shown).run()
    except ReceiptError as error:
        raise click.ClickException(error.reason) from error
    except (BrokenPromiseError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    seconds = round(perf_counter() - began, 1)
    if keep is not None:
        _write(proof.files(), keep)
        shown.say("", f"Kept in {keep}: {', '.join(proof.files())}")
    if as_json:
        found = {"object": "tour", "url": url, "model": model, "seconds": seconds}
        show_json(found | {"steps": shown.steps})
    shown.say("", f"All of it is true of every model here. It took {seconds} s.")


def _write(files: Mapping[str, bytes], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        with (directory / name).open("xb") as file:
            file.write(content)
