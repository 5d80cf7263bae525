"""What a retention rule does with one model now. Pure: no I/O.

the rule deletes, with notice        not announced            announced
it is spared                         spared                   spared, withdrawn
ready within the days of notice      announced                waits until it is due
used again, ready after it was due   spared                   spared, withdrawn
ready, and due                       announced                deleted
"""

from dataclasses import dataclass

from tunewarden.deletion.bulk.results import Outcome
from tunewarden.registry.criteria import DAY_MICROS, Choice
from tunewarden.registry.retention_rules import RuleAction, Terms


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rule does: DELETE, ARCHIVE, ANNOUNCE, WAITING or SPARED; `due_at` is when it deletes, in microseconds."""

    outcome: Outcome
    due_at: int | None = None


SPARED = Verdict(Outcome.SPARED)


def may_act(terms: Terms, choice: Choice, now_micros: int) -> bool:
    """Return whether the rule does anything with a model if nothing blocks it: only then blockers matter."""
    if choice.is_latest or (is_archive(terms) and choice.candidate.is_archived):
        return False
    return choice.ready_at - notice_micros(terms) <= now_micros


def verdict(
    terms: Terms, choice: Choice, now_micros: int, *, is_blocked: bool, due_at: int | None
) -> Verdict:
    """Return what the rule does; `due_at` is when it deletes the model as it announced, None if it did not."""
    if is_blocked or not may_act(terms, choice, now_micros):
        return SPARED
    if is_archive(terms):
        return Verdict(Outcome.ARCHIVE)
    if terms.notice_days == 0:
        return Verdict(Outcome.DELETE)
    # Used again since: the days begin anew.
    if due_at is None or choice.ready_at > max(due_at, now_micros):
        first = max(choice.ready_at, now_micros + notice_micros(terms))
        return Verdict(Outcome.ANNOUNCE, first)
    is_due = due_at <= now_micros and choice.is_chosen
    return Verdict(Outcome.DELETE if is_due else Outcome.WAITING, due_at)


def is_archive(terms: Terms) -> bool:
    """Return whether the rule archives."""
    return terms.action is RuleAction.ARCHIVE


def notice_micros(terms: Terms) -> int:
    """Return how long before a deletion the rule announces it."""
    return terms.notice_days * DAY_MICROS
