"""A machine of organizations: the product in a process, beside plain Python. Here: what is made, used and spared.

The database, the executor of deletions, keyring, log and blobs are real; the clock moves by hand. What deletes is in
`deleting_of_an_organization.py`.
"""

import copy
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from tests.fakes.fence import Floor
from tests.lab import case_judge
from tests.lab.judge import judge, require
from tests.lab.organization import Job, Organizations, Person, Thing
from tests.lab.organization_ground import ANN, BOB, GUS, PIA, RAE, Ground
from tests.lab.places_of_use import KeyHolder, PlacesOfUse
from tests.lab.power import Power
from tests.lab.world import BASE, Made, Parts, copied
from tests.support import fine_tuning_rows

from tunewarden import app as composition
from tunewarden import audit
from tunewarden.errors import Error, Kind
from tunewarden.finetuning import commands, creation, states, transitions
from tunewarden.finetuning.creation import JobRequest
from tunewarden.finetuning.hyperparameters import parse
from tunewarden.identity import users
from tunewarden.identity.policy import Caller, Role
from tunewarden.registry import usage
from tunewarden.registry.aliases import Aliases
from tunewarden.registry.artifacts import ArtifactKind, State
from tunewarden.registry.holds import Holds
from tunewarden.registry.model_changes import Changes, ModelChanges
from tunewarden.registry.usage import COMPLETIONS, Counts, Series

T = TypeVar("T")
DAY_SECONDS = 24 * 3600.0
THINGS_MAX = 18
CHOSEN = st.integers(0, 1000)
PEOPLE = st.sampled_from([ANN, ANN, BOB, BOB, PIA, PIA, RAE, GUS])
NAMES = st.sampled_from(["prod", "canary"])
MISSING = {Kind.NOT_FOUND, Kind.FORBIDDEN}


class Living(RuleBasedStateMachine):
    """Acts in any order, by anybody; after each, what is there and what is gone is as plain Python says."""

    ground: Ground
    parts: Parts
    told: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        base = self.ground.world
        self.world = self.stack.enter_context(
            copied(base, parts=self.parts, time=copy.copy(base.clock))
        )
        self.known = copy.deepcopy(self.ground.known)
        self.made = dict(self.ground.made)
        self.exports: Counter[int] = Counter()
        self.today = self.marked_on = 0
        self.backup: Organizations | None = None
        self._start()

    def teardown(self) -> None:
        self.told["runs"] += 1
        try:
            if sys.exc_info()[0] is None:
                self._end()
        finally:
            self.world.close()
            self.stack.close()

    def _start(self) -> None:
        """Start as a server does, and look at the clock as its runner does."""
        self.world.close()
        self.world.floor, self.world.power = Floor(), Power()
        self.world.open()
        self.world.parts.recover(self.world.app)
        self.watch = composition.clock_watch(self.world.app)
        self.places = PlacesOfUse(self.world)
        self._finish()

    def _end(self) -> None:
        """Let everything come to its end; then look at receipts, keys, blobs and the log."""
        self.trainers_end()
        self.world.resume()
        self._finish()
        for key, thing in self.known.things.items():
            made = self.made[key]
            if thing.is_gone:
                require("I6", "a deletion does not end", thing.is_done)
                require("I6", "it is not deleted", judge(self.world, made) is State.DELETED)
                self.places.require_gone(made, self._holders(thing.organization))
                case_judge.require_exports(self.world, made, self.exports[key])
            elif key % 3 == 0:
                judge(self.world, made)
        self.told["cases"] += case_judge.require_summaries(self.world)

    # How it acts.

    def _caller(self, who: Person) -> Caller:
        """Return a caller as it was authenticated before its role was changed."""
        return self.ground.holders[who.name].caller

    def _holders(self, organization: str) -> list[KeyHolder]:
        found = self.ground.holders.values()
        return [one for one in found if one.caller.organization_name == organization]

    def _thing(self, which: int) -> Thing:
        """Choose one, mostly among the living."""
        found = self.known.alive() if which % 4 else []
        found = found or [*self.known.things.values()]
        return found[which // 4 % len(found)]

    def _id(self, thing: Thing) -> str:
        return self.made[thing.key].model.id

    @staticmethod
    def _kind(thing: Thing) -> ArtifactKind:
        return ArtifactKind.FILE if thing.is_file else ArtifactKind.MODEL

    @contextmanager
    def _unless(self, refusal: set[Kind]):  # type: ignore[no-untyped-def]  # a context of one use
        """Require that what is done here is refused in this way, if in any."""
        try:
            yield
        except Error as error:
            if error.kind not in refusal:
                raise AssertionError(f"refused: {error.message}") from error
            self.told[f"refused: {error.kind.value}"] += 1
        else:
            assert not refusal, f"not refused: {refusal}"

    def _refusal(self, who: Person, thing: Thing) -> set[Kind]:
        """Say how an Owner's act on a thing is refused; empty if it is not."""
        if self.known.sees(who, thing) and self.known.is_owner(who):
            return set()
        return MISSING

    def _finish(self) -> None:
        """Note which deletions are done once everything was resumed that can be."""
        self.world.app.executor.resume()
        for one in self.known.things.values():
            one.is_done |= one.is_gone and not self.known.is_needed(one)

    def _add(self, made: Made, who: Person, **more: object) -> Thing:
        key = max(self.known.things, default=0) + 1
        is_file = more.pop("is_file", False)
        one = Thing(key, who.organization, who.project, bool(is_file), self.today, **more)  # type: ignore[arg-type]  # a thing's own fields
        self.known.things[key] = one
        self.made[key] = made
        return one

    def _note_gone(self, group: Iterable[Thing]) -> None:
        """A deletion was answered 200: all of it is gone, on every path."""
        for one in group:
            one.is_done = True
            self.places.require_gone(self.made[one.key], self._holders(one.organization))
            self.told["deleted"] += 1

    # What is made.

    @rule(who=st.sampled_from([ANN, BOB, PIA, GUS]), is_file=st.booleans())
    def makes(self, who: Person, *, is_file: bool) -> None:
        if len(self.known.things) >= THINGS_MAX:
            return
        caller = self._caller(who)
        if is_file:
            made = self.world.make_file(caller, b'{"messages": 2}\n')
        else:
            made = self.world.make(caller)
        self._add(made, who, is_file=is_file)

    @rule(who=PEOPLE, which=CHOSEN, start=CHOSEN, continues=st.booleans())
    def begins_job(self, who: Person, which: int, start: int, *, continues: bool) -> None:
        file, model = self._thing(which), self._thing(start)
        if not file.is_file or (continues and model.is_file):
            return
        self._begin_job(who, file, model if continues else None)

    def _begin_job(self, who: Person, file: Thing, start: Thing | None) -> None:
        needs = [file] if start is None else [file, start]
        can = all(self.known.sees(who, one) and not one.is_archived for one in needs)
        can = can and (who.writes or self.known.is_owner(who))
        method, values = parse(None, None)
        name = BASE if start is None else self._id(start)
        request = JobRequest(name, self._id(file), None, method, values, "", 1, None)
        app = self.world.app
        with self._unless(set() if can else {Kind.INVALID, *MISSING}):
            made = creation.create(
                app.database, app.memory, app.keyring, app.drafts.quota, self._caller(who), request
            ).job
            keys = frozenset(one.key for one in needs)
            self.known.jobs[made.n] = Job(made.n, who.project, keys)
            self.told["jobs"] += 1

    @rule(which=CHOSEN, is_cancelled=st.booleans())
    def ends_job(self, which: int, *, is_cancelled: bool) -> None:
        """A job makes its model, or is cancelled; then its trainer still runs."""
        found = [
            one for one in self.known.jobs.values() if not (one.is_cancelled or one.is_finished)
        ]
        if not found:
            return
        job = found[which % len(found)]
        who = PIA if job.project == "second" else GUS if job.project == "other" else ANN
        with self.world.app.database.read() as tx:
            row = tx.row("SELECT id FROM jobs WHERE n = :n", n=job.key)
        assert row is not None
        if is_cancelled:
            app = self.world.app
            commands.cancel(app.database, app.clock, self._caller(who), row[0])
            job.is_cancelled = True
            return
        made = self.world.make(self._caller(who), "canary-of-a-job")
        with self.world.app.database.write() as tx:
            tx.run("UPDATE models SET job_n = :job WHERE n = :n", job=job.key, n=made.model.n)
        fine_tuning_rows.set_job(self.world.app, row[0], state=states.State.SUCCEEDED)
        job.is_finished = True
        self._add(made, who, sources=job.needs, job=job.key)

    @rule()
    def trainers_end(self) -> None:
        for job in self.known.jobs.values():
            if job.is_cancelled and not job.is_finished:
                with self.world.app.database.write() as tx:
                    assert transitions.finished(tx, job.key)
                job.is_finished = True

    # What spares.

    @rule(who=PEOPLE, which=CHOSEN)
    def holds(self, who: Person, which: int) -> None:
        self._hold(who, self._thing(which))

    def _hold(self, who: Person, thing: Thing) -> None:
        app = self.world.app
        # In all projects, as it is lifted.
        is_there = not thing.is_gone and thing.organization == who.organization
        can = is_there and self.known.is_owner(who)
        with self._unless(set() if can else MISSING):
            hold = Holds(app.database, app.keyring).place(
                self._caller(who), self._kind(thing), self._id(thing), "a matter"
            )
            thing.holds.add(hold.id)

    @rule(who=PEOPLE, which=CHOSEN)
    def lifts(self, who: Person, which: int) -> None:
        held = [(one, hold) for one in self.known.alive() for hold in sorted(one.holds)]
        if not held:
            return
        thing, hold = held[which % len(held)]
        app = self.world.app
        can = self.known.is_owner(who) and who.organization == thing.organization
        with self._unless(set() if can else MISSING):
            Holds(app.database, app.keyring).lift(self._caller(who), hold)
            thing.holds.discard(hold)

    @rule(
        who=PEOPLE, which=CHOSEN, what=st.sampled_from(["archived", "protected"]), yes=st.booleans()
    )
    def marks(self, who: Person, which: int, what: str, *, yes: bool) -> None:
        self._mark(who, self._thing(which), what, yes=yes)

    def _mark(self, who: Person, thing: Thing, what: str, *, yes: bool) -> None:
        app = self.world.app
        refusal = MISSING if thing.is_file else self._refusal(who, thing)
        is_meant = "alias" in self.known.blockers([thing])
        if not refusal and what == "archived" and yes and not thing.is_archived and is_meant:
            refusal = {Kind.CONFLICT}
        with self._unless(refusal):
            ModelChanges(app.database, app.keyring).change(
                self._caller(who),
                self._id(thing),
                Changes(archived=yes) if what == "archived" else Changes(protected=yes),
            )
            setattr(thing, f"is_{what}", yes)

    @rule(who=PEOPLE, which=CHOSEN, other=CHOSEN, name=NAMES)
    def points(self, who: Person, which: int, other: int, name: str) -> None:
        """Create or switch an alias to one model or two."""
        targets = {one.key: one for one in (self._thing(which), self._thing(other))}
        can = self.known.is_owner(who) and who.organization == "acme"
        can = can and all(
            self.known.sees(who, one) and not one.is_file and not one.is_archived
            for one in targets.values()
        )
        weights = {self._id(one): 1 for one in targets.values()}
        is_new = name not in self.known.aliases
        if who is GUS:
            return
        with self._unless(set() if can else MISSING):
            Aliases(self.world.app.database).set(self._caller(who), name, weights, is_new=is_new)
            past = self.known.aliases.setdefault(name, [])
            if not past or past[-1] != frozenset(targets):
                past.append(frozenset(targets))

    @rule(who=st.sampled_from([ANN, BOB, PIA]), name=NAMES, is_end=st.booleans())
    def turns_back(self, who: Person, name: str, *, is_end: bool) -> None:
        """End an alias, or point it to what it meant before."""
        past = self.known.aliases.get(name)
        aliases = Aliases(self.world.app.database)
        refusal = set() if past and self.known.is_owner(who) else MISSING
        if is_end:
            with self._unless(refusal):
                aliases.end(self._caller(who), name)
                del self.known.aliases[name]
            return
        if past and not refusal:
            before = past[-2] if len(past) > 1 else None
            targets = [self.known.things[key] for key in before or ()]
            can = all(self.known.sees(who, one) and not one.is_archived for one in targets)
            refusal = MISSING if before is None else set() if can else {Kind.CONFLICT}
        with self._unless(refusal):
            aliases.roll_back(self._caller(who), name, None)
            assert past
            past.append(past[-2])

    @rule(which=CHOSEN)
    def uses(self, which: int) -> None:
        """Owners ask a model; whoever sees it is answered."""
        thing = self._thing(which)
        if thing.is_file:
            return
        for who in (ANN, PIA, GUS):
            is_there = self.known.sees(who, thing) and not thing.is_archived
            is_served = self.places.is_served(self.ground.holders[who.name], self._id(thing))
            require("I9", f"{who.name} is answered: {is_served}", is_served == is_there)
        if thing.is_gone or thing.is_archived:
            return
        caller = self._caller(GUS if thing.organization == "globex" else ANN)
        series = Series(
            caller.organization_id,
            caller.key_id,
            caller.user_id,
            caller.project_id,
            self._id(thing),
            COMPLETIONS,
        )
        with self.world.app.database.write() as tx:
            usage.add(tx, series, Counts(requests=1))
        thing.used_on = self.today

    @rule(who=PEOPLE, which=CHOSEN)
    def exports_one(self, who: Person, which: int) -> None:
        thing = self._thing(which)
        exports = composition.exports(self.world.app)
        with self._unless(MISSING if thing.is_file else self._refusal(who, thing)):
            model = exports.find(self._caller(who), self._id(thing))
            assert any(exports.archive(model))
            exports.record(self._caller(who), model)
            self.exports[thing.key] += 1

    @rule(is_owner=st.booleans())
    def gives_role(self, *, is_owner: bool) -> None:
        """Bob's role changes; his requests were authenticated before."""
        self._give_role(is_owner=is_owner)

    def _give_role(self, *, is_owner: bool) -> None:
        with self.world.app.database.write() as tx:
            organization = self._caller(BOB).organization_id
            user = users.find(tx, organization, self._caller(BOB).user_id)
            users.set_role(
                tx, organization, user, Role.OWNER if is_owner else Role.READER, audit.SERVER
            )
        self.known.owners = (
            (self.known.owners | {"bob"}) if is_owner else self.known.owners - {"bob"}
        )

    def _state(self, thing: Thing) -> str:
        """Return what the database says of a thing."""
        row = self.world.app.database.peek(
            "SELECT state FROM artifacts WHERE id = :id", id=self._id(thing)
        )
        assert row is not None
        return str(row[0])
