"""Workers, deleters, dying runners and an engine in one thread, in an order that a seed decides.

The database, the keyring, the blobs and the log are real; fence, engine and time are fakes. A deleter
gives way at each of its effects that holds no lock, and while it waits: there the others go on.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.lab.judge import judge, require
from tests.lab.power import Power
from tests.lab.world import Made, Violated, World, one_dies

from tunewarden.db.sqlite import SqliteDatabase
from tunewarden.deletion.executor import Executor
from tunewarden.deletion.group_commit import GroupCommit
from tunewarden.deletion.requests import Attempt
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Caller
from tunewarden.locks import ByteLocks
from tunewarden.registry import artifacts
from tunewarden.registry.artifacts import State
from tunewarden.registry.models import note_load

# Effects at which no lock is held, so that somebody else may do anything, even delete.
OPEN = frozenset({"committed", "fence", "fenced", "evict", "evicted", "mark", "marked"})
ORDER = [State.ACTIVE, State.ARCHIVED, State.DELETING, State.DELETED]
DEPTH_MAX = 3
Stream = Iterator[None]


@dataclass
class Machine:
    """What everybody in a simulation shares, and what was seen of them."""

    world: World
    owner: Caller
    made: list[Made]
    chance: random.Random
    database: SqliteDatabase
    states: dict[int, State] = field(default_factory=dict)
    begun: int = 0
    chunks: int = 0

    def is_acknowledged(self, made: Made) -> bool:
        return made.model.id in self.world.acknowledged

    def begins(self, made: Made) -> None:
        """A request begins on a model."""
        self.begun += 1
        require("I1", "a request began after the answer", not self.is_acknowledged(made))

    def emits(self, made: Made) -> None:
        """A byte of a model's output leaves."""
        self.chunks += 1
        require("I2", "a byte left after the answer", not self.is_acknowledged(made))


class _NeverWaits(GroupCommit):
    def _wait_for_turn(self, deadline: float) -> ByteLocks:
        raise TimeoutError(f"not before {deadline}")


class NeverQueues(Executor):
    """All run in one thread here: a follower that waited would keep the leader from going on."""

    group_commit_type = _NeverWaits


class Worker:
    """A worker that serves: it begins, reads the state inside, streams, and ends (section 5)."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        process = machine.world.process()
        self.fence = process.new_fence()
        self.fence.join(f"w{machine.chance.randrange(10**9)}")
        self.streams: list[Stream] = []
        self.is_frozen = False

    @property
    def is_alive(self) -> bool:
        return self.fence.name in self.machine.world.floor.workers

    def step(self) -> None:
        """Go one step on with something, if it runs at all."""
        if self.is_frozen or not self.is_alive:
            return
        chance = self.machine.chance
        if not self.streams or chance.random() < 0.2:
            self.streams.append(self.serve(chance.choice(self.machine.made)))
        stream = chance.choice(self.streams)
        if next(stream, "ended") == "ended":
            self.streams.remove(stream)

    def is_active(self, n: int) -> bool:
        """Read the state, fresh."""
        return artifacts.is_active(self.machine.database, n)

    def serve(self, made: Made) -> Stream:
        """Serve one request; between any two lines where it yields, anything may happen."""
        n = made.model.n
        if not self.fence.begin(n):
            return
        try:
            yield
            if self.is_active(n):
                yield
                self.machine.begins(made)
                yield from self.chunks(made)
        finally:
            if self.is_alive:
                self.fence.end(n)

    def chunks(self, made: Made) -> Stream:
        """Stream from the engine until the model is gone."""
        engine = self.machine.world.engine
        database, n = self.machine.database, made.model.n
        note_load(database, n, engine.incarnation, is_loaded=False)
        for _ in range(self.machine.chance.randrange(1, 6)):
            if not engine.load(made.model.internal_id):
                raise Violated("I1", "the engine refuses a model that is served")
            note_load(database, n, engine.incarnation, is_loaded=True)
            yield
            if not self.is_active(made.model.n):
                return
            yield
            self.machine.emits(made)


class Simulation:
    """One life of one machine."""

    def __init__(self, world: World, owner: Caller, made: list[Made], seed: int) -> None:
        self.world = world
        database = SqliteDatabase(world.config.database, world.clock, migrate=False)
        self.machine = Machine(world, owner, made, random.Random(seed), database)
        self.worker_type: type[Worker] = Worker
        self.workers: list[Worker] = []
        self.depth = 0
        self.deaths = 0
        # Kept, because a deleter that gives way catches what went wrong meanwhile.
        self.violated: Violated | None = None

    def run(self, events: int) -> None:
        """Let things happen, then thaw, start anew and judge."""
        self.workers = [self.worker_type(self.machine) for _ in range(3)]
        self.world.floor.on_kill = self._buried
        self._on_sleep()
        for _ in range(events):
            self._happens(self._event)
            self._happens(self._check)
            if self.violated is not None:
                raise self.violated
        self._start_anew()
        self.world.restart()
        for made in self.machine.made:
            judge(self.world, made)

    def _happens(self, what: Callable[[], None]) -> None:
        try:
            what()
        except Violated as violated:
            self.violated = self.violated or violated
            raise

    def _on_sleep(self) -> None:
        clock, sleep = self.world.clock, self.world.clock.sleep

        def sleeping(seconds: float) -> None:
            sleep(seconds)
            if self.machine.chance.random() < 0.3:
                self._happens(self._worker_step)

        clock.sleep = sleeping  # type: ignore[method-assign]  # the test's own step

    def _event(self) -> None:
        chance, engine = self.machine.chance, self.world.engine
        kind = chance.choices(
            ["work", "delete", "resume", "freeze", "engine", "restart"], [60, 14, 8, 8, 6, 4]
        )[0]
        if kind == "work":
            for _ in range(4):
                self._worker_step()
        elif kind == "delete":
            self._delete()
        elif kind == "resume":
            self._runs(lambda process: process.app.executor.resume())
        elif kind == "freeze":
            worker = chance.choice(self.workers)
            worker.is_frozen = not worker.is_frozen
        elif kind == "engine":
            act = chance.choice(["restart", "fail", "hang"])
            engine.failures = int(act == "fail")
            engine.hangs = act == "hang"
            if act == "restart":
                engine.restart()
        elif self.depth == 0:
            self._start_anew()
            self._restarted()

    def _delete(self) -> None:
        made = self.machine.made
        target, retries = self.machine.chance.choice(made), self.machine.chance.randrange(2)
        attempt = Attempt(retry_count=retries)

        def ask(process: World) -> None:
            before = self.machine.is_acknowledged(target)
            try:
                process.delete(self.machine.owner, target, attempt)
            except Error as refused:
                require("I13", f"a refusal: {refused}", refused.kind is not Kind.FORBIDDEN)
                return
            require("I5", "a fresh second DELETE was answered", retries or not before)
            self._answered(target)

        self._runs(ask)

    def _answered(self, made: Made) -> None:
        """Check what must be true at the very moment of the answer."""
        keyring = self.world.app.keyring
        require("I3", "its key is there after the answer", not keyring.contains(made.model.key_id))
        loaded = self.world.engine.loaded
        require("I3", "an engine holds it after the answer", made.model.internal_id not in loaded)

    def _runs(self, work: Callable[[World], object]) -> None:
        """Let a process do some work; it may die on the way."""
        if self.depth >= DEPTH_MAX:
            return
        chance = self.machine.chance
        power = Power(chance.randrange(4, 70) if chance.random() < 0.4 else None)
        step = power.step

        def giving_way(what: str) -> None:
            step(what)
            if what in OPEN and chance.random() < 0.5:
                self._happens(self._event)
                self._happens(self._check)

        process = self.world.process(power)
        self.depth += 1
        with one_dies():
            process.open()
            power.step = giving_way  # type: ignore[method-assign]  # the test's own step
            work(process)
        self.depth -= 1
        self.deaths += power.dead

    def _worker_step(self) -> None:
        self.machine.chance.choice(self.workers).step()

    def _buried(self, name: str) -> None:
        """A killed worker does nothing more; the supervisor starts another."""
        dead = next(worker for worker in self.workers if worker.fence.name == name)
        self.workers.remove(dead)
        self.workers.append(self.worker_type(self.machine))

    def _start_anew(self) -> None:
        for worker in list(self.workers):
            self.world.floor.kill(worker.fence.name)
        self.world.engine.restart()
        self.world.engine.failures = 0

    def _restarted(self) -> None:
        self.world.restart()
        for made in self.machine.made:
            judge(self.world, made)

    def _check(self) -> None:
        """Check what must be true after every event."""
        with self.machine.database.read() as tx:
            rows = {n: State(state) for n, state in tx.rows("SELECT n, state FROM artifacts")}
        for n, state in rows.items():
            before = self.machine.states.get(n, state)
            require("I7", f"{before} became {state}", ORDER.index(state) >= ORDER.index(before))
        self.machine.states = rows
        for made in self.machine.made:
            if self.machine.is_acknowledged(made):
                require("I6", "an answered deletion was lost", rows[made.model.n] is State.DELETED)
