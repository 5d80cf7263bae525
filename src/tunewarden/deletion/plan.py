"""D2: what a deletion includes, and what blocks it. Read in the transaction that commits it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tunewarden.db.database import Database, Tx
from tunewarden.deletion import blockers, together
from tunewarden.deletion.blockers import Blocker, BlockerType
from tunewarden.deletion.cases import cascade
from tunewarden.deletion.cases.cascade import Cascade
from tunewarden.deletion.use import IsServed, not_seen
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry import (
    alias_rows,
    aliases,
    artifacts,
    bases,
    export_rows,
    file_rows,
    lineage,
    models,
)
from tunewarden.registry.artifacts import ID_LENGTH_MAX, Artifact, ArtifactKind
from tunewarden.registry.export_rows import Export
from tunewarden.registry.file_rows import File
from tunewarden.registry.models import Model

BASE_REFUSED = "base_model_not_deletable"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the deletion of one artifact would do now, and what blocks it.

    What stays (I18): `derived_files`, the ids of what was made from it, and `exports`, by the id of the model, also of
    those in `cascade`: what learned from a file, and what deleting it with that would do; None if nobody looked.
    """

    kind: ArtifactKind
    artifact: Artifact
    checkpoints: tuple[Artifact, ...]
    blobs: int
    sealed_bytes: int
    blockers: tuple[Blocker, ...]
    derived_files: tuple[str, ...]
    exports: tuple[tuple[str, Export], ...] = ()
    cascade: Cascade | None = None

    @property
    def reach(self) -> int:
        """How many others it names: those that go with it or came from it, each of which reaches fewer."""
        if self.cascade is not None:
            return len(self.cascade.learned.members)
        return len(self.checkpoints) + len(self.derived_files)

    def blocked_by(self, kind: BlockerType) -> list[str]:
        """Return the ids of the blockers of a kind, each once."""
        return sorted({one.id for one in self.blockers if one.type is kind})

    @property
    def fingerprint(self) -> str:
        """A digest: equal as long as deleting would do the same, to the same artifacts, and leave the same.

        Use is not in it, or it would change with each request; D3 looks at use again unless it is forced.
        """
        said: list[object] = [
            self.artifact.id,
            self.artifact.epoch,
            self.artifact.state,
            self.artifact.manifest_sha256,
            [(one.id, one.epoch, one.state, one.manifest_sha256) for one in self.checkpoints],
            blockers.said(self.blockers),
            self.derived_files,
            [export.id for _, export in self.exports],
        ]
        if self.cascade is not None:
            said.append(self.cascade.said)
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def plan(
    database: Database,
    caller: Caller,
    kind: ArtifactKind,
    artifact_id: str,
    *,
    needed: Action | None = None,
    is_served: IsServed = not_seen,
) -> Plan:
    """Return the plan of deleting a model or a file.

    Raises Error(FORBIDDEN), Error(NOT_FOUND), Error(CONFLICT) for an alias. `needed`: an action that the caller must be
    allowed to do, beside reading.
    """
    is_model = kind is ArtifactKind.MODEL
    found = (
        _model(database, caller, artifact_id, needed)
        if is_model
        else _file(database, caller, artifact_id)
    )
    if needed is not None:
        authorize(caller, needed)
    with database.read() as tx:
        if is_model:
            return of(tx, kind, found, is_served)
        with_all = with_cascade(tx, caller, found, is_served)
        assert with_all.cascade is not None, "that of a file has one"
        return replace(with_all, cascade=cascade.measured(tx, with_all.cascade))


def with_cascade(tx: Tx, caller: Caller, file: Artifact, is_served: IsServed = not_seen) -> Plan:
    """Return the plan of a file that the caller may see, with all that learned from it."""
    found = cascade.of(tx, caller, file, is_served)
    exports = _exports_of(tx, [one.artifact for one in found.learned.members])
    return replace(of(tx, ArtifactKind.FILE, file), cascade=found, exports=exports)


def of(tx: Tx, kind: ArtifactKind, artifact: Artifact, is_served: IsServed = not_seen) -> Plan:
    """Return the plan of an artifact that the caller may see; `is_served` sees use that has no rows yet."""
    checkpoints = _checkpoints(tx, kind, artifact)
    everything = (artifact, *checkpoints)
    blobs = [blob for one in everything for blob in artifacts.blobs_of(tx, one.n)]
    return Plan(
        kind,
        artifact,
        checkpoints,
        len(blobs),
        sum(blob.sealed_bytes for blob in blobs),
        blockers.of(tx, everything, is_served),
        lineage.derived_from(tx, artifact.n),
        _exports_of(tx, everything),
    )


def check(found: Plan, *, force: bool, if_match: str | None, with_models: bool = False) -> None:
    """Check that the plan is the one that the client saw, and that nothing blocks it.

    `with_models`: all that learned from a file is deleted too. Raises Error(PRECONDITION_FAILED); Error(CONFLICT), naming
    the blockers.
    """
    check_seen(found, if_match)
    if with_models and found.cascade is not None:
        if not found.cascade.learned.is_whole:
            raise together.too_large()
        blockers.check_members(found.artifact.id, found.cascade.blockers, force=force)
    else:
        blockers.check(found.artifact.id, found.blockers, force=force)


def check_seen(found: Plan, if_match: str | None) -> None:
    """Check that the plan is the one that an If-Match header names, if there is one. Raises Error(PRECONDITION_FAILED)."""
    if if_match is not None:
        said = f"What deleting '{found.artifact.id}' would do has changed"
        check_match(if_match, found.fingerprint, said)


def check_match(if_match: str, fingerprint: str, said: str) -> None:
    """Check that an If-Match header names the plan's fingerprint; `said` is what has changed if not.

    Raises Error(PRECONDITION_FAILED).
    """
    if not _matches(if_match, fingerprint):
        raise Error(
            Kind.PRECONDITION_FAILED,
            f"{said}: its plan has now the fingerprint {fingerprint}. Read the plan again, then delete.",
            param="If-Match",
            code="plan_changed",
        )


def _matches(if_match: str, fingerprint: str) -> bool:
    """Return whether an If-Match header names the fingerprint, as an entity tag or bare; `*` matches any."""
    return any(tag.strip().strip('"') in {fingerprint, "*"} for tag in if_match.split(","))


def base_refused(name: str) -> Error:
    """Return the error for deleting a base."""
    return Error(
        Kind.FORBIDDEN,
        f"The model '{name[:ID_LENGTH_MAX]}' is a base model. Only fine-tuned models can be deleted.",
        param="model",
        code=BASE_REFUSED,
    )


def _model(database: Database, caller: Caller, model_id: str, needed: Action | None) -> Model:
    authorize(caller, Action.READ_MODELS)
    model = models.find(database, caller, model_id)
    if model is not None:
        return model
    if bases.find(database, model_id) is not None:
        raise base_refused(model_id)
    with database.read() as tx:
        alias = alias_rows.find(tx, caller.organization_id, model_id)
    if alias is None:
        raise models.missing(model_id)
    # The deletion itself answers so too.
    authorize(caller, needed or Action.READ_MODELS)
    raise aliases.is_alias(alias)


def _file(database: Database, caller: Caller, file_id: str) -> File:
    authorize(caller, Action.READ_FILES)
    file = file_rows.find(database, caller, file_id)
    if file is None:
        raise file_rows.missing(file_id)
    return file


def _exports_of(tx: Tx, found: Sequence[Artifact]) -> tuple[tuple[str, Export], ...]:
    return tuple((one.id, made) for one in found for made in export_rows.of(tx, one.n))


def _checkpoints(tx: Tx, kind: ArtifactKind, artifact: Artifact) -> tuple[Model, ...]:
    return models.checkpoints_of(tx, artifact.n) if kind is ArtifactKind.MODEL else ()
