"""Runs retention rules: previews, runs that somebody asks for, and those that are due.

A rule acts for its organization, not for who made it, and never forces: each model is looked at again in the transaction
that commits its deletion (D3), for age, use, order, notice and blockers. A rule that is changed, stopped or paused
during its run does nothing more. What a run has not done when it dies, the next one does.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from tunewarden import audit
from tunewarden.audit import Actor
from tunewarden.clock import Clock
from tunewarden.db.database import Database, Tx
from tunewarden.deletion import plan, together
from tunewarden.deletion.bulk import choosing, results
from tunewarden.deletion.bulk.bulk_deletions import Results
from tunewarden.deletion.bulk.results import Outcome, Result, Summary
from tunewarden.deletion.executor import Executor
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.recovery import HighWaterMark
from tunewarden.deletion.replay import SERVER
from tunewarden.deletion.retention import expiry_pause, verdicts
from tunewarden.deletion.retention.verdicts import Verdict
from tunewarden.deletion.use import IsServed
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry import artifacts, models, retention_notices, retention_pause
from tunewarden.registry import retention_rules as rules
from tunewarden.registry.artifacts import VISIBLE, Artifact, ArtifactKind
from tunewarden.registry.criteria import Candidate, Choice, Reason
from tunewarden.registry.retention_pause import Pause, PauseReason
from tunewarden.registry.retention_rules import Rule
from tunewarden.webhooks import outbox
from tunewarden.webhooks.event_types import WebhookEventType

HOUR_MICROS = 3600 * 1_000_000
GROUP_MAX = 32
RULES_AT_ONCE = 100

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Row:
    """A model, what the rule does with it, and whether a notice of it stands."""

    candidate: Candidate
    verdict: Verdict
    reasons: tuple[Reason, ...]
    is_announced: bool

    @property
    def changes(self) -> bool:
        """Whether the rule would change anything."""
        outcome = self.verdict.outcome
        return outcome is not Outcome.WAITING and (
            outcome is not Outcome.SPARED or self.is_announced
        )

    def result(self) -> Result:
        """Return it as a result."""
        return Result(
            outcome=self.verdict.outcome,
            kind=ArtifactKind.MODEL,
            artifact_id=self.candidate.id,
            reasons=self.reasons,
            due_at=self.verdict.due_at,
            candidate=self.candidate,
        )


@dataclass(frozen=True, slots=True)
class Retention:
    """The operations that run rules. `mark` is of the times that the database has seen."""

    database: Database
    clock: Clock
    executor: Executor
    mark: HighWaterMark

    def preview(self, caller: Caller, rule_id: str) -> Results:
        """Return what a run would do with each model that the rule is about, and why; nothing changes.

        Raises Error(FORBIDDEN), Error(NOT_FOUND).
        """
        authorize(caller, Action.READ_RETENTION)
        with self.database.read() as tx:
            keys.authorize_now(tx, caller, Action.READ_RETENTION)
            rule = rules.find(tx, caller.organization_id, rule_id)
            now = tx.now_micros
        return self._previewed(rule, now)

    def run(self, caller: Caller, rule_id: str) -> Results:
        """Run a rule now, enabled or not; yield what became of each model, in groups.

        Raises Error(FORBIDDEN), Error(NOT_FOUND), Error(CONFLICT) while retention is paused.
        """
        rules.authorize_writing(caller)
        self._check_trusted()
        with self.database.write(below_floor=True) as tx:
            for action in (Action.WRITE_RETENTION, Action.DELETE):
                keys.authorize_now(tx, caller, action)
            rule = rules.find(tx, caller.organization_id, rule_id)
            _check_not_paused(tx, rule.organization_id)
            rules.note_run(tx, rule.n)
            audit.record(
                tx,
                audit.EventType.RETENTION_RULE_RUN,
                organization_id=caller.organization_id,
                actor=caller.actor,
                resource_id=rule.id,
            )
            now = tx.now_micros
        return self._run(rule, now, caller.request_id)

    def run_due(self, now_micros: int, *, is_stopping: Callable[[], bool] = lambda: False) -> int:
        """Run the enabled rules whose last run is an hour ago, by a time that can be trusted; return how many.

        `is_stopping` ends a run early: what is left is done by the next one.
        """
        found = rules.due(self.database, now_micros - HOUR_MICROS, limit=RULES_AT_ONCE)
        for rule in found:
            with self.database.write(survives=False, below_floor=True) as tx:
                rules.note_run(tx, rule.n)
            for one in self._run(rule, now_micros, None):
                if isinstance(one, Summary) and one.stopped is not None:
                    logger.warning("%s stopped: %s", rule.id, one.stopped.message)
                if is_stopping():
                    return len(found)
        return len(found)

    def pause_of(self, caller: Caller) -> Pause | None:
        """Return the pause of the caller's organization, if there is one. Raises Error(FORBIDDEN)."""
        authorize(caller, Action.READ_RETENTION)
        why = expiry_pause.untrusted(self.database, self.clock, self.mark)
        with self.database.read() as tx:
            pause = retention_pause.of(tx, caller.organization_id)
            if pause is None and why is PauseReason.CLOCK:
                pause = Pause(tx.now_micros, why)
        return pause

    def resume(self, caller: Caller) -> bool:
        """Let the rules of the caller's organization act again; return False if they were not paused.

        Raises Error(FORBIDDEN), Error(CONFLICT) while the machine's clock cannot be trusted.
        """
        rules.authorize_writing(caller)
        self._check_clock()
        with self.database.write(below_floor=True) as tx:
            for action in (Action.WRITE_RETENTION, Action.DELETE):
                keys.authorize_now(tx, caller, action)
            was_paused = retention_pause.resume(tx, caller.organization_id)
            if was_paused:
                audit.record(
                    tx,
                    audit.EventType.RETENTION_RESUMED,
                    organization_id=caller.organization_id,
                    actor=caller.actor,
                    resource_id=caller.organization_id,
                )
        return was_paused

    def _check_trusted(self) -> None:
        """Raise Error(CONFLICT) if the clock cannot be trusted; a restore pauses the rules of all, which is seen later."""
        if not expiry_pause.was_restored(self.database, self.mark):
            self._check_clock()

    def _check_clock(self) -> None:
        why = expiry_pause.untrusted(self.database, self.clock, self.mark)
        if why is PauseReason.CLOCK:
            raise Error(
                Kind.CONFLICT,
                f"Retention is paused: {retention_pause.SAID[why]}. The operator of the server must check its clock and"
                " run `tunewarden expiry resume` first.",
                code="retention_paused",
            )

    def _previewed(self, rule: Rule, now: int) -> Results:
        summary = Summary(id=rule.id, is_dry_run=True)
        for row in self._rows(rule, now):
            summary.counts[row.verdict.outcome] += 1
            yield row.result()
        yield summary

    def _rows(self, rule: Rule, now: int) -> Iterator[_Row]:
        def asks_for_blockers(choice: Choice) -> bool:
            return verdicts.may_act(rule.terms, choice, now)

        for seen in choosing.look(
            self.database,
            rule.organization_id,
            rule.terms.criteria,
            now,
            self.executor.is_served,
            asks_for_blockers=asks_for_blockers,
        ):
            one = seen.choice.candidate
            due_at = None
            if rule.terms.notice_days:
                due_at = retention_notices.due_of(self.database, one.n, rule.n, rule.version)
            blocked = tuple(map(results.reason_of, seen.blockers))
            yield _row(rule, seen.choice, blocked, due_at, now)

    def _run(self, rule: Rule, now: int, request_id: str | None) -> Results:
        """Run a rule; `request_id` is that of the request that asks for it, None if it is due."""
        summary = Summary(id=rule.id)
        try:
            rows = self._rows(rule, now)
            while group := list(islice(rows, GROUP_MAX)):
                for one in self._acted(rule, group, now, request_id):
                    summary.counts[one.outcome] += 1
                    yield one
        except Error as error:
            summary.stopped = error
        yield summary

    def _acted(
        self, rule: Rule, group: Sequence[_Row], now: int, request_id: str | None
    ) -> Iterator[Result]:
        """Do what the rule does with a group of models, in one transaction; finish the deletions."""
        if not any(row.changes for row in group):
            yield from (row.result() for row in group)
            return
        begun: dict[str, Deletion] = {}

        def commit(log_size: int) -> list[Result]:
            begun.clear()  # on a full disk it is called again
            with self.database.write(below_floor=True) as tx:
                current = _check_may_act(tx, rule, is_asked_for=request_id is not None)
                act = _Acting(
                    tx, current, now, log_size, self.executor.is_served, begun, request_id
                )
                return [act.on(row) if row.changes else row.result() for row in group]

        acted = self.executor.commit(commit)
        done = self.executor.finish_together(list(begun.values()))
        unfinished = {one.artifact_id for one in done if not one.is_deleted}
        for result in acted:
            is_late = result.artifact_id in unfinished
            yield replace(result, outcome=Outcome.DELETING) if is_late else result


@dataclass(frozen=True, slots=True)
class _Acting:
    """What a rule does in one transaction; deletions that it commits are added to `begun`, by model."""

    tx: Tx
    rule: Rule
    now: int
    log_size: int
    is_served: IsServed
    begun: dict[str, Deletion]
    request_id: str | None

    @property
    def actor(self) -> Actor:
        """The server, also in a run that an Owner asks for: the id of that request says who did."""
        return replace(audit.SERVER, request_id=self.request_id)

    def on(self, row: _Row) -> Result:
        """Look at a model again, as this transaction reads it, and do what the rule does with it then."""
        tx, rule, one = self.tx, self.rule, row.candidate
        model = artifacts.find_any(tx, ArtifactKind.MODEL, rule.organization_id, one.id)
        choice = choosing.choice_now(tx, rule.terms.criteria, one.n, self.now, self.is_served)
        if model is None or model.state not in VISIBLE or choice is None:
            gone = Reason("gone", "It is deleted by now, or goes with another model.")
            return replace(row.result(), outcome=Outcome.NOT_FOUND, reasons=(gone,), due_at=None)
        blockers = plan.of(tx, ArtifactKind.MODEL, model, self.is_served).blockers
        due_at = retention_notices.due_now(tx, one.n, rule.n, rule.version)
        found = _row(rule, choice, tuple(map(results.reason_of, blockers)), due_at, self.now)
        return self._done(model, found)

    def _done(self, model: Artifact, row: _Row) -> Result:
        result = row.result()
        outcome = row.verdict.outcome
        if outcome is Outcome.DELETE:
            result = self._delete(model, result)
        elif outcome is Outcome.ARCHIVE:
            self._archive(model)
            result = replace(result, outcome=Outcome.ARCHIVED)
        elif outcome is Outcome.ANNOUNCE:
            self._announce(model, row.verdict.due_at or 0)
            result = replace(result, outcome=Outcome.ANNOUNCED)
        elif outcome is Outcome.SPARED and row.is_announced:
            retention_notices.withdraw(self.tx, model.n, self.rule.n)
        return result

    def _delete(self, model: Artifact, result: Result) -> Result:
        asked = together.Asked(
            requested_by=SERVER,
            actor=self.actor,
            log_size=self.log_size,
            request_id=self.request_id or "",
            reason=f"retention rule {self.rule.id}",
        )
        deletion = together.commit_all(self.tx, [model], asked)[-1]
        self.begun[model.id] = deletion
        return replace(result, outcome=Outcome.DELETED, deletion_id=deletion.id, due_at=None)

    def _archive(self, model: Artifact) -> None:
        """Archive a model and its checkpoints."""
        for one in (model, *models.checkpoints_of(self.tx, model.n)):
            if one.state is not artifacts.State.ARCHIVED:
                artifacts.set_archived(self.tx, one.n, is_archived=True)
                audit.record(
                    self.tx,
                    audit.EventType.MODEL_ARCHIVED,
                    organization_id=one.organization_id,
                    actor=self.actor,
                    resource_id=one.id,
                    reason=f"retention rule {self.rule.id}",
                )
                outbox.publish(
                    self.tx, one.organization_id, WebhookEventType.MODEL_ARCHIVED, one.id
                )

    def _announce(self, model: Artifact, due_at: int) -> None:
        rule = self.rule
        retention_notices.announce(
            self.tx,
            rule.organization_id,
            model.id,
            model.n,
            rule.id,
            rule.n,
            rule.version,
            due_at,
        )


def _row(
    rule: Rule, choice: Choice, blocked: tuple[Reason, ...], due_at: int | None, now: int
) -> _Row:
    found = verdicts.verdict(rule.terms, choice, now, is_blocked=bool(blocked), due_at=due_at)
    reasons = choice.reasons
    if found.due_at is not None:
        said = f"The rule announces a deletion {rule.terms.notice_days} days before it."
        reasons = (*reasons, Reason("notice", said))
    if choice.candidate.is_archived and verdicts.is_archive(rule.terms):
        reasons = (Reason("archived", "It is archived already."),)
    return _Row(choice.candidate, found, blocked or reasons, is_announced=due_at is not None)


def _check_may_act(tx: Tx, rule: Rule, *, is_asked_for: bool) -> Rule:
    """Return the rule as this transaction reads it. Raises Error(CONFLICT), Error(NOT_FOUND) if it may not act any more."""
    current = rules.find(tx, rule.organization_id, rule.id)
    if current.version != rule.version or not (is_asked_for or current.terms.is_enabled):
        raise Error(
            Kind.CONFLICT,
            f"The retention rule '{rule.id}' was changed or stopped while it ran.",
            code="retention_rule_changed",
        )
    _check_not_paused(tx, rule.organization_id)
    return current


def _check_not_paused(tx: Tx, organization_id: str) -> None:
    """Raise Error(CONFLICT) while the organization's rules are paused."""
    pause = retention_pause.of(tx, organization_id)
    if pause is not None:
        raise Error(
            Kind.CONFLICT,
            f"Retention is paused: {retention_pause.SAID[pause.reason]}. Look at the previews of your rules, then"
            " resume it (`tunewarden retention resume`).",
            code="retention_paused",
        )
