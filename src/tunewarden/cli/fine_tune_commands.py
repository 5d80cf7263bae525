"""Commands about fine-tuning jobs."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any, TextIO

import click

from tunewarden.cli import client, following, training_files
from tunewarden.cli.client import Client, Object
from tunewarden.cli.exit_codes import ExitCode
from tunewarden.cli.following import JOBS
from tunewarden.cli.options import (
    data_option,
    dry_run_option,
    json_option,
    limit_option,
    refusing,
)
from tunewarden.cli.output import plain, say_if_more, show_json, show_table, shown_time
from tunewarden.clock import SystemClock
from tunewarden.finetuning import creation, curves
from tunewarden.finetuning.states import ENDED

TIMES = frozenset({"created_at", "finished_at", "estimated_finish"})


@click.group(
    epilog="\b\nExample:\n  tunewarden fine-tunes create --model demo-base --file chats.jsonl --follow"
)
def fine_tunes() -> None:
    """Fine-tuning jobs."""


@fine_tunes.command(
    "create",
    epilog=(
        "\b\nExamples:\n"
        "  tunewarden fine-tunes create --model demo-base --file chats.jsonl --suffix support -f\n"
        "  tunewarden fine-tunes create --model ft:demo-base:… --file file-… --method dpo --beta 0.1"
    ),
)
@click.option("--model", required=True, help="A base model, or a fine-tuned one to continue from.")
@click.option(
    "--file",
    "training",
    required=True,
    metavar="PATH|FILE_ID",
    help="The training data: a JSON Lines file, or the id of an uploaded one.",
)
@click.option("--validation", metavar="PATH|FILE_ID", help="The validation data, likewise.")
@click.option("--suffix", help="A readable name, part of the model's id.")
@click.option(
    "--method",
    type=click.Choice(["supervised", "dpo"]),
    default="supervised",
    show_default=True,
    help="dpo trains on pairs of a preferred and a rejected answer.",
)
@click.option("--epochs", type=int, help="Passes over the data. [default: auto]")
@click.option("--batch-size", type=int, help="Examples per step. [default: auto]")
@click.option(
    "--learning-rate-multiplier", type=float, help="Scales the learning rate. [default: auto]"
)
@click.option(
    "--beta",
    type=float,
    help="dpo only: strength of the pull towards the start model. [default: auto]",
)
@click.option("--seed", type=int, help="The seed of the data's order.")
@click.option("--follow", "-f", is_flag=True, help="Show its progress until it ends.")
@json_option
@data_option
@refusing
def fine_tunes_create(
    *,
    training: str,
    validation: str | None,
    epochs: int | None,
    batch_size: int | None,
    learning_rate_multiplier: float | None,
    beta: float | None,
    data: Path | None,
    follow: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Create a job and print its id, alone on its line; with --json, the job (with --follow, the finished job).

    A local file is validated line by line before it is uploaded. With --follow the exit status is 0 if
    the job succeeded, 1 if it failed or was cancelled; Ctrl-C stops following, not the job.
    """
    fields = _fields(
        chosen,
        n_epochs=epochs,
        batch_size=batch_size,
        learning_rate_multiplier=learning_rate_multiplier,
        beta=beta,
    )
    # Validate these before anything is read or sent.
    creation.parse({**fields, "training_file": training})
    with client.opened(data) as server:
        fields |= training_files.brought_in(server, fields, training, validation)
        job = server.post(*JOBS, fields=fields)
        if not as_json:
            click.echo(job["id"])
        _say_if_unserved(server)
        if follow:
            job = _followed(server, job["id"], sys.stderr, data)
    if as_json:
        show_json(job)
    if follow:
        _end_as(job)


@fine_tunes.command("list", epilog="\b\nExample:\n  tunewarden fine-tunes list --limit 5")
@limit_option
@json_option
@data_option
@refusing
def fine_tunes_list(limit: int | None, data: Path | None, *, as_json: bool) -> None:
    """List jobs, newest first: id, status, model, fine-tuned model, creation time."""
    with client.opened(data) as server:
        found = server.pages(*JOBS, limit=limit)
    say_if_more(found)
    if as_json:
        show_json(found)
        return
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
            for job in found["data"]
        ],
    )


@fine_tunes.command("show", epilog="\b\nExample:\n  tunewarden fine-tunes show ftjob-…")
@click.argument("job_id")
@json_option
@data_option
@refusing
def fine_tunes_show(job_id: str, data: Path | None, *, as_json: bool) -> None:
    """Show one job and its checkpoints."""
    with client.opened(data) as server:
        job = server.get(*JOBS, job_id)
        checkpoints = server.pages(*JOBS, job_id, "checkpoints", limit=None)
    if as_json:
        show_json({**job, "checkpoints": checkpoints})
        return
    for name, value in {**job, "status": following.status_of(job)}.items():
        click.echo(f"{name}: {_value(name, value)}")
    for one in reversed(checkpoints["data"]):
        gone = " (deleted)" if one.get("deleted") else ""
        step, model = one["step_number"], plain(one["fine_tuned_model_checkpoint"])
        click.echo(f"checkpoint: step {step} {model}{gone} {json.dumps(one['metrics'])}")


@fine_tunes.command("events", epilog="\b\nExample:\n  tunewarden fine-tunes events ftjob-… -f")
@click.argument("job_id")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job ends.")
@json_option
@data_option
@refusing
def fine_tunes_events(job_id: str, data: Path | None, *, follow: bool, as_json: bool) -> None:
    """Show a job's events, oldest first.

    With --follow a terminal shows a bar with the loss and the time left below them. The exit status is
    then 0 if the job succeeded, 1 if it failed or was cancelled; Ctrl-C stops following, not the job.
    With --json each event is an object on a line of its own.
    """
    with client.opened(data) as server:
        if follow:
            if server.get(*JOBS, job_id)["status"] not in ENDED:
                _say_if_unserved(server)
            _end_as(_followed(server, job_id, sys.stdout, data, as_json=as_json))
            return
        for event in following.newer(server, job_id, None):
            if as_json:
                show_json(event, is_line=True)
            else:
                click.echo(following.line_of(event))


@fine_tunes.command("metrics", epilog="\b\nExample:\n  tunewarden fine-tunes metrics ftjob-…")
@click.argument("job_id")
@click.option(
    "--points",
    type=click.IntRange(curves.POINTS_MIN, curves.POINTS_MAX),
    default=curves.POINTS_DEFAULT,
    show_default=True,
    help="Show at most so many values of each curve.",
)
@json_option
@data_option
@refusing
def fine_tunes_metrics(job_id: str, data: Path | None, *, points: int, as_json: bool) -> None:
    """Show a job's curves: step, training and validation loss, training and validation accuracy.

    Of each bucket of steps a curve has its least and its greatest value, so that no peak is lost.
    """
    with client.opened(data) as server:
        found = server.get(*JOBS, job_id, "metrics", points=points)
    if as_json:
        show_json(found)
        return
    names = ("train_loss", "valid_loss", "train_mean_token_accuracy", "valid_mean_token_accuracy")
    values = {name: {one["step"]: one["value"] for one in found[name]} for name in names}
    steps = sorted(set().union(*values.values()))
    show_table(
        ("step", "loss", "validation loss", "accuracy", "validation accuracy"),
        [(step, *(_figure(values[name].get(step)) for name in names)) for step in steps],
    )


@fine_tunes.command("cancel", epilog="\b\nExample:\n  tunewarden fine-tunes cancel ftjob-…")
@click.argument("job_id")
@dry_run_option
@json_option
@data_option
@refusing
def fine_tunes_cancel(job_id: str, data: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Cancel a job and print its status. Its checkpoints stay until they are deleted."""
    with client.opened(data) as server:
        if dry_run:
            _show_status(server.get(*JOBS, job_id), as_json=as_json)
            click.echo("This was a dry run. Nothing was cancelled.", err=True)
            return
        job = server.post(*JOBS, job_id, "cancel")
        if job["finished_at"] is None:
            click.echo(
                "Its trainer is still shutting down; that continues in the background.", err=True
            )
            _say_if_unserved(server)
    _show_status(job, as_json=as_json)


@fine_tunes.command("pause", epilog="\b\nExample:\n  tunewarden fine-tunes pause ftjob-…")
@click.argument("job_id")
@json_option
@data_option
@refusing
def fine_tunes_pause(job_id: str, data: Path | None, *, as_json: bool) -> None:
    """Pause a job and print its status. A running job saves its state first."""
    with client.opened(data) as server:
        _show_status(server.post(*JOBS, job_id, "pause"), as_json=as_json)


@fine_tunes.command("resume", epilog="\b\nExample:\n  tunewarden fine-tunes resume ftjob-…")
@click.argument("job_id")
@json_option
@data_option
@refusing
def fine_tunes_resume(job_id: str, data: Path | None, *, as_json: bool) -> None:
    """Resume a paused job from its saved state, when its turn comes; print its status."""
    with client.opened(data) as server:
        job = server.post(*JOBS, job_id, "resume")
        _say_if_unserved(server)
    _show_status(job, as_json=as_json)


def _show_status(job: Object, *, as_json: bool) -> None:
    if as_json:
        show_json(job)
    else:
        click.echo(following.status_of(job))


def _fields(chosen: Object, **hyperparameters: float | None) -> Object:
    """Return the request's body, without options that were not given."""
    given = {name: value for name, value in hyperparameters.items() if value is not None}
    method = chosen.pop("method")
    fields = {name: value for name, value in chosen.items() if value is not None}
    return fields | {"method": {"type": method, method: {"hyperparameters": given}}}


def _followed(
    server: Client, job_id: str, stream: TextIO, data: Path | None, *, as_json: bool = False
) -> Object:
    """Follow a job to its end; return it. Raises click.exceptions.Exit on Ctrl-C."""
    try:
        return following.follow(server, job_id, stream, SystemClock(), as_json=as_json)
    except KeyboardInterrupt as interrupt:
        where = "" if data is None else f" --data {shlex.quote(str(data))}"
        click.echo(
            f"\nThe job continues. To follow it again: tunewarden fine-tunes events {job_id} -f{where}",
            err=True,
        )
        raise click.exceptions.Exit(ExitCode.INTERRUPTED) from interrupt


def _end_as(job: Object) -> None:
    """Raise click.ClickException unless the job succeeded."""
    if job["status"] == "succeeded":
        click.echo(f"Succeeded: {plain(job['fine_tuned_model'])}", err=True)
        return
    if job["status"] == "cancelled":
        raise click.ClickException(f"{job['id']} was cancelled.")
    why = (job.get("error") or {}).get("message") or "No reason was given."
    raise click.ClickException(f"{job['id']} failed: {plain(why)}")


def _say_if_unserved(server: Client) -> None:
    if not server.is_served():
        click.echo(
            "No server is running on this data directory; the job continues when one is.", err=True
        )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _fine_tuned(job: Object) -> str:
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
