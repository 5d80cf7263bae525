"""A data directory that one process has to itself: a server, or a command that needs none to run."""

from collections.abc import Iterator
from contextlib import contextmanager

from tunewarden.config import Config
from tunewarden.errors import Error, Kind
from tunewarden.locks import ByteLocks


def check_exists(config: Config) -> None:
    """Check that this is a data directory; nothing is created. Raises Error(UNAVAILABLE)."""
    if not config.database.exists():
        raise Error(
            Kind.UNAVAILABLE,
            f"{config.data} is not a data directory. Create one with `tunewarden serve --data {config.data}`.",
        )


@contextmanager
def existing_with_no_server(config: Config) -> Iterator[None]:
    """Hold a data directory that must exist exclusively. Raises Error(UNAVAILABLE), Error(CONFLICT)."""
    check_exists(config)
    with with_no_server(config):
        yield


@contextmanager
def with_no_server(config: Config) -> Iterator[None]:
    """Hold a data directory exclusively. Raises Error(CONFLICT) if a server runs on it."""
    for directory in (config.data, config.run):  # `mode` applies to the last component only
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = ByteLocks(config.run / "server.lock")
    try:
        if not lock.try_exclusive(0):
            raise Error(Kind.CONFLICT, f"A server is already running on {config.data}.")
        yield
    finally:
        lock.close()
