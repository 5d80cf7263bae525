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
from tunewarden.clock import Clock
from tunewarden.db.database import Database
from tunewarden.deletion import plan
from tunewarden.deletion.bulk import choosing
from tunewarden.deletion.bulk.bulk_deletions import Results
from tunewarden.deletion.bulk.results import Outcome, Result, Summary
from tunewarden.deletion.executor import Executor
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.recovery import HighWaterMark
from tunewarden.deletion.retention import acting, expiry_pause, verdicts
from tunewarden.deletion.retention.acting import Acting, Row, Run
from tunewarden.deletion.retention.previewed import Fingerprint, Previewed
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry import retention_notices, retention_pause
from tunewarden.registry import retention_rules as rules
from tunewarden.registry.criteria import Choice
from tunewarden.registry.retention_pause import Pause, PauseReason
from tunewarden.registry.retention_rules import Rule

HOUR_MICROS = 3600 * 1_000_000
GROUP_MAX = 32
RULES_AT_ONCE = 100

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Retention:
    """The operations that run rules. `mark` is of the times that the database has seen."""

    database: Database
    clock: Clock
    executor: Executor
    mark: HighWaterMark

    def preview(self, caller: Caller, rule_id: str, *, if_match: str | None = None) -> Results:
        """Return what a run would do with each model that the rule is about, and why; nothing changes.

        Raises Error(FORBIDDEN), Error(NOT_FOUND); Error(PRECONDITION_FAILED) if it is not what `if_match` names.
        """
        authorize(caller, Action.READ_RETENTION)
        with self.database.read() as tx:
            keys.authorize_now(tx, caller, Action.READ_RETENTION)
            rule = rules.find(tx, caller.organization_id, rule_id)
            now = tx.now_micros
        if if_match is not None:
            self._said(rule, now, if_match)
        return self._previewed(rule, now)

    def run(self, caller: Caller, rule_id: str, *, if_match: str | None = None) -> Results:
        """Run a rule now, enabled or not; yield what became of each model, in groups.

        `if_match` is the fingerprint of a preview: then it does what that said and nothing else. Raises Error(FORBIDDEN),
        Error(NOT_FOUND), Error(CONFLICT) while retention is paused; Error(PRECONDITION_FAILED) if it would not do what
        `if_match` names: then nothing has changed.
        """
        rules.authorize_writing(caller)
        self._check_trusted()
        said = None
        if if_match is not None:
            with self.database.read() as tx:
                rules.authorize_writing_now(tx, caller)
                rule = rules.find(tx, caller.organization_id, rule_id)
                now = tx.now_micros
            said = self._said(rule, now, if_match)
        with self.database.write(below_floor=True) as tx:
            rules.authorize_writing_now(tx, caller)
            rule = rules.find(tx, caller.organization_id, rule_id)
            acting.check_not_paused(tx, rule.organization_id)
            if said is not None:
                said.check_rule(rule)
            rules.note_run(tx, rule.n)
            audit.record(
                tx,
                audit.EventType.RETENTION_RULE_RUN,
                organization_id=caller.organization_id,
                actor=caller.actor,
                resource_id=rule.id,
                action=rule.terms.action.value,
                **({} if said is None else {"models": len(said)}),
            )
            now = tx.now_micros
        return self._run(Run(rule, now, caller, said))

    def run_due(self, now_micros: int, *, is_stopping: Callable[[], bool] = lambda: False) -> int:
        """Run the enabled rules whose last run is an hour ago, by a time that can be trusted; return how many.

        `is_stopping` ends a run early: what is left is done by the next one.
        """
        found = rules.due(self.database, now_micros - HOUR_MICROS, limit=RULES_AT_ONCE)
        for rule in found:
            with self.database.write(survives=False, below_floor=True) as tx:
                rules.note_run(tx, rule.n)
            for one in self._run(Run(rule, now_micros)):
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
            rules.authorize_writing_now(tx, caller)
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
        summary, fingerprint = Summary(id=rule.id, is_dry_run=True), Fingerprint(rule)
        for row in self._rows(rule, now):
            summary.counts[row.verdict.outcome] += 1
            fingerprint.add(row.candidate.id, row.verdict.outcome, row.plan)
            yield replace(row.result(), plan=row.plan)
        summary.fingerprint = fingerprint.text()
        yield summary

    def _said(self, rule: Rule, now: int, if_match: str) -> Previewed:
        """Return what a run would do. Raises Error(PRECONDITION_FAILED) if that is not what `if_match` names."""
        said, fingerprint = Previewed(rule), Fingerprint(rule)
        for row in self._rows(rule, now):
            one = row.candidate.id, row.verdict.outcome, row.plan
            said.add(*one)
            fingerprint.add(*one)
        plan.check_match(if_match, fingerprint.text(), "What the rule would do has changed")
        return said

    def _rows(self, rule: Rule, now: int) -> Iterator[Row]:
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
            yield acting.row_of(rule, seen.choice, seen.plan, due_at, now)

    def _run(self, run: Run) -> Results:
        summary = Summary(id=run.rule.id, has_more=run.said is not None and run.said.has_more)
        try:
            rows = self._rows(run.rule, run.now)
            while group := list(islice(rows, GROUP_MAX)):
                for one in self._acted(run, group):
                    summary.counts[one.outcome] += 1
                    yield one
        except Error as error:
            summary.stopped = error
        yield summary

    def _acted(self, run: Run, group: Sequence[Row]) -> Iterator[Result]:
        """Do what the rule does with a group of models, in one transaction; finish the deletions."""
        if not any(row.changes for row in group):
            yield from (row.result() for row in group)
            return
        begun: dict[str, Deletion] = {}

        def commit(log_size: int) -> list[Result]:
            begun.clear()  # on a full disk it is called again
            with self.database.write(below_floor=True) as tx:
                now = replace(run, rule=acting.check_may_act(tx, run))
                act = Acting(tx, now, log_size, self.executor.is_served, begun)
                return [act.on(row) if row.changes else row.result() for row in group]

        acted = self.executor.commit(commit)
        done = self.executor.finish_together(list(begun.values()))
        unfinished = {one.artifact_id for one in done if not one.is_deleted}
        for result in acted:
            is_late = result.artifact_id in unfinished
            yield replace(result, outcome=Outcome.DELETING) if is_late else result
