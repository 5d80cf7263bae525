"""What is at the source: models, jobs, checkpoints and files, until when they answer, and what is gone already.

The inventory is JSON. It has ids, names, settings and times, and nothing of what files or answers hold; of a job's
error only the code, for its message may quote the training data.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from typing import Any

from tunewarden.clock import Clock, iso
from tunewarden.errors import Error, Kind
from tunewarden.migration import deadlines, values
from tunewarden.migration.source import Object, Source

NAME = "inventory"
FILES_PAGE = 1000
LISTED = "listed"
GONE = "gone"
TEXTS_OF_JOB = (
    "id",
    "status",
    "model",
    "fine_tuned_model",
    "training_file",
    "validation_file",
)


class Missing:
    """What cannot be had any more: each thing once, with the reason and with what needs it."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Object] = {}

    def add(self, kind: str, name: str, reason: str, needed_by: str) -> None:
        """Note that something is missing."""
        entry = {"kind": kind, "id": name, "reason": reason, "needed_by": []}
        needing = self._found.setdefault((kind, name), entry)["needed_by"]
        if needed_by not in needing:
            needing.append(needed_by)

    def listed(self) -> list[Object]:
        """Return what is missing, models first."""
        order = ("model", "base", "checkpoints", "file")
        return sorted(self._found.values(), key=lambda one: (order.index(one["kind"]), one["id"]))


def read(source: Source, clock: Clock, shown: Callable[[str, int, int], None]) -> Object:
    """Return the inventory of a source; `shown` receives what is being read, the count so far, and the total.

    Raises Error.
    """
    shown("models", 0, 0)
    models = {str(one["id"]): one for one in source.everything("models")}
    shown("files", 0, 0)
    files = {str(one["id"]): one for one in source.listed("files", limit=FILES_PAGE)}
    shown("jobs", 0, 0)
    found = list(source.listed("fine_tuning", "jobs"))
    missing = Missing()
    jobs = []
    for count, job in enumerate(found, 1):
        shown("jobs", count, len(found))
        jobs.append({**_job(job), "checkpoints": _checkpoints(source, job, missing)})
    _note_chains(jobs)
    now = clock.now()
    return {
        "source": source.address.url,
        "read_at": iso(now),
        "jobs": jobs,
        "models": _models(source, jobs, models, missing),
        "files": _files(source, jobs, files, now, missing),
        "missing": missing.listed(),
    }


def by_deadline(inventory: Mapping[str, Any]) -> list[Object]:
    """Return the models, those that stop first at the beginning; without a known day last, the oldest first."""
    never = date.max.isoformat()
    models: list[Object] = inventory["models"]
    return sorted(
        models, key=lambda one: (one["shutdown_on"] or never, one["created_at"] or 0, one["id"])
    )


def files_of(job: Mapping[str, Any]) -> list[str]:
    """Return the ids of a job's files: training, validation, results."""
    named = [job["training_file"], job["validation_file"], *job["result_files"]]
    return [one for one in named if one]


def _job(job: Object) -> Object:
    texts = {name: values.text(job.get(name)) for name in TEXTS_OF_JOB}
    results, error = job.get("result_files"), job.get("error")
    suffix = values.text(job.get("user_provided_suffix"))
    return {
        **texts,
        "created_at": values.seconds(job.get("created_at")),
        "finished_at": values.seconds(job.get("finished_at")),
        "trained_tokens": values.count(job.get("trained_tokens")),
        "seed": values.count(job.get("seed")),
        "metadata": job.get("metadata"),
        "integrations": job.get("integrations"),
        "method": job.get("method") or {"type": "supervised"},
        # Older jobs have them here, newer ones within the method.
        "hyperparameters": job.get("hyperparameters"),
        "suffix": suffix or _suffix(texts["fine_tuned_model"]),
        "result_files": [one for one in results if values.text(one)]
        if isinstance(results, list)
        else [],
        "error_code": values.text(error.get("code")) if isinstance(error, dict) else None,
    }


def _suffix(model: str | None) -> str | None:
    """Return the suffix that a model's id shows; None without one."""
    pieces = (model or "").split(":")
    return pieces[3] or None if pieces[0] == "ft" and len(pieces) > 4 else None


def _checkpoints(source: Source, job: Object, missing: Missing) -> list[Object]:
    path = ("fine_tuning", "jobs", str(job["id"]), "checkpoints")
    try:
        found = list(source.listed(*path))
    except Error as error:
        if error.kind in {Kind.UNAVAILABLE, Kind.QUOTA_EXCEEDED, Kind.UNAUTHENTICATED}:
            raise
        missing.add("checkpoints", str(job["id"]), "the source does not show them", str(job["id"]))
        return []
    return [
        {
            "id": one["id"],
            "model": values.text(one.get("fine_tuned_model_checkpoint")),
            "step": values.count(one.get("step_number")),
            "created_at": values.seconds(one.get("created_at")),
            "metrics": one.get("metrics"),
        }
        for one in found
    ]


def _note_chains(jobs: Iterable[Object]) -> None:
    """Note in each job which other job made the model that it went on from."""
    jobs = list(jobs)
    made = {one["model"]: job["id"] for job in jobs for one in job["checkpoints"]}
    made |= {job["fine_tuned_model"]: job["id"] for job in jobs if job["fine_tuned_model"]}
    for job in jobs:
        job["continues"] = made.get(job["model"]) if job["model"] else None


def _models(
    source: Source, jobs: list[Object], listed: Mapping[str, Object], missing: Missing
) -> list[Object]:
    """Return every fine-tuned model that a job made or that is listed; checkpoints stand with their jobs."""
    makers = {job["fine_tuned_model"]: job for job in jobs if job["fine_tuned_model"]}
    checkpoints = {one["model"] for job in jobs for one in job["checkpoints"]}
    tuned = (name for name in listed if deadlines.is_fine_tuned(name) and name not in checkpoints)
    names = dict.fromkeys([*makers, *tuned])
    found = []
    for name in names:
        base, job = deadlines.base_of(name), makers.get(name)
        needing = job["id"] if job else name
        is_there = name in listed or source.find("models", name) is not None
        if not is_there:
            missing.add("model", name, "deleted, or not offered to this key", needing)
        elif base not in listed:
            missing.add("base", base, "not among the models that are offered to this key", name)
        shutdown = None if source.address.azure_version else deadlines.shutdown_of(base)
        found.append(
            {
                "id": name,
                "base": base,
                "created_at": values.seconds(listed.get(name, {}).get("created"))
                or (job or {}).get("finished_at"),
                "job": job["id"] if job else None,
                "state": LISTED if is_there else GONE,
                "shutdown_on": shutdown.isoformat() if shutdown else None,
            }
        )
    return found


def _files(
    source: Source,
    jobs: list[Object],
    listed: Mapping[str, Object],
    now: datetime,
    missing: Missing,
) -> list[Object]:
    """Return the files of all jobs, and those that are for fine-tuning without a job yet."""
    needing: dict[str, list[str]] = {}
    for job in jobs:
        for name in files_of(job):
            needing.setdefault(name, []).append(job["id"])
    for name, one in listed.items():
        if str(one.get("purpose")).startswith("fine-tune"):
            needing.setdefault(name, [])
    found = []
    for name, users in needing.items():
        file = listed.get(name) or source.find("files", name)
        reason = "deleted or expired" if file is None else _why_gone(file, now)
        if reason is not None:
            for user in users or [name]:
                missing.add("file", name, reason, user)
        if file is not None:
            found.append(
                {
                    "id": name,
                    "filename": values.text(file.get("filename")),
                    "purpose": values.text(file.get("purpose")),
                    "bytes": values.count(file.get("bytes")),
                    "created_at": values.seconds(file.get("created_at")),
                    "expires_at": values.seconds(file.get("expires_at")),
                    "used_by": users,
                    "state": GONE if reason else LISTED,
                }
            )
    return found


def _why_gone(file: Object, now: datetime) -> str | None:
    expires = values.seconds(file.get("expires_at"))
    if expires is not None and expires <= now.timestamp():
        return f"expired on {values.day(expires)}"
    return None
