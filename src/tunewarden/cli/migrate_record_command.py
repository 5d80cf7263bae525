"""`migrate openai record`: what the source's models answer now becomes sealed files here."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import click

from tunewarden.cli.migrate_options import Migration, opened, source_options, target_of
from tunewarden.cli.migration_target import HttpTarget
from tunewarden.cli.options import data_option, json_option, refusing, yes_option
from tunewarden.cli.output import show_json, show_table
from tunewarden.errors import Error, Kind
from tunewarden.migration import prompts, record
from tunewarden.migration.answers import PURPOSE
from tunewarden.migration.download import Downloads
from tunewarden.migration.record import Outcome, Recording, Work
from tunewarden.migration.state import Object
from tunewarden.migration.target import Origin, UploadGone

# With questions and answers, within what a file can be derived from (registry/lineage.py).
LEARNED_FROM_MAX = 14
OWN_PROMPTS = "prompts"
VALIDATION, TRAINING = "validation", "training"


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what chooses models and questions, and how they are asked."""
    options = (
        click.option("--model", "models", multiple=True, help="Only this model; may be repeated."),
        click.option(
            "--prompts",
            "path",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="Questions of your own, a JSON Lines file as training data is; it is sealed here first.",
        ),
        click.option(
            "--from",
            "kind",
            type=click.Choice([VALIDATION, TRAINING]),
            help="Which file of its job a model is asked from. [default: validation if it has one, else training]",
        ),
        click.option(
            "--last",
            type=click.IntRange(1),
            default=100,
            show_default=True,
            help="How many examples, from the end of the file.",
        ),
        click.option(
            "--max-tokens",
            type=click.IntRange(1),
            default=1024,
            show_default=True,
            help="The longest answer.",
        ),
        click.option(
            "--concurrency",
            type=click.IntRange(1, 64),
            default=4,
            show_default=True,
            help="How many questions at once.",
        ),
        click.option(
            "--deployment",
            "deployments",
            multiple=True,
            metavar="MODEL=NAME",
            help="Azure: the deployment of a model, where it has another name.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(
    "record",
    epilog="\b\nExample:\n  tunewarden migrate openai record --source-key-file openai.key --last 50 --yes",
)
@source_options
@_options
@yes_option
@json_option
@data_option
@refusing
def record_command(
    *,
    models: Sequence[str],
    path: Path | None,
    kind: str | None,
    last: int,
    max_tokens: int,
    concurrency: int,
    deployments: Sequence[str],
    data: Path | None,
    yes: bool,
    as_json: bool,
    **where: Any,
) -> None:
    """Ask the models that still answer, and keep what they say: what a new model can be compared with.

    Each is asked from its own data: temperature 0, a seed, logprobs where it shows them. Without --yes it says what
    that takes, and asks nothing. What was answered before is not asked again.
    """
    with (
        opened(**where, deployments=_named(deployments)) as migration,
        target_of(migration.state, data, source=migration.source) as server,
    ):
        target = HttpTarget(server)
        recording = Recording(
            migration.source, target, migration.state, migration.clock, max_tokens, concurrency
        )
        chosen = record.models_of(migration.inventory(), models)
        _say_unknown(migration, models, chosen)
        questions = _Questions(migration, target, last)
        if path is None:
            work = questions.of_jobs(chosen, kind)
        else:
            work = questions.of_file(chosen, path, is_to_be_sealed=yes)
        taken = recording.estimate(work)
        migration.shown.say(
            f"{len(work)} models, {taken.requests} requests, about {taken.tokens} tokens, about"
            f" {taken.seconds / 60:.0f} minutes ({concurrency} at once)."
        )
        if not yes:
            migration.shown.say("Nothing was asked. Add --yes to ask.")
            if as_json:
                show_json({"models": [one.model for one in work], **asdict(taken)})
            return
        outcome = recording.run(work, migration.shown.count, migration.shown.say)
        migration.shown.end()
        _show(outcome, as_json=as_json)


class _Questions:
    """What is asked of each model, from files that are sealed in the target."""

    def __init__(self, migration: Migration, target: HttpTarget, last: int) -> None:
        self._migration = migration
        self._target = target
        self._last = last
        self._read: dict[str, list[prompts.Prompt]] = {}
        self._downloads = Downloads(
            migration.source, target, migration.state, migration.shown.count
        )

    def of_jobs(self, models: Sequence[Object], kind: str | None) -> list[Work]:
        """Return questions from the files of each model's job; models without one are named."""
        migration, downloads = self._migration, self._downloads
        jobs = {job["id"]: job for job in migration.inventory()["jobs"]}
        work = []
        for model in models:
            job = jobs.get(model["job"]) or {}
            kinds = [kind] if kind else [VALIDATION, TRAINING]
            named = [downloads.saved_as(job.get(f"{one}_file")) for one in kinds]
            there = (one for one in named if one and self._target.has_file(one))
            file = next(there, None)
            if file is None:
                migration.shown.say(
                    f"{model['id']} has no saved {' or '.join(kinds)} file: run `download`, or give --prompts."
                )
            elif questions := self._of(file):
                work.append(self._work(model, file, questions))
            else:
                migration.shown.say(f"{model['id']} is not asked: {file} has no chats.")
        return work

    def of_file(self, models: Sequence[Object], path: Path, *, is_to_be_sealed: bool) -> list[Work]:
        """Return the questions of a local file for every model; it becomes a sealed file if it is to. Raises Error."""
        content = path.read_bytes()
        questions = prompts.read(content, last=self._last)
        if not questions:
            raise Error(Kind.INVALID, f"{path.name} has no chats to ask.", param="file")
        file = self._sealed(path.name, content, is_to_be_sealed=is_to_be_sealed)
        return [self._work(one, file, questions) for one in models]

    def _work(self, model: Object, file: str, questions: list[prompts.Prompt]) -> Work:
        """Return what a model is asked; its answers go when a file goes that it learned from."""
        named = record.learned_from(self._migration.inventory(), model)
        saved = [here for one in named if (here := self._downloads.saved_as(one))]
        if len(saved) > LEARNED_FROM_MAX:
            self._migration.shown.say(
                f"{model['id']} learned from {len(saved)} files: its answers go with the newest {LEARNED_FROM_MAX} only."
            )
            saved = saved[:LEARNED_FROM_MAX]
        return Work(model["id"], file, questions, saved)

    def _of(self, file: str) -> list[prompts.Prompt]:
        if file not in self._read:
            tail = prompts.Tail(self._last)
            self._target.stream(file, tail.feed)
            self._read[file] = tail.end()
        return self._read[file]

    def _sealed(self, name: str, content: bytes, *, is_to_be_sealed: bool) -> str:
        """Return the target's id of a local file, empty if it has none yet and is not to be sealed now."""
        digest = hashlib.sha256(content).hexdigest()
        known = self._migration.state.read(OWN_PROMPTS) or {"files": {}}
        file: str = known["files"].get(digest, "")
        if (file and self._target.has_file(file)) or not is_to_be_sealed:
            return file
        try:
            file = self._completed(known, digest, len(content))
        except UploadGone:
            upload = self._target.begin_upload(name, PURPOSE, len(content))
            part = self._target.add_part(upload, len(content), BytesIO(content).read)
            # Before it is completed: a killed command's file is found again, and not made twice.
            known["uploads"] = {**known.get("uploads", {}), digest: [upload, part]}
            self._migration.state.write(OWN_PROMPTS, known)
            file = self._completed(known, digest, len(content))
        known["files"][digest] = file
        known["uploads"].pop(digest)
        self._migration.state.write(OWN_PROMPTS, known)
        return file

    def _completed(self, known: Object, digest: str, size: int) -> str:
        """Complete the upload that the state knows of these questions. Raises UploadGone, also if it knows none."""
        begun = known.get("uploads", {}).get(digest)
        if begun is None:
            raise UploadGone
        upload, part = begun
        return self._target.complete(upload, [part], size, Origin([], "prompts"))


def _named(deployments: Sequence[str]) -> dict[str, str]:
    named = {}
    for one in deployments:
        model, equals, name = one.rpartition("=")
        if not equals or not model or not name:
            raise click.UsageError(f"--deployment {one}: give MODEL=NAME.")
        named[model] = name
    return named


def _say_unknown(migration: Migration, wanted: Sequence[str], chosen: Sequence[Object]) -> None:
    known = {one["id"] for one in chosen}
    for model in wanted:
        if model not in known:
            migration.shown.say(f"{model} is not in the inventory, or is gone.")


def _show(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        show_json(
            {
                "answered": outcome.answered,
                "refused": outcome.refused,
                "gone": outcome.gone,
                "no_chats": outcome.no_chats,
                "files": outcome.files,
                "lost": outcome.lost,
            }
        )
    else:
        rows = [(model, count, outcome.refused[model]) for model, count in outcome.answered.items()]
        show_table(("model", "answers", "refused"), rows)
