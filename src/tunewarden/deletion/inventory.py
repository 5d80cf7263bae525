"""Every place where bytes of a model, or its key, can be, and how its absence there is checked.

A table, directory or engine that is not listed here is a defect: a test compares the list with the
schema and with what lies in a data directory.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tunewarden.artifacts.blobs import ErasableBlobs
from tunewarden.artifacts.keyring import Keyring
from tunewarden.db.database import Database


class Holds(StrEnum):
    """What a place can hold of a model."""

    WEIGHTS_SEALED = "sealed weights"
    WEIGHTS_PLAIN = "plain weights, in memory"
    KEY = "its key"
    METADATA = "names, states and digests: neither weights nor key"
    NOTHING = "nothing of a model"


@dataclass(frozen=True, slots=True)
class Place:
    """One place, by its name in the schema or in the data directory."""

    name: str
    holds: Holds
    checked: str


TABLES = (
    Place("organizations", Holds.NOTHING, "names and ids of organizations"),
    Place("users", Holds.NOTHING, "names and roles"),
    Place("projects", Holds.NOTHING, "names"),
    Place("api_keys", Holds.NOTHING, "hashes of API keys"),
    Place("bases", Holds.NOTHING, "names, paths and layer shapes of base models"),
    Place("artifacts", Holds.METADATA, "the row stays as a tombstone; its state must be `deleted`"),
    Place("models", Holds.METADATA, "its base, suffix and job"),
    Place("files", Holds.METADATA, "its purpose and size; the name of a deleted file is emptied"),
    Place("blobs", Holds.METADATA, "names and sizes; `erased_at` must be set"),
    Place("drafts", Holds.METADATA, "no row may name the model or the file"),
    Place("uploads", Holds.METADATA, "name and size of what was uploaded; emptied with its file"),
    Place("upload_parts", Holds.METADATA, "names and sizes of parts"),
    Place("jobs", Holds.METADATA, "what a job was asked for; the row outlives its model and files"),
    Place("job_events", Holds.METADATA, "messages and metrics of training, no training data"),
    Place("job_checkpoints", Holds.METADATA, "steps and metrics"),
    Place("checkpoint_permissions", Holds.METADATA, "ids of projects"),
    Place("deletions", Holds.METADATA, "one row a deleted model, with its receipt"),
    Place("log_seen", Holds.NOTHING, "a size"),
    Place("keyring_seen", Holds.NOTHING, "generations"),
    Place("audit_events", Holds.METADATA, "ids and what was done"),
    Place("usage", Holds.METADATA, "counts by model id"),
    Place("migrations", Holds.NOTHING, "versions of the schema"),
)

FILES = (
    Place("tunewarden.sqlite", Holds.METADATA, "by table, above"),
    Place("tunewarden.sqlite-wal", Holds.METADATA, "the same tables, before a checkpoint"),
    Place("tunewarden.sqlite-shm", Holds.NOTHING, "an index of the WAL"),
    Place("tunewarden.sqlite-writers", Holds.NOTHING, "a lock; empty"),
    Place("tunewarden.toml", Holds.NOTHING, "settings"),
    Place("owner.key", Holds.NOTHING, "the first Owner's API key"),
    Place("engine_keys", Holds.NOTHING, "API keys of remote bases' engines"),
    Place("log.key", Holds.NOTHING, "the seed of the log's signing key"),
    Place("blobs", Holds.WEIGHTS_SEALED, "no file under the model's internal id"),
    Place("keyring", Holds.KEY, "no shard has the model's key id; each shard's old files are gone"),
    Place("log", Holds.METADATA, "ids, times and digests, for ever"),
    Place("run", Holds.NOTHING, "locks, sockets and the server's address"),
    Place("demo-base", Holds.NOTHING, "the demo's base model"),
)

ELSEWHERE = (
    Place(
        "scratch", Holds.WEIGHTS_PLAIN, "no directory in the scratch directory while nothing loads"
    ),
    Place(
        "engines",
        Holds.WEIGHTS_PLAIN,
        "no engine lists the model's internal id; its prompts' prefixes go with its weights",
    ),
)


@dataclass(frozen=True, slots=True)
class Remnant:
    """Something that should not be there, and whether the sweep erases it."""

    place: str
    what: str
    can_be_swept: bool


# An artifact whose bytes and key may be there: it can be served, or its deletion has a step left.
LIVE = (
    "FROM artifacts a WHERE (a.state IN ('active', 'archived') OR EXISTS"
    " (SELECT 1 FROM deletions d WHERE d.artifact_n = a.n AND d.blobs_erased_at IS NULL))"
)


@dataclass(frozen=True, slots=True)
class Inventory:
    """The places of one installation. `engine_models` lists what the engines have loaded."""

    database: Database
    keyring: Keyring
    blobs: ErasableBlobs
    scratch: Path
    data: Path
    engine_models: Callable[[], Sequence[str]]

    def remnants(self, *, is_running: bool) -> Iterator[Remnant]:
        """Yield everything that should not be there, place by place.

        Beside a running server, the scratch directory is left out: something may just be loading.
        """
        for name in self.engine_models():
            sql = "SELECT 1 FROM artifacts WHERE internal_id = :id AND state = 'active'"
            if self.database.peek(sql, id=name) is None:
                yield Remnant(
                    "engines", f"{name} is loaded and no active model", can_be_swept=False
                )
        for name in self._orphaned_blobs():
            yield Remnant("blobs", f"{name} belongs to no model", can_be_swept=True)
        for key_id in self._orphaned_keys():
            yield Remnant("keyring", f"{key_id} belongs to no model", can_be_swept=True)
        if not is_running:
            for directory in sorted(self.scratch.iterdir()):
                yield Remnant("scratch", f"{directory.name} was left behind", can_be_swept=True)
        known = {place.name for place in FILES}
        for path in sorted(self.data.iterdir()):
            if path.name not in known:
                yield Remnant("data", f"{path.name} is nothing of ours", can_be_swept=False)

    def sweep(self) -> int:
        """Erase orphaned blobs and keys; only while no server runs. Return how many there were."""
        blobs, keys = list(self._orphaned_blobs()), list(self._orphaned_keys())
        for name in blobs:
            self.blobs.erase(name)
        self.keyring.erase_many(keys)
        return len(blobs) + len(keys)

    def _orphaned_blobs(self) -> Iterator[str]:
        """Yield them one by one: a million models are looked up, not loaded."""
        # The names before the rows: what an import writes now has a row by then.
        for owner in sorted(self.blobs.owners()):
            live = self.database.peek(
                f"SELECT 1 {LIVE} AND a.internal_id = :id"  # noqa: S608
                " UNION ALL SELECT 1 FROM drafts WHERE internal_id = :id LIMIT 1",
                id=owner,
            )
            if live is None:
                yield from self.blobs.names(f"{owner}/")

    def _orphaned_keys(self) -> Iterator[str]:
        for shard in self.keyring.shards():
            present = self.keyring.key_ids(shard)  # before the rows, as above
            live = self._live_keys(f"k{shard:06}-", f"k{shard:06}.")
            yield from (key_id for key_id in present if key_id not in live)

    def _live_keys(self, first: str, end: str) -> set[str]:
        with self.database.read() as tx:
            rows = tx.rows(
                f"SELECT a.key_id {LIVE} AND a.key_id >= :first AND a.key_id < :end"  # noqa: S608
                " UNION SELECT key_id FROM drafts WHERE key_id >= :first AND key_id < :end",
                first=first,
                end=end,
            )
        return {str(row[0]) for row in rows}
