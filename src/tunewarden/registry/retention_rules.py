"""Retention rules: what an organization lets go by itself. Owners make them; a rule acts for its organization.

A new rule does nothing until it is enabled, so that it is looked at first. `deletion/retention/` runs them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from tunewarden import audit
from tunewarden.db import cursors
from tunewarden.db.database import Database, Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys, projects
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.ids import Prefix, mint, shown
from tunewarden.registry import bases, criteria, retention_notices, retention_pause
from tunewarden.registry.criteria import Criteria

RULES_MAX = 100
NOTICE_DAYS_MAX = 365
NOTICE_DAYS = 7
_WRITTEN = (
    "id, organization_id, version, base, suffix, project_id, older_than_days, unused_for_days, keep_latest,"
    " action, notice_days, is_enabled, created_by, created_at, changed_at, last_run_at"
)


COLUMNS = f"n, {_WRITTEN}"


class RuleAction(StrEnum):
    """What a rule does with what it chooses."""

    ARCHIVE = "archive"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a rule says. A deletion is announced `notice_days` before it; archiving is not."""

    criteria: Criteria
    action: RuleAction
    notice_days: int
    is_enabled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule. Times are in microseconds since 1970; `last_run_at` is 0 if it never ran."""

    n: int
    id: str
    organization_id: str
    version: int
    terms: Terms
    created_by: str
    created_at: int
    changed_at: int
    last_run_at: int


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """The operations on rules."""

    database: Database

    def create(self, caller: Caller, terms: Terms) -> Rule:
        """Create a rule. Raises Error(FORBIDDEN), Error(INVALID), Error(QUOTA_EXCEEDED)."""
        authorize_writing(caller)
        with self.database.write() as tx:
            authorize_writing_now(tx, caller)
            _check(tx, caller.organization_id, terms)
            if _count(tx, caller.organization_id) >= RULES_MAX:
                raise Error(
                    Kind.QUOTA_EXCEEDED,
                    f"Your organization has {RULES_MAX} retention rules, which is the limit. Delete some.",
                    code="too_many_rules",
                )
            rule_id = mint(Prefix.RETENTION_RULE)
            tx.run(
                f"INSERT INTO retention_rules ({_WRITTEN}) VALUES (:id, :organization, 1,"
                " :base, :suffix, :project, :older, :unused, :keep, :action, :notice, :enabled, :by, :now, :now, 0)",
                id=rule_id,
                organization=caller.organization_id,
                by=caller.key_id,
                now=tx.now_micros,
                **_columns(terms),
            )
            retention_pause.include(tx, caller.organization_id)
            _record(tx, caller, audit.EventType.RETENTION_RULE_CREATED, rule_id, terms)
            return find(tx, caller.organization_id, rule_id)

    def change(self, caller: Caller, rule_id: str, change: Callable[[Terms], Terms]) -> Rule:
        """Change what a rule says; what it announced before is void then. Idempotent.

        Raises Error(FORBIDDEN), Error(NOT_FOUND), Error(INVALID).
        """
        authorize_writing(caller)
        with self.database.write(below_floor=True) as tx:
            authorize_writing_now(tx, caller)
            rule = find(tx, caller.organization_id, rule_id)
            terms = change(rule.terms)
            if terms == rule.terms:
                return rule
            _check(tx, caller.organization_id, terms)
            # Only to stop and to start it voids nothing.
            is_other = replace(terms, is_enabled=rule.terms.is_enabled) != rule.terms
            tx.run(
                "UPDATE retention_rules SET version = :version, base = :base, suffix = :suffix,"
                " project_id = :project, older_than_days = :older, unused_for_days = :unused, keep_latest = :keep,"
                " action = :action, notice_days = :notice, is_enabled = :enabled, changed_at = :now WHERE n = :n",
                n=rule.n,
                version=rule.version + is_other,
                now=tx.now_micros,
                **_columns(terms),
            )
            _record(tx, caller, audit.EventType.RETENTION_RULE_UPDATED, rule_id, terms)
            return find(tx, caller.organization_id, rule_id)

    def delete(self, caller: Caller, rule_id: str) -> None:
        """Delete a rule and what it announced; no model. Raises Error(FORBIDDEN), Error(NOT_FOUND)."""
        authorize_writing(caller)
        with self.database.write(below_floor=True) as tx:
            authorize_writing_now(tx, caller)
            rule = find(tx, caller.organization_id, rule_id)
            retention_notices.forget_rule(tx, rule.n)
            tx.run("DELETE FROM retention_rules WHERE n = :n", n=rule.n)
            _record(tx, caller, audit.EventType.RETENTION_RULE_DELETED, rule_id, rule.terms)

    def find(self, caller: Caller, rule_id: str) -> Rule:
        """Return a rule of the caller's organization. Raises Error(FORBIDDEN), Error(NOT_FOUND)."""
        authorize(caller, Action.READ_RETENTION)
        with self.database.read() as tx:
            return find(tx, caller.organization_id, rule_id)

    def page(self, caller: Caller, *, after: str | None, limit: int) -> Sequence[Rule]:
        """Return the organization's rules, oldest first. Raises Error(FORBIDDEN, INVALID)."""
        authorize(caller, Action.READ_RETENTION)
        with self.database.read() as tx:
            start = cursors.position(
                tx.row,
                "SELECT n FROM retention_rules WHERE id = :after AND organization_id = :organization",
                after=after,
                first=cursors.BEFORE_ALL,
                organization=caller.organization_id,
            )
            rows = tx.rows(
                f"SELECT {COLUMNS} FROM retention_rules WHERE organization_id = :organization AND n > :start"
                " ORDER BY n LIMIT :limit",
                organization=caller.organization_id,
                start=start,
                limit=limit,
            )
        return [_rule(row) for row in rows]


def authorize_writing(caller: Caller) -> None:
    """Check that a caller may let rules act: by a rule they delete too. Raises Error(FORBIDDEN)."""
    authorize(caller, Action.WRITE_RETENTION)
    authorize(caller, Action.DELETE)


def authorize_writing_now(tx: Tx, caller: Caller) -> None:
    """Check the same, by key, scopes and roles as this transaction reads them; raises like `keys.authorize_now`."""
    keys.authorize_now(tx, caller, Action.WRITE_RETENTION)
    keys.authorize_now(tx, caller, Action.DELETE)


def find(tx: Tx, organization_id: str, rule_id: str) -> Rule:
    """Return a rule of an organization. Raises Error(NOT_FOUND), also for a foreign one (I9)."""
    row = tx.row(
        f"SELECT {COLUMNS} FROM retention_rules WHERE id = :id AND organization_id = :organization",
        id=rule_id,
        organization=organization_id,
    )
    if row is None:
        raise Error(
            Kind.NOT_FOUND,
            f"The retention rule '{shown(rule_id)}' does not exist.",
            param="rule_id",
            code="retention_rule_not_found",
        )
    return _rule(row)


def due(database: Database, before: int, *, limit: int) -> list[Rule]:
    """Return enabled rules of organizations that are not paused, whose last run began before a time, in microseconds."""
    with database.read() as tx:
        rows = tx.rows(
            f"SELECT {COLUMNS} FROM retention_rules r WHERE is_enabled = 1 AND last_run_at < :before"
            " AND NOT EXISTS (SELECT 1 FROM retention_pauses p WHERE p.organization_id = r.organization_id"
            " AND p.paused_at IS NOT NULL) ORDER BY last_run_at LIMIT :limit",
            before=before,
            limit=limit,
        )
    return [_rule(row) for row in rows]


def note_run(tx: Tx, rule_n: int) -> None:
    """Note that a run of a rule begins now."""
    tx.run(
        "UPDATE retention_rules SET last_run_at = :now WHERE n = :n", now=tx.now_micros, n=rule_n
    )


def _check(tx: Tx, organization_id: str, terms: Terms) -> None:
    """Check what a client says. Raises Error(INVALID)."""
    criteria.check(terms.criteria, param="")
    if not terms.criteria.name_an_age:
        raise Error(
            Kind.INVALID,
            "A rule needs at least one of 'older_than_days', 'unused_for_days' and 'keep_latest'.",
            param="older_than_days",
        )
    if not 0 <= terms.notice_days <= NOTICE_DAYS_MAX:
        said = f"'notice_days' must be a whole number from 0 to {NOTICE_DAYS_MAX}."
        raise Error(Kind.INVALID, said, param="notice_days")
    if terms.notice_days and terms.action is RuleAction.ARCHIVE:
        said = "Only deletions are announced: archiving can be undone. Omit 'notice_days'."
        raise Error(Kind.INVALID, said, param="notice_days")
    base, project = terms.criteria.base, terms.criteria.project_id
    if base is not None and not bases.exists(tx, base):
        raise Error(Kind.INVALID, f"There is no base '{base}'.", param="base")
    if project is not None and not projects.exists(tx, organization_id, project):
        said = f"Your organization has no project '{project}'."
        raise Error(Kind.INVALID, said, param="project")


def _count(tx: Tx, organization_id: str) -> int:
    row = tx.row(
        "SELECT COUNT(*) FROM retention_rules WHERE organization_id = :organization",
        organization=organization_id,
    )
    assert row is not None, "an aggregate has one row"
    return int(row[0])


def _columns(terms: Terms) -> dict[str, str | int | None]:
    return {
        "base": terms.criteria.base,
        "suffix": terms.criteria.suffix,
        "project": terms.criteria.project_id,
        "older": terms.criteria.older_than_days,
        "unused": terms.criteria.unused_for_days,
        "keep": terms.criteria.keep_latest,
        "action": terms.action.value,
        "notice": terms.notice_days,
        "enabled": int(terms.is_enabled),
    }


def _rule(row: Row) -> Rule:
    n, rule_id, organization_id, version, *chosen, action, notice, enabled = row[:13]
    base, suffix, project_id, older, unused, keep = chosen
    terms = Terms(
        criteria=Criteria(
            base=base,
            suffix=suffix,
            project_id=project_id,
            older_than_days=older,
            unused_for_days=unused,
            keep_latest=keep,
        ),
        action=RuleAction(action),
        notice_days=notice,
        is_enabled=bool(enabled),
    )
    return Rule(
        n=n,
        id=rule_id,
        organization_id=organization_id,
        version=version,
        terms=terms,
        created_by=row[13],
        created_at=row[14],
        changed_at=row[15],
        last_run_at=row[16],
    )


def _record(tx: Tx, caller: Caller, event: audit.EventType, rule_id: str, terms: Terms) -> None:
    audit.record(
        tx,
        event,
        organization_id=caller.organization_id,
        actor=caller.actor,
        resource_id=rule_id,
        action=terms.action.value,
        enabled=terms.is_enabled,
    )
