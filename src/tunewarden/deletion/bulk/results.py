"""What became, or would become, of each model of a bulk deletion or of a retention rule's run."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from tunewarden.deletion.blockers import LIFTED_BY, WHAT, Blocker, BlockerType
from tunewarden.deletion.plan import Plan
from tunewarden.errors import Error
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden.registry.criteria import Candidate, Reason


class Outcome(StrEnum):
    """What would be done (the first three), or was. Answers use these words."""

    DELETE = "delete"
    ARCHIVE = "archive"
    ANNOUNCE = "announce"
    DELETED = "deleted"
    ARCHIVED = "archived"
    ANNOUNCED = "announced"
    # Announced, and not due yet.
    WAITING = "waiting"
    # Committed, and not finished within the bound: it goes on in the background.
    DELETING = "deleting"
    SPARED = "spared"
    NOT_FOUND = "not_found"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One model or file. `candidate` is what the criteria saw, None if nothing chose it but its id.

    `plan` of a dry run: what deleting it would do, as far as that was looked at.
    `due_at`: when it is deleted, if it is announced, in microseconds.
    """

    outcome: Outcome
    kind: ArtifactKind
    artifact_id: str
    reasons: tuple[Reason, ...] = ()
    deletion_id: str | None = None
    due_at: int | None = None
    candidate: Candidate | None = None
    plan: Plan | None = None


@dataclass(slots=True, kw_only=True)
class Summary:
    """The last of the results. `stopped`: why the rest was not looked at, `left` is how many that are.

    `fingerprint` is of what a dry run or a preview chose: equal while the same would be done.
    """

    id: str | None = None
    is_dry_run: bool = False
    counts: Counter[Outcome] = field(default_factory=Counter)
    stopped: Error | None = None
    left: int = 0
    has_more: bool = False
    fingerprint: str | None = None


class Fingerprint:
    """A digest of what was chosen, with the plan of each, and of what blocks it, in order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, result: Result) -> None:
        """Add a result of a dry run; what is spared by age, use or order does not count."""
        said: list[str] = _blocked(result)
        if result.outcome is Outcome.DELETE:
            assert result.plan is not None, "what would be deleted has a plan"
            said = [result.plan.fingerprint]
        if said:
            self._digest.update("\0".join((result.artifact_id, *said)).encode() + b"\n")

    def text(self) -> str:
        """Return it in hex."""
        return self._digest.hexdigest()


# Not use: it would change with each request.
_BLOCKED = {code for kind, (code, _) in LIFTED_BY.items() if kind is not BlockerType.IN_USE}


def _blocked(result: Result) -> list[str]:
    return [one.message for one in result.reasons if one.code in _BLOCKED]


def reason_of(blocker: Blocker) -> Reason:
    """Return why a blocker spares what it is about; the code is that of the refused deletion."""
    about = "It" if blocker.id != blocker.artifact_id else "It, or a checkpoint of it,"
    named = "" if blocker.id == blocker.artifact_id else f": {blocker.id}"
    return Reason(LIFTED_BY[blocker.type][0], f"{about} {WHAT[blocker.type]}{named}.")


def reason_in(refused: Error) -> Reason:
    """Return a refusal as a reason."""
    return Reason(refused.code or refused.kind.value, refused.message)
