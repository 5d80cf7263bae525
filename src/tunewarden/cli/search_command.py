"""`tunewarden files search`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import click

from tunewarden.cli import client
from tunewarden.cli.client import Client, Object
from tunewarden.cli.exit_codes import ExitCode
from tunewarden.cli.options import data_option, json_option, refusing
from tunewarden.cli.output import plain, show_json
from tunewarden.errors import Error, Kind

TEXT_BYTES_MAX = 256 * 1024


@click.command("search", epilog="\b\nExample:\n  tunewarden files search --text-file texts.txt")
@click.option(
    "--text-file",
    type=click.File("rb"),
    required=True,
    help="A file whose lines are the texts; - reads them from standard input.",
)
@json_option
@data_option
@refusing
def files_search(text_file: BinaryIO, data: Path | None, *, as_json: bool) -> None:
    """Look for texts in all files of the organization: file, line, number of the text, reading, name of the file.

    Owners only. Case, accents, width and the kind of white space do not matter. A reading is how the text stands there:
    as_written, or only with the escapes of json or of the web (HTML, percent-encoding) resolved. The texts are in no
    argument, log or audit event. Exit status 1 if a file could not be read to its end.
    """
    show = _Shown(as_json=as_json)
    with client.opened(data) as server:
        after, has_more = None, True
        texts = _texts(text_file)
        while has_more:
            summary = _one(server, {"texts": texts, "after": after}, show.take)
            after, has_more = summary["after"], not summary["is_complete"]
    show.end()
    if show.incomplete:
        raise click.exceptions.Exit(ExitCode.FAILED)


def _texts(file: BinaryIO) -> list[str]:
    """Return the lines that are not empty. Raises click.UsageError, which quotes none."""
    content = file.read(TEXT_BYTES_MAX + 1)
    if len(content) > TEXT_BYTES_MAX:
        raise click.UsageError(f"--text-file has more than {TEXT_BYTES_MAX >> 10} KiB.")
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise click.UsageError("--text-file is not UTF-8.") from error
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise click.UsageError("--text-file has no text.")
    return texts


def _one(server: Client, fields: Object, take: Callable[[Object], object]) -> Object:
    """Search in one request; return its summary. Raises Error(UNAVAILABLE) without one."""
    rest = b""
    summary: Object | None = None

    def into(piece: bytes) -> None:
        nonlocal rest, summary
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            found = json.loads(line)
            if found["object"] == "file.search.summary":
                summary = found
            take(found)

    server.lines("POST", "files", "search", fields=fields, into=into)
    if summary is None:
        raise Error(
            Kind.UNAVAILABLE,
            "The search was cut off, so it found less than there may be. Is the key still an Owner's? Try again.",
        )
    return summary


class _Shown:
    """Prints what a search found as it comes: lines for people, or for programs; progress on a terminal's standard error."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._files = 0
        self._matches = 0
        self.incomplete = 0

    def take(self, line: Object) -> None:
        """Print one line of the response."""
        kind = line["object"].rpartition(".")[2]
        if kind == "summary":
            self._files += line["files"]
        self._matches += kind == "match"
        self.incomplete += kind == "incomplete"
        if self._as_json:
            show_json(line, is_line=True)
        elif kind == "match":
            where = "name" if line["line"] is None else line["line"]
            found = (line["file"], where, line["text"], line["reading"], plain(line["filename"]))
            click.echo("\t".join(map(str, found)))
        elif kind == "incomplete":
            click.echo(f"{line['file']} was not searched to its end: {line['code']}", err=True)
        elif kind == "progress" and sys.stderr.isatty():
            said = f"{line['files']} of {line['of_files']} files, {line['bytes'] >> 20} MiB"
            click.echo(f"\r\x1b[K{said}", err=True, nl=False)

    def end(self) -> None:
        """Say how much there was."""
        if not self._as_json:
            is_terminal = sys.stderr.isatty()
            start = "\r\x1b[K" if is_terminal else ""
            click.echo(f"{start}{self._matches} lines in {self._files} files", err=True)
