"""Options shared by the migration commands, and what they open."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tunewarden.cli import client
from tunewarden.cli.client import Client
from tunewarden.cli.migrate_progress import Shown
from tunewarden.clock import Clock, SystemClock
from tunewarden.errors import Error, Kind
from tunewarden.migration import addresses, inventory, key_file, state
from tunewarden.migration.source import Source
from tunewarden.migration.state import Object, State

STATE = Path("tunewarden-migration")


@dataclass(frozen=True, slots=True)
class Migration:
    """A source, its migration's state, and the progress display."""

    source: Source
    state: State
    shown: Shown
    clock: Clock

    def inventory(self) -> Object:
        """Return the inventory that was read before. Raises Error(CONFLICT) without one."""
        return inventory_of(self.state)


def inventory_of(noted: State) -> Object:
    """Return the inventory that was read before. Raises Error(CONFLICT) without one."""
    found = noted.read(inventory.NAME)
    if found is None:
        raise Error(
            Kind.CONFLICT, "There is no inventory yet: run `migrate openai inventory` first."
        )
    return found


state_option = click.option(
    "--state",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=STATE,
    show_default=True,
    help="Where to note what is done, to go on after an interruption.",
)


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `opened` takes."""
    options = (
        click.option(
            "--source-url",
            default=addresses.OPENAI,
            show_default=True,
            help="Where it is. Only delete-source changes anything there.",
        ),
        click.option(
            "--source-key-file",
            required=True,
            type=click.Path(path_type=Path),
            help="A file with the source's API key, which nobody else can read (mode 0600).",
        ),
        state_option,
        click.option(
            "--azure", is_flag=True, help="The source is Azure's: its paths and its key header."
        ),
        click.option(
            "--api-version",
            default=addresses.AZURE_VERSION,
            show_default=True,
            help="Azure's API version.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@contextmanager
def opened(
    source_url: str,
    source_key_file: Path,
    directory: Path,
    *,
    azure: bool,
    api_version: str,
    deployments: dict[str, str] | None = None,
) -> Iterator[Migration]:
    """Open a source and its state for the duration of the block. Raises Error."""
    address = addresses.parse(
        source_url, azure_version=api_version if azure else None, deployments=deployments
    )
    key = key_file.read(source_key_file)
    clock, shown = SystemClock(), Shown()
    with state.opened(directory, address.url) as noted:
        try:
            yield Migration(Source(address, key, clock=clock, say=shown.say), noted, shown, clock)
        finally:
            shown.end()


@contextmanager
def target_of(
    noted: State, data: Path | None, *, source: Source | None = None, is_dry_run: bool = False
) -> Iterator[Client]:
    """Open the target of a migration for the duration of the block.

    Raises Error(CONFLICT) if it is not that of before, or is the source; and what the target says of the key.
    """
    with client.opened(data) as server:
        name = server.log_name()
        # A proxy may pass no name on.
        if name is not None and not noted.is_target(name):
            _check_answers(server)
            if source is not None:
                _check_is_other(source, name)
            if not is_dry_run:
                noted.note_target(name)
        yield server


def _check_answers(server: Client) -> None:
    """Return if a server takes the key, whatever that may do: else it may be the wrong server. Raises Error."""
    try:
        server.get("files", limit=1)
    except Error as error:
        if error.kind is not Kind.FORBIDDEN:
            raise


def _check_is_other(source: Source, name: str) -> None:
    if source.log_name() == name:
        raise Error(
            Kind.CONFLICT,
            f"{source.address.url} is the server to which it moves: both have the log {name}. Give another --source-url,"
            " or the address or data directory of another Tunewarden server.",
        )


@contextmanager
def resumed(directory: Path) -> Iterator[tuple[State, Shown]]:
    """Open the state of a migration whose source is not asked anything. Raises Error."""
    shown = Shown()
    with state.opened(directory, state.known_url(directory)) as noted:
        try:
            yield noted, shown
        finally:
            shown.end()
