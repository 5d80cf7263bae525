"""A history of creates, imports and deletes, with copies of every part taken on the way."""

import gc
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import apsw
from tests.lab.judge import leaves
from tests.lab.power import Power
from tests.lab.world import Made, Parts, World, new_world, one_dies

from tunewarden.identity.policy import Caller
from tunewarden_receipts.statement import Deleted

PARTS = ("database", "keyring", "log", "blobs")
# Moments within a deletion, by the effect that the power goes before.
WITHIN = (
    "fence",
    "evict",
    "keyring: replace",
    "log: extend",
    "log: published",
    "mark",
    "commit",
)


@dataclass(frozen=True, slots=True)
class Mix:
    """Which moment each part is of."""

    database: int
    keyring: int
    log: int
    blobs: int


@dataclass
class Fate:
    """What became of a model: the first moments whose copies show it. None: never."""

    made: Made
    made_at: int
    asked_at: int | None = None
    erased_at: int | None = None
    logged_at: int | None = None


@dataclass
class History:
    """Copies of the parts at each moment, and what was true."""

    root: Path
    world: World
    owner: Caller
    names: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    # The log's size that database and keyring must know of at each moment.
    noted: list[int] = field(default_factory=list)
    checkpoints: dict[int, bytes] = field(default_factory=dict)
    fates: dict[str, Fate] = field(default_factory=dict)

    def take(self, name: str, *, is_quiet: bool = True) -> None:
        """Copy every part as it is now; the world is closed and opened again."""
        world, at = self.world, len(self.names)
        world.close()
        gc.collect()
        target = self.root / f"moment-{at}"
        shutil.copytree(world.config.data, target, ignore=shutil.ignore_patterns("run"))
        copy = apsw.Connection(str(target / "tunewarden.sqlite"))
        copy.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        copy.close()
        world.power = Power()
        world.open()
        self.names.append(name)
        log = world.log()
        self.checkpoints[log.size()] = log.checkpoint()
        self.sizes.append(log.size())
        self.noted.append(log.size() if is_quiet else self.noted[-1])
        for fate in self.fates.values():
            self._note(fate, at)

    def make(self, canary: str) -> Made:
        """Bring a model in; its fate is followed from the next moment on."""
        made = self.world.make(self.owner, canary)
        self.fates[made.model.id] = Fate(made, len(self.names))
        return made

    def _note(self, fate: Fate, at: int) -> None:
        world, model = self.world, fate.made.model
        row = world.app.database.peek("SELECT state FROM artifacts WHERE id = :id", id=model.id)
        assert row is not None
        if row[0] in {"deleting", "deleted"} and fate.asked_at is None:
            fate.asked_at = at
        if not world.app.keyring.contains(model.key_id) and fate.erased_at is None:
            fate.erased_at = at
        logged = any(isinstance(fact, Deleted) for _, fact in leaves(world, fate.made))
        if logged and fate.logged_at is None:
            fate.logged_at = at

    @contextmanager
    def mixed(self, mix: Mix) -> Iterator[World]:
        """Yield a closed installation whose parts are of different moments."""
        root = self.root / "mixed"
        data = root / "data"
        data.mkdir(parents=True)
        try:
            shutil.copy(self._part(mix.database, "tunewarden.sqlite"), data)
            shutil.copy(self._part(mix.log, "log.key"), data)
            for name, moment in (("keyring", mix.keyring), ("log", mix.log), ("blobs", mix.blobs)):
                shutil.copytree(self._part(moment, name), data / name)
            yield World(root, self.world.parts, time=self.world.clock)
        finally:
            shutil.rmtree(root)

    def _part(self, moment: int, name: str) -> Path:
        return self.root / f"moment-{moment}" / name


@contextmanager
def lived(parts: Parts | None = None) -> Iterator[History]:
    """Yield a history: some models stay, two go quietly, and one deletion is watched step by step."""
    with new_world(parts) as world:
        history = History(world.root, world, world.caller())
        kept = [history.make(f"kept-{number}") for number in range(3)]
        first, second, third = (history.make(f"gone-{number}") for number in range(3))
        history.take("six models")
        world.delete(history.owner, first)
        history.take("the first is deleted, its blobs are not erased")
        world.resume()
        history.take("the first is deleted, its blobs are erased")
        history.make("kept-late")
        late = history.make("gone-late")
        history.take("two more models, in another shard")
        for effect in WITHIN:
            assert _stop_before(history, second, effect), f"no deletion does: {effect}"
            history.take(f"the second is being deleted, before {effect}", is_quiet=False)
        world.resume()
        history.take("the second is deleted")
        world.delete(history.owner, third)
        world.delete(history.owner, late)
        world.resume()
        history.take("two more are deleted")
        history.make("kept-last")
        history.take("the end")
        assert len(kept) == 3
        yield history


def _stop_before(history: History, made: Made, effect: str) -> bool:
    """Let the process die before an effect of the deletion, on its way from wherever it is."""
    world = history.world
    step = world.power.step

    def stop(what: str) -> None:
        if what == effect:
            world.power.cut_at = len(world.power.effects)
        step(what)

    world.power.step = stop  # type: ignore[method-assign]  # the test's own step
    with one_dies():
        if history.fates[made.model.id].asked_at is None:
            world.delete(history.owner, made)
        world.resume()
    return world.power.dead
