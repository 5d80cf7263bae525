"""Two organizations to begin with, in an installation and in plain Python: files, and models that learned from them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tests.lab.organization import Job, Organizations, Person, Thing
from tests.lab.places_of_use import KeyHolder
from tests.lab.world import Made, Parts, World
from tests.support import fine_tuning_rows

from tunewarden.deletion.executor import Executor
from tunewarden.identity import keys
from tunewarden.identity.policy import Caller, Role
from tunewarden.registry.model_changes import Changes, ModelChanges

T = TypeVar("T")
ANN, BOB, PIA, RAE, GUS = (
    Person("ann", "acme", "first", writes=True),
    Person("bob", "acme", "first", writes=True),
    Person("pia", "acme", "second", writes=True),
    Person("rae", "acme", "first"),
    Person("gus", "globex", "other", writes=True),
)
JOB = (
    "INSERT INTO jobs (n, id, internal_id, organization_id, project_id, status, model, base, start_n,"
    " training_n, result_n, method, hyperparameters, suffix, seed, created_by, created_at, finished_at)"
    " VALUES (:n, :id, :id, :organization, :project, 'succeeded', 'tiny', 'tiny', :start,"
    " :file, :result, 'supervised', '{}', '', 1, 'k', 0, 1)"
)


class Interruptible(Executor):
    """An executor that lets something happen after a bulk or a rule has looked, and before it commits."""

    between: Callable[[], None] | None = None

    def commit(self, work: Callable[[int], T]) -> T:
        between, self.between = self.between, None
        if between is not None:
            between()
        return super().commit(work)


class Interrupted(Parts):
    """The product, but for that."""

    executor_type = Interruptible


@dataclass
class Ground:
    """A closed installation to copy, and what is in it."""

    world: World
    known: Organizations
    made: dict[int, Made]
    holders: dict[str, KeyHolder]


def new_ground(world: World) -> Ground:
    """Fill an open installation: files, models that learned from them in two projects, and another organization's."""
    return _Filling(world).ground()


class _Filling:
    def __init__(self, world: World) -> None:
        self.world = world
        self.known = Organizations({"ann", "bob", "pia", "gus"})
        self.made: dict[int, Made] = {}
        self.holders = {
            who.name: self._holder(who, Role.READER if who is RAE else Role.OWNER)
            for who in (ANN, BOB, RAE, GUS)
        }
        _, text = fine_tuning_rows.make_project(world.app, organization="acme")
        self.holders["pia"] = KeyHolder(fine_tuning_rows.caller_of(world.app, text), text)

    def ground(self) -> Ground:
        file, other = self._file(ANN, 1), self._file(ANN, 2)
        self._file(PIA, 3)
        result = self._file(ANN, 4)
        first = self._job(1, ANN, file, None, result)
        model = self._model(ANN, first)
        self._model(ANN, first, step=2)
        self._model(ANN, self._job(2, ANN, other, model))
        # In the second project: its model is everybody's, and its result file is hidden from the first.
        hidden = self._file(PIA, 5)
        self._model(PIA, self._job(3, PIA, self._file(PIA, 6), model, hidden))
        self._model(ANN, None)
        declared = self._model(ANN, None)
        app = self.world.app
        metadata = {"trained_on": self.made[file].model.id}
        ModelChanges(app.database, app.keyring).change(
            self.holders["ann"].caller, self.made[declared].model.id, Changes(metadata=metadata)
        )
        self.known.things[declared].sources = frozenset({file})
        self._model(GUS, self._job(4, GUS, self._file(GUS, 7), None))
        return Ground(self.world, self.known, self.made, self.holders)

    def _holder(self, who: Person, role: Role) -> KeyHolder:
        with self.world.app.database.write() as tx:
            _, text = keys.create(tx, organization=who.organization, role=role, name=who.name)
        return KeyHolder(keys.authenticate(self.world.app.database, text, "req_test"), text)

    def _add(self, who: Person, made: Made, **more: object) -> int:
        key = len(self.known.things) + 1
        self.made[key] = made
        self.known.things[key] = Thing(key, who.organization, who.project, made_on=0, **more)  # type: ignore[arg-type]  # a thing's own fields
        return key

    def _file(self, who: Person, lines: int) -> int:
        content = b'{"messages": 1}\n' * lines
        return self._add(who, self.world.make_file(self._caller(who), content), is_file=True)

    def _model(self, who: Person, job: int | None, step: int | None = None) -> int:
        made = self.world.make(self._caller(who))
        with self.world.app.database.write() as tx:
            tx.run(
                "UPDATE models SET job_n = :job, step = :step WHERE n = :n",
                job=job,
                step=step,
                n=made.model.n,
            )
        sources = self.known.jobs[job].needs if job is not None else frozenset[int]()
        more = {"is_file": False, "sources": sources, "job": job}
        return self._add(who, made, **more, is_checkpoint=step is not None)

    def _job(
        self, n: int, who: Person, file: int, start: int | None, result: int | None = None
    ) -> int:
        def number(key: int | None) -> int | None:
            return None if key is None else self.made[key].model.n

        with self.world.app.database.write() as tx:
            tx.run(
                JOB,
                n=n,
                id=f"ftjob-{n}",
                organization=self._caller(who).organization_id,
                project=self._caller(who).project_id,
                start=number(start),
                file=number(file),
                result=number(result),
            )
        needs = frozenset({file} if start is None else {file, start})
        self.known.jobs[n] = Job(n, who.project, needs, is_finished=True)
        if result is not None:
            self.known.things[result].sources = needs
        return n

    def _caller(self, who: Person) -> Caller:
        return self.holders[who.name].caller
