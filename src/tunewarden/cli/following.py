"""Follows a job: prints its events, oldest first, until it ends.

On a terminal metrics update a progress bar below the other events; elsewhere each event is a line of text.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

import click

from tunewarden.cli.client import Client, Object
from tunewarden.cli.output import plain, show_json, shown_time
from tunewarden.clock import Clock
from tunewarden.errors import Error, Kind
from tunewarden.finetuning.states import ENDED

# The path of jobs below `/v1`.
JOBS = ("fine_tuning", "jobs")
POLL_SECONDS = 0.5
PAGE_SIZE = 1000
# A server may restart while its job is followed.
SILENCE_SECONDS = 300.0


class View(Protocol):
    """An output for events."""

    def say(self, line: str) -> None:
        """Print a message."""

    def tell(self, event: Object) -> None:
        """Show an event."""

    def update(self, job: Object) -> None:
        """Update the job's status."""


def follow(
    client: Client, job_id: str, stream: TextIO, clock: Clock, *, as_json: bool = False
) -> Object:
    """Print a job's events until it has ended; return the finished job. Raises Error.

    `as_json` prints each event as the API has it, an object on a line of standard output.
    """
    last: str | None = None
    silent_since: float | None = None
    has_answered = False
    with _view(stream, clock, as_json=as_json) as view:
        while True:
            try:
                # Read the job first: all events before its end are then included.
                job = client.get(*JOBS, job_id)
                for event in newer(client, job_id, last):
                    last = event["id"]
                    view.tell(event)
                silent_since, has_answered = None, True
                view.update(job)
                if job["status"] in ENDED:
                    return job
            except Error as error:
                if error.kind is not Kind.UNAVAILABLE or not has_answered:
                    raise
                if silent_since is None:
                    silent_since = clock.monotonic()
                    view.say("The server does not respond. Waiting …")
                elif clock.monotonic() - silent_since > SILENCE_SECONDS:
                    raise
            clock.sleep(POLL_SECONDS)


def newer(client: Client, job_id: str, last: str | None) -> list[Object]:
    """Return the events after `last`, or all of them, oldest first."""
    found: list[Object] = []
    after: str | None = None
    # Many at the beginning, then mostly none or one.
    size = PAGE_SIZE if last is None else 20
    while True:
        page = client.get(*JOBS, job_id, "events", after=after, limit=size)
        for event in page["data"]:
            if event["id"] == last:
                return found[::-1]
            found.append(event)
        if not page["has_more"]:
            return found[::-1]
        after, size = page["data"][-1]["id"], PAGE_SIZE


def line_of(event: Object) -> str:
    """Return an event as a line of text."""
    level = "" if event["level"] == "info" else f"{event['level']}: "
    text = f"{shown_time(event['created_at'])} {level}{event['message']}"
    accuracy = (event.get("data") or {}).get("train_mean_token_accuracy")
    return plain(text if accuracy is None else f"{text}, accuracy={accuracy:.2f}")


def status_of(job: Object) -> str:
    """Return a job's status for people: OpenAI's have no word for a job that is paused."""
    if job.get("paused") and job["status"] not in ENDED:
        return "pausing" if job["status"] == "running" else "paused"
    return str(job["status"])


@contextmanager
def _view(stream: TextIO, clock: Clock, *, as_json: bool) -> Iterator[View]:
    if as_json:
        yield _JsonLines(stream)
        return
    if not stream.isatty():
        yield _Lines(stream)
        return
    with _bar(stream, clock) as view:
        yield view


class _Lines:
    """A pipe or a file: plain lines, no control characters."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def say(self, line: str) -> None:
        """Print a message."""
        click.echo(line, err=True)

    def tell(self, event: Object) -> None:
        """Show an event."""
        click.echo(line_of(event), file=self._stream)

    def update(self, job: Object) -> None:
        """Show nothing: each change has its event."""


class _JsonLines(_Lines):
    """A program: each event as an object on a line of its own."""

    def tell(self, event: Object) -> None:
        """Show an event."""
        show_json(event, is_line=True)


@contextmanager
def _bar(stream: TextIO, clock: Clock) -> Iterator[View]:
    from rich import progress  # noqa: PLC0415  only where there is a terminal
    from rich.console import Console  # noqa: PLC0415  likewise
    from rich.text import Text  # noqa: PLC0415  likewise

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=None),
        progress.TextColumn("{task.fields[metrics]}", markup=False),
    )
    console = Console(file=stream, highlight=False)
    bar = progress.Progress(
        *columns, console=console, expand=True, redirect_stdout=False, redirect_stderr=False
    )

    class Bar:
        """A terminal: events scroll by above a bar with the newest metrics."""

        def __init__(self) -> None:
            self._task = bar.add_task("", total=None, metrics="")
            self._metrics = ""

        def say(self, line: str) -> None:
            """Print a message."""
            console.print(Text(line), soft_wrap=True)

        def tell(self, event: Object) -> None:
            """Show an event: metrics in the bar, any other above it."""
            data = event.get("data")
            if event["type"] != "metrics" or not data:
                self.say(line_of(event))
                return
            bar.update(self._task, completed=data["step"], total=data["total_steps"])
            self._metrics = _metrics(data)

        def update(self, job: Object) -> None:
            """Update the job's status."""
            left = _time_left(job, clock)
            bar.update(
                self._task, description=plain(status_of(job)), metrics=f"{self._metrics}{left}"
            )

    with bar:
        yield Bar()


def _metrics(data: Object) -> str:
    shown = f"{data['step']}/{data['total_steps']}  loss {data['train_loss']:.3f}"
    for name, title in (
        ("valid_loss", "validation loss"),
        ("train_mean_token_accuracy", "accuracy"),
    ):
        if data.get(name) is not None:
            shown += f"  {title} {data[name]:.3f}"
    return plain(shown)


def _time_left(job: Object, clock: Clock) -> str:
    at = job.get("estimated_finish")
    if at is None or job["status"] != "running":
        return ""
    seconds = max(0, round(at - clock.now().timestamp()))
    return f"  {seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left"
