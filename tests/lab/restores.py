"""Starting on a mix of restored parts, and what must be true afterwards (I10, I11)."""

from pathlib import Path

import apsw
from tests.lab.history import Fate, History, Mix
from tests.lab.judge import judge, require
from tests.lab.thief import identities_within_reach
from tests.lab.world import Made, World

from tunewarden.deletion.requests import Attempt
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Caller
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden_receipts import receipt


def _tree(data: Path) -> dict[str, bytes]:
    """Return what a data directory says: each file, and the database row by row."""
    found = {}
    for path in sorted(data.rglob("*")):
        name = path.relative_to(data).as_posix()
        # Locks and directories are made where they are missing; they say nothing.
        says = path.is_file() and path.name not in {"lock", ".lock", "log.lock"}
        if says and not name.startswith(("tunewarden.sqlite", "run/")):
            found[name] = path.read_bytes()
    database = apsw.Connection(str(data / "tunewarden.sqlite"))
    for (table,) in database.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table'"
    ).fetchall():
        found[str(table)] = repr(database.execute(f"SELECT * FROM {table}").fetchall()).encode()
    database.close()
    return found


def start(world: World) -> Error | None:
    """Start; return the refusal, after which nothing may have changed."""
    before = _tree(world.config.data)
    try:
        world.restart()
    except Error as refused:
        world.close()
        after = _tree(world.config.data)
        changed = [name for name in before | after if before.get(name) != after.get(name)]
        require("I10", f"a refusal changed {changed}", not changed)
        return refused
    return None


def is_undetectable(fate: Fate, mix: Mix) -> bool:
    """Tell whether every part that could know of a deletion is from before it."""
    signs = (
        (mix.database, fate.asked_at),
        (mix.keyring, fate.erased_at),
        (mix.log, fate.logged_at),
    )
    return all(at is None or moment < at for moment, at in signs)


def judge_fate(world: World, fate: Fate, mix: Mix) -> str:
    """Judge what became of one model after a start that was not refused."""
    model = fate.made.model
    row = world.app.database.peek("SELECT state FROM artifacts WHERE id = :id", id=model.id)
    has_key = is_within_reach(world, fate.made)
    if fate.asked_at is None or is_undetectable(fate, mix):
        if row is None:
            return "not there yet"
        require("I6", "a model was lost", row[0] == "active" and has_key)
        if (world.config.blobs / model.internal_id).is_dir():
            require("I6", "a model cannot be read", world.plain(model) == fate.made.plain)
        return "back, undetected" if fate.asked_at is not None else "kept"
    require("I10", "a deleted model can be opened again", not has_key)
    if row is None:
        return "not there yet"
    require("I10", f"a deleted model is {row[0]}", row[0] == "deleted")
    judge(world, fate.made, has_old_blobs=True)
    return "stays deleted"


def judge_log(history: History, world: World, mix: Mix) -> None:
    """Require that the log continues every checkpoint that any part of the mix knows of."""
    log, signer = world.app.open_log()
    now = log.checkpoint()
    known = max(history.noted[mix.database], history.noted[mix.keyring], history.sizes[mix.log])
    for size, note in history.checkpoints.items():
        if size <= known:
            require("I11", f"the log has lost entries of {size}", log.size() >= size)
            proof = log.consistency_proof(size, log.size())
            receipt.verify_consistency(note, now, proof, signer.public_pem())


def is_within_reach(world: World, made: Made) -> bool:
    """Tell whether a model's key is in any of the keyring's files, or can be got out of them."""
    contents = (path.read_bytes() for path in world.config.keyring.rglob("*") if path.is_file())
    return made.identity in identities_within_reach(contents)


def judge_retries(world: World, owner: Caller, file: Made) -> None:
    """Require what I5 says of a case that the log gave back: it tells who asked, not with which Idempotency-Key."""
    attempts = {
        "retried": Attempt(with_models=True, retry_count=1),
        "with a key": Attempt(with_models=True, idempotency_key="one"),
        "fresh": Attempt(with_models=True),
    }
    answered = []
    for name, attempt in attempts.items():
        try:
            world.app.executor.delete(owner, ArtifactKind.FILE, file.model.id, attempt)
            answered.append(name)
        except Error as refused:
            require("I5", f"{name}: {refused.kind}", refused.kind is Kind.NOT_FOUND)
    require("I5", f"only {answered} got the first answer", answered == ["retried", "with a key"])
