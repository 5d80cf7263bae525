"""What must be true of an installation that has started: the invariants, by their numbers."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.fakes.engine import FakeEngine
from tests.lab.thief import identities_within_reach
from tests.lab.world import Made, Violated, World

from tunewarden.artifacts.blobs import BlobErased
from tunewarden.artifacts.keyring import KeyErased
from tunewarden.deletion import records
from tunewarden.deletion.inventory import Inventory
from tunewarden.errors import Error
from tunewarden.registry.artifacts import State
from tunewarden_receipts import receipt
from tunewarden_receipts.leaf import BlobsErasedLeaf, DeletionLeaf, EvictedEngine
from tunewarden_receipts.statement import BlobsErased, Deleted, Facts

ONCE = ("deletion.requested", "resource.deleted", "blobs.erased")


def require(invariant: str, what: str, held: object) -> None:
    if not held:
        raise Violated(invariant, what)


def judge(world: World, made: Made, *, has_old_blobs: bool = False) -> State:
    """Return whether a model is active and readable, or deleted for good; raise for all between.

    `has_old_blobs`: blobs were restored alone, so that noise may lie where a model was.
    """
    with world.app.database.read() as tx:
        row = tx.row("SELECT state, epoch FROM artifacts WHERE id = :id", id=made.model.id)
    require("I6", "the model's row is lost", row)
    assert row is not None
    state = State(row[0])
    if state in {State.ACTIVE, State.ARCHIVED}:
        _judge_living(world, made)
    else:
        require("I6", f"a model is left {state}", state is State.DELETED)
        _judge_deleted(world, made, has_old_blobs=has_old_blobs)
    return state


def _judge_living(world: World, made: Made) -> None:
    acknowledged = made.model.id in world.acknowledged
    require("I6", "an acknowledged deletion was lost", not acknowledged)
    try:
        found = world.plain(made.model)
    except (KeyErased, BlobErased, Error) as error:
        raise Violated("I6", "an active model cannot be read") from error
    require("I6", "an active model's bytes changed", found == made.plain)
    require("I4", "a leaf speaks of an active model", not leaves(world, made))
    rows = audit_of(world, made)
    require("I6", "an active model has a trace of a deletion", not set(ONCE) & set(rows))
    with world.app.database.read() as tx:
        row = tx.row("SELECT 1 FROM deletions WHERE artifact_n = :n", n=made.model.n)
    require("I6", "an active model has a deletion", row is None)


def _judge_deleted(world: World, made: Made, *, has_old_blobs: bool) -> None:
    require("I3", "its key is in the keyring", not world.app.keyring.contains(made.model.key_id))
    within_reach = identities_within_reach(_contents(world.config.keyring))
    require("I3", "its key is within reach", made.identity not in within_reach)
    names = world.app.blobs.names(f"{made.model.internal_id}/")
    require("I15", "its blobs are there", has_old_blobs or not names)
    with world.app.database.read() as tx:
        deletion = records.find_of(tx, tx_n(world, made))
    if deletion is None or deletion.receipt is None or deletion.next_step is not None:
        raise Violated("I6", "its deletion is not complete")
    found = leaves(world, made)
    deletions = [index for index, fact in found if isinstance(fact, Deleted)]
    require("I4", f"it has {len(deletions)} deletion leaves", len(deletions) == 1)
    erased = [index for index, fact in found if isinstance(fact, BlobsErased)]
    require("I4", f"it has {len(erased)} leaves about its blobs", len(erased) == 1)
    require("I4", "its row names another leaf", [deletion.log_index] == deletions)
    require("I4", "its row names another leaf", [deletion.blobs_log_index] == erased)
    _judge_receipt(world, made, deletion.receipt, deletion.id)
    events = audit_of(world, made)
    for event in ONCE:
        require(
            "I6", f"{event} is in the audit {events.count(event)} times", events.count(event) == 1
        )


def _judge_receipt(world: World, made: Made, stored: bytes, deletion_id: str) -> None:
    log, signer = world.app.open_log()
    try:
        proven = receipt.verify(stored, signer.public_pem())
    except Error as error:
        raise Violated("I4", "its receipt does not verify") from error
    facts, shown = proven.facts, proven.disclosed
    if not isinstance(facts, DeletionLeaf) or shown is None:
        raise Violated("I4", "its receipt is of another kind")
    require("I4", "its receipt is another's", facts.internal_id == made.model.internal_id)
    require("I4", "its receipt does not name the model", shown.artifact_id == made.model.id)
    names = (shown.organization_id, shown.manifest_sha256)
    require(
        "I4",
        "its receipt does not name all",
        names == (made.model.organization_id, made.model.manifest_sha256),
    )
    _judge_engines(made, shown.engines or ())
    require("I4", "its receipt is another's", facts.deletion_id == deletion_id)
    require("I17", "it says more keys than one", facts.key.id == made.model.key_id)
    times = [facts.committed_at, facts.fenced_at, facts.evicted_at, facts.key_erased_at]
    require("I17", "its times are not in the order of the steps", times == sorted(times))
    require("I4", "its leaf is not in the log", log.entry(proven.index) == proven.envelope)
    first = world.acknowledged.get(made.model.id)
    require("I5", "the receipt is not the one handed out", first in {None, stored})


def _judge_engines(made: Made, engines: Sequence[EvictedEngine]) -> None:
    """Require that no engine is said to have done what it did not."""
    name = made.model.internal_id
    was_zeroed, was_lost = name in FakeEngine.zeroed, name in FakeEngine.lost
    for engine in engines:
        if engine.how == "zeroed":
            require("I17", "weights are said to be zeroed that were not", was_zeroed)
        elif engine.how == "not_loaded":
            require("I17", "the end of an engine that had it is hidden", was_zeroed or not was_lost)
        else:
            # It may have been zeroed first, by whoever died before that was noted.
            has_ended = was_lost or was_zeroed or name in FakeEngine.hung
            require("I17", "an engine is said to have ended that did not", has_ended)


def leaves(world: World, made: Made) -> list[tuple[int, Facts]]:
    """Return the leaves that speak of a model."""
    log, signer = world.app.open_log()
    key = signer.public_pem()
    found = ((index, receipt.verify_entry(entry, key)) for index, entry in log.entries())
    return [
        (index, facts)
        for index, facts in found
        if isinstance(facts, DeletionLeaf | BlobsErasedLeaf)
        and facts.internal_id == made.model.internal_id
    ]


def audit_of(world: World, made: Made) -> list[str]:
    """Return the types of the events about a model, in order."""
    with world.app.database.read() as tx:
        rows = tx.rows(
            "SELECT type FROM audit_events WHERE resource_id = :id ORDER BY n", id=made.model.id
        )
    return [str(row[0]) for row in rows]


def judge_nothing_else(world: World) -> None:
    """Require that nothing lies about: no import half done, no file or key that no model has."""
    with world.app.database.read() as tx:
        imports = tx.rows("SELECT internal_id FROM drafts")
        owners = {row[0] for row in tx.rows("SELECT internal_id FROM artifacts")}
        known = {row[0] for row in tx.rows("SELECT key_id FROM artifacts")}
    require("I6", "an import is half done", not imports)
    found = {name.partition("/")[0] for name in world.app.blobs.names("")}
    require("I6", "blobs belong to no model", found <= owners)
    require(
        "I6", "an unfinished blob was left", not list((world.config.blobs / ".incoming").iterdir())
    )
    keyring = world.app.keyring
    keys = {key for shard in keyring.shards() for key in keyring.key_ids(shard)}
    require("I6", f"{len(keys - known)} keys belong to no model", keys <= known)


def inventory_of(world: World) -> Inventory:
    """Return the places of an installation, as `tunewarden doctor` looks at them."""
    return Inventory(
        database=world.app.database,
        keyring=world.app.keyring,
        blobs=world.app.blobs,
        scratch=world.config.scratch,
        data=world.config.data,
        engine_models=lambda: sorted(world.engine.loaded),
        is_to_be_rewritten=world.app.database.must_be_rewritten,
    )


def tx_n(world: World, made: Made) -> int:
    """Return the model's number in this database: a restored one may have another."""
    row = world.app.database.peek("SELECT n FROM artifacts WHERE id = :id", id=made.model.id)
    assert row is not None
    return int(row[0])


def can_be_read(world: World, made: Made, blobs: Path) -> bool:
    """Tell whether any key within reach of the keyring's files opens a model's blobs in `blobs`."""
    if made.identity not in identities_within_reach(_contents(world.config.keyring)):
        return False
    return (blobs / made.model.internal_id).is_dir()


def _contents(directory: Path) -> Iterator[bytes]:
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            yield path.read_bytes()
