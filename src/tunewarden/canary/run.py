"""One run: a tiny model on a base answers, is deleted while it does, and is looked for."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO
from urllib.parse import quote

from tunewarden.app import App
from tunewarden.artifacts.base_facts import base_facts
from tunewarden.canary import adapter
from tunewarden.canary.account import Account
from tunewarden.canary.requests import MODELS, Requests
from tunewarden.canary.residue import Residue
from tunewarden.canary.runs import Outcome, Result
from tunewarden.deletion import records
from tunewarden.deletion.records import Deletion
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Caller
from tunewarden.registry import models
from tunewarden.registry.bases import Base
from tunewarden.registry.models import Model

SUFFIX = "canary"
PROMPT = "Hello"
# Longer than a deletion takes; within any base's context where that is not known.
TOKENS, TOKENS_UNKNOWN = 2048, 256
ANSWERED = 200
ERASE_SECONDS = 60.0
ERASE_POLL_SECONDS = 0.05
MICROS = 1_000_000


@dataclass(frozen=True, slots=True)
class Canary:
    """Runs on the bases of one server, which must be running at `url`."""

    app: App
    account: Account
    url: str

    def run(self, base: Base) -> Outcome:
        """Make, use and delete a model of a base; return what was found. What an earlier run left is deleted first."""
        try:
            caller = self.account.caller()
            requests = Requests(self.url, self.account.key)
            self._delete_left(caller, requests)
            model = self._made(caller, base)
            try:
                return self._deleted(requests, base, model)
            finally:
                self._delete_left(caller, requests)
        except Error as error:
            return Outcome(result=Result.NOT_DONE, found=(error.message,))

    def _made(self, caller: Caller, base: Base) -> Model:
        config, content = adapter.make(base)
        with _in_memory(content) as weights:
            # Public: all the world may know zeros, so memory that may be swapped is no reason to refuse.
            return self.app.imports.bring_in(
                caller,
                base=base.name,
                suffix=SUFFIX,
                config=BytesIO(config),
                weights=weights,
                is_public=True,
            )

    def _deleted(self, requests: Requests, base: Base, model: Model) -> Outcome:
        """Delete a model while it answers, and look for it."""
        ask = {"model": model.id, "prompt": PROMPT, "max_tokens": 1}
        residue = Residue(self.app, requests)
        long = ask | {"max_tokens": _tokens(base), "stream": True, "ignore_eos": True}
        with closing(requests.stream(long)) as stream:
            began = self.app.clock.monotonic()
            status, headers = requests.status("DELETE", f"{MODELS}/{quote(model.id)}")
            deletion_micros = int((self.app.clock.monotonic() - began) * MICROS)
            was_running = stream.mark()
            found = list(_answer(status, self.app.config.deletion_seconds))
            if tokens := stream.tokens_since_mark():
                found.append(f"stream: {tokens} tokens came after the answer")
        if status == ANSWERED:
            found += residue.after_answer(model, ask)
        deletion = self._erased(headers.get("tunewarden-deletion", ""))
        erased_micros = int((self.app.clock.monotonic() - began) * MICROS)
        if deletion is None:
            found.append(f"blobs: not erased within {ERASE_SECONDS:g} s")
        else:
            found += residue.after_erasure(model, deletion)
        if not found and not was_running:
            raise Error(Kind.UNAVAILABLE, "The model had answered before it was deleted.")
        return Outcome(
            result=Result.FAILED if found else Result.PASSED,
            found=tuple(found),
            deletion_micros=deletion_micros,
            erased_micros=None if deletion is None else erased_micros,
        )

    def _erased(self, deletion_id: str) -> Deletion | None:
        """Return a deletion once its blobs are erased; None if that takes too long."""
        clock = self.app.clock
        until = clock.monotonic() + ERASE_SECONDS
        while clock.monotonic() < until:
            deletion = records.find(self.app.database, deletion_id)
            if deletion is not None and deletion.blobs_erased_at is not None:
                return deletion
            clock.sleep(ERASE_POLL_SECONDS)
        return None

    def _delete_left(self, caller: Caller, requests: Requests) -> None:
        for page in models.pages(self.app.database, caller):
            for model in page:
                requests.status("DELETE", f"{MODELS}/{quote(model.id)}")


def _answer(status: int, bound_seconds: float) -> Iterator[str]:
    if status != ANSWERED:
        yield f"deletion: it was answered {status}, not 200 within {bound_seconds:g} s"


def _tokens(base: Base) -> int:
    """Return how many tokens a completion may have."""
    facts = base_facts(base.location) if base.location else None
    context = None if facts is None else facts.context
    return TOKENS_UNKNOWN if context is None else max(1, min(TOKENS, context // 2))


@contextmanager
def _in_memory(content: bytes) -> Iterator[BinaryIO]:
    """Yield a file with this content that has a descriptor and is on no disk."""
    descriptor = os.memfd_create("tunewarden-canary", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "w+b", buffering=0) as file:
        file.write(content)
        file.seek(0)
        yield file
