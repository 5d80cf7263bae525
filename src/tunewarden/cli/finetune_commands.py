"""Commands about fine-tuning jobs."""

import json
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from tunewarden.cli.options import data_option, plain, refusing, show_table, shown_time

if TYPE_CHECKING:
    from tunewarden.cli.job_doors import JobDoor
    from tunewarden.cli.local_files import LocalFile

FILE_PREFIX = "file-"
TIMES = frozenset({"created_at", "finished_at", "estimated_finish"})
INTERRUPTED = 130  # what a shell expects of a command that Ctrl-C has ended


@click.group(
    epilog="\b\nExample:\n  tunewarden finetune create --model demo-base --file chats.jsonl --follow"
)
def finetune() -> None:
    """Fine-tuning jobs. Uses OPENAI_BASE_URL and OPENAI_API_KEY, or --data."""


@finetune.command(
    "create",
    epilog=(
        "\b\nExamples:\n"
        "  tunewarden finetune create --model demo-base --file chats.jsonl --suffix support -f\n"
        "  tunewarden finetune create --model ft:demo-base:… --file file-… --method dpo --beta 0.1"
    ),
)
@click.option("--model", required=True, help="A base model, or a fine-tuned one to go on from.")
@click.option(
    "--file",
    "training",
    required=True,
    metavar="PATH|FILE_ID",
    help="The training data: a JSON Lines file, or the id of one that was uploaded.",
)
@click.option("--validation", metavar="PATH|FILE_ID", help="Data to measure it by, likewise.")
@click.option("--suffix", help="A name for people; it stands in the model's id.")
@click.option(
    "--method",
    type=click.Choice(["supervised", "dpo"]),
    default="supervised",
    show_default=True,
    help="dpo learns from pairs of a preferred and another answer.",
)
@click.option("--epochs", type=int, help="How often it sees the data. [default: auto]")
@click.option("--batch-size", type=int, help="Examples a step. [default: auto]")
@click.option(
    "--learning-rate-multiplier", type=float, help="Above 1 learns faster. [default: auto]"
)
@click.option("--beta", type=float, help="dpo only: how near it stays. [default: auto]")
@click.option("--seed", type=int, help="The same seed gives the same order of the data.")
@click.option("--follow", "-f", is_flag=True, help="Show its progress until it ends.")
@data_option
@refusing
def finetune_create(
    *,
    training: str,
    validation: str | None,
    epochs: int | None,
    batch_size: int | None,
    learning_rate_multiplier: float | None,
    beta: float | None,
    data: Path | None,
    follow: bool,
    **chosen: Any,
) -> None:
    """Create a job and print its id, alone on its line.

    A local file is checked line by line before it is uploaded. With --follow the exit status is 0 if
    the job succeeded, 1 if it failed or was cancelled; Ctrl-C ends the following, not the job.
    """
    from tunewarden.cli import job_doors  # noqa: PLC0415
    from tunewarden.finetuning import creation  # noqa: PLC0415

    fields = _fields(
        chosen,
        n_epochs=epochs,
        batch_size=batch_size,
        learning_rate_multiplier=learning_rate_multiplier,
        beta=beta,
    )
    # What is wrong with these is said before anything is read or sent.
    creation.parse({**fields, "training_file": training})
    with job_doors.opened(data) as door:
        fields |= _brought_in(door, fields, training, validation)
        job_id = door.create(fields)["id"]
        click.echo(job_id)
        _say_if_unserved(door)
        if follow:
            _follow(door, job_id, sys.stderr, data)


@finetune.command("list", epilog="\b\nExample:\n  tunewarden finetune list --limit 5")
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="How many to show, newest first.",
)
@data_option
@refusing
def finetune_list(limit: int, data: Path | None) -> None:
    """List jobs, newest first: id, status, model, fine-tuned model, creation time."""
    from tunewarden.cli import following, job_doors  # noqa: PLC0415

    with job_doors.opened(data) as door:
        show_table(
            ("id", "status", "model", "fine-tuned model", "created"),
            [
                (
                    job["id"],
                    following.status_of(job),
                    job["model"],
                    _fine_tuned(job),
                    shown_time(job["created_at"]),
                )
                for job in door.jobs(limit)
            ],
        )


@finetune.command("show", epilog="\b\nExample:\n  tunewarden finetune show ftjob-…")
@click.argument("job_id")
@data_option
@refusing
def finetune_show(job_id: str, data: Path | None) -> None:
    """Show one job and its checkpoints."""
    from tunewarden.cli import following, job_doors  # noqa: PLC0415

    with job_doors.opened(data) as door:
        job = door.job(job_id)
        for name, value in {**job, "status": following.status_of(job)}.items():
            click.echo(f"{name}: {_value(name, value)}")
        for one in reversed(door.checkpoints(job_id)):
            gone = " (deleted)" if one.get("deleted") else ""
            step, model = one["step_number"], plain(one["fine_tuned_model_checkpoint"])
            click.echo(f"checkpoint: step {step} {model}{gone} {json.dumps(one['metrics'])}")


@finetune.command("events", epilog="\b\nExample:\n  tunewarden finetune events ftjob-… -f")
@click.argument("job_id")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job ends.")
@data_option
@refusing
def finetune_events(job_id: str, data: Path | None, *, follow: bool) -> None:
    """Show what a job has told, oldest first.

    With --follow a terminal shows a bar with the loss and the time left below them. The exit status is
    then 0 if the job succeeded, 1 if it failed or was cancelled; Ctrl-C ends the following, not the job.
    """
    from tunewarden.cli import following, job_doors  # noqa: PLC0415
    from tunewarden.finetuning.jobs import ENDED  # noqa: PLC0415

    with job_doors.opened(data) as door:
        if follow:
            if door.job(job_id)["status"] not in ENDED:
                _say_if_unserved(door)
            _follow(door, job_id, sys.stdout, data)
            return
        for event in following.newer(door, job_id, None):
            click.echo(following.line_of(event))


@finetune.command("cancel", epilog="\b\nExample:\n  tunewarden finetune cancel ftjob-…")
@click.argument("job_id")
@data_option
@refusing
def finetune_cancel(job_id: str, data: Path | None) -> None:
    """Cancel a job and print its status. Its checkpoints stay until they are deleted."""
    from tunewarden.cli import following, job_doors  # noqa: PLC0415

    with job_doors.opened(data) as door:
        job = door.cancel(job_id)
        if job["finished_at"] is None:
            click.echo("Its trainer is still being ended; that goes on by itself.", err=True)
            _say_if_unserved(door)
        click.echo(following.status_of(job))


@finetune.command("pause", epilog="\b\nExample:\n  tunewarden finetune pause ftjob-…")
@click.argument("job_id")
@data_option
@refusing
def finetune_pause(job_id: str, data: Path | None) -> None:
    """Pause a job and print its status. One that runs saves its state first."""
    from tunewarden.cli import following, job_doors  # noqa: PLC0415

    with job_doors.opened(data) as door:
        click.echo(following.status_of(door.pause(job_id)))


@finetune.command("resume", epilog="\b\nExample:\n  tunewarden finetune resume ftjob-…")
@click.argument("job_id")
@data_option
@refusing
def finetune_resume(job_id: str, data: Path | None) -> None:
    """Let a paused job go on from where it was, when its turn comes; print its status."""
    from tunewarden.cli import following, job_doors  # noqa: PLC0415

    with job_doors.opened(data) as door:
        job = door.resume(job_id)
        _say_if_unserved(door)
        click.echo(following.status_of(job))


def _fields(chosen: dict[str, Any], **hyperparameters: float | None) -> dict[str, Any]:
    """Return the body of a request, without what was not given."""
    given = {name: value for name, value in hyperparameters.items() if value is not None}
    method = chosen.pop("method")
    fields = {name: value for name, value in chosen.items() if value is not None}
    return fields | {"method": {"type": method, method: {"hyperparameters": given}}}


def _brought_in(
    door: "JobDoor", fields: dict[str, Any], training: str, validation: str | None
) -> dict[str, str]:
    """Return the ids of the files: local ones are checked, all of them, and then uploaded."""
    from tunewarden.cli import local_files  # noqa: PLC0415
    from tunewarden.finetuning.hyperparameters import Method  # noqa: PLC0415
    from tunewarden.registry import file_rules  # noqa: PLC0415

    named = {"training_file": training, "validation_file": validation}
    ids: dict[str, str] = {}
    local: dict[str, LocalFile] = {}
    with ExitStack() as open_files:
        for name, text in named.items():
            if text is None:
                continue
            path = Path(text)
            if _exists(path):
                local[name] = open_files.enter_context(local_files.opened(path))
                file_rules.check_name(path.name, file_rules.FINE_TUNE)
            elif text.startswith(FILE_PREFIX):
                ids[name] = text
            else:
                raise click.UsageError(f"There is no file {plain(text)}.")
        if local:
            _check_model(door, fields["model"])
        method = Method(fields["method"]["type"])
        counts = {name: local[name].check(method, file=name.partition("_")[0]) for name in local}
        for name, file in local.items():
            with file.shown("Uploading"):
                ids[name] = door.upload(file, file_rules.FINE_TUNE)["id"]
            click.echo(f"{plain(file.name)}: {counts[name]} examples, {ids[name]}", err=True)
    return ids


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long for a file's
        return False


def _check_model(door: "JobDoor", model: str) -> None:
    """Raise Error(NOT_FOUND) if there is no such model, before files are uploaded for it."""
    from tunewarden.errors import Error, Kind  # noqa: PLC0415

    try:
        door.model(model)
    except Error as error:
        # A restricted key may create jobs, and yet not see models.
        if error.kind is Kind.NOT_FOUND:
            raise


def _follow(door: "JobDoor", job_id: str, stream: TextIO, data: Path | None) -> None:
    """Follow a job to its end. Raises click.ClickException unless it has succeeded."""
    from tunewarden.cli import following  # noqa: PLC0415
    from tunewarden.clock import SystemClock  # noqa: PLC0415

    try:
        job = following.follow(door, job_id, stream, SystemClock())
    except KeyboardInterrupt as interrupt:
        where = "" if data is None else f" --data {shlex.quote(str(data))}"
        click.echo(
            f"\nThe job goes on. To follow it again: tunewarden finetune events {job_id} -f{where}",
            err=True,
        )
        raise click.exceptions.Exit(INTERRUPTED) from interrupt
    if job["status"] == "succeeded":
        click.echo(f"Succeeded: {plain(job['fine_tuned_model'])}", err=True)
        return
    if job["status"] == "cancelled":
        raise click.ClickException(f"{job_id} was cancelled.")
    why = (job.get("error") or {}).get("message") or "It does not say why."
    raise click.ClickException(f"{job_id} failed: {plain(why)}")


def _say_if_unserved(door: "JobDoor") -> None:
    if not door.is_served():
        click.echo(
            "No server is running on this data directory; the job goes on when one is.", err=True
        )


def _fine_tuned(job: dict[str, Any]) -> str:
    name = job["fine_tuned_model"]
    if name is None:
        return "-"
    return f"{name} (deleted)" if job.get("fine_tuned_model_deleted") else str(name)


def _value(name: str, value: object) -> str:
    if name in TIMES and isinstance(value, int):
        return shown_time(value)
    if isinstance(value, dict | list):
        return json.dumps(value)
    return "-" if value is None else plain(value)
