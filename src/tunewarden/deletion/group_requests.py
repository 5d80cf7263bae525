"""D1 to D3 for many artifacts in one transaction, which costs one commit; each is answered by itself.

Most of a group are models that nothing blocks and nothing goes with. They are found, and committed, by one statement
each for all: to commit one changes nothing that is read of another. All others are looked at one by one, as ever.
(docs/decisions/0047)
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from tunewarden.db.database import Database, Tx
from tunewarden.deletion import blockers, requests, together
from tunewarden.deletion.requests import (
    REFUSALS,
    Attempt,
    Part,
    RequestedDeletion,
    is_about_caller,
    record_refusal,
)
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys
from tunewarden.identity.policy import Action, Caller
from tunewarden.registry import models
from tunewarden.registry.artifacts import Artifact, ArtifactKind

Wanted = Sequence[tuple[ArtifactKind, str]]


class Verdicts(Protocol):
    """What earlier attempts of the same request were answered, and where this one's refusals are kept."""

    def of(self, tx: Tx, wanted: Wanted) -> Mapping[str, Error]:
        """Return the refusals of those, by their ids, that were passed over."""

    def keep(self, tx: Tx, refused: Mapping[str, Error]) -> None:
        """Store why artifacts are passed over."""


def request_together(
    database: Database,
    caller: Caller,
    wanted: Wanted,
    attempt: Attempt,
    *,
    log_size: int,
    verdicts: Verdicts | None = None,
) -> list[RequestedDeletion | Error]:
    """Return the deletion of each artifact, or its refusal. What `verdicts` know is answered again, and not looked at.

    A refusal that is about the caller is the last one: what follows it was not looked at.
    """
    with database.write(below_floor=True) as tx:
        before = {} if verdicts is None else verdicts.of(tx, wanted)
        group = _Group(tx, caller, wanted, attempt, log_size)
        for kind, artifact_id in wanted:
            if artifact_id in before:
                group.answer(before[artifact_id])
            elif not group.ask(kind, artifact_id):
                break
        asked = group.committed()
        refused = {
            artifact_id: (kind, one)
            for (kind, artifact_id), one in zip(wanted, asked, strict=False)
            if isinstance(one, Error) and artifact_id not in before
        }
        if verdicts is not None:
            verdicts.keep(
                tx, {of: one for of, (_, one) in refused.items() if not is_about_caller(one)}
            )
    for artifact_id, (kind, one) in refused.items():
        if one.kind in REFUSALS:
            record_refusal(database, caller, kind, artifact_id, one)
    return asked


class _Group:
    """The requests of one transaction, in order."""

    def __init__(
        self, tx: Tx, caller: Caller, wanted: Wanted, attempt: Attempt, log_size: int
    ) -> None:
        self._tx = tx
        self._caller = caller
        self._attempt = attempt
        self._log_size = log_size
        # What others' commits leave free: they end jobs and aliases, and delete checkpoints.
        self._free = _free(tx, caller, wanted, attempt)
        self._is_allowed = False
        # Those at the end that are free are Artifacts until they are committed.
        self._asked: list[RequestedDeletion | Error | Artifact] = []

    def answer(self, refused: Error) -> None:
        """Let the next one be refused."""
        self._asked.append(refused)

    def ask(self, kind: ArtifactKind, artifact_id: str) -> bool:
        """Do D1 to D3 for one; return False after a refusal that is about the caller."""
        try:
            one = self._allowed(kind, artifact_id)
        except Error as refused:
            if refused.kind not in REFUSALS | {Kind.UNAUTHENTICATED}:
                raise
            self._asked.append(refused)
            return not is_about_caller(refused)
        self._asked.append(one)
        return True

    def committed(self) -> list[RequestedDeletion | Error]:
        """Commit those that wait for it; return the deletion, or the refusal, of each."""
        waiting = [one for one in self._asked if isinstance(one, Artifact)]
        asked = requests.asked_by(self._caller, self._attempt, self._log_size)
        done = iter(together.commit_free(self._tx, waiting, asked))
        self._asked = [
            RequestedDeletion(next(done), Part.FIRST) if isinstance(one, Artifact) else one
            for one in self._asked
        ]
        return [one for one in self._asked if not isinstance(one, Artifact)]

    def _allowed(self, kind: ArtifactKind, artifact_id: str) -> RequestedDeletion | Artifact:
        """Return the deletion, or what may be committed with others. It refuses before it writes anything."""
        free = self._free.get(artifact_id) if kind is ArtifactKind.MODEL else None
        if free is None:
            self.committed()  # in order: this one may take long, and look at them
            return requests.request_in(
                self._tx, self._caller, kind, artifact_id, self._attempt, log_size=self._log_size
            )
        if not self._is_allowed:  # I8: the same for each, for it is one transaction
            keys.authorize_now(self._tx, self._caller, Action.DELETE)
            self._is_allowed = True
        if self._attempt.recheck is not None:
            self.committed()  # it may look at others
            self._attempt.recheck(self._tx, free)
        return free


def _free(tx: Tx, caller: Caller, wanted: Wanted, attempt: Attempt) -> dict[str, Artifact]:
    """Return the models, by their ids, that nothing blocks and nothing goes with; none if a plan is to be compared."""
    if attempt.if_match is not None:
        return {}
    ids = [artifact_id for kind, artifact_id in wanted if kind is ArtifactKind.MODEL]
    alone = models.alone_among(tx, caller.organization_id, ids)
    return {one.id: one for one in blockers.free_among(tx, alone, attempt.is_served)}
