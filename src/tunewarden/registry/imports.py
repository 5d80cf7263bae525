"""Imports an adapter: check, encrypt, then register as a model. A refusal leaves nothing behind.

The weights are encrypted from the buffer that was checked, so that exactly the checked bytes are stored.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from tunewarden.artifacts.plain_memory import PlainMemory
from tunewarden.artifacts.sealing import sealed_bytes
from tunewarden.audit import refusals
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry import alias_rows, artifacts, bases, declared_lineage, metadata, models
from tunewarden.registry.artifacts import SealedBlob, State
from tunewarden.registry.bases import Base, BaseKind
from tunewarden.registry.drafts import Draft, Drafts, blob_name
from tunewarden.registry.models import Model
from tunewarden.webhooks import outbox
from tunewarden.webhooks.event_types import WebhookEventType

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Ready:
    """A checked adapter, and the file of its weights, which must not change until it is sealed."""

    base: Base
    checked: CheckedAdapter
    weights: BinaryIO


@dataclass(frozen=True, slots=True)
class Sealed:
    """A checked adapter, encrypted into a draft."""

    draft: Draft
    ready: Ready
    blobs: list[SealedBlob]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The owner of a new model, and its origin: an import, or a job (at a step: a checkpoint)."""

    organization_id: str
    organization_name: str
    project_id: str
    created_by: str
    suffix: str
    job_n: int | None = None
    step: int | None = None
    is_public: bool = False


@dataclass(frozen=True, slots=True)
class Imports:
    """The import operation and its dependencies."""

    database: Database
    keyring: Keyring
    blobs: ErasableBlobs
    drafts: Drafts
    limits: Limits
    memory: PlainMemory
    scratch_may_be_a_disk: bool = False

    def precheck(self, caller: Caller) -> None:
        """Check whether an import may begin, before its body is read.

        Raises Error(FORBIDDEN), Error(MISCONFIGURED) if memory may be swapped to a disk, Error(STORAGE_FULL).
        """
        authorize(caller, Action.WRITE_MODELS)
        self.memory.check()
        self.database.check_room()

    def bring_in(
        self,
        caller: Caller,
        *,
        base: str,
        suffix: str,
        config: BinaryIO,
        weights: BinaryIO,
        described: dict[str, str] | None = None,
        is_public: bool = False,
    ) -> Model:
        """Check, encrypt and register an adapter; return the new model, which can be used at once.

        `weights` must have a file descriptor, so that it can be mapped. `described` is its metadata, checked: what it
        declares of its origins is an Owner's to say. `is_public` weights, such as the demo's, may be in plaintext on a
        disk. Raises Error(FORBIDDEN), Error(INVALID), Error(TOO_LARGE), Error(MISCONFIGURED); then nothing is left behind.
        """
        authorize(caller, Action.WRITE_MODELS)
        if not is_public:
            self.memory.check()
        models.check_suffix(suffix)
        try:
            ready = self.check(base, config, weights)
        except Error as refused:
            self._record_refusal(caller, base, refused)
            raise
        made = Made(
            organization_id=caller.organization_id,
            organization_name=caller.organization_name,
            project_id=caller.project_id,
            created_by=caller.key_id,
            suffix=suffix,
            is_public=is_public,
        )
        with self.sealing(ready, caller.project_id) as sealed:
            described = described or {}
            words = self._sealed_metadata(sealed.draft, described) if described else None
            with self.database.write() as tx:
                keys.authorize_now(tx, caller, Action.WRITE_MODELS)
                self.drafts.quota.check_room_for_model(tx, caller.project_id)
                model = self.register(tx, sealed, made)
                declared_lineage.declare(tx, caller, model, described)
                models.set_metadata(tx, model.n, words)
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
    def sealing(self, ready: Ready, project_id: str) -> Iterator[Sealed]:
        """Yield the encrypted adapter, to be registered inside the block; otherwise it is erased."""
        checked = ready.checked
        size = sum(sealed_bytes(one) for one in (len(checked.config), checked.weights_bytes))
        with self.drafts.importing(project_id, size) as draft:
            yield Sealed(draft, ready, self._seal(draft, ready.checked, ready.weights))

    def register(self, tx: Tx, sealed: Sealed, made: Made) -> Model:
        """Register a sealed adapter as a model, under a new id, in the caller's transaction."""
        base = sealed.ready.base
        manifest = _manifest(base, sealed.ready.checked, is_public=made.is_public)
        model = Model(
            n=0,
            id=_new_id(tx, base.name, made),
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
        outbox.publish(tx, made.organization_id, WebhookEventType.MODEL_CREATED, model.id)
        return model

    def unseal(self, model: Model, directory: Path) -> None:
        """Decrypt a model's files into a tmpfs directory, for an engine to read (I16).

        Raises Error(MISCONFIGURED) if that memory may be swapped to a disk and the weights are not public.
        """
        if not self.memory.is_safe() and not artifacts.is_public(self.database, model.n):
            self.memory.check()
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
                f"The base model '{name}' does not exist. Add it with `tunewarden bases add`.",
                param="base",
            )
        if base.kind is not BaseKind.LOCAL and not base.is_pushed_to:
            raise Error(
                Kind.INVALID,
                f"'{name}' is served by a remote engine, which cannot load adapters from this server."
                " Use a local base, or a vLLM with tunewarden-vllm.",
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

    def _sealed_metadata(self, draft: Draft, described: dict[str, str]) -> bytes:
        return metadata.seal(self.keyring, draft.key_id, draft.internal_id, described)

    def _record_refusal(self, caller: Caller, base: str, refused: Error) -> None:
        refusals.refuse(
            self.database,
            audit.EventType.MODEL_IMPORT_REFUSED,
            refused,
            organization_id=caller.organization_id,
            actor=caller.actor,
            # Of an unknown base the name is arbitrary text.
            resource_id=base if bases.find(self.database, base) else "",
            reason=refused.kind.value,  # not its message, which may quote the request
            code=refused.code,
        )


def _new_id(tx: Tx, base: str, made: Made) -> str:
    """Return an id that is no alias of the organization: a name means one thing."""
    while True:
        model_id = models.mint_id(
            base=base, organization=made.organization_name, suffix=made.suffix, step=made.step
        )
        if alias_rows.find(tx, made.organization_id, model_id) is None:
            return model_id


def _checked(base: Base, config: BinaryIO, weights: BinaryIO, limits: Limits) -> CheckedAdapter:
    shape = BaseShape(base.name, base.module_shapes())
    if base.rank_max is not None:
        limits = replace(limits, max_rank=min(limits.max_rank, base.rank_max))
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


def _manifest(base: Base, checked: CheckedAdapter, *, is_public: bool) -> str:
    """Return the model's manifest, whose digest is in the receipt of its deletion."""
    fields = {
        "base": base.name,
        "config_sha256": sha256(checked.config).hexdigest(),
        "weights_sha256": checked.weights_sha256,
        "weights_bytes": checked.weights_bytes,
        "rank": checked.rank,
        "target_modules": list(checked.target_modules),
    }
    if is_public:
        fields |= artifacts.PUBLIC
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))
