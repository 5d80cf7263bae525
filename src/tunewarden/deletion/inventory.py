"""The inventory: every place where bytes of a model, or its key, can be, and how their absence is checked.

A table, directory or engine that is missing here is a bug: a test compares the list with the
schema and with the content of a data directory.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tunewarden.artifacts.blobs import ErasableBlobs
from tunewarden.artifacts.keyring import Keyring
from tunewarden.db.database import Database
from tunewarden.deletion import records
from tunewarden.finetuning import older_texts
from tunewarden.registry import artifacts, file_rows


class Holds(StrEnum):
    """Which parts of a model a place can hold."""

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
    Place("project_members", Holds.NOTHING, "roles of users in projects"),
    Place(
        "invites",
        Holds.NOTHING,
        "addresses, roles, hashes of links; a row goes with its user, or 30 days after it expired",
    ),
    Place("api_keys", Holds.NOTHING, "hashes of API keys"),
    Place("admin_api_keys", Holds.NOTHING, "hashes of admin keys"),
    Place("key_attempts", Holds.NOTHING, "hashes of forms that have made a key, of a day"),
    Place("sessions", Holds.NOTHING, "hashes of the console's cookies; of half an hour's use"),
    Place("sign_in_links", Holds.NOTHING, "hashes of links, of ten minutes"),
    Place("aliases", Holds.NOTHING, "names that organizations give to models"),
    Place("alias_versions", Holds.NOTHING, "when aliases were switched, and by which key"),
    Place("alias_targets", Holds.METADATA, "numbers of models that an alias pointed to"),
    Place("holds", Holds.METADATA, "who held it and when; the reason, sealed under its key"),
    Place("deletion_settings", Holds.NOTHING, "numbers of minutes"),
    Place("exports", Holds.METADATA, "when a model was exported, and by which key"),
    Place("bases", Holds.NOTHING, "names, paths and layer shapes of base models"),
    Place("base_names", Holds.NOTHING, "other names of base models"),
    Place("replicas", Holds.NOTHING, "names and addresses of remote bases' engines"),
    Place("replica_loads", Holds.METADATA, "which engine process had a model; no row may name it"),
    Place("members", Holds.NOTHING, "leases of remote bases' engines"),
    Place(
        "artifacts",
        Holds.METADATA,
        "the row stays as a tombstone, with the id and the suffix in it; its state must be `deleted`",
    ),
    Place("models", Holds.METADATA, "its base and job; suffix and metadata are cleared"),
    Place("files", Holds.METADATA, "its purpose and size; its name, sealed under its key"),
    Place("derivations", Holds.METADATA, "numbers of files and of what they were made from"),
    Place("file_sources", Holds.METADATA, "where a file came from, sealed under its key"),
    Place("declared_origins", Holds.METADATA, "numbers of models and of what they learned from"),
    Place("blobs", Holds.METADATA, "names and sizes; `erased_at` must be set"),
    Place("drafts", Holds.METADATA, "no row may name the model or the file"),
    Place("uploads", Holds.METADATA, "size of what was uploaded; its name, sealed as the file's"),
    Place("upload_parts", Holds.METADATA, "names and sizes of parts"),
    Place(
        "jobs",
        Holds.METADATA,
        "what a job was asked for, its suffix too, with a digest of the request's Idempotency-Key; its metadata, sealed"
        " under its training file's key; an error names lines and places, never a value. The row outlives its model"
        " and files",
    ),
    Place(
        "job_events",
        Holds.METADATA,
        "messages and metrics, one with the model's id; never a value of the training data",
    ),
    Place("job_checkpoints", Holds.METADATA, "steps and metrics"),
    Place("checkpoint_permissions", Holds.METADATA, "ids of projects"),
    Place("deletions", Holds.METADATA, "one row a deleted model, with its receipt"),
    Place("deletion_cases", Holds.METADATA, "what was deleted together, with a receipt"),
    Place("case_members", Holds.METADATA, "numbers of deletions"),
    Place("canary_runs", Holds.NOTHING, "what the canary of each base found last"),
    Place(
        "bulk_deletions", Holds.NOTHING, "who asked for many at once, with which Idempotency-Key"
    ),
    Place("bulk_deletion_items", Holds.METADATA, "numbers of the models that a filter chose"),
    Place(
        "bulk_deletion_members",
        Holds.METADATA,
        "digests of plans, and why one was spared, which names it; a row goes with its request",
    ),
    Place("retention_rules", Holds.NOTHING, "names, ages and patterns of suffixes"),
    Place("retention_notices", Holds.METADATA, "when a rule deletes a model; no row may name it"),
    Place("retention_pauses", Holds.NOTHING, "times and reasons"),
    Place("log_seen", Holds.NOTHING, "a size"),
    Place("clock_seen", Holds.NOTHING, "times"),
    Place("swap_seen", Holds.NOTHING, "a time"),
    Place("keyring_seen", Holds.NOTHING, "generations"),
    Place("audit_events", Holds.METADATA, "ids and what was done"),
    Place("audit_digests", Holds.NOTHING, "hashes over events"),
    Place("audit_parts", Holds.NOTHING, "ids and hashes of events"),
    Place("audit_retention", Holds.NOTHING, "numbers of days"),
    Place("audit_refusals", Holds.NOTHING, "counts by key"),
    Place("usage", Holds.METADATA, "counts by series"),
    Place("usage_series", Holds.METADATA, "ids of models and of the keys that used them"),
    Place("key_uses", Holds.NOTHING, "when API keys were last used"),
    Place("rate_limits", Holds.NOTHING, "requests and tokens a minute of projects"),
    Place("project_quotas", Holds.NOTHING, "bytes, files and models that projects may have"),
    Place("key_rate_limits", Holds.NOTHING, "the same of keys"),
    Place("webhook_endpoints", Holds.NOTHING, "sealed names, URLs and secrets of receivers"),
    Place("webhook_deliveries", Holds.METADATA, "ids, types and times of events; never a text"),
    Place("reserved", Holds.NOTHING, "zeros, for a moment"),
    Place("stored_bytes", Holds.NOTHING, "a sum for each project"),
    Place("migrations", Holds.NOTHING, "versions of the schema"),
)

FILES = (
    Place("tunewarden.sqlite", Holds.METADATA, "by table, above"),
    Place("tunewarden.sqlite-wal", Holds.METADATA, "the same tables, before a checkpoint"),
    Place("tunewarden.sqlite-shm", Holds.NOTHING, "an index of the WAL"),
    Place("tunewarden.sqlite-writers", Holds.NOTHING, "a lock; empty"),
    Place("tunewarden.toml", Holds.NOTHING, "settings"),
    Place("owner.key", Holds.NOTHING, "the first Owner's API key"),
    Place("admin.key", Holds.NOTHING, "the admin key of commands with `--data`"),
    Place("engine_keys", Holds.NOTHING, "API keys of remote bases' engines"),
    Place("certificates", Holds.NOTHING, "certificates and keys for engines on other hosts"),
    Place("log.key", Holds.NOTHING, "the seed of the log's signing key"),
    Place("log.key.next", Holds.NOTHING, "the seed that a rotation of it made, until it is done"),
    Place(
        "log.key.old", Holds.NOTHING, "the seed that a rotation of it replaced, until it is erased"
    ),
    Place("blobs", Holds.WEIGHTS_SEALED, "no file under the model's internal id"),
    Place("keyring", Holds.KEY, "no shard has the model's key id; each shard's old files are gone"),
    Place("log", Holds.METADATA, "ids, times and digests, for ever"),
    Place("run", Holds.NOTHING, "locks, sockets and the server's address"),
    Place("ballast", Holds.NOTHING, "room for deletions on a full disk"),
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
    """An unexpected leftover, and whether the sweep can erase it."""

    place: str
    what: str
    can_be_swept: bool


@dataclass(frozen=True, slots=True)
class Inventory:
    """The places of one installation. `engine_models` lists the models loaded in engines."""

    database: Database
    keyring: Keyring
    blobs: ErasableBlobs
    scratch: Path
    data: Path
    engine_models: Callable[[], Sequence[str]]
    is_to_be_rewritten: Callable[[], bool]

    def remnants(self, *, is_running: bool) -> Iterator[Remnant]:
        """Yield every remnant, place by place.

        While a server is running, the scratch directory is skipped: a load may be in progress.
        """
        for name in self.engine_models():
            if not artifacts.is_active_in_engines(self.database, name):
                yield Remnant(
                    "engines", f"{name} is loaded and no active model", can_be_swept=False
                )
        yield from self._texts()
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
                yield Remnant("data", f"{path.name} is unknown", can_be_swept=False)

    def _texts(self) -> Iterator[Remnant]:
        """Yield client texts in rows that should be encrypted or cleared (I18)."""
        restart = "the next start of the server encrypts them and rewrites the database"
        if count := older_texts.count_plain(self.database):
            what = f"{count} rows hold a name or metadata in plaintext; {restart}"
            yield Remnant("tunewarden.sqlite", what, can_be_swept=False)
        elif self.is_to_be_rewritten():
            what = f"free pages may hold names in plaintext; {restart}"
            yield Remnant("tunewarden.sqlite", what, can_be_swept=False)
        if count := file_rows.count_names_left(self.database):
            what = f"{count} deleted files still have a name, which no key opens"
            yield Remnant("files", what, can_be_swept=False)

    def sweep(self) -> int:
        """Erase orphaned blobs and keys; only while no server runs. Return their number."""
        blobs, keys = list(self._orphaned_blobs()), list(self._orphaned_keys())
        for name in blobs:
            self.blobs.erase(name)
        self.keyring.erase_many(keys)
        return len(blobs) + len(keys)

    def _orphaned_blobs(self) -> Iterator[str]:
        """Yield orphaned blobs, with one look-up each, so that a million models are not loaded."""
        # List the names before the rows: a concurrent import then has its row.
        for owner in sorted(self.blobs.owners()):
            if not records.is_live(self.database, owner):
                yield from self.blobs.names(f"{owner}/")

    def _orphaned_keys(self) -> Iterator[str]:
        for shard in self.keyring.shards():
            present = self.keyring.key_ids(shard)  # before the rows, as above
            live = records.live_keys(self.database, f"k{shard:06}-", f"k{shard:06}.")
            yield from (key_id for key_id in present if key_id not in live)
