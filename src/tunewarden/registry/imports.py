"""Bringing an adapter in: checked, sealed, and only then a model. A refusal leaves nothing behind.

The weights are sealed from the buffer that was checked, so that what is stored is what was checked.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO

from tunewarden import audit
from tunewarden.artifacts import sealing
from tunewarden.artifacts.adapters import BaseShape, CheckedAdapter, Limits, check_adapter
from tunewarden.artifacts.blobs import ErasableBlobs
from tunewarden.artifacts.keyring import Key, Keyring
from tunewarden.db.database import Database
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.ids import Prefix, mint
from tunewarden.locks import ByteLocks
from tunewarden.registry import bases, models, seen
from tunewarden.registry.bases import Base, BaseKind
from tunewarden.registry.models import Model, SealedBlob, State

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
SEALED = ".age"


@dataclass(frozen=True, slots=True)
class Imports:
    """The operation and what it needs. `lock_file` tells a live import from one that crashed."""

    database: Database
    keyring: Keyring
    blobs: ErasableBlobs
    limits: Limits
    lock_file: Path
    scratch_may_be_a_disk: bool = False

    def bring_in(
        self, caller: Caller, *, base: str, suffix: str, config: BinaryIO, weights: BinaryIO
    ) -> Model:
        """Check, seal and register an adapter; return the new model, which can be used at once.

        `weights` must be a real file (memory or disk), so that it can be mapped. Raises
        Error(FORBIDDEN), Error(INVALID), Error(TOO_LARGE); then nothing is left behind.
        """
        authorize(caller, Action.WRITE_MODELS)
        public_id = models.mint_id(base=base, organization=caller.organization_name, suffix=suffix)
        try:
            found = self._base(base)
            checked = _checked(found, config, weights, self.limits)
        except Error as refused:
            self._record_refusal(caller, base, refused)
            raise
        internal_id = mint(Prefix.SLOT)
        with self._begun(internal_id) as key:
            shard = self.keyring.shard_of(key.id)
            generation = self.keyring.generation(shard)
            blobs = self._seal(internal_id, key.recipient, checked, weights)
            manifest = _manifest(found, checked)
            with self.database.write() as tx:
                model = Model(
                    n=0,
                    id=public_id,
                    internal_id=internal_id,
                    organization_id=caller.organization_id,
                    project_id=caller.project_id,
                    base=found.name,
                    suffix=suffix,
                    state=State.ACTIVE,
                    epoch=1,
                    key_id=key.id,
                    manifest_sha256=sha256(manifest.encode()).hexdigest(),
                    created_by=caller.key_id,
                    created_at=tx.now_micros,
                )
                model = models.register(tx, model=model, manifest=manifest, blobs=blobs)
                seen.see_keyring(tx, shard, generation)
                tx.run("DELETE FROM imports WHERE internal_id = :id", id=internal_id)
                audit.record(
                    tx,
                    audit.EventType.MODEL_IMPORTED,
                    organization_id=caller.organization_id,
                    actor=caller.actor,
                    resource_id=model.id,
                    base=found.name,
                )
        return model

    def unseal(self, model: Model, directory: Path) -> None:
        """Write a model's plain files into a directory in memory, for an engine to read (I16)."""
        identity = self.keyring.open(model.key_id)
        for name in (CONFIG_NAME, WEIGHTS_NAME):
            sealing.unseal_to_file(
                self.blobs,
                _blob_name(model.internal_id, name),
                identity,
                directory / name,
                may_be_a_disk=self.scratch_may_be_a_disk,
            )

    def sweep(self) -> int:
        """Erase what crashed imports left, unless an import is running; return how many there were."""
        locks = ByteLocks(self.lock_file)
        try:
            if not locks.try_exclusive(0):
                return 0
            with self.database.read() as tx:
                left = tx.rows("SELECT internal_id, key_id FROM imports")
            for internal_id, key_id in left:
                self._undo(internal_id, key_id)
            return len(left)
        finally:
            locks.close()

    def _base(self, name: str) -> Base:
        base = bases.find(self.database, name)
        if base is None:
            raise Error(
                Kind.INVALID,
                f"There is no base model '{name}'. Add it with `tunewarden base add`.",
                param="base",
            )
        if base.kind is not BaseKind.LOCAL:
            raise Error(
                Kind.INVALID,
                f"'{name}' is served by another server, which cannot load adapters from here."
                " Import onto a local base.",
                param="base",
            )
        return base

    def _seal(
        self, internal_id: str, recipient: str, checked: CheckedAdapter, weights: BinaryIO
    ) -> list[SealedBlob]:
        weights.seek(0)
        files: list[tuple[str, BinaryIO, int]] = [
            (CONFIG_NAME, BytesIO(checked.config), len(checked.config)),
            (WEIGHTS_NAME, weights, checked.weights_bytes),
        ]
        sealed = []
        for name, reader, size in files:
            blob = _blob_name(internal_id, name)
            sealed.append(SealedBlob(blob, size, sealing.seal(reader, recipient, self.blobs, blob)))
        return sealed

    @contextmanager
    def _begun(self, internal_id: str) -> Iterator[Key]:
        """Make a key, noted as of an import until there is a model; take it back on any failure."""
        locks = ByteLocks(self.lock_file)
        try:
            if not locks.try_shared(0):
                raise Error(
                    Kind.UNAVAILABLE, "The server is starting; try again.", retry_after_seconds=1
                )
            key = self.keyring.create()
            try:
                with self.database.write() as tx:
                    tx.run(
                        "INSERT INTO imports VALUES (:id, :key, :now)",
                        id=internal_id,
                        key=key.id,
                        now=tx.now_micros,
                    )
                yield key
            except BaseException:
                self._undo(internal_id, key.id)
                raise
        finally:
            locks.close()

    def _undo(self, internal_id: str, key_id: str) -> None:
        if self.database.peek("SELECT 1 FROM models WHERE internal_id = :id", id=internal_id):
            return  # It was committed, and what failed came after: only a deletion ends a model.
        self.keyring.erase(key_id)
        for name in self.blobs.names(f"{internal_id}/"):
            self.blobs.erase(name)
        with self.database.write() as tx:
            tx.run("DELETE FROM imports WHERE internal_id = :id", id=internal_id)

    def _record_refusal(self, caller: Caller, base: str, refused: Error) -> None:
        with self.database.write() as tx:
            audit.record(
                tx,
                audit.EventType.MODEL_IMPORT_REFUSED,
                organization_id=caller.organization_id,
                actor=caller.actor,
                resource_id=base[: models.ID_LENGTH_MAX],
                reason=refused.message[:500],
            )


def _checked(base: Base, config: BinaryIO, weights: BinaryIO, limits: Limits) -> CheckedAdapter:
    shape = BaseShape(base.name, base.module_shapes())
    text = config.read(limits.max_config_bytes + 1)
    try:
        with mmap(weights.fileno(), 0, access=ACCESS_READ) as mapped, memoryview(mapped) as view:
            return check_adapter(text, view, shape, limits)
    except ValueError as error:  # an empty file cannot be mapped
        raise Error(
            Kind.INVALID,
            "adapter_model.safetensors is empty.",
            param="adapter_model",
            code="invalid_adapter",
        ) from error


def _manifest(base: Base, checked: CheckedAdapter) -> str:
    """Return what the model is made of: its digest stands in the receipt of its deletion."""
    return json.dumps(
        {
            "base": base.name,
            "config_sha256": sha256(checked.config).hexdigest(),
            "weights_sha256": checked.weights_sha256,
            "weights_bytes": checked.weights_bytes,
            "rank": checked.rank,
            "target_modules": list(checked.target_modules),
        },
        sort_keys=True,
        separators=(",", ":"),
    )


def _blob_name(internal_id: str, file: str) -> str:
    return f"{internal_id}/{file}{SEALED}"
