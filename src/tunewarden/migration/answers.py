"""Answers on their way into sealed files of the target, and which questions have been answered.

Each answer is a part of an upload, durable before the next question is asked in its place; an upload becomes a file
when it has been open for a while. So a kill loses what is in flight, and nothing that was answered is asked again,
unless the command stays away for so long that the target lets the upload expire: that is counted, and asked again.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from tunewarden.clock import Clock
from tunewarden.errors import Error, Kind
from tunewarden.migration.state import State
from tunewarden.migration.target import Origin, Target, UploadGone
from tunewarden.migration.waiting import Patience

PURPOSE = "user_data"
PREFIX = "answers"
# An upload is closed at the first of these.
ANSWERS_MAX = 200
BYTES_MAX = 48 * 1024 * 1024
OPEN_SECONDS_MAX = 600.0
# What is announced: one answer may go beyond the bound above.
ANNOUNCED_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Where:
    """Whose answers they are: a model of the source, and the target's file of its questions."""

    source_url: str
    model: str
    prompts_file: str
    # Of a comparison: the model here that answers too, and the recorded answers.
    prefix: str = PREFIX
    model_here: str = ""
    answers_file: str = ""
    # Files here that the model learned from, which its answers may quote.
    learned_from: Sequence[str] = ()

    @property
    def name(self) -> str:
        """What the state calls them."""
        text = f"{self.model} {self.prompts_file} {self.model_here} {self.answers_file}".rstrip()
        return f"{self.prefix}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


class Answers:
    """The answers of one model to the questions of one file."""

    def __init__(self, where: Where, state: State, target: Target, clock: Clock) -> None:
        self.where = where
        self._state = state
        self._target = target
        self._clock = clock
        self._opened_at = clock.monotonic()
        empty: dict[str, Any] = {
            "done": [],
            "files": [],
            "upload": None,
            "parts": [],
            "without": [],
            "refused": [],
        }
        named = {"model": where.model, "prompts_file": where.prompts_file}
        self._noted: dict[str, Any] = {**empty, **(state.read(where.name) or named)}
        self._lost = 0

    @property
    def answered(self) -> set[int]:
        """The lines of the questions that have been answered, or refused."""
        return {*self._noted["done"], *(line for line, _, _ in self._noted["parts"])}

    @property
    def refused(self) -> set[int]:
        """The lines of those questions that the model does not take."""
        return set(self._noted["refused"])

    @property
    def without(self) -> set[str]:
        """The parameters that the model has refused."""
        return set(self._noted["without"])

    @property
    def files(self) -> list[str]:
        """The target's ids of the files of answers."""
        return list(self._noted["files"])

    def take_lost(self) -> int:
        """Return how many answers have been lost since the last call, because their upload expired unfinished."""
        lost, self._lost = self._lost, 0
        return lost

    def close(self) -> None:
        """Make what has come a file. Raises Error."""
        if self._noted["upload"] is None:
            return
        try:
            if self._noted["parts"]:
                # A file never has answers that the state does not know: they would be asked for again.
                self._note()
                self._complete()
            else:
                self._noted["upload"] = None
        except UploadGone:
            self._lose()
        self._note()

    def add(
        self,
        number: int,
        line: bytes,
        patience: Patience | None,
        *,
        without: set[str],
        is_refusal: bool,
    ) -> None:
        """Seal an answer durably; wait for a target that does not answer, if there is patience. Raises Error."""
        try:
            part = self._sealed(line, patience)
        except UploadGone:
            # It has waited for too long, the machine was suspended, say.
            self._lose()
            part = self._sealed(line, patience)
        refused = {*self._noted["refused"], *([number] if is_refusal else [])}
        parts = [*self._noted["parts"], [number, part, len(line)]]
        self._noted = {**self._noted, "parts": parts, "refused": sorted(refused)}
        self._noted["without"] = sorted(without)
        self._note()
        parts = self._noted["parts"]
        is_due = self._clock.monotonic() - self._opened_at > OPEN_SECONDS_MAX
        if len(parts) >= ANSWERS_MAX or sum(size for _, _, size in parts) > BYTES_MAX or is_due:
            self.close()

    def _lose(self) -> None:
        """Forget the upload that is gone; what it had is to be asked again."""
        parts = self._noted["parts"]
        self._lost += len(parts)
        gone = {number for number, _, _ in parts}
        refused = [number for number in self._noted["refused"] if number not in gone]
        self._noted = {**self._noted, "upload": None, "parts": [], "refused": refused}

    def _sealed(self, line: bytes, patience: Patience | None) -> str:
        """Return the id of a new part with an answer. Raises Error, UploadGone."""
        if self._noted["upload"] is None:
            self._begin(patience)
        upload = self._noted["upload"]
        return _patiently(
            lambda: self._target.add_part(upload, len(line), BytesIO(line).read), patience
        )

    def _begin(self, patience: Patience | None) -> None:
        count = len(self._noted["files"]) + 1
        name = f"{self.where.prefix}-{self.where.name.rpartition('-')[2]}-{count:03}.jsonl"
        upload = _patiently(
            lambda: self._target.begin_upload(name, PURPOSE, ANNOUNCED_BYTES), patience
        )
        self._noted = {**self._noted, "upload": upload, "parts": []}
        self._opened_at = self._clock.monotonic()
        self._note()

    def _complete(self) -> None:
        parts = self._noted["parts"]
        where = self.where
        made_from = dict.fromkeys((where.answers_file, where.prompts_file, *where.learned_from))
        # Questions may be deleted while what was answered stays.
        there = [one for one in made_from if one and self._target.has_file(one)]
        origin = Origin(there, f"{where.source_url} {where.model}")
        file = self._target.complete(
            self._noted["upload"],
            [part for _, part, _ in parts],
            sum(size for _, _, size in parts),
            origin,
        )
        done = sorted({*self._noted["done"], *(number for number, _, _ in parts)})
        files = [*self._noted["files"], file]
        # At once: an interruption finds all of it changed, or nothing, and then completes the upload again.
        self._noted = {**self._noted, "files": files, "done": done, "upload": None, "parts": []}

    def _note(self) -> None:
        self._state.write(self.where.name, self._noted)


def _patiently(call: Callable[[], str], patience: Patience | None) -> str:
    """Call the target until it answers: an answer that is here should not be asked for twice. Raises what it does."""
    while True:
        try:
            return call()
        except Error as error:
            if patience is None or error.kind is not Kind.UNAVAILABLE:
                raise
            patience.wait("The target server does not answer")
