"""What criteria choose now, and what blocks its deletion."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tunewarden.db.database import Database, Tx
from tunewarden.deletion import plan
from tunewarden.deletion.blockers import Blocker
from tunewarden.deletion.plan import Plan
from tunewarden.errors import Error, Kind
from tunewarden.registry import criteria as old
from tunewarden.registry import models, old_models
from tunewarden.registry.artifacts import Artifact, ArtifactKind
from tunewarden.registry.criteria import Candidate, Choice, Criteria


@dataclass(frozen=True, slots=True)
class Seen:
    """What the criteria say of a model, and the plan of its deletion, if that was asked for."""

    choice: Choice
    plan: Plan | None = None

    @property
    def blockers(self) -> tuple[Blocker, ...]:
        """What blocks it, as far as that was asked for."""
        return () if self.plan is None else self.plan.blockers


def look(
    database: Database,
    organization_id: str,
    criteria: Criteria,
    now_micros: int,
    *,
    seen_by: str | None = None,
    asks_for_blockers: Callable[[Choice], bool] = lambda choice: choice.is_chosen,
) -> Iterator[Seen]:
    """Yield each model that the criteria are about, newest first, in constant memory.

    `seen_by`: only those that a caller of this project may see.
    """
    found = old_models.candidates(database, organization_id, criteria, seen_by=seen_by)
    for choice in old.choose(criteria, found, now_micros):
        asks = asks_for_blockers(choice)
        yield Seen(choice, _plan(database, choice.candidate) if asks else None)


def choice_now(tx: Tx, criteria: Criteria, n: int, now_micros: int) -> Choice | None:
    """Return what the criteria say of a model as this transaction reads it; None if it does not stand alone any more."""
    one = old_models.candidate(tx, n)
    if one is None:
        return None
    is_latest = old_models.is_latest(tx, one, criteria.keep_latest)
    return old.of(criteria, one, now_micros, is_latest=is_latest)


def check_still_chosen(tx: Tx, criteria: Criteria, artifact: Artifact, now_micros: int) -> None:
    """Check that the criteria choose a model, as this transaction reads it. Raises Error(CONFLICT), which says why not."""
    choice = choice_now(tx, criteria, artifact.n, now_micros)
    if choice is None:
        raise Error(
            Kind.CONFLICT,
            f"'{artifact.id}' is a checkpoint of a model now, which it goes with.",
            code="goes_with_model",
        )
    if not choice.is_chosen:
        why = choice.reasons[0]
        raise Error(Kind.CONFLICT, f"'{artifact.id}' is spared. {why.message}", code=why.code)


def _plan(database: Database, one: Candidate) -> Plan:
    model = models.by_n(database, one.n)
    with database.read() as tx:
        return plan.of(tx, ArtifactKind.MODEL, model)
