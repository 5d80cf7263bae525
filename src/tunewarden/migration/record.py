"""Golden answers: what each model of the source says to questions from its own data, while it still answers."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from tunewarden.clock import Clock
from tunewarden.errors import Error
from tunewarden.migration import asking, inventory
from tunewarden.migration.answers import Answers, Where
from tunewarden.migration.asking import Asker, ModelGone
from tunewarden.migration.prompts import Prompt
from tunewarden.migration.source import Object, Source
from tunewarden.migration.state import State
from tunewarden.migration.target import Target

# About what an answer takes at OpenAI, to say how long it will take.
ANSWER_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Work:
    """What one model is to be asked: the questions of a file of the target."""

    model: str
    prompts_file: str
    prompts: Sequence[Prompt]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What asking takes, about."""

    requests: int
    tokens: int
    seconds: float


@dataclass(slots=True)
class Outcome:
    """What became of it: counts of answers by model, models that are gone, files of answers, and what was lost."""

    answered: dict[str, int] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
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
            lost = answers.close()
            if lost:
                say(
                    f"{lost} answers of {one.model} have expired unfinished; they are asked for again."
                )
                outcome.lost += lost
            try:
                self._ask(one, answers, shown)
            except ModelGone:
                outcome.gone.append(one.model)
                say(f"{one.model} is gone: the source has no such model for this key any more.")
            finally:
                outcome.answered[one.model] = len(answers.answered)
                outcome.files += answers.files
        return outcome

    def _answers(self, work: Work) -> Answers:
        where = Where(self.source.address.url, work.model, work.prompts_file)
        return Answers(where, self.state, self.target, self.clock)

    def _ask(self, work: Work, answers: Answers, shown: Callable[[str, int, int], None]) -> None:
        todo = iter(self.left(work))
        asker = Asker(self.source, work.model, self.answer_tokens_max, answers.without)
        running: dict[Future[Object], Prompt] = {}
        done = len(answers.answered)

        def keep(finished: Future[Object]) -> None:
            prompt = running[finished]
            line = asking.line(
                finished.result(),
                model=work.model,
                prompts_file=work.prompts_file,
                number=prompt.line,
            )
            answers.add(prompt.line, line, asker.without)
            del running[finished]

        with ThreadPoolExecutor(self.concurrency, "asking") as pool:
            try:
                for prompt in islice(todo, self.concurrency):
                    running[pool.submit(asker.ask, prompt)] = prompt
                while running:
                    shown(work.model, done, len(work.prompts))
                    for finished in wait(running, return_when=FIRST_COMPLETED).done:
                        keep(finished)
                        done += 1
                        for prompt in islice(todo, 1):
                            running[pool.submit(asker.ask, prompt)] = prompt
            except BaseException:
                # What is in flight will be answered, and paid for: it is kept, if it can be.
                for finished in wait(running).done:
                    # The interruption may have come while one of them was being kept.
                    if running[finished].line not in answers.answered:
                        with suppress(Error, ModelGone):
                            keep(finished)
                with suppress(Error):
                    answers.close()
                raise
        answers.close()


def models_of(found: Mapping[str, Any], chosen: Sequence[str]) -> list[Object]:
    """Return the models of an inventory that may be asked, those that stop first at the beginning."""
    return [
        one
        for one in inventory.by_deadline(found)
        if one["state"] == inventory.LISTED and (not chosen or one["id"] in chosen)
    ]
