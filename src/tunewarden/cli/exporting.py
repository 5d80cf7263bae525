"""Exporting a model: its archive becomes a directory, all of it or nothing."""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import click

from tunewarden.cli import client
from tunewarden.cli.client import Object
from tunewarden.errors import Error, Kind
from tunewarden.registry.imports import CONFIG_NAME, WEIGHTS_NAME

NAMES = (CONFIG_NAME, WEIGHTS_NAME)
MIB = 1024 * 1024


def export(model_id: str, to: Path | None, data: Path | None) -> Object:
    """Export a model into a new directory; return what is in it. Raises Error; then no directory is left.

    While it is received, the archive needs as much room again.
    """
    target = Path(re.sub(r"[^A-Za-z0-9._-]", "-", model_id)) if to is None else to
    if os.path.lexists(target):
        raise Error(
            Kind.CONFLICT,
            f"{target} is there already. Nothing was exported. Name another directory with --to.",
        )
    with _staged(target) as staging:
        archive = staging / "archive"
        with client.opened(data) as server, archive.open("xb") as file, _shown() as count:

            def keep(piece: bytes) -> None:
                file.write(piece)
                count(len(piece))

            server.stream("models", model_id, "content", into=keep)
        files = _unpacked(archive, staging)
        # Of a directory that was made in the meantime, an empty one is replaced, and any other is not.
        staging.rename(target)
    return {"id": model_id, "object": "model.export", "directory": str(target), "files": files}


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """Yield a new directory beside `target`, which is removed after the block unless it was renamed."""
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _unpacked(archive: Path, directory: Path) -> list[Object]:
    """Replace an archive by its two files, durably; return their names, sizes and digests."""
    try:
        with ZipFile(archive) as opened:
            found = [_written(opened, name, directory / name) for name in NAMES]
    except (BadZipFile, KeyError) as error:  # a file that is not there
        raise Error(Kind.UNAVAILABLE, f"What was received is no whole export: {error}.") from error
    archive.unlink()
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return found


def _written(archive: ZipFile, name: str, path: Path) -> Object:
    with archive.open(name) as source, path.open("x+b") as file:
        shutil.copyfileobj(source, file, MIB)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        digest = file_digest(file, "sha256").hexdigest()
        return {"name": name, "bytes": path.stat().st_size, "sha256": digest}


@contextmanager
def _shown() -> Iterator[Callable[[int], None]]:
    """Yield what counts received bytes, and shows the sum on a terminal."""
    received, shown = 0, -1

    def count(size: int) -> None:
        nonlocal received, shown
        received += size
        if sys.stderr.isatty() and received // MIB != shown:
            shown = received // MIB
            click.echo(f"\r{shown} MiB received", err=True, nl=False)

    try:
        yield count
    finally:
        if shown >= 0:
            click.echo("\r\033[K", err=True, nl=False)
