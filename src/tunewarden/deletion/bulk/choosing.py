"""What criteria choose now, and what blocks its deletion."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tunewarden.db.database import Database, Tx
from tunewarden.deletion import plan
from tunewarden.deletion.blockers import Blocker
from tunewarden.deletion.plan import Plan
from tunewarden.deletion.use import IsServed
from tunewarden.errors import Error, Kind
from tunewarden.registry import artifacts, models, old_models
from tunewarden.registry import criteria as old
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
    is_served: IsServed,
    *,
    seen_by: str | None = None,
    asks_for_blockers: Callable[[Choice], bool] = lambda choice: choice.is_chosen,
) -> Iterator[Seen]:
    """Yield each model that the criteria are about, newest first, in constant memory.

    `seen_by`: only those that a caller of this project may see.
    """
    found = old_models.candidates(database, organization_id, criteria, seen_by=seen_by)
    for by_rows in old.choose(criteria, found, now_micros):
        if not (by_rows.is_chosen or asks_for_blockers(by_rows)):
            yield Seen(by_rows, None)
            continue
        with database.read() as tx:
            one = _with_use(tx, criteria, by_rows.candidate, now_micros, is_served)
            choice = old.of(criteria, one, now_micros, is_latest=by_rows.is_latest)
            found_plan = _plan(tx, one, is_served) if asks_for_blockers(choice) else None
        yield Seen(choice, found_plan)


def choice_now(
    tx: Tx, criteria: Criteria, n: int, now_micros: int, is_served: IsServed
) -> Choice | None:
    """Return what the criteria say of a model as this transaction reads it; None if it does not stand alone any more."""
    one = old_models.candidate(tx, n)
    if one is None:
        return None
    one = _with_use(tx, criteria, one, now_micros, is_served)
    is_latest = old_models.is_latest(tx, one, criteria.keep_latest)
    return old.of(criteria, one, now_micros, is_latest=is_latest)


def check_still_chosen(
    tx: Tx, criteria: Criteria, artifact: Artifact, now_micros: int, is_served: IsServed
) -> None:
    """Check that the criteria choose a model, as this transaction reads it. Raises Error(CONFLICT), which says why not."""
    choice = choice_now(tx, criteria, artifact.n, now_micros, is_served)
    if choice is None:
        raise Error(
            Kind.CONFLICT,
            f"'{artifact.id}' is a checkpoint of a model now, which it goes with.",
            code="goes_with_model",
        )
    if not choice.is_chosen:
        why = choice.reasons[0]
        raise Error(Kind.CONFLICT, f"'{artifact.id}' is spared. {why.message}", code=why.code)


def _with_use(
    tx: Tx, criteria: Criteria, one: Candidate, now_micros: int, is_served: IsServed
) -> Candidate:
    """Return a model with the use that has no row yet, because its requests have not ended, if use matters."""
    if criteria.unused_for_days is None:
        return one
    _, model = artifacts.by_n(tx, one.n)
    if not any(is_served(it) for it in (model, *models.checkpoints_of(tx, one.n))):
        return one
    return replace(one, last_used_at=now_micros, is_served=True)


def _plan(tx: Tx, one: Candidate, is_served: IsServed) -> Plan:
    _, model = artifacts.by_n(tx, one.n)
    return plan.of(tx, ArtifactKind.MODEL, model, is_served)
