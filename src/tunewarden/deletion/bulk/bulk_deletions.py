"""Bulk deletions: many models or files by one request, each with the checks of its own D3.

Groups of deletions share a commit and the steps that follow. With an Idempotency-Key the same request continues where
it broke off: what a filter chose is fixed by then, and what was deleted or passed over is answered again.
"""

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from tunewarden.db.database import Database, Tx
from tunewarden.deletion import group_requests, plan, requests
from tunewarden.deletion.bulk import bulk_rows, choosing, results
from tunewarden.deletion.bulk.bulk_rows import BulkDeletion, SeenPlan
from tunewarden.deletion.bulk.rechecking import NOT_SEEN, Plans, Recheck, kind_of
from tunewarden.deletion.bulk.results import Fingerprint, Outcome, Result, Summary
from tunewarden.deletion.bulk.verdicts import Verdicts
from tunewarden.deletion.executor import Executor
from tunewarden.deletion.group_runner import GROUP_MAX
from tunewarden.deletion.requests import MISSING, Attempt, Part, RequestedDeletion
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.ids import SHOWN_MAX, Prefix, mint
from tunewarden.registry import criteria as old
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden.registry.criteria import Criteria

ITEMS_MAX = 10_000
Results = Iterator[Result | Summary]
Groups = Iterator[list[Result] | list[Summary]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to delete: these models and files, or the models that these criteria choose."""

    ids: tuple[str, ...] = ()
    criteria: Criteria | None = None

    def check(self) -> None:
        """Check what a client sent. Raises Error(INVALID)."""
        if (self.criteria is None) == (not self.ids):
            raise Error(Kind.INVALID, "Send either 'ids' or a 'filter'.", param="ids")
        if len(self.ids) > ITEMS_MAX or any(not 1 <= len(one) <= SHOWN_MAX for one in self.ids):
            said = f"'ids' must be 1 to {ITEMS_MAX} ids of models and files."
            raise Error(Kind.INVALID, said, param="ids")
        if len(set(self.ids)) < len(self.ids):
            raise Error(Kind.INVALID, "'ids' names something twice.", param="ids")
        if self.criteria is not None:
            if self.criteria.are_empty:
                said = "A filter must say something: an empty one would choose every model."
                raise Error(Kind.INVALID, said, param="filter")
            old.check(self.criteria, param="filter.")

    def digest(self) -> str:
        """Return a digest: equal for equal requests."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class BulkDeletions:
    """The operations on bulk deletions."""

    database: Database
    executor: Executor

    def plan(self, caller: Caller, wanted: Wanted, *, if_match: str | None = None) -> Results:
        """Return what would be deleted and what would be spared, each with its reasons; nothing changes.

        Raises Error(FORBIDDEN), Error(INVALID); Error(PRECONDITION_FAILED) if it is not what `if_match` names.
        """
        wanted.check()
        authorize(caller, Action.DELETE)
        with self.database.read() as tx:
            keys.authorize_now(tx, caller, Action.DELETE)
            now = tx.now_micros
        self._check_fingerprint(caller, wanted, now, if_match)
        return self._planned(caller, wanted, now)

    def delete(self, caller: Caller, wanted: Wanted, attempt: Attempt) -> Groups:
        """Delete; yield what became of each, in groups, and a summary. Stopping to read stops what was not begun.

        Raises Error(FORBIDDEN), Error(INVALID), Error(CONFLICT) for an Idempotency-Key that belongs to another request,
        Error(PRECONDITION_FAILED): then nothing has changed.
        """
        wanted.check()
        requests.check_idempotency_key(attempt.idempotency_key)
        authorize(caller, Action.DELETE)
        bulk, ids, plans = self._begun(caller, wanted, attempt)
        recheck = Recheck(
            caller, wanted.criteria, bulk.requested_at, plans, self.executor.is_served
        )
        each = replace(
            attempt,
            idempotency_key=bulk.idempotency_key,
            if_match=None,
            recheck=recheck if recheck.looks else None,
        )
        is_kept = attempt.idempotency_key is not None
        places = {artifact_id: place for place, artifact_id in enumerate(ids)}
        verdicts = Verdicts(bulk.id, places) if is_kept else None
        return self._deleted(caller, bulk, _in_order(ids, plans), each, verdicts)

    def _begun(
        self, caller: Caller, wanted: Wanted, attempt: Attempt
    ) -> tuple[BulkDeletion, Sequence[str], Plans | None]:
        """Return the bulk deletion, begun now or before, the ids of what it deletes, and the plans that must still hold."""
        with self.database.read() as tx:
            keys.authorize_now(tx, caller, Action.DELETE)
            found = self._found(tx, caller, wanted, attempt)
            now = tx.now_micros
        if found is not None:
            return found
        plans = self._check_fingerprint(caller, wanted, now, attempt.if_match)
        chosen, has_more = self._chosen(caller, wanted.criteria, now)
        bulk = _new(caller, wanted, attempt, now, has_more=has_more, has_plans=plans is not None)
        ids = wanted.ids or [artifact_id for _, artifact_id in chosen]
        if attempt.idempotency_key is not None:
            with self.database.write(below_floor=True) as tx:
                keys.authorize_now(tx, caller, Action.DELETE)
                found = self._found(tx, caller, wanted, attempt)
                if found is not None:  # the same request at the same time
                    return found
                seen = plans or {}
                by_place = {place: seen[one] for place, one in enumerate(ids) if one in seen}
                bulk_rows.insert(tx, bulk, [n for n, _ in chosen], by_place)
        return bulk, ids, plans

    def _found(
        self, tx: Tx, caller: Caller, wanted: Wanted, attempt: Attempt
    ) -> tuple[BulkDeletion, Sequence[str], Plans | None] | None:
        key = attempt.idempotency_key
        found = None if key is None else bulk_rows.find(tx, caller.key_id, key)
        if found is None:
            return None
        if found.request_sha256 != wanted.digest():
            raise Error(
                Kind.CONFLICT,
                "This Idempotency-Key belongs to a request with another body. Use a new one.",
                param="Idempotency-Key",
                code="idempotency_key_reused",
            )
        ids = wanted.ids or bulk_rows.chosen(tx, found.id)
        if not found.has_plans:
            return found, ids, None
        return found, ids, {ids[place]: one for place, one in bulk_rows.plans(tx, found.id).items()}

    def _chosen(
        self, caller: Caller, criteria: Criteria | None, now: int
    ) -> tuple[Sequence[tuple[int, str]], bool]:
        """Return the numbers and ids of what the criteria choose, oldest first, and whether there are more."""
        if criteria is None:
            return (), False
        found: deque[tuple[int, str]] = deque(maxlen=ITEMS_MAX + 1)
        for one in choosing.look(
            self.database,
            caller.organization_id,
            criteria,
            now,
            self.executor.is_served,
            seen_by=caller.project_id,
            asks_for_blockers=lambda _: False,  # D3 does
        ):
            if one.choice.is_chosen:
                found.appendleft((one.choice.candidate.n, one.choice.candidate.id))
        has_more = len(found) > ITEMS_MAX
        return list(found)[:ITEMS_MAX], has_more

    def _check_fingerprint(
        self, caller: Caller, wanted: Wanted, now: int, if_match: str | None
    ) -> Plans | None:
        """Check that the plan is what was seen; return that of each that would be deleted, by its id."""
        if if_match is None:
            return None
        plans: dict[str, SeenPlan] = {}
        for one in self._planned(caller, wanted, now):
            if isinstance(one, Summary):
                assert one.fingerprint is not None, "a plan's summary has one"
                plan.check_match(if_match, one.fingerprint, "What would be deleted has changed")
            elif one.outcome is Outcome.DELETE and one.plan is not None:
                plans[one.artifact_id] = SeenPlan(one.plan.fingerprint, one.plan.reach)
                if len(plans) > ITEMS_MAX:  # the newest: it is not deleted
                    del plans[next(iter(plans))]
        return plans

    def _planned(self, caller: Caller, wanted: Wanted, now: int) -> Results:
        summary, fingerprint = Summary(is_dry_run=True), Fingerprint()
        found = (
            self._planned_by_id(caller, wanted.ids)
            if wanted.criteria is None
            else self._planned_by_criteria(caller, wanted.criteria, now)
        )
        for one in found:
            summary.counts[one.outcome] += 1
            fingerprint.add(one)
            yield one
        summary.fingerprint = fingerprint.text()
        summary.has_more = summary.counts[Outcome.DELETE] > ITEMS_MAX
        yield summary

    def _planned_by_id(self, caller: Caller, ids: Sequence[str]) -> Iterator[Result]:
        for artifact_id in ids:
            kind = kind_of(artifact_id)
            try:
                found = plan.plan(
                    self.database, caller, kind, artifact_id, is_served=self.executor.is_served
                )
            except Error as refused:
                yield _refused(kind, artifact_id, refused)
                continue
            reasons = tuple(map(results.reason_of, found.blockers))
            outcome = Outcome.SPARED if reasons else Outcome.DELETE
            yield Result(
                outcome=outcome,
                kind=kind,
                artifact_id=artifact_id,
                reasons=reasons,
                plan=found,
            )

    def _planned_by_criteria(
        self, caller: Caller, criteria: Criteria, now: int
    ) -> Iterator[Result]:
        for one in choosing.look(
            self.database,
            caller.organization_id,
            criteria,
            now,
            self.executor.is_served,
            seen_by=caller.project_id,
        ):
            blocked = tuple(map(results.reason_of, one.blockers))
            is_free = one.choice.is_chosen and not blocked
            yield Result(
                outcome=Outcome.DELETE if is_free else Outcome.SPARED,
                kind=ArtifactKind.MODEL,
                artifact_id=one.choice.candidate.id,
                reasons=blocked or one.choice.reasons,
                candidate=one.choice.candidate,
                plan=one.plan,
            )

    def _deleted(
        self,
        caller: Caller,
        bulk: BulkDeletion,
        ids: Sequence[str],
        attempt: Attempt,
        verdicts: Verdicts | None,
    ) -> Groups:
        summary = Summary(id=bulk.id, has_more=bulk.has_more)
        summary.left = len(ids)
        for start in range(0, len(ids), GROUP_MAX):
            group = [(kind_of(one), one) for one in ids[start : start + GROUP_MAX]]
            try:
                asked = self._commit(caller, group, attempt, verdicts)
            except Error as error:
                summary.stopped = error
                break
            last = asked[-1]
            if isinstance(last, Error) and requests.is_about_caller(last):
                summary.stopped = last
                asked.pop()
            finished = list(self._finished(group, asked))
            summary.counts.update(one.outcome for one in finished)
            summary.left -= len(finished)
            yield finished
            if summary.stopped is not None:
                break
        yield [summary]

    def _commit(
        self,
        caller: Caller,
        group: Sequence[tuple[ArtifactKind, str]],
        attempt: Attempt,
        verdicts: Verdicts | None,
    ) -> list[RequestedDeletion | Error]:
        looking = replace(attempt, is_served=self.executor.is_served)
        return self.executor.commit(
            lambda log_size: group_requests.request_together(
                self.database, caller, group, looking, log_size=log_size, verdicts=verdicts
            )
        )

    def _finished(
        self,
        group: Sequence[tuple[ArtifactKind, str]],
        asked: Sequence[RequestedDeletion | Error],
    ) -> Iterator[Result]:
        """Finish a group's deletions; yield what became of each."""
        begun = [one.deletion for one in asked if isinstance(one, RequestedDeletion)]
        done = {one.n: one for one in self.executor.finish_together(begun)}
        for (kind, artifact_id), one in zip(group, asked, strict=False):
            if isinstance(one, Error):
                yield _refused(kind, artifact_id, one)
                continue
            now = done[one.deletion.n]
            if not now.is_deleted:
                outcome = Outcome.DELETING
            elif one.part is Part.SECOND:  # somebody else deleted it
                yield _refused(kind, artifact_id, MISSING[kind](artifact_id))
                continue
            else:
                outcome = Outcome.DELETED
            yield Result(outcome=outcome, kind=kind, artifact_id=artifact_id, deletion_id=now.id)


def _new(
    caller: Caller, wanted: Wanted, attempt: Attempt, now: int, *, has_more: bool, has_plans: bool
) -> BulkDeletion:
    bulk_id = mint(Prefix.BULK_DELETION)
    return BulkDeletion(
        id=bulk_id,
        organization_id=caller.organization_id,
        requested_by=caller.key_id,
        idempotency_key=attempt.idempotency_key or bulk_id,
        request_sha256=wanted.digest(),
        requested_at=now,
        has_more=has_more,
        has_plans=has_plans,
    )


def _in_order(ids: Sequence[str], plans: Plans | None) -> Sequence[str]:
    """Return the ids so that none changes the plan of a later one: what goes with it, or came from it, follows it."""
    if plans is None:
        return ids
    return sorted(ids, key=lambda one: -plans.get(one, NOT_SEEN).reach)


def _refused(kind: ArtifactKind, artifact_id: str, refused: Error) -> Result:
    outcomes = {Kind.NOT_FOUND: Outcome.NOT_FOUND, Kind.CONFLICT: Outcome.SPARED}
    return Result(
        outcome=outcomes.get(refused.kind, Outcome.REFUSED),
        kind=kind,
        artifact_id=artifact_id,
        reasons=(results.reason_in(refused),),
    )
