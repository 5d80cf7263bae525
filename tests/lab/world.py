"""A whole installation in a directory in memory: the real parts, with power that can be cut.

`Parts` builds each part as `app.open_app` does; a mutant is a subclass that builds one of them
wrong. `World.restart` throws every object away and starts as the server does (D10).
"""

import gc
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from io import BytesIO
from pathlib import Path

from tests.fakes.clock import HandClock
from tests.fakes.engine import FakeEngine
from tests.fakes.fence import FakeFence, Floor
from tests.lab.power import (
    CuttingDatabase,
    CuttingDisk,
    CuttingEngine,
    CuttingFence,
    CuttingKeyFiles,
    CuttingLogDisk,
    Power,
    PowerCut,
)
from tests.support import bases as adapters

from tunewarden.app import App
from tunewarden.artifacts import sealing
from tunewarden.artifacts.adapters import Limits, base_shape
from tunewarden.artifacts.directory import DirectoryBlobs
from tunewarden.artifacts.directory_keyring import DirectoryKeyring
from tunewarden.artifacts.keyring import Keyring
from tunewarden.artifacts.plain_memory import PlainMemory
from tunewarden.clock import Clock
from tunewarden.config import Config
from tunewarden.db.database import Database
from tunewarden.deletion.executor import Executor
from tunewarden.deletion.log_opening import LogOpening
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.recovery import LogMark
from tunewarden.deletion.requests import Attempt
from tunewarden.deletion.steps import Steps
from tunewarden.engines.lease_agent import LeaseAgent
from tunewarden.engines.port import Engine, RemoteControl
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys
from tunewarden.identity.policy import Caller, Role
from tunewarden.recovery_at_start import recover
from tunewarden.registry import bases, models
from tunewarden.registry.artifacts import Artifact, ArtifactKind
from tunewarden.registry.bases import BaseKind
from tunewarden.registry.drafts import Drafts, blob_name
from tunewarden.registry.file_rows import File
from tunewarden.registry.files import CONTENT, Files, Owner
from tunewarden.registry.imports import CONFIG_NAME, WEIGHTS_NAME, Imports
from tunewarden.registry.models import Model
from tunewarden.registry.quota import ProjectQuota, Quota
from tunewarden.registry.uploads import Uploads
from tunewarden.registry.usage_counter import UsageCounter
from tunewarden.space import Ballast
from tunewarden.space import Floor as DiskFloor
from tunewarden.transparency.directory_log import DirectoryLog
from tunewarden.transparency.key import LogSigner
from tunewarden.transparency.log import Log

BASE = "tiny"
LOG_NAME = "tunewarden.test/log"
SHARD_CAPACITY = 6


class Violated(AssertionError):
    """An invariant does not hold; `invariant` is its number."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant


class Parts:
    """How each part is made. The defaults are the product; a subclass is a mutant of it."""

    clock_type: Callable[[], Clock] = HandClock
    steps_type: type[Steps] = Steps
    executor_type: type[Executor] = Executor
    imports_type: type[Imports] = Imports
    bound_seconds = 10.0
    log_type: type[DirectoryLog] = DirectoryLog
    engine_type: type[CuttingEngine] = CuttingEngine

    def database(self, path: Path, clock: Clock, power: Power) -> CuttingDatabase:
        return CuttingDatabase(path, clock, power)

    def keyring(self, power: Power, root: Path) -> Keyring:
        return DirectoryKeyring(CuttingDisk(power, "keyring"), root, shard_capacity=SHARD_CAPACITY)

    def recover(self, app: App) -> None:
        """Start as the server does."""
        recover(app)


@dataclass
class Made:
    """A model or a file, and what its stored bytes and its key were."""

    model: Artifact
    plain: dict[str, bytes]
    identity: bytes


@dataclass
class World:
    """One data directory, and everything that lives outside the process that works on it."""

    root: Path
    parts: Parts = field(default_factory=Parts)
    power: Power = field(default_factory=Power)
    acknowledged: dict[str, bytes] = field(default_factory=dict)
    time: Clock | None = None

    def __post_init__(self) -> None:
        self.clock = self.time or self.parts.clock_type()
        self.floor = Floor()
        self.engine = FakeEngine(self.clock)
        self._app: App | None = None

    @property
    def config(self) -> Config:
        # The scratch directory lies in memory with the rest, whatever the machine calls memory.
        return Config(
            data=self.root / "data", scratch=self.root / "scratch", scratch_may_be_a_disk=True
        )

    @property
    def app(self) -> App:
        assert self._app is not None, "open it first"
        return self._app

    def open(self) -> "World":
        """Build every part anew on what is on disk. May raise Error, PowerCut."""
        self._app = None
        self._app = build(self)
        return self

    def restart(self, *, power: Power | None = None) -> "World":
        """Throw everything away and start: recovery, and what is unfinished is resumed."""
        self.close()
        self.power = power or Power()
        self.open()
        self.parts.recover(self.app)
        self.resume()
        return self

    def resume(self) -> None:
        """Work on what is unfinished until nothing is left."""
        for _ in range(10):
            if self.app.executor.resume() == 0:
                return
        raise Violated("I6", "a deletion does not come to its end")

    def close(self) -> None:
        """Throw every object away; the kernel takes its locks and files."""
        self._app = None
        self.power.end()

    def process(self, power: Power | None = None) -> "World":
        """Return another process on the same machine: the same floor, engine, time and answers."""
        other = World(self.root, self.parts, power or Power(), self.acknowledged, self.clock)
        other.floor, other.engine = self.floor, self.engine
        return other

    def new_fence(self) -> FakeFence:
        """Return a fence for another worker on this machine's floor."""
        return FakeFence(self.floor, self.clock)

    def caller(self, role: Role = Role.OWNER, organization: str = "acme") -> Caller:
        """Return a caller of an organization, made if it is new."""
        with self.app.database.write() as tx:
            _, text = keys.create(tx, organization=organization, role=role, name="test")
        return keys.authenticate(self.app.database, text, "req_test")

    def make(self, caller: Caller, canary: str = "tunewarden-canary") -> Made:
        """Bring in a tiny adapter whose weights hold the canary."""
        files = adapters.adapter(canary)
        weights = BytesIO(files.weights)
        with tempfile.TemporaryFile(dir=self.root) as file:
            file.write(weights.getvalue())
            file.flush()
            model = self.app.imports.bring_in(
                caller, base=BASE, suffix="s", config=BytesIO(files.config), weights=file
            )
        identity = str(self.app.keyring.open(model.key_id)).encode()
        return Made(model, self.plain(model), identity)

    def make_file(self, caller: Caller, content: bytes) -> Made:
        """Store a file."""
        owner = Owner(caller.organization_id, caller.project_id, caller.key_id)
        file = self.app.files.store(
            owner, filename="f.jsonl", purpose="fine-tune", reader=BytesIO(content)
        )
        identity = str(self.app.keyring.open(file.key_id)).encode()
        return Made(file, self.plain(file), identity)

    def plain(self, model: Artifact) -> dict[str, bytes]:
        """Return the plain bytes of a model or a file. Raises KeyErased, BlobErased."""
        identity = self.app.keyring.open(model.key_id)
        found = {}
        for name in (CONTENT,) if isinstance(model, File) else (CONFIG_NAME, WEIGHTS_NAME):
            writer = BytesIO()
            blob = blob_name(model.internal_id, name)
            sealing.unseal(self.app.blobs, blob, identity, writer)
            found[name] = writer.getvalue()
        return found

    def delete(self, caller: Caller, made: Made, attempt: Attempt | None = None) -> Deletion:
        """Delete a model or a file and keep what the answer was."""
        kind = ArtifactKind.FILE if isinstance(made.model, File) else ArtifactKind.MODEL
        deletion = self.app.executor.delete(caller, kind, made.model.id, attempt or Attempt())
        assert deletion.receipt is not None, "I4: an answer without a receipt"
        self.acknowledged.setdefault(made.model.id, deletion.receipt)
        return deletion

    def models(self, caller: Caller) -> list[Model]:
        """Return the models that a caller can see."""
        pages = models.pages(self.app.database, caller)
        return [model for page in pages for model in page]

    def log(self) -> Log:
        return self.app.open_log()[0]


def build(world: World) -> App:
    """Wire the parts, as `app.open_app` does."""
    config, parts, power, clock = world.config, world.parts, world.power, world.clock
    for directory in (config.data, config.run, config.blobs, config.keyring, config.scratch):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = parts.database(config.database, clock, power)
    blobs = DirectoryBlobs(CuttingDisk(power, "blobs"), config.blobs)
    keyring = parts.keyring(power, config.keyring)
    fence = CuttingFence(power, FakeFence(world.floor, clock))
    engine = parts.engine_type(power, world.engine)
    mark = LogMark(config.keyring / "log.mark")
    open_log = cache(lambda: _open_log(world))

    def mark_log(size: int) -> None:
        power.step("mark")
        mark.raise_to(size)
        power.step("marked")

    steps = parts.steps_type(
        database=database,
        clock=clock,
        fence=fence,
        engines_of=lambda _: (engine,),
        keyring=keyring,
        blobs=blobs,
        open_log=open_log,
        mark_log=mark_log,
        fence_seconds=0.5,
        evict_seconds=0.5,
        memory=lambda _tx, _n: "unswappable",
    )
    locks = config.run / "deletions.locks"
    executor = parts.executor_type(database, steps, clock, locks, bound_seconds=parts.bound_seconds)
    limits = Limits(max_rank=config.rank_max, max_weights_bytes=config.adapter_bytes_max)
    drafts = Drafts(
        database,
        keyring,
        blobs,
        config.run / "imports.locks",
        Quota(ProjectQuota(2**60, 2**30, 2**30), 2**60),
    )
    memory = PlainMemory(swap_is_accepted=True)
    imports = parts.imports_type(database, keyring, blobs, drafts, limits, memory)
    files = Files(database, keyring, blobs, drafts, memory)
    uploads = Uploads(database, keyring, blobs, drafts, files, config.upload_bytes_max)
    return App(
        config=config,
        clock=clock,
        floor=DiskFloor(config.data),
        ballast=Ballast(config.data, 1),
        database=database,
        blobs=blobs,
        keyring=keyring,
        fence=fence,
        engine=engine,
        remote_control=_no_remote,
        new_embedded=_none_serves,
        new_remote=_none_serves,
        new_lease_agent=_no_lease,
        memory=memory,
        drafts=drafts,
        imports=imports,
        files=files,
        uploads=uploads,
        executor=executor,
        open_log=open_log,
        log_opening=_opening(world, database),
        log_mark=mark,
        usage=UsageCounter(database, clock),
    )


def _no_remote(*_: object) -> RemoteControl:
    raise AssertionError("no base of this world is remote")


def _no_lease(*_: object) -> LeaseAgent:
    raise AssertionError("no base of this world is remote")


def _none_serves(*_: object) -> Engine:
    raise NotImplementedError("no gateway runs in this world")


def _opening(world: World, database: Database) -> LogOpening:
    config, log_type, disk = world.config, world.parts.log_type, CuttingLogDisk(world.power)
    return LogOpening(
        config,
        database,
        LogMark(config.keyring / "log.mark"),
        found=partial(log_type, disk=disk),
        new=partial(log_type.create, disk=disk),
        disk=disk,
        key_files=partial(CuttingKeyFiles, power=world.power),
    )


def _open_log(world: World) -> tuple[Log, LogSigner]:
    config = world.config
    if (config.log / "checkpoint").exists():
        return world.app.log_opening.open()
    if world.app.database.peek("SELECT 1 FROM deletions LIMIT 1"):
        raise Error(Kind.UNAVAILABLE, "The deletion log is missing.")
    signer = LogSigner.create_or_load(config.signing_key, LOG_NAME)
    return world.app.log_opening.new(config.log, signer), signer


@contextmanager
def new_world(parts: Parts | None = None) -> Iterator[World]:
    """Yield an installation with a local base, in memory, gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="tunewarden-world-", dir="/dev/shm"))
    try:
        with closing(World(root, parts or Parts())) as world:
            world.open()
            shape = base_shape(adapters.write_base(root / "base"), BASE)
            with world.app.database.write() as tx:
                bases.add(
                    tx,
                    name=BASE,
                    kind=BaseKind.LOCAL,
                    location=str(root / "base"),
                    engine_model=BASE,
                    modules=dict(shape.modules),
                )
            world.log()
            yield world
    finally:
        shutil.rmtree(root, ignore_errors=True)


@dataclass
class Start:
    """A closed installation to copy, with an Owner and some models."""

    world: World
    owner: Caller
    made: list[Made]


@contextmanager
def started(models: int, parts: Parts | None = None) -> Iterator[Start]:
    """Have a closed installation with so many models for a block."""
    with new_world(parts) as world:
        owner = world.caller()
        made = [world.make(owner, f"canary-{number}") for number in range(models)]
        world.close()
        gc.collect()
        yield Start(world, owner, made)


@contextmanager
def copied(
    world: World,
    *,
    parts: Parts | None = None,
    power: Power | None = None,
    time: Clock | None = None,
) -> Iterator[World]:
    """Yield another installation on a copy of a world's disk. The world must be closed."""
    FakeEngine.forget()
    root = Path(tempfile.mkdtemp(prefix="tunewarden-world-", dir="/dev/shm"))
    try:
        shutil.copytree(world.root / "data", root / "data")
        parts = parts or world.parts
        # Time does not run back; but threads need time that runs by itself.
        is_same = parts.clock_type is world.parts.clock_type
        time = time or (world.clock if is_same else None)
        copy = World(root, parts, power or Power(), dict(world.acknowledged), time)
        with closing(copy):
            yield copy
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def one_dies() -> Iterator[None]:
    """Let the power go in here; what the dead process held open is closed when this ends."""
    with suppress(PowerCut):
        yield
    gc.collect(0)
