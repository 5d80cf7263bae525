"""What each job of the source becomes here: its base, what is carried over, and what has no counterpart. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tunewarden.clock import iso
from tunewarden.errors import Error
from tunewarden.finetuning import creation, hyperparameters
from tunewarden.finetuning.hyperparameters import Method
from tunewarden.migration import inventory
from tunewarden.registry import metadata, models

Object = dict[str, Any]
SUCCEEDED = "succeeded"
# Metadata of a job and of its model here.
SOURCE_URL = "source_url"
SOURCE_JOB = "source_job"
SOURCE_MODEL = "source_model"
SOURCE_CREATED_AT = "source_created_at"
# A version of a base, which need not be named: gpt-4o-mini-2024-07-18, gpt-3.5-turbo-0613.
DATED = re.compile(r"(.+?)-(\d{4}-\d{2}-\d{2}|\d{4})")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A job to make again. `continues` is the source's job that made the model that it went on from.

    `fields` are the new job's, but for its model and its files. `notes` say what is not carried over.
    """

    job: str
    model: str
    base: str
    continues: str | None
    training_file: str | None
    validation_file: str | None
    fields: Object
    notes: Sequence[str]
    # Why it cannot be made again, if it cannot.
    refusal: str | None = None
    base_there: str = ""


def wanted(
    found: Mapping[str, Any],
    chosen: Sequence[str],
    mapped: Mapping[str, str],
    *,
    with_gone: bool = False,
) -> list[Wanted]:
    """Return the jobs that made the chosen models (without a choice, all that are there), those gone on from first.

    A model that was deleted at the source is made again only if it is chosen, or another one goes on from it.
    """
    order = _Order(found, mapped)
    for model in inventory.by_deadline(found):
        is_there = model["state"] == inventory.LISTED or with_gone
        if model["id"] in chosen or (is_there and not chosen):
            order.add(model["job"])
    return list(order.made.values())


def unused(found: Mapping[str, Any], mapped: Mapping[str, str]) -> list[str]:
    """Return the names of a map that no job of the source was made on, with or without a date."""
    made_on = {str(one["model"]) for one in found["jobs"]}
    made_on |= {dated[1] for one in made_on if (dated := DATED.fullmatch(one))}
    return [name for name in mapped if name not in made_on]


def without_a_job(found: Mapping[str, Any], chosen: Sequence[str]) -> list[str]:
    """Return the chosen models that no job is known of, without a choice all such models."""
    names = [one["id"] for one in found["models"] if one["job"] is None]
    known = {one["id"] for one in found["models"]}
    unknown = [one for one in chosen if one not in known]
    return [one for one in names if not chosen or one in chosen] + unknown


def left_out(found: Mapping[str, Any], made: Iterable[Wanted]) -> list[str]:
    """Return the models whose jobs are not among those that are made, deleted at the source."""
    jobs = {one.job for one in made}
    return [
        one["id"]
        for one in found["models"]
        if one["state"] == inventory.GONE and one["job"] and one["job"] not in jobs
    ]


def base_here(name: str, mapped: Mapping[str, str]) -> str:
    """Return the name here of a model of the source: as mapped, with or without its date, else its own."""
    if name in mapped:
        return mapped[name]
    dated = DATED.fullmatch(name)
    return mapped.get(dated[1], name) if dated else name


class _Order:
    """Jobs in the order in which they can be made."""

    def __init__(self, found: Mapping[str, Any], mapped: Mapping[str, str]) -> None:
        self._found = found
        self._jobs = {one["id"]: one for one in found["jobs"]}
        self._mapped = mapped
        self._path: list[str] = []
        self.made: dict[str, Wanted] = {}

    def add(self, job_id: str | None) -> None:
        """Add a job after the one that it went on from."""
        job = self._jobs.get(job_id or "")
        if job is None or job["id"] in self.made or job["id"] in self._path:
            return
        # A model that is mapped by its own id needs no job.
        parent = None if job["model"] in self._mapped else job["continues"]
        if parent is not None:
            self._path.append(job["id"])
            self.add(parent)
            self._path.pop()
        self.made[job["id"]] = _wanted(self._found, job, self._jobs.get(parent or ""), self._mapped)


def _wanted(
    found: Mapping[str, Any], job: Object, parent: Object | None, mapped: Mapping[str, str]
) -> Wanted:
    notes: list[str] = []
    kind = str((job["method"] or {}).get("type"))
    refusal = None
    if job["status"] != SUCCEEDED or not job["fine_tuned_model"]:
        refusal = f"it has not succeeded at the source ({job['status']})"
    elif kind not in set(Method):
        refusal = f"this server has no method '{kind}'"
    fields: Object = {"metadata": _metadata(found, job, notes)}
    if refusal is None:
        fields["method"] = _method(job, Method(kind), notes)
    allowed = {
        "seed": (job["seed"] or 0) <= creation.SEED_MAX,
        "suffix": _is_suffix(job["suffix"] or ""),
    }
    for name, is_allowed in allowed.items():
        if job[name] is not None and is_allowed:
            fields[name] = job[name]
        elif job[name] is not None:
            notes.append(f"{name} {job[name]} may not be so here")
    if job["integrations"]:
        notes.append("integrations are not offered here")
    if parent is not None and job["model"] != parent["fine_tuned_model"]:
        notes.append(
            f"it went on from a checkpoint, {job['model']}; here it does from the last one"
        )
    return Wanted(
        job["id"],
        job["fine_tuned_model"] or "-",
        base_here(job["model"] or "", mapped),
        parent["id"] if parent is not None else None,
        job["training_file"],
        job["validation_file"],
        fields,
        notes,
        refusal,
        job["model"] or "",
    )


def _method(job: Object, kind: Method, notes: list[str]) -> Object:
    """Return the method with the hyperparameters that there are here, within their ranges."""
    block = job["method"].get(kind)
    within = block.get("hyperparameters") if isinstance(block, dict) else None
    given: Object = {}
    for some in (job["hyperparameters"], within):
        if isinstance(some, dict):
            given |= {name: value for name, value in some.items() if value is not None}
    taken: Object = {}
    for name, value in given.items():
        one = {"type": kind.value, kind.value: {"hyperparameters": {name: value}}}
        try:
            hyperparameters.parse(one, None)
        except Error:
            notes.append(f"{name} {value} has no counterpart here")
        else:
            taken[name] = value
    return {"type": kind.value, kind.value: {"hyperparameters": taken}}


def _metadata(found: Mapping[str, Any], job: Object, notes: list[str]) -> dict[str, str]:
    """Return what says where a job comes from, with its own metadata as far as there is room."""
    ours = {
        SOURCE_URL: found["source"],
        SOURCE_JOB: job["id"],
        SOURCE_MODEL: job["fine_tuned_model"] or "",
    }
    if job["created_at"] is not None:
        ours[SOURCE_CREATED_AT] = iso(datetime.fromtimestamp(job["created_at"], UTC))
    try:
        own = metadata.checked(job["metadata"]) or {}
    except Error:
        own = {}
        notes.append("its metadata may not be so here")
    room = metadata.PAIRS_MAX - len(ours)
    kept = dict([pair for pair in own.items() if pair[0] not in ours][:room])
    if len(kept) < len(own):
        notes.append(f"{len(own) - len(kept)} pairs of its metadata have no room")
    return {name: text[: metadata.VALUE_LENGTH_MAX] for name, text in (kept | ours).items()}


def _is_suffix(text: str) -> bool:
    try:
        models.check_suffix(text)
    except Error:
        return False
    return True
