"""New models answer what the old ones were asked: both answers and their figures become sealed files of the target.

The files are written as recorded answers are (`answers`), so that a command that is killed goes on.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from tunewarden.clock import Clock
from tunewarden.errors import Error, Kind
from tunewarden.migration import figures
from tunewarden.migration.answers import PREFIX as ANSWERS
from tunewarden.migration.answers import Answers, Where
from tunewarden.migration.state import State
from tunewarden.migration.target import Target
from tunewarden.migration.waiting import Patience, Pauses

Object = dict[str, Any]
PREFIX = "comparison"
# What an engine may be for a while; anything else is this question's answer.
TRIED_AGAIN = frozenset({Kind.UNAVAILABLE, Kind.RATE_LIMITED, Kind.TOO_SLOW, Kind.ENGINE_FAILED})


class Chats(Protocol):
    """Models of the target."""

    def ask(self, request: Object) -> Object:
        """Return a chat completion. Raises Error."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A model of the source and the one that was made again, with the files of what the first one said."""

    model: str
    model_here: str
    prompts_file: str
    answers_files: Sequence[str]


@dataclass(frozen=True, slots=True)
class Comparing:
    """Asks models of the target, and seals what they say beside what was recorded."""

    target: Target
    chats: Chats
    state: State
    clock: Clock
    source_url: str
    concurrency: int
    say: Callable[[str], None]

    def run(self, pair: Pair, shown: Callable[[str, int, int], None]) -> list[Object]:
        """Compare what is left; return everything that was compared, line by line. Raises Error."""
        for answers_file in pair.answers_files:
            if self.target.has_file(answers_file):
                self._compare(pair, answers_file, shown)
            else:
                self.say(f"{answers_file}, answers of {pair.model}, is not on this server.")
        return [line for file in self.files(pair) for line in self._lines(file)]

    def files(self, pair: Pair) -> list[str]:
        """Return the ids of the report's files, without those that were deleted."""
        files = [file for one in pair.answers_files for file in self._report(pair, one).files]
        return [one for one in files if self.target.has_file(one)]

    def _compare(
        self, pair: Pair, answers_file: str, shown: Callable[[str, int, int], None]
    ) -> None:
        """Compare the answers of one file. Raises Error."""
        report = self._report(pair, answers_file)
        report.close()
        if lost := report.take_lost():
            self.say(
                f"{lost} answers of {pair.model_here} have expired unfinished; they are asked for again."
            )
        done = report.answered
        left = [one for one in self._lines(answers_file) if one["line"] not in done]
        total, todo = len(done) + len(left), iter(left)
        with ThreadPoolExecutor(self.concurrency, "comparing") as pool:
            while some := list(islice(todo, self.concurrency)):
                for golden, here in zip(some, pool.map(self._asker(pair), some), strict=True):
                    self._keep(report, pair, golden, here)
                shown(pair.model_here, len(report.answered), total)
        report.close()

    def _report(self, pair: Pair, answers_file: str) -> Answers:
        where = Where(
            self.source_url,
            pair.model,
            pair.prompts_file,
            PREFIX,
            pair.model_here,
            answers_file,
        )
        return Answers(where, self.state, self.target, self.clock)

    def _lines(self, file: str) -> Iterator[Object]:
        pieces: list[bytes] = []
        self.target.stream(file, pieces.append)
        for line in b"".join(pieces).splitlines():
            yield json.loads(line)

    def _asker(self, pair: Pair) -> Callable[[Object], Object]:
        patience = Patience(Pauses(self.clock, self.say))

        def ask(golden: Object) -> Object:
            request = {**golden["request"], "model": pair.model_here}
            while True:
                try:
                    return {"status": 200, "response": self.chats.ask(request)}
                except Error as error:
                    if error.kind in TRIED_AGAIN:
                        patience.wait(f"{pair.model_here} does not answer")
                    elif error.code == "model_not_found" or error.kind is Kind.NOT_FOUND:
                        raise
                    else:
                        return {"status": error.kind.value, "error": {"code": error.code}}

        return ask

    def _keep(self, report: Answers, pair: Pair, golden: Object, here: Object) -> None:
        line = {
            "line": golden["line"],
            "model": pair.model,
            "model_here": pair.model_here,
            "request": golden["request"],
            "there": {name: golden.get(name) for name in ("status", "response", "error")},
            "here": here,
            "figures": figures.of_pair(golden, here),
        }
        report.add(
            golden["line"],
            json.dumps(line, separators=(",", ":")).encode() + b"\n",
            Patience(Pauses(self.clock, self.say)),
            without=set(),
            is_refusal=here["status"] != 200,
        )


def pairs(state: State, made: dict[str, str]) -> list[Pair]:
    """Return what can be compared: each model of the source that has answers, beside the one that was made again."""
    return [
        Pair(noted["model"], made[noted["model"]], noted["prompts_file"], noted["files"])
        for noted in state.all(f"{ANSWERS}-")
        if noted.get("model") in made and noted["files"]
    ]
