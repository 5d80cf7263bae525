"""Retention rules: what they would do and why, one by one; whether they act."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tunewarden import problems
from tunewarden.console import bulk_pages, confirming, lists, rendering, tables
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.console.shown import segment
from tunewarden.console.tables import Table
from tunewarden.deletion.bulk.results import Outcome, Result, Summary
from tunewarden.deletion.retention.previewed import ACTS
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Action
from tunewarden.registry import retention_pause
from tunewarden.registry.criteria import Criteria
from tunewarden.registry.retention_rules import NOTICE_DAYS, Rule, RuleAction, Terms

HERE = "/console/retention"
# Rows of a preview that a page has, and models that it looks at, the newest: fewer where the rule acts on them, because
# each of those has its plan read. The command looks at all and lists all.
PREVIEW_ROWS = 50
LOOKED_AT_MAX, ACTED_ON_MAX = 2000, 100
CHANGED = problems.WIRE[Kind.PRECONDITION_FAILED][0]
IS_CHANGED = ("Something has changed since you saw this. Nothing was done.", CHANGED)


def _read(visit: Visit, after: str | None, limit: int) -> tuple[Sequence[Rule], str | None]:
    found = visit.operations.retention_rules.page(visit.caller, after=after, limit=limit + 1)
    return lists.cut(found, lambda one: one.id, limit)


RULES = Table[Rule](
    "retention-rules",
    _read,
    {
        "id": lambda one: one.id,
        "enabled": lambda one: one.terms.is_enabled,
        "action": lambda one: one.terms.action.value,
        "notice_days": lambda one: one.terms.notice_days,
        "base": lambda one: one.terms.criteria.base,
        "suffix": lambda one: one.terms.criteria.suffix,
        "project": lambda one: one.terms.criteria.project_id,
        "older_than_days": lambda one: one.terms.criteria.older_than_days,
        "unused_for_days": lambda one: one.terms.criteria.unused_for_days,
        "keep_latest": lambda one: one.terms.criteria.keep_latest,
        "created_at": lambda one: tables.instant(one.created_at),
        "last_run_at": lambda one: tables.instant(one.last_run_at),
    },
)


@tables.also_as(RULES)
def list_rules(visit: Visit) -> Response:
    """Return a page of rules, the oldest first, with the form that makes one."""
    _, values = RULES.page(visit)
    pause = visit.operations.retention.pause_of(visit.caller)
    values |= {
        "criteria_of": criteria_of,
        "pause": pause,
        "why": None if pause is None else retention_pause.SAID[pause.reason],
        "write_action": Action.WRITE_RETENTION,
        "usual_notice": NOTICE_DAYS,
    }
    return rendering.page(visit, "retention.html", values)


def create_rule(visit: Visit) -> Response:
    """Make a rule, which does nothing until it is enabled; lead to it."""
    made = visit.operations.retention_rules.create(visit.caller, _terms(visit))
    return rendering.to(f"{HERE}/{segment(made.id)}")


def _terms(visit: Visit) -> Terms:
    """Return what the form says. Raises Error(INVALID)."""
    asked = visit.asked
    try:
        action = RuleAction(asked.sent("action"))
    except ValueError as error:
        raise Error(Kind.INVALID, "The form does not say what the rule does.") from error
    usual = NOTICE_DAYS if action is RuleAction.DELETE else 0
    notice = asked.sent_number("notice_days")
    return Terms(
        criteria=Criteria(
            base=asked.sent("base").strip() or None,
            suffix=asked.sent("suffix").strip() or None,
            project_id=asked.sent("project").strip() or None,
            older_than_days=asked.sent_number("older_than_days"),
            unused_for_days=asked.sent_number("unused_for_days"),
            keep_latest=asked.sent_number("keep_latest"),
        ),
        action=action,
        notice_days=usual if notice is None else notice,
    )


def show_rule(visit: Visit) -> Response:
    """Return one rule, with what a run would do with each model, and why."""
    return _rule(visit)


def _rule(visit: Visit, message: str = "", status: int = 200) -> Response:
    of, rule_id = visit.operations, visit.asked.segments["rule_id"]
    rule = of.retention_rules.find(visit.caller, rule_id)
    with visit.asked.services.long_work.held(visit.caller.organization_id):
        seen = looked_at(of.retention.preview(visit.caller, rule_id))
    values = {
        "rule": rule,
        "said": criteria_of(rule.terms.criteria),
        "rows": seen.rows,
        "counts": {outcome.value: count for outcome, count in sorted(seen.counts.items())},
        "more": max(0, seen.counts.total() - len(seen.rows)),
        "looked_at": None if seen.fingerprint is not None else seen.counts.total(),
        "write_action": Action.WRITE_RETENTION,
        "message": message,
        "needs_proof": rule.terms.action is RuleAction.DELETE and not visit.session.has_fresh_proof,
        "usual_notice": NOTICE_DAYS,
        "seen": seen.fingerprint,
        "acts": seen.acts,
        "sentence": seen.sentence,
        "typed": visit.asked.sent("confirmation") if status != CHANGED else "",
    }
    return rendering.page(visit, "retention_rule.html", values, status=status)


class Seen(NamedTuple):
    """The first rows of a preview, the counts of what a page looks at, and the fingerprint if that is all."""

    rows: list[Result]
    counts: Counter[Outcome]
    fingerprint: str | None

    @property
    def acts(self) -> bool:
        """Whether the rule would do anything with what the page looks at."""
        return any(self.counts[one] for one in ACTS)

    @property
    def sentence(self) -> str:
        """What is to be typed before it runs; empty if nothing is deleted."""
        count = self.counts[Outcome.DELETE]
        return f"delete {count} model{'' if count == 1 else 's'}" if count else ""


def looked_at(found: Iterable[Result | Summary]) -> Seen:
    """Return what a page shows of a preview. Reads no further."""
    rows: list[Result] = []
    counts: Counter[Outcome] = Counter()
    fingerprint = None
    for one in found:
        if not isinstance(one, Result):
            fingerprint = one.fingerprint
            break
        counts[one.outcome] += 1
        if len(rows) < PREVIEW_ROWS:
            rows.append(one)
        acted_on = counts.total() - counts[Outcome.SPARED]
        if counts.total() == LOOKED_AT_MAX or acted_on == ACTED_ON_MAX:
            break
    return Seen(rows, counts, fingerprint)


async def change_rule(visit: Visit) -> Response:
    """Enable, disable, change, run or delete a rule. Before one that deletes models acts, one proves who it is."""
    rules, rule_id = visit.operations.retention_rules, visit.asked.segments["rule_id"]
    act = visit.asked.sent("act")
    if act == "change":
        return await _changed(visit)
    if act in {"enable", "run"}:
        rule = await run_in_threadpool(rules.find, visit.caller, rule_id)
        if rule.terms.action is RuleAction.DELETE:
            refused = await confirming.unproven(visit, _rule)
            if refused is not None:
                return refused
    if act == "run":
        return await run_in_threadpool(_run, visit)
    if act in {"enable", "disable"}:
        switch = partial(_switched, is_enabled=act == "enable")
        await run_in_threadpool(rules.change, visit.caller, rule_id, switch)
        return rendering.to(f"{HERE}/{segment(rule_id)}")
    if act == "delete":
        await run_in_threadpool(rules.delete, visit.caller, rule_id)
        return rendering.to(HERE)
    raise Error(Kind.INVALID, "The form does not say what to do with the rule.")


async def _changed(visit: Visit) -> Response:
    """Change what a rule says; whether it acts stays. Before one that acts deletes more, one proves who it is."""
    rules, rule_id = visit.operations.retention_rules, visit.asked.segments["rule_id"]
    terms = _terms(visit)
    before = await run_in_threadpool(rules.find, visit.caller, rule_id)
    if before.terms.is_enabled and terms.action is RuleAction.DELETE:
        refused = await confirming.asked_again(visit, "Change the rule")
        if refused is not None:
            return refused

    def change(now: Terms) -> Terms:
        if now.is_enabled != before.terms.is_enabled:
            raise Error(Kind.CONFLICT, "Somebody has just switched the rule. Look at it again.")
        return replace(terms, is_enabled=now.is_enabled)

    await run_in_threadpool(rules.change, visit.caller, rule_id, change)
    return rendering.to(f"{HERE}/{segment(rule_id)}")


def _run(visit: Visit) -> Response:
    """Run a rule now, if it would still do what the page said; return what became of each model."""
    retention, rule_id = visit.operations.retention, visit.asked.segments["rule_id"]
    with visit.asked.services.long_work.held(visit.caller.organization_id):
        seen = looked_at(retention.preview(visit.caller, rule_id))
        refused = _not_run(visit, seen)
        if refused is None:
            try:
                # Bound to what was seen: between these two anything may change.
                found = retention.run(visit.caller, rule_id, if_match=seen.fingerprint)
                results, summary = bulk_pages.parted(found)
            except Error as error:
                if error.kind is not Kind.PRECONDITION_FAILED:
                    raise
                refused = IS_CHANGED
    if refused is not None:
        return _rule(visit, *refused)
    acted_on = [one for one in results if one.outcome is not Outcome.SPARED]
    way = f"{HERE}/{segment(rule_id)}", f"Rule {rule_id}"
    return bulk_pages.outcome(visit, acted_on, summary, way)


def _not_run(visit: Visit, seen: Seen) -> tuple[str, int] | None:
    """Return why a rule is not run, with the status; None: it would do what was seen, and that is confirmed."""
    if seen.fingerprint is None:
        return (
            "There is more than this page looks at: run it by the command. Nothing was done.",
            409,
        )
    if seen.fingerprint != visit.asked.sent("seen"):
        return IS_CHANGED
    if not seen.acts:
        return "There is nothing to do now. Nothing was done.", 409
    unlike = confirming.mistyped(visit, seen.sentence) if seen.sentence else ""
    return (f"{unlike} Nothing was done.", 400) if unlike else None


def _switched(terms: Terms, *, is_enabled: bool) -> Terms:
    return replace(terms, is_enabled=is_enabled)


async def resume(visit: Visit) -> Response:
    """Let the rules act again."""
    refused = await confirming.asked_again(visit, "Let the rules act again")
    if refused is not None:
        return refused
    await run_in_threadpool(visit.operations.retention.resume, visit.caller)
    return rendering.to(HERE)


def criteria_of(criteria: Criteria) -> str:
    """Return what a rule chooses, in a sentence's part."""
    return ", ".join(_said(criteria)) or "every model"


def _said(criteria: Criteria) -> Iterator[str]:
    if criteria.base is not None:
        yield f"of the base {criteria.base}"
    if criteria.suffix is not None:
        yield f"with a suffix like {criteria.suffix}"
    if criteria.project_id is not None:
        yield f"of the project {criteria.project_id}"
    if criteria.older_than_days is not None:
        yield f"older than {_days_of(criteria.older_than_days)}"
    if criteria.unused_for_days is not None:
        yield f"not used for {_days_of(criteria.unused_for_days)}"
    if criteria.keep_latest is not None:
        yield f"but the latest {criteria.keep_latest}"


def _days_of(count: int) -> str:
    return f"{count} day{'' if count == 1 else 's'}"


PAGES = (
    Page("GET", HERE, list_rules),
    Page("POST", HERE, create_rule),
    Page("POST", f"{HERE}/resume", resume),
    Page("GET", f"{HERE}/{{rule_id}}", show_rule),
    Page("POST", f"{HERE}/{{rule_id}}", change_rule),
)
