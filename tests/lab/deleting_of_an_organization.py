"""The acts that delete: requests, cases, bulks, rules, by whoever asks; time, restarts, power cuts and restores between."""

import copy
import shutil
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import hypothesis.strategies as st
from hypothesis.stateful import initialize, invariant, rule
from tests.lab.judge import require
from tests.lab.life_of_an_organization import CHOSEN, DAY_SECONDS, MISSING, PEOPLE, Living
from tests.lab.organization import Person, RetentionRule, Thing
from tests.lab.organization_ground import ANN, BOB, GUS, PIA, Interruptible
from tests.lab.world import one_dies

from tunewarden import app as composition
from tunewarden.deletion.bulk.bulk_deletions import BulkDeletions, Wanted
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.requests import Attempt
from tunewarden.deletion.retention import expiry_pause
from tunewarden.errors import Error, Kind
from tunewarden.registry.aliases import Aliases
from tunewarden.registry.criteria import Criteria
from tunewarden.registry.retention_rules import RetentionRules, RuleAction, Terms

REFUSED = {
    "not_found": {Kind.NOT_FOUND},
    "forbidden": {Kind.FORBIDDEN},
    "conflict": {Kind.CONFLICT},
}
# What comes in between: it holds or protects something, or takes a role away.
MEANWHILE = st.none() | st.tuples(st.sampled_from(["hold", "hold", "protect", "role"]), CHOSEN)
AGES = st.sampled_from([None, 1, 2])
NOTICES = st.sampled_from([0, 0, 1, 2])
RULES_MAX = 4


class Life(Living):
    """A life with everything in it; after each act, what is there and what is gone is as plain Python says."""

    @initialize(
        older=AGES, unused=AGES, archives=st.booleans(), notice=NOTICES, model=CHOSEN, held=CHOSEN
    )
    def begins(  # noqa: PLR0917  each is of another meaning
        self,
        older: int | None,
        unused: int | None,
        archives: bool,
        notice: int,
        model: int,
        held: int,
    ) -> None:
        """A rule, an alias, a hold and a job, so that each life has some."""
        self._look(is_first=True)
        self.makes_rule(ANN, older, unused, None, archives, notice)
        self.points(ANN, model, model, "prod")
        self.holds(ANN, held)
        seen = [one for one in self.known.alive() if self.known.sees(ANN, one)]
        files = [one for one in seen if one.is_file]
        begun = [one for one in seen if not one.is_file]
        self._begin_job(ANN, files[held % len(files)], begun[model % len(begun)])

    # Requests.

    @rule(
        who=PEOPLE,
        which=CHOSEN,
        force=st.booleans(),
        with_models=st.booleans(),
        retry=st.sampled_from([0, 0, 1]),
    )
    def deletes(
        self, who: Person, which: int, *, force: bool, with_models: bool, retry: int
    ) -> None:
        thing = self._thing(which)
        attempt = Attempt(force=force, with_models=with_models, retry_count=retry)
        delete = partial(self._delete, who, thing, attempt)
        if thing.is_gone:
            # A retry may get the first answer again; who else asks is told nothing, and 404 once it is done.
            try:
                again = delete()
            except Error as error:
                if error.kind not in {*MISSING, Kind.UNAVAILABLE}:
                    raise
            else:
                require(
                    "I5",
                    "a stranger gets the answer",
                    again.requested_by == self._caller(who).key_id,
                )
            self._finish()
            return
        wanted = self.known.deletion(who, thing, force=force, with_models=with_models)
        if isinstance(wanted, str):
            with self._unless(REFUSED[wanted]):
                delete()
            return
        is_case = with_models and thing.is_file
        self.known.delete(wanted)
        waiting = self._of_case(thing) if is_case else wanted
        is_blocked = any(self.known.is_needed(one) for one in waiting)
        with self._unless({Kind.UNAVAILABLE} if is_blocked else set()):
            delete()
            self._note_gone(waiting)
        self.told["deletions that wait for a trainer"] += is_blocked

    def _of_case(self, file: Thing) -> list[Thing]:
        """Return the members of a case that has just begun, those included that were being deleted before."""
        found = [self.known.things[key] for key in self.known.learned_from(file)]
        return [one for one in [*found, file] if one.is_gone and not one.is_done]

    def _delete(self, who: Person, thing: Thing, attempt: Attempt) -> Deletion:
        executor = self.world.app.executor
        return executor.delete(self._caller(who), self._kind(thing), self._id(thing), attempt)

    @rule(which=CHOSEN, force=st.booleans(), with_models=st.booleans(), cut=st.integers(0, 60))
    def dies_while_deleting(self, which: int, *, force: bool, with_models: bool, cut: int) -> None:
        """The power goes during a deletion: it is committed with all that goes with it, or nothing is."""
        thing = self._thing(which)
        wanted = self.known.deletion(ANN, thing, force=force, with_models=with_models)
        power = self.world.power
        power.cut_at = len(power.effects) + cut
        with one_dies(), suppress(Error):
            self._delete(ANN, thing, Attempt(force=force, with_models=with_models))
        self.told["power cuts"] += power.dead
        self._start()
        self._look(is_first=True)
        if isinstance(wanted, str):
            return
        gone = {one.key for one in wanted if self._state(one) in {"deleting", "deleted"}}
        require("I6", "half of a deletion is committed", len(gone) in {0, len(wanted)})
        if gone:
            self.known.delete(wanted)
            self._finish()

    @rule(
        who=PEOPLE,
        chosen=st.lists(CHOSEN, min_size=1, max_size=6),
        force=st.booleans(),
        meanwhile=MEANWHILE,
    )
    def deletes_many(
        self, who: Person, chosen: list[int], meanwhile: tuple[str, int] | None, *, force: bool
    ) -> None:
        things = {one.key: one for one in map(self._thing, chosen)}
        wanted = Wanted(tuple(map(self._id, things.values())))
        self._bulk(who, wanted, list(things.values()), force=force, meanwhile=meanwhile)

    @rule(who=PEOPLE, older=AGES, unused=AGES, keep=AGES, force=st.booleans(), meanwhile=MEANWHILE)
    def deletes_what_is_old(
        self,
        who: Person,
        older: int | None,
        unused: int | None,
        keep: int | None,
        meanwhile: tuple[str, int] | None,
        *,
        force: bool,
    ) -> None:
        if (older, unused, keep) == (None, None, None):
            return
        things = [
            one
            for one in reversed(self.known.of_rules(who.organization))
            if self.known.ready_on(one, older, unused) <= self.today
            and not self.known.is_latest(one, keep)
        ]
        criteria = Criteria(older_than_days=older, unused_for_days=unused, keep_latest=keep)
        self._bulk(who, Wanted(criteria=criteria), things, force=force, meanwhile=meanwhile)

    def _bulk(
        self,
        who: Person,
        wanted: Wanted,
        things: list[Thing],
        *,
        force: bool,
        meanwhile: tuple[str, int] | None,
    ) -> None:
        app = self.world.app
        can = self.known.is_owner(who)
        before = set(self.known.owners)
        self._interrupt(meanwhile, things)
        with self._unless(set() if can else {Kind.FORBIDDEN}):
            list(
                BulkDeletions(app.database, app.executor).delete(
                    self._caller(who), wanted, Attempt(force=force)
                )
            )
        self._end_interruption()
        if not can:
            assert before == self.known.owners
            return
        for thing in things:
            group = self.known.deletion(who, thing, force=force)
            if not isinstance(group, str):
                self.known.delete(group)
                self.told["deleted in bulk"] += len(group)
        self._finish()

    def _interrupt(self, meanwhile: tuple[str, int] | None, about: Sequence[Thing]) -> None:
        """Let something come in between, if anything is about to be committed; it spares something of that."""
        executor = self.world.app.executor
        assert isinstance(executor, Interruptible)
        if meanwhile is None or not about:
            return
        what, which = meanwhile
        spared = about[which % len(about)]
        owner = GUS if spared.organization == GUS.organization else ANN

        def comes() -> None:
            if what == "hold":
                self._hold(owner, spared)
            elif what == "protect":
                self._mark(owner, spared, "protected", yes=True)
            else:
                self._give_role(is_owner=False)
            self.told["came between"] += 1

        executor.between = comes

    def _end_interruption(self) -> None:
        executor = self.world.app.executor
        assert isinstance(executor, Interruptible)
        executor.between = None

    # Rules.

    @rule(
        who=st.sampled_from([ANN, BOB, GUS]),
        older=AGES,
        unused=AGES,
        keep=AGES,
        archives=st.booleans(),
        notice=NOTICES,
    )
    def makes_rule(  # noqa: PLR0917  each is of another meaning
        self,
        who: Person,
        older: int | None,
        unused: int | None,
        keep: int | None,
        archives: bool,
        notice: int,
    ) -> None:
        if (older, unused, keep) == (None, None, None) or len(self.known.rules) >= RULES_MAX:
            return
        notice = 0 if archives else notice
        terms = Terms(
            criteria=Criteria(older_than_days=older, unused_for_days=unused, keep_latest=keep),
            action=RuleAction.ARCHIVE if archives else RuleAction.DELETE,
            notice_days=notice,
            is_enabled=True,
        )
        with self._unless(set() if self.known.is_owner(who) else {Kind.FORBIDDEN}):
            made = RetentionRules(self.world.app.database).create(self._caller(who), terms)
            self.known.rules.append(
                RetentionRule(made.id, who.organization, older, unused, keep, archives, notice)
            )
            self.known.with_rules.add(who.organization)

    @rule(who=PEOPLE, which=CHOSEN)
    def ends_rule(self, who: Person, which: int) -> None:
        if not self.known.rules:
            return
        one = self.known.rules[which % len(self.known.rules)]
        can = self.known.is_owner(who) and who.organization == one.organization
        with self._unless(set() if can else MISSING):
            RetentionRules(self.world.app.database).delete(self._caller(who), one.id)
            self.known.rules.remove(one)

    @rule(who=PEOPLE, which=CHOSEN, meanwhile=MEANWHILE)
    def runs_rule(self, who: Person, which: int, meanwhile: tuple[str, int] | None) -> None:
        if not self.known.rules:
            return
        one = self.known.rules[which % len(self.known.rules)]
        # The clock is looked at before a role is read again.
        refusal = {Kind.CONFLICT} if self.known.clock_is_distrusted else set[Kind]()
        if not self.known.is_owner(who):
            refusal |= {Kind.FORBIDDEN}
        elif refusal:
            pass
        elif who.organization != one.organization:
            refusal = {Kind.NOT_FOUND}
        elif one.organization in self.known.paused:
            refusal = {Kind.CONFLICT}
        looked = self.known.verdicts(one, self.today)
        retention = composition.retention_runner(self.world.app)
        self._interrupt(meanwhile, self._touched(looked))
        with self._unless(refusal):
            *_, summary = retention.run(self._caller(who), one.id)
            stopped = getattr(summary, "stopped", None)
            if self.known.is_owner(who):
                assert stopped is None
                self._carry_out(one, looked)
            else:  # who asked for it lost the role before it committed (I8)
                assert stopped is not None
                assert stopped.kind is Kind.FORBIDDEN
                self.told["stopped with the role"] += 1
                self._note_run(one)
        self._end_interruption()

    def _carry_out(self, one: RetentionRule, looked: dict[int, str] | None) -> None:
        """Do what a run does. What it would not touch when it looked, it does not look at again."""
        now = self.known.verdicts(one, self.today)
        wanted = {key: what for key, what in now.items() if (looked or now)[key] != "wait"}
        gone = list(self.known.carry_out(one, wanted, self.today))
        self.told["deleted by a rule"] += len(gone)
        self.told["archived by a rule"] += sum(what == "archive" for what in wanted.values())
        self.told["announced"] += sum(what == "announce" for what in wanted.values())
        self._note_run(one)

    def _note_run(self, one: RetentionRule) -> None:
        one.ran = max(rule.ran for rule in self.known.rules) + 1
        self._finish()

    # Time.

    @rule(days=st.integers(1, 3), meanwhile=MEANWHILE)
    def days_pass(self, days: int, meanwhile: tuple[str, int] | None) -> None:
        """The runner looks at the clock each day, and runs what is due."""
        for _ in range(days):
            self.world.clock.sleep(DAY_SECONDS)
            self.today += 1
            self._tick(meanwhile)

    def _tick(self, meanwhile: tuple[str, int] | None) -> None:
        """Do what the runner does."""
        now = self._look()
        if now is None:
            return
        due = [one for one in self.known.rules if one.organization not in self.known.paused]
        looked = {one.id: self.known.verdicts(one, self.today) for one in due}
        if len(due) == 1:
            self._interrupt(meanwhile, self._touched(looked[due[0].id]))
        composition.retention_runner(self.world.app).run_due(now)
        self._end_interruption()
        for one in sorted(due, key=lambda one: one.ran):
            self._carry_out(one, looked[one.id] if len(due) == 1 else None)

    def _touched(self, verdicts: dict[int, str]) -> list[Thing]:
        return [self.known.things[key] for key, what in verdicts.items() if what != "spare"]

    def _look(self, *, is_first: bool = False) -> int | None:
        """Look at the clock as the runner does; at its first look it compares with what it finds stored."""
        known, now = self.known, self.watch.trusted_now()
        if is_first and known.noted_on < self.marked_on:
            known.pause_all()
            known.noted_on = self.marked_on
        if is_first and not known.clock_is_distrusted and known.noted_on < self.today:
            known.clock_is_distrusted = True
            known.pause()
        require("I10", f"time is trusted: {now}", (now is None) is known.clock_is_distrusted)
        if now is not None and known.noted_on < self.today:
            known.noted_on = self.marked_on = self.today
        return now

    @rule(days=st.integers(0, 2))
    def is_down(self, days: int) -> None:
        """The server is off. It cannot tell a long time from a wrong clock."""
        self.world.close()
        self.world.clock.sleep(days * DAY_SECONDS)
        self.today += days
        self._start()
        self._look(is_first=True)

    @rule()
    def operator_trusts_the_clock(self) -> None:
        app = self.world.app
        was = expiry_pause.resume(app.database, app.clock)
        assert was is self.known.clock_is_distrusted
        if was:
            self.known.clock_is_distrusted, self.known.noted_on = False, self.today
            self._look(is_first=True)

    @rule(who=st.sampled_from([ANN, BOB, GUS]))
    def resumes_rules(self, who: Person) -> None:
        refusal = {Kind.CONFLICT} if self.known.clock_is_distrusted else set[Kind]()
        refusal |= set() if self.known.is_owner(who) else {Kind.FORBIDDEN}
        with self._unless(refusal):
            was = composition.retention_runner(self.world.app).resume(self._caller(who))
            assert was is (who.organization in self.known.paused)
            self.known.paused.discard(who.organization)

    # Restores.

    @rule()
    def backs_up(self) -> None:
        """Copy the database, when nothing is on its way."""
        self._settle()
        self.world.app.database.copy_to(self.world.root / "backup.sqlite")
        self.backup = copy.deepcopy(self.known)

    @rule()
    def restores(self) -> None:
        """An older database meets today's log, keyring and blobs."""
        if self.backup is None:
            return
        self._settle()
        data = self.world.config.data
        self.world.close()
        for old in data.glob("tunewarden.sqlite*"):
            old.unlink()
        shutil.copyfile(self.world.root / "backup.sqlite", self.world.config.database)
        gone = {one.key for one in self.known.things.values() if one.is_gone}
        self.known = copy.deepcopy(self.backup)
        again = [one for one in self.known.alive() if one.key in gone]
        self.known.delete(again)
        if again:
            self.known.pause_all()
        self.made = {key: self.made[key] for key in self.known.things}
        self._start()
        self._look(is_first=True)
        self.told["restores"] += 1
        self.told["deleted again after a restore"] += len(again)

    def _settle(self) -> None:
        self.trainers_end()
        self._finish()

    @rule()
    def resumes(self) -> None:
        self._finish()

    # After each act.

    @invariant()
    def everything_is_as_expected(self) -> None:
        with self.world.app.database.read() as tx:
            states: dict[str, str] = dict(tx.rows("SELECT id, state FROM artifacts"))
        self.told["looks"] += 1
        require("I6", "something is lost", len(states) == len(self.known.things))
        for key, thing in self.known.things.items():
            found = states[self.made[key].model.id]
            alive = "archived" if thing.is_archived else "active"
            expected = {"deleted"} if thing.is_done else {"deleting", "deleted"}
            if not thing.is_gone:
                expected = {alive}
            said = f"{key} is {found}, and should be {' or '.join(expected)}: {thing}"
            require("I6", said, found in expected)

    @invariant()
    def lists_have_what_is_there(self) -> None:
        for who in (ANN, PIA, GUS):
            listed = {model.id for model in self.world.models(self._caller(who))}
            seen = [one for one in self.known.alive() if self.known.sees(who, one)]
            require(
                "I9",
                "a list is wrong",
                listed == {self._id(one) for one in seen if not one.is_file},
            )

    @invariant()
    def aliases_mean_what_is_there(self) -> None:
        found = Aliases(self.world.app.database).page(self._caller(ANN), after=None, limit=100)
        meant = {one.name: {target.model_id for target in one.current.targets} for one in found}
        expected = {
            name: {self._id(self.known.things[key]) for key in past[-1]}
            for name, past in self.known.aliases.items()
        }
        require("I7", f"aliases mean {meant}, not {expected}", meant == expected)
