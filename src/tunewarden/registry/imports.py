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
from tunewarden.artifacts.keyring import Keyring
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry import bases, models
from tunewarden.registry.artifacts import ID_LENGTH_MAX, SealedBlob, State
from tunewarden.registry.bases import Base, BaseKind
from tunewarden.registry.drafts import Draft, Drafts, blob_name
from tunewarden.registry.models import Model

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Ready:
    """An adapter that was checked, and the file of its weights, which must not change meanwhile."""

    base: Base
    checked: CheckedAdapter
    weights: BinaryIO


@dataclass(frozen=True, slots=True)
class Sealed:
    """An adapter that was checked and sealed into a draft."""

    draft: Draft
    ready: Ready
    blobs: list[SealedBlob]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Whose a new model is, and what made it: an import, or a job (at a step: a checkpoint)."""

    organization_id: str
    organization_name: str
    project_id: str
    created_by: str
    suffix: str
    job_n: int | None = None
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Imports:
    """The operation and what it needs."""

    database: Database
    keyring: Keyring
    blobs: ErasableBlobs
    drafts: Drafts
    limits: Limits
    scratch_may_be_a_disk: bool = False

    def bring_in(
        self, caller: Caller, *, base: str, suffix: str, config: BinaryIO, weights: BinaryIO
    ) -> Model:
        """Check, seal and register an adapter; return the new model, which can be used at once.

        `weights` must be a real file (memory or disk), so that it can be mapped. Raises
        Error(FORBIDDEN), Error(INVALID), Error(TOO_LARGE); then nothing is left behind.
        """
        authorize(caller, Action.WRITE_MODELS)
        models.check_suffix(suffix)
        try:
            ready = self.check(base, config, weights)
        except Error as refused:
            self._record_refusal(caller, base, refused)
            raise
        with self.sealing(ready) as sealed, self.database.write() as tx:
            model = self.register(
                tx,
                sealed,
                Made(
                    organization_id=caller.organization_id,
                    organization_name=caller.organization_name,
                    project_id=caller.project_id,
                    created_by=caller.key_id,
                    suffix=suffix,
                ),
            )
            audit.record(
                tx,
                audit.EventType.MODEL_IMPORTED,
                organization_id=caller.organization_id,
                actor=caller.actor,
                resource_id=model.id,
                base=model.base,
            )
        return model

    def check(self, base: str, config: BinaryIO, weights: BinaryIO) -> Ready:
        """Return an adapter that fits its base. Raises Error(INVALID), Error(TOO_LARGE)."""
        found = self._base(base)
        return Ready(found, _checked(found, config, weights, self.limits), weights)

    @contextmanager
    def sealing(self, ready: Ready) -> Iterator[Sealed]:
        """Yield the sealed adapter, to be registered within the block; else nothing is left of it."""
        with self.drafts.importing() as draft:
            yield Sealed(draft, ready, self._seal(draft, ready.checked, ready.weights))

    def register(self, tx: Tx, sealed: Sealed, made: Made) -> Model:
        """Make a sealed adapter a model, under an id that was never used, in the caller's transaction."""
        base = sealed.ready.base
        manifest = _manifest(base, sealed.ready.checked)
        model = Model(
            n=0,
            id=models.mint_id(
                base=base.name,
                organization=made.organization_name,
                suffix=made.suffix,
                step=made.step,
            ),
            internal_id=sealed.draft.internal_id,
            organization_id=made.organization_id,
            project_id=made.project_id,
            state=State.ACTIVE,
            epoch=1,
            key_id=sealed.draft.key_id,
            manifest_sha256=sha256(manifest.encode()).hexdigest(),
            created_by=made.created_by,
            created_at=tx.now_micros,
            base=base.name,
            suffix=made.suffix,
            job_n=made.job_n,
            step=made.step,
        )
        model = models.register(tx, model=model, manifest=manifest, blobs=sealed.blobs)
        self.drafts.settle(tx, sealed.draft.internal_id)
        return model

    def unseal(self, model: Model, directory: Path) -> None:
        """Write a model's plain files into a directory in memory, for an engine to read (I16)."""
        identity = self.keyring.open(model.key_id)
        for name in (CONFIG_NAME, WEIGHTS_NAME):
            sealing.unseal_to_file(
                self.blobs,
                blob_name(model.internal_id, name),
                identity,
                directory / name,
                may_be_a_disk=self.scratch_may_be_a_disk,
            )

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

    def _seal(self, draft: Draft, checked: CheckedAdapter, weights: BinaryIO) -> list[SealedBlob]:
        weights.seek(0)
        files: list[tuple[str, BinaryIO, int]] = [
            (CONFIG_NAME, BytesIO(checked.config), len(checked.config)),
            (WEIGHTS_NAME, weights, checked.weights_bytes),
        ]
        sealed = []
        for name, reader, size in files:
            blob = blob_name(draft.internal_id, name)
            stored = sealing.seal(reader, draft.recipient, self.blobs, blob)
            sealed.append(SealedBlob(blob, size, stored))
        return sealed

    def _record_refusal(self, caller: Caller, base: str, refused: Error) -> None:
        with self.database.write() as tx:
            audit.record(
                tx,
                audit.EventType.MODEL_IMPORT_REFUSED,
                organization_id=caller.organization_id,
                actor=caller.actor,
                resource_id=base[:ID_LENGTH_MAX],
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
