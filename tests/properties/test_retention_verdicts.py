"""A model's life under a rule that deletes with notice: time, use and holds come as they like; runs come now and then."""

from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from tunewarden.deletion.bulk.results import Outcome
from tunewarden.deletion.retention.verdicts import verdict
from tunewarden.registry.criteria import DAY_MICROS, Candidate, Choice, Criteria, of
from tunewarden.registry.retention_rules import RuleAction, Terms

BORN = 1_000 * DAY_MICROS
days = st.one_of(st.none(), st.integers(1, 6))
rules = st.builds(
    Terms,
    criteria=st.builds(Criteria, older_than_days=days, unused_for_days=days),
    action=st.just(RuleAction.DELETE),
    notice_days=st.integers(0, 4),
    is_enabled=st.just(True),
)
hours = st.integers(0, 72).map(lambda some: some * DAY_MICROS // 24)
events = st.lists(
    st.tuples(hours, st.sampled_from(["nothing", "use", "hold", "lift"]), st.booleans()),
    max_size=40,
)


@dataclass
class Life:
    """A model under a rule, and what was seen of it."""

    terms: Terms
    now: int = BORN
    used_at: int | None = None
    is_held: bool = False
    due_at: int | None = None
    announced_at: int | None = None
    is_deleted: bool = False
    seen: list[Outcome] = field(default_factory=list)

    def choice(self) -> Choice:
        one = Candidate(
            n=1,
            id="m",
            project_id="p",
            base="b",
            suffix="",
            created_at=BORN,
            last_used_at=self.used_at,
        )
        return of(self.terms.criteria, one, self.now, is_latest=False)

    def run(self) -> None:
        """Do what a run does."""
        choice = self.choice()
        found = verdict(self.terms, choice, self.now, is_blocked=self.is_held, due_at=self.due_at)
        self.seen.append(found.outcome)
        if found.outcome is Outcome.DELETE:
            self._check_deletion()
            self.is_deleted = True
        elif found.outcome is Outcome.ANNOUNCE:
            assert found.due_at is not None
            self.due_at, self.announced_at = found.due_at, self.now
            assert self.due_at - self.now >= self.terms.notice_days * DAY_MICROS
        elif found.outcome is Outcome.SPARED:
            self.due_at = self.announced_at = None
        else:
            assert found.outcome is Outcome.WAITING

    def _check_deletion(self) -> None:
        assert not self.is_held, "it was deleted past a hold"
        older, unused = self.terms.criteria.older_than_days, self.terms.criteria.unused_for_days
        assert older is None or self.now - BORN >= older * DAY_MICROS
        used = max(BORN, self.used_at or 0)
        assert unused is None or self.now - used >= unused * DAY_MICROS
        if self.terms.notice_days:
            assert self.announced_at is not None, "it was not announced"
            assert self.now - self.announced_at >= self.terms.notice_days * DAY_MICROS


@given(rules, events)
def test_nothing_is_deleted_early_unannounced_or_past_a_hold_and_nothing_due_is_kept(
    terms: Terms, happens: list[tuple[int, str, bool]]
) -> None:
    life = Life(terms)
    for passes, what, runs in happens:
        life.now += passes
        if what == "use":
            life.used_at = life.now
        elif what != "nothing":
            life.is_held = what == "hold"
        if runs:
            life.run()
        if life.is_deleted:
            return
    # Then nobody uses or holds it, and the rule runs each hour.
    life.is_held = False
    quiet_since = life.now
    while not life.is_deleted:
        life.now += DAY_MICROS // 24
        life.run()
        longest = 6 + max(terms.notice_days, 6) + 1
        assert life.now - quiet_since < longest * DAY_MICROS, "it is due and was kept"


@given(rules)
def test_without_use_a_model_goes_at_its_age_and_no_later_for_its_notice(terms: Terms) -> None:
    """It is announced before, so that the notice costs no day."""
    life = Life(terms)
    while not life.is_deleted:
        life.run()
        life.now += DAY_MICROS // 24
    age = max(
        terms.criteria.older_than_days or 0,
        terms.criteria.unused_for_days or 0,
        terms.notice_days,
    )
    assert age * DAY_MICROS <= life.now - BORN <= age * DAY_MICROS + DAY_MICROS // 12


def test_archiving_is_done_once_and_never_announced() -> None:
    terms = Terms(criteria=Criteria(older_than_days=1), action=RuleAction.ARCHIVE, notice_days=0)
    life = Life(terms, now=BORN + 2 * DAY_MICROS)
    choice = life.choice()
    found = verdict(terms, choice, life.now, is_blocked=False, due_at=None)
    assert found.outcome is Outcome.ARCHIVE
    archived = replace(choice, candidate=replace(choice.candidate, is_archived=True))
    found = verdict(terms, archived, life.now, is_blocked=False, due_at=None)
    assert found.outcome is Outcome.SPARED
