"""Golden answers: what each model of the source says to questions from its own data, while it still answers."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from tunewarden.clock import Clock
from tunewarden.errors import Error, Kind
from tunewarden.migration import asking, inventory
from tunewarden.migration.answers import Answers, Where
from tunewarden.migration.asking import Asker, ModelGone, NoChats
from tunewarden.migration.prompts import Prompt
from tunewarden.migration.source import Object, Source
from tunewarden.migration.state import State
from tunewarden.migration.target import Target
from tunewarden.migration.waiting import Patience, Pauses

# About what an answer takes at OpenAI, to say how long it will take.
ANSWER_SECONDS = 2.0
# How often a model is asked what is left: again where answers were lost, but not for ever.
ROUNDS_MAX = 2


@dataclass(frozen=True, slots=True)
class Work:
    """What one model is to be asked: the questions of a file of the target; and the files there that it learned from."""

    model: str
    prompts_file: str
    prompts: Sequence[Prompt]
    learned_from: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Estimate:
    """What asking takes, about."""

    requests: int
    tokens: int
    seconds: float


@dataclass(slots=True)
class Outcome:
    """What became of it: counts by model, models that did not answer, files of answers, and what was lost."""

    answered: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    no_chats: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Recording:
    """Asks models of the source and seals their answers in the target, several questions at a time."""

    source: Source
    target: Target
    state: State
    clock: Clock
    answer_tokens_max: int
    concurrency: int

    def left(self, work: Work) -> list[Prompt]:
        """Return the questions that have not been answered yet."""
        answered = self._answers(work).answered
        return [one for one in work.prompts if one.line not in answered]

    def estimate(self, work: Sequence[Work]) -> Estimate:
        """Return what asking what is left takes."""
        prompts = [prompt for one in work for prompt in self.left(one)]
        tokens = sum(one.tokens(self.answer_tokens_max) for one in prompts)
        return Estimate(len(prompts), tokens, len(prompts) * ANSWER_SECONDS / self.concurrency)

    def run(
        self,
        work: Sequence[Work],
        shown: Callable[[str, int, int], None],
        say: Callable[[str], None],
    ) -> Outcome:
        """Ask every model what is left, one model after the other. Raises Error; what was answered by then is kept."""
        outcome = Outcome()
        for one in work:
            answers = self._answers(one)
            try:
                self._ask_all(one, answers, outcome, shown, say)
            except ModelGone:
                outcome.gone.append(one.model)
                say(f"{one.model} is gone: the source has no such model for this key any more.")
            except NoChats:
                outcome.no_chats.append(one.model)
                say(f"{one.model} {self._why_no_chats()}")
            finally:
                outcome.refused[one.model] = len(answers.refused)
                outcome.answered[one.model] = len(answers.answered - answers.refused)
                outcome.files += answers.files
        return outcome

    def _answers(self, work: Work) -> Answers:
        where = Where(
            self.source.address.url,
            work.model,
            work.prompts_file,
            learned_from=work.learned_from,
        )
        return Answers(where, self.state, self.target, self.clock)

    def _why_no_chats(self) -> str:
        if self.source.address.azure_version is None:
            return "answers no chat completions at the source (status 404)."
        return "has no deployment of that name: give --deployment MODEL=NAME."

    def _ask_all(
        self,
        work: Work,
        answers: Answers,
        outcome: Outcome,
        shown: Callable[[str, int, int], None],
        say: Callable[[str], None],
    ) -> None:
        """Ask one model what is left, and again what expired. Raises ModelGone, NoChats, Error."""
        answers.close()
        for asked in range(ROUNDS_MAX + 1):
            lost = answers.take_lost()
            if lost:
                say(
                    f"{lost} answers of {work.model} have expired unfinished; they are asked for again."
                )
                outcome.lost += lost
            left = [one for one in work.prompts if one.line not in answers.answered]
            if not left:
                return
            if asked < ROUNDS_MAX:
                asker = Asker(self.source, work.model, self.answer_tokens_max, answers.without)
                asking_it = _Asking(self.source, asker, work, answers, say)
                asking_it.run(left, self.concurrency, shown)
        raise Error(
            Kind.UNAVAILABLE,
            f"Uploads at the target end before they are complete: {len(left)} answers of {work.model} are missing.",
        )


@dataclass(slots=True)
class _Asking:
    """One model that is being asked, and the questions that are in flight."""

    source: Source
    asker: Asker
    work: Work
    answers: Answers
    say: Callable[[str], None]
    running: dict[Future[Object], Prompt] = field(default_factory=dict)

    def run(
        self, left: Sequence[Prompt], concurrency: int, shown: Callable[[str, int, int], None]
    ) -> None:
        """Ask what is left. Raises ModelGone, NoChats, Error; what was in flight is kept."""
        todo = iter(left)
        pauses = Pauses(self.source.pauses.clock, self.say)
        with ThreadPoolExecutor(concurrency, "asking") as pool:
            try:
                for prompt in islice(todo, concurrency):
                    self.running[pool.submit(self.asker.ask, prompt)] = prompt
                while self.running:
                    shown(self.work.model, len(self.answers.answered), len(self.work.prompts))
                    for finished in wait(self.running, return_when=FIRST_COMPLETED).done:
                        self._keep(finished, Patience(pauses))
                        for prompt in islice(todo, 1):
                            self.running[pool.submit(self.asker.ask, prompt)] = prompt
            except BaseException as error:
                if not isinstance(error, ModelGone | NoChats):
                    # The other models are not asked either: no thread waits for a limit to end.
                    self.source.pauses.stop()
                self._end()
                raise
        self.answers.close()

    def _end(self) -> None:
        """Keep what is in flight, if it can be: it will be answered, and paid for."""
        try:
            if not all(one.done() for one in self.running):
                self.say("Waiting for answers that are on their way; Ctrl-C gives them up.")
            finished = wait(self.running).done
        except BaseException:
            self.source.disconnect()
            raise
        for one in finished:
            # The interruption may have come while one of them was being kept.
            if self.running[one].line not in self.answers.answered:
                with suppress(Error, ModelGone, NoChats):
                    self._keep(one, None)
        with suppress(Error):
            self.answers.close()

    def _keep(self, finished: Future[Object], patience: Patience | None) -> None:
        """Seal an answer that has come. Raises what asking did, and Error."""
        prompt, answered = self.running[finished], finished.result()
        line = asking.line(
            answered,
            model=self.work.model,
            prompts_file=self.work.prompts_file,
            number=prompt.line,
        )
        is_refusal = answered["status"] != 200
        self.answers.add(
            prompt.line, line, patience, without=self.asker.without, is_refusal=is_refusal
        )
        del self.running[finished]


def models_of(found: Mapping[str, Any], chosen: Sequence[str]) -> list[Object]:
    """Return the models of an inventory that may be asked, those that stop first at the beginning."""
    return [
        one
        for one in inventory.by_deadline(found)
        if one["state"] == inventory.LISTED and (not chosen or one["id"] in chosen)
    ]


def learned_from(found: Mapping[str, Any], model: Object) -> list[str]:
    """Return the training files of a model's job and of those that it went on from, the newest first."""
    jobs = {one["id"]: one for one in found["jobs"]}
    files: list[str] = []
    job = jobs.pop(model["job"], None)
    while job is not None:
        files.append(job["training_file"])
        job = jobs.pop(job["continues"], None)
    return files
