"""Operations of the operator, on the server's machine only: the API does not offer them.

They affect all organizations, or use paths and addresses of this machine. All other commands use the API (`client`).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tunewarden.api import views
from tunewarden.app import open_app
from tunewarden.cli import data_directory, replica_operations, waiting
from tunewarden.cli.client import Client, Object
from tunewarden.config import Config
from tunewarden.deletion.retention import expiry_pause
from tunewarden.engines import keys as engine_keys
from tunewarden.errors import Error, Kind
from tunewarden.exclusive_use import existing_with_no_server
from tunewarden.recovery_at_start import recover, recovery
from tunewarden.registry import bases as base_rows
from tunewarden.registry import replicas
from tunewarden.registry.replicas import Replica
from tunewarden.server.first_start import add_local_base

# Base models


def add_base(
    settings: Config,
    name: str,
    *,
    path: str | None,
    engines: Sequence[tuple[str, Path | None]] = (),
    also_named: Sequence[str] = (),
) -> None:
    """Register a base and return when it answers; `engines` are URLs, each with its key file. Raises Error."""
    app = open_app(settings)
    for other in also_named:  # before anything is registered
        base_rows.check_other_name(app.database, other)
    if path is None:
        replica_operations.add_remote_base(settings, app, name, engines)
    else:
        add_local_base(app, name, _directory(path))
    also_name(settings, name, also_named)
    if settings.owner_key.exists() and data_directory.server_url(settings) is not None:
        with data_directory.opened(settings) as directory:
            waiting.until_it_answers(Client(directory), name)


def also_name(settings: Config, name: str, others: Sequence[str]) -> None:
    """Give a base other names: all or none. Raises Error(INVALID, NOT_FOUND, CONFLICT)."""
    with open_app(settings).database.write() as tx:
        for other in others:
            base_rows.also_name(tx, name, other)


def bases(settings: Config) -> list[Object]:
    """Return every base as the API shows it, and where it is served. Raises Error(UNAVAILABLE)."""
    database = open_app(settings).database
    others = base_rows.other_names(database)
    of: dict[str, list[Replica]] = defaultdict(list)
    for replica in replicas.list_all(database):
        of[replica.base].append(replica)
    return [
        {
            **msgspec.to_builtins(views.base_object(one)),
            "kind": one.kind.value,
            "location": one.location or ", ".join(replica.url for replica in of[one.name]),
            "also_named": [other for other, base in others if base == one.name],
            "rank_max": one.rank_max,
            "has_engine_key": any(
                engine_keys.has(settings.engine_keys, one.name, replica.name)
                for replica in of[one.name]
            ),
        }
        for one in base_rows.list_all(database)
    ]


def _directory(path: str) -> Path:
    """Return a local directory; a hub id is downloaded, if the network and the extra allow it."""
    directory = Path(path)
    if directory.is_dir():
        return directory
    if path.count("/") != 1 or path.startswith((".", "/")):
        raise Error(Kind.INVALID, f"Directory {path} does not exist.", param="path")
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415  comes with the local extra
    except ImportError as error:
        raise Error(
            Kind.INVALID,
            f"Directory {path} does not exist. To download it from the hub: pip install 'tunewarden[local]'.",
        ) from error
    try:
        # Weights and tokenizer only: nothing executable.
        found = snapshot_download(
            path, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
        )
    except (OSError, ValueError) as error:
        raise Error(
            Kind.INVALID,
            f"There is no directory {path}, and the hub could not be reached for it.",
            param="path",
        ) from error
    return Path(found)


# The data directory


def copy_database(settings: Config, file: Path) -> None:
    """Write a consistent copy of the database; a server may be running.

    Raises Error(INVALID) for a place in the data directory, Error(CONFLICT) for a file that is no database,
    Error(UNAVAILABLE).
    """
    if file.resolve().is_relative_to(settings.data.resolve()):
        raise Error(Kind.INVALID, "A copy belongs outside the data directory.", param="file")
    open_app(settings).database.copy_to(file)


def adopt_keyring(settings: Config, *, is_dry_run: bool) -> int:
    """Accept an older keyring; return how many keys were, or would be, erased again.

    Raises Error(CONFLICT) if a server is running.
    """
    with existing_with_no_server(settings):
        found = recovery(open_app(settings, migrate=True))
        return len(found.keys_to_erase_again()) if is_dry_run else found.adopt_keyring()


@dataclass(frozen=True, slots=True)
class KeyRotated:
    """The fingerprints of the log's signing keys; `new_key` is None before a rotation. `entry`: that of the hand-over.

    `entry` is None before the end of a rotation that was interrupted, since the log may have it already.
    """

    key: str
    new_key: str | None
    entry: int | None


def log_key_to_rotate(settings: Config) -> KeyRotated:
    """Return what a rotation of the log's signing key would replace; nothing is changed.

    Raises Error(CONFLICT) if a server is running, or before there is a log; Error(UNAVAILABLE).
    """
    with existing_with_no_server(settings):
        app = open_app(settings)
        app.log_opening.check_exists()
        log, signer = app.open_log()
        entry = None if app.log_opening.is_rotation_interrupted() else log.size()
        return KeyRotated(signer.key.digest(), None, entry)


def rotate_log_key(settings: Config) -> KeyRotated:
    """Replace the log's signing key; or complete a rotation that was interrupted.

    Raises Error(CONFLICT) if a server is running, or before there is a log; Error(UNAVAILABLE).
    """
    with existing_with_no_server(settings):
        app = open_app(settings, migrate=True)
        opening = app.log_opening
        opening.check_exists()  # recovery makes one
        # The database must have seen the whole log.
        done = recover(app) or opening.rotate_key(app.clock)
        chain = opening.open()[1].chain
        return KeyRotated(chain.of_entry(done.index).digest(), done.key.digest(), done.index)


def let_expire(settings: Config) -> bool:
    """Resume expiry after the clock jumped; False if it was not paused."""
    app = open_app(settings)
    return expiry_pause.resume(app.database, app.clock)


def log_keys(settings: Config) -> tuple[bytes, bytes]:
    """Return the first public key of the deletion log, in PEM, and the hand-overs from it on."""
    chain = open_app(settings).open_log()[1].chain
    return chain.first.pem(), chain.document()
