"""Jobs of the source are made again here, each once, whatever is killed; those that went on from others after these.

What a killed command made is found again: in the state, else by the metadata of jobs, which name the source's job. A
request that is still on its way then and the next one have the same key, and the server makes one job of both.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tunewarden.clock import Clock
from tunewarden.errors import Error, Kind
from tunewarden.finetuning.states import ENDED
from tunewarden.migration.remaking import SUCCEEDED, Wanted
from tunewarden.migration.state import Object, State
from tunewarden.migration.target import Trainer
from tunewarden.migration.waiting import Patience, Pauses

NAME = "retrain"
POLL_SECONDS = 0.5
# A job that is not made, and why not; a model that was deleted here.
REFUSED, WAITING, DELETED = "refused", "waiting", "deleted"
# What is wrong with one job; anything else ends the command.
OF_ONE_JOB = frozenset({Kind.INVALID, Kind.NOT_FOUND, Kind.CONFLICT})
Result = TypeVar("Result")
Say = Callable[[str], None]


@dataclass(slots=True)
class Made:
    """What became of a job of the source."""

    wanted: Wanted
    status: str = WAITING
    job: str | None = None
    model: str | None = None
    reason: str | None = None
    # What is not carried over.
    notes: list[str] = field(default_factory=list)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will become of it."""
        return self.status in ENDED or self.status in {REFUSED, DELETED}

    def refuse(self, reason: str) -> None:
        """Note why it is not made."""
        self.status, self.reason = REFUSED, reason


@dataclass(slots=True)
class Retraining:
    """Makes jobs in the target, and waits until they have ended."""

    trainer: Trainer
    state: State
    clock: Clock
    # The target's ids of files of the source, and whether a job that failed here is made once more.
    saved_as: Callable[[str | None], str | None]
    is_retrying: bool
    say: Say
    _entries: Object = field(init=False)

    def __post_init__(self) -> None:
        self._entries = (self.state.read(NAME) or {}).get("jobs", {})

    def planned(self, wanted: Sequence[Wanted]) -> list[Made]:
        """Return what is known of each job, and what prevents it; nothing is made. Raises Error."""
        all_made: dict[str, Made] = {}
        for one in wanted:
            made = all_made[one.job] = Made(one, notes=list(one.notes))
            if one.validation_file and self.saved_as(one.validation_file) is None:
                made.notes.append(f"its validation file {one.validation_file} is not saved here")
            self._find(made)
            if made.job is None:
                self._check(made, all_made)
        return list(all_made.values())

    def run(
        self, wanted: Sequence[Wanted], shown: Callable[[str, int, int], None]
    ) -> Sequence[Made]:
        """Make every job, and return when all have ended. Raises Error; a run after that goes on."""
        planned = self.planned(wanted)
        by_job = {one.wanted.job: one for one in planned}
        while True:
            for one in planned:
                self._advance(one, by_job)
            ended = sum(one.has_ended for one in planned)
            shown("jobs", ended, len(planned))
            if ended == len(planned):
                return planned
            self.clock.sleep(POLL_SECONDS)

    def _check(self, made: Made, earlier: Mapping[str, Made]) -> None:
        """Refuse what cannot be made."""
        wanted = made.wanted
        parent = earlier.get(wanted.continues or "")
        if wanted.refusal:
            made.refuse(wanted.refusal)
        elif self.saved_as(wanted.training_file) is None:
            made.refuse(f"its training file {wanted.training_file} is not saved here")
        elif wanted.continues is None and not self.trainer.knows(wanted.base):
            made.refuse(_without_base(wanted))
        elif parent is not None:
            _check_parent(made, parent)

    def _advance(self, made: Made, by_job: Mapping[str, Made]) -> None:
        if made.has_ended:
            return
        if made.job is not None:
            job_id = made.job
            self._take(made, self._patiently(lambda: self.trainer.job(job_id)))
            return
        parent = by_job.get(made.wanted.continues or "")
        if parent is None:
            self._make(made, made.wanted.base)
        elif parent.model is not None:
            self._make(made, parent.model)
        else:
            _check_parent(made, parent)

    def _make(self, made: Made, model: str) -> None:
        """Make a job, unless an earlier attempt did. It stays as it is where the target has too many."""
        wanted = made.wanted
        files = {"training_file": self.saved_as(wanted.training_file)}
        if validation := self.saved_as(wanted.validation_file):
            files["validation_file"] = validation
        fields = {**wanted.fields, **files, "model": model}
        try:
            job = self._patiently(lambda: self._made_once(wanted.job, fields))
        except Error as error:
            if error.kind is Kind.RATE_LIMITED:
                return
            if error.kind not in OF_ONE_JOB:
                raise
            made.refuse(error.message)
            return
        self.say(f"{wanted.job} is made again as {job['id']}, on {job['model']}.")
        for note in made.notes:
            self.say(f"{wanted.job}: {note}.")
        self._take(made, job)

    def _find(self, made: Made) -> None:
        """Take a job that was made before."""
        known = self._entries.get(made.wanted.job, {}).get("job")
        job = self._patiently(lambda: self._known(known))
        if job is None:
            job = self._last(self._patiently(lambda: self.trainer.jobs_of(made.wanted.job)))
        if job is None or (self.is_retrying and _has_failed(job)):
            return
        self._take(made, job)

    def _known(self, job_id: str | None) -> Object | None:
        """Return a job of the state; None if this server does not have it, which is another one then."""
        if job_id is None:
            return None
        try:
            return self.trainer.job(job_id)
        except Error as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            return None

    def _made_once(self, source_job: str, fields: Object) -> Object:
        """Return the job of one of the source, which is made if there is none."""
        earlier = self.trainer.jobs_of(source_job)
        # Also a request that is still on its way, of a command that was killed, makes no second one.
        request_key = f"migrate {source_job} {len(earlier)}"
        return self._last(earlier) or self.trainer.make_job(fields, request_key)

    def _last(self, jobs: Sequence[Object]) -> Object | None:
        """Return the newest job, but for those that are made once more."""
        return next((one for one in jobs if not (self.is_retrying and _has_failed(one))), None)

    def _take(self, made: Made, job: Object) -> None:
        """Note how far a job is; when it has ended, describe its model."""
        made.job, status = job["id"], job["status"]
        if status == SUCCEEDED and self._describe(made, job):
            made.model = job["fine_tuned_model"]
        elif status == SUCCEEDED:
            made.reason, status = "its model was deleted here, and is not made again", DELETED
        elif status in ENDED:
            said = (job.get("error") or {}).get("message") or f"it was {status}"
            made.reason = f"{said.removesuffix('.')}. --retry-failed makes it once more"
        entry = {"job": made.job, "status": status, "model": made.model}
        if self._entries.get(made.wanted.job) != entry:
            self._note(made.wanted.job, entry)
        made.status = status

    def _describe(self, made: Made, job: Object) -> bool:
        """Let a model say where it comes from; return False if it was deleted."""
        if job.get("fine_tuned_model_deleted"):
            return False
        model, said = job["fine_tuned_model"], made.wanted.fields["metadata"]
        try:
            self._patiently(lambda: self.trainer.describe(model, said))
        except Error as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            return False
        return True

    def _note(self, source_job: str, entry: Object) -> None:
        self._entries[source_job] = entry
        self.state.write(NAME, {"jobs": self._entries})

    def _patiently(self, call: Callable[[], Result]) -> Result:
        """Call the target until it answers: it may restart while its jobs run. Raises what it does."""
        patience = Patience(Pauses(self.clock, self.say))
        while True:
            try:
                return call()
            except Error as error:
                if error.kind is not Kind.UNAVAILABLE:
                    raise
                patience.wait("The target server does not answer")


def models_made(state: State) -> dict[str, str]:
    """Return the new model of each job of the source that was made again."""
    noted = (state.read(NAME) or {}).get("jobs", {})
    return {job: one["model"] for job, one in noted.items() if one.get("model")}


def _without_base(wanted: Wanted) -> str:
    """Return what is wrong, and what helps: with a name that was mapped, it is the right side that is not there."""
    if wanted.base == wanted.base_there:
        return f"there is no '{wanted.base}' here: map it with --map {wanted.base}=…"
    return (
        f"there is no '{wanted.base}' here, to which {wanted.base_there} is mapped: map that to a base of this server,"
        " as `tunewarden models list` shows it, or add it with `tunewarden bases add`"
    )


def _check_parent(made: Made, parent: Made) -> None:
    """Refuse a job whose beginning there will not be."""
    if parent.has_ended and parent.status != SUCCEEDED:
        made.refuse(f"it goes on from {parent.wanted.job}, which has no model here")


def _has_failed(job: Object) -> bool:
    return job["status"] in ENDED and job["status"] != SUCCEEDED
