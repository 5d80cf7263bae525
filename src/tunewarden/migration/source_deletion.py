"""Models and files are deleted at the source, each by its API, and what it answers is kept: told by it, not proven.

That something is asked for is noted before, and the answer after, so that a command that is killed goes on. What the source
does not know any more counts as gone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunewarden.clock import Clock, iso
from tunewarden.errors import Error, Kind
from tunewarden.migration import inventory
from tunewarden.migration.source import RETRY_COUNT, Object, Reply, Source
from tunewarden.migration.state import State

NAME = "deletions"
NOTICE = "told by the source, not proven"
CHECKPOINT = ":ckpt-step-"
MODELS, FILES = "models", "files"
DELETED, GONE, REFUSED = "deleted", "gone", "refused"
# What identifies an answer to whom it is shown; the second one is of a Tunewarden, whose receipt can be had there.
KEPT_HEADERS = ("x-request-id", "tunewarden-deletion", "date")
KEPT_FIELDS = ("id", "object", "deleted")
KEPT_LENGTH_MAX = 256


@dataclass(frozen=True, slots=True)
class Doomed:
    """A model or a file of the source that is to be deleted there."""

    kind: str
    id: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be deleted, and what is spared, with the reason."""

    doomed: Sequence[Doomed]
    spared: Mapping[str, str]


@dataclass(slots=True)
class SourceDeletion:
    """Deletes at the source."""

    source: Source
    state: State
    clock: Clock
    _entries: Object = field(init=False)

    def __post_init__(self) -> None:
        self._entries = (self.state.read(NAME) or {}).get("answers", {})

    def left(self, doomed: Sequence[Doomed]) -> list[Doomed]:
        """Return what has not been deleted yet."""
        return [one for one in doomed if not self._is_done(one)]

    def run(
        self, doomed: Sequence[Doomed], shown: Callable[[str, int, int], None]
    ) -> dict[str, Object]:
        """Delete what is left; return what the source said of each, by id. Raises Error; a run after that goes on."""
        for count, one in enumerate(doomed):
            shown("deleted", count, len(doomed))
            if not self._is_done(one):
                self._delete(one)
        return {one.id: self._entries[_key(one)] for one in doomed}

    def _is_done(self, one: Doomed) -> bool:
        return self._entries.get(_key(one), {}).get("outcome") in {DELETED, GONE}

    def _delete(self, one: Doomed) -> None:
        was_asked = _key(one) in self._entries
        asked = {"asked_at": iso(self.clock.now()), "outcome": None, "notice": NOTICE}
        self._note(one, asked)
        headers = {RETRY_COUNT: "1"} if was_asked else {}
        reply = self.source.ask("DELETE", (one.kind, one.id), headers=headers)
        if reply.status == 401:
            raise self.source.refused(reply)
        if reply.status == 403:
            said = f"{self.source.address.url} does not allow this key to delete {one.kind}."
            raise Error(Kind.FORBIDDEN, said)
        was_asked = was_asked or reply.retries > 0
        self._note(one, {**asked, "was_asked_before": was_asked, **_told(one, reply)})

    def _note(self, one: Doomed, entry: Object) -> None:
        self._entries[_key(one)] = entry
        self.state.write(NAME, {"answers": self._entries}, indent=1)


def chosen(
    found: Mapping[str, Any],
    kinds: Sequence[str],
    made_again: Mapping[str, str | None],
    saved_as: Callable[[str | None], str | None],
    *,
    with_unsaved: bool,
) -> Choice:
    """Return what of an inventory is deleted: models made again here, with their checkpoints, and files saved here.

    `with_unsaved` deletes the others too.
    """
    doomed: list[Doomed] = []
    spared: dict[str, str] = {}
    checkpoints = {job["id"]: [one["model"] for one in job["checkpoints"]] for job in found["jobs"]}
    for model in found["models"] if MODELS in kinds else ():
        if model["state"] != inventory.LISTED:
            continue
        if with_unsaved or made_again.get(model["id"]):
            # A server may delete checkpoints with their model: these are gone then.
            names = [model["id"], *checkpoints.get(model["job"], ())]
            doomed += [Doomed(MODELS, name) for name in names if name]
        else:
            spared[model["id"]] = "it was not made again here"
    for file in found["files"] if FILES in kinds else ():
        if file["state"] != inventory.LISTED:
            continue
        if with_unsaved or saved_as(file["id"]):
            doomed.append(Doomed(FILES, file["id"]))
        else:
            spared[file["id"]] = "it is not saved here"
    return Choice(list(dict.fromkeys(doomed)), spared)


def went_together(name: str, told: Mapping[str, Object]) -> bool:
    """Return whether a checkpoint was gone because its model was deleted just before."""
    model, separator, _ = name.partition(CHECKPOINT)
    is_deleted = told.get(model, {}).get("outcome") == DELETED
    return bool(separator) and is_deleted and told[name]["outcome"] == GONE


def was_cut(name: str, told: Mapping[str, Object]) -> bool:
    """Return whether something is gone that was asked for before, without an answer: that request deleted it."""
    is_gone = told[name]["outcome"] == GONE and not went_together(name, told)
    return is_gone and bool(told[name].get("was_asked_before"))


def _key(one: Doomed) -> str:
    return f"{one.kind}/{one.id}"


def _told(one: Doomed, reply: Reply) -> Object:
    """Return what is kept of an answer: its status, its members that name the deletion, and no text."""
    answer = reply.object or {}
    told: Object = {
        "status": reply.status,
        "answer": {name: _short(answer[name]) for name in KEPT_FIELDS if name in answer},
        "headers": {
            name: _short(reply.headers[name]) for name in KEPT_HEADERS if name in reply.headers
        },
    }
    if code := reply.problem.get("code"):
        told["code"] = _short(code)
    return told | {"outcome": _outcome(one, reply)}


def _outcome(one: Doomed, reply: Reply) -> str:
    answer = reply.object or {}
    if reply.status == 200 and answer.get("deleted") is True and answer.get("id") == one.id:
        return DELETED
    # An address that is no API's answers 404 too, and then nothing is known.
    is_known = bool(reply.problem) and "Invalid URL" not in str(reply.problem.get("message"))
    return GONE if reply.status in {404, 410} and is_known else REFUSED


def _short(value: object) -> object:
    return value if isinstance(value, bool | int) else str(value)[:KEPT_LENGTH_MAX]
