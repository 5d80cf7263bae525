"""What a rule does with models in one transaction: each is looked at again, then deleted, archived or announced."""

from dataclasses import dataclass, replace

from tunewarden import audit
from tunewarden.audit import Actor
from tunewarden.db.database import Tx
from tunewarden.deletion import plan, together
from tunewarden.deletion.bulk import choosing, results
from tunewarden.deletion.bulk.results import Outcome, Result
from tunewarden.deletion.plan import Plan
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.replay import SERVER
from tunewarden.deletion.retention import previewed, verdicts
from tunewarden.deletion.retention.previewed import Previewed
from tunewarden.deletion.retention.verdicts import Verdict
from tunewarden.deletion.use import IsServed
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Caller
from tunewarden.registry import artifacts, models, retention_notices, retention_pause
from tunewarden.registry import retention_rules as rules
from tunewarden.registry.artifacts import VISIBLE, Artifact, ArtifactKind
from tunewarden.registry.criteria import Candidate, Choice, Reason
from tunewarden.registry.retention_rules import Rule
from tunewarden.webhooks import outbox
from tunewarden.webhooks.event_types import WebhookEventType


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a rule: who asks for it, None if it is due; what its preview said, None if it is bound to none."""

    rule: Rule
    now: int
    caller: Caller | None = None
    said: Previewed | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A model, what the rule does with it, whether a notice of it stands, and the plan, if that was asked for."""

    candidate: Candidate
    verdict: Verdict
    reasons: tuple[Reason, ...]
    is_announced: bool
    plan: Plan | None

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
class Acting:
    """What a rule does in one transaction; deletions that it commits are added to `begun`, by model."""

    tx: Tx
    run: Run
    log_size: int
    is_served: IsServed
    begun: dict[str, Deletion]

    @property
    def rule(self) -> Rule:
        """The rule."""
        return self.run.rule

    @property
    def actor(self) -> Actor:
        """Who asked for the run; the server, if the rule was due."""
        return audit.SERVER if self.run.caller is None else self.run.caller.actor

    def on(self, row: Row) -> Result:
        """Look at a model again, as this transaction reads it, and do what the rule does with it then."""
        tx, rule, one, now = self.tx, self.rule, row.candidate, self.run.now
        model = artifacts.find_any(tx, ArtifactKind.MODEL, rule.organization_id, one.id)
        choice = choosing.choice_now(tx, rule.terms.criteria, one.n, now, self.is_served)
        if model is None or model.state not in VISIBLE or choice is None:
            gone = Reason("gone", "It is deleted by now, or goes with another model.")
            return replace(row.result(), outcome=Outcome.NOT_FOUND, reasons=(gone,), due_at=None)
        planned = plan.of(tx, ArtifactKind.MODEL, model, self.is_served)
        due_at = retention_notices.due_now(tx, one.n, rule.n, rule.version)
        found = row_of(rule, choice, planned, due_at, now)
        said = self.run.said
        if said is not None and not said.allows(one.id, found.verdict.outcome, planned):
            reasons = (previewed.NOT_PREVIEWED,)
            return replace(row.result(), outcome=Outcome.SPARED, reasons=reasons, due_at=None)
        return self._done(model, found)

    def _done(self, model: Artifact, row: Row) -> Result:
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
        caller = self.run.caller
        asked = together.Asked(
            requested_by=SERVER if caller is None else caller.key_id,
            actor=self.actor,
            log_size=self.log_size,
            request_id="" if caller is None else caller.request_id,
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


def row_of(rule: Rule, choice: Choice, planned: Plan | None, due_at: int | None, now: int) -> Row:
    """Return what a rule does with a model; `planned` is what deleting it would do, None if that does not matter."""
    blocked = () if planned is None else tuple(map(results.reason_of, planned.blockers))
    found = verdicts.verdict(rule.terms, choice, now, is_blocked=bool(blocked), due_at=due_at)
    reasons = choice.reasons
    if found.due_at is not None:
        said = f"The rule announces a deletion {rule.terms.notice_days} days before it."
        reasons = (*reasons, Reason("notice", said))
    if choice.candidate.is_archived and verdicts.is_archive(rule.terms):
        reasons = (Reason("archived", "It is archived already."),)
    is_announced = due_at is not None
    return Row(choice.candidate, found, blocked or reasons, is_announced, planned)


def check_may_act(tx: Tx, run: Run) -> Rule:
    """Return the rule as this transaction reads it.

    Raises Error(CONFLICT), Error(NOT_FOUND) if it may not act any more; Error(FORBIDDEN), Error(UNAUTHENTICATED) if who
    asked for the run may not.
    """
    rule, caller = run.rule, run.caller
    if caller is not None:
        rules.authorize_writing_now(tx, caller)  # I8
    current = rules.find(tx, rule.organization_id, rule.id)
    if current.version != rule.version or (caller is None and not current.terms.is_enabled):
        raise Error(
            Kind.CONFLICT,
            f"The retention rule '{rule.id}' was changed or stopped while it ran.",
            code="retention_rule_changed",
        )
    check_not_paused(tx, rule.organization_id)
    return current


def check_not_paused(tx: Tx, organization_id: str) -> None:
    """Raise Error(CONFLICT) while the organization's rules are paused."""
    pause = retention_pause.of(tx, organization_id)
    if pause is not None:
        raise Error(
            Kind.CONFLICT,
            f"Retention is paused: {retention_pause.SAID[pause.reason]}. Look at the previews of your rules, then"
            " resume it (`tunewarden retention resume`).",
            code="retention_paused",
        )
