"""D2: what a deletion includes, and what blocks it. Read in the transaction that commits it."""

from dataclasses import dataclass

from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.finetuning import jobs
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry import artifacts, bases, file_rows, lineage, models
from tunewarden.registry.artifacts import ID_LENGTH_MAX, Artifact, ArtifactKind
from tunewarden.registry.file_rows import File
from tunewarden.registry.models import Model


@dataclass(frozen=True, slots=True)
class Plan:
    """What the deletion of one artifact would do now. `blockers` are the ids of unfinished jobs.

    `derived_files` are the ids of what was made from it and stays (I18).
    """

    kind: ArtifactKind
    artifact: Artifact
    checkpoints: tuple[Artifact, ...]
    blobs: int
    sealed_bytes: int
    blockers: tuple[str, ...]
    derived_files: tuple[str, ...]


def plan(database: Database, caller: Caller, kind: ArtifactKind, artifact_id: str) -> Plan:
    """Return the plan of deleting a model or a file. Raises Error(FORBIDDEN), Error(NOT_FOUND)."""
    is_model = kind is ArtifactKind.MODEL
    found = (
        _model(database, caller, artifact_id) if is_model else _file(database, caller, artifact_id)
    )
    with database.read() as tx:
        return of(tx, kind, found)


def of(tx: Tx, kind: ArtifactKind, artifact: Artifact) -> Plan:
    """Return the plan of an artifact that the caller may see."""
    checkpoints = _checkpoints(tx, kind, artifact)
    everything = (artifact, *checkpoints)
    blobs = [blob for one in everything for blob in artifacts.blobs_of(tx, one.n)]
    blockers = {job for one in everything for job in jobs.that_need(tx, one.n)}
    return Plan(
        kind,
        artifact,
        checkpoints,
        len(blobs),
        sum(blob.sealed_bytes for blob in blobs),
        tuple(sorted(blockers)),
        lineage.derived_from(tx, artifact.n),
    )


def check(found: Plan) -> None:
    """Check that nothing blocks the deletion. Raises Error(CONFLICT), naming the blockers."""
    if found.blockers:
        named = ", ".join(found.blockers[:5])
        raise Error(
            Kind.CONFLICT,
            f"'{found.artifact.id}' is needed by a fine-tuning job that has not ended: {named}."
            " Cancel it or wait for it, then delete.",
            code="needed_by_job",
        )


def base_refused(name: str) -> Error:
    """Return the error for deleting a base."""
    return Error(
        Kind.FORBIDDEN,
        f"The model '{name[:ID_LENGTH_MAX]}' is a base model. Only fine-tuned models can be deleted.",
        param="model",
        code="base_model_not_deletable",
    )


def _model(database: Database, caller: Caller, model_id: str) -> Model:
    authorize(caller, Action.READ_MODELS)
    model = models.find(database, caller, model_id)
    if model is None:
        is_base = bases.find(database, model_id) is not None
        raise base_refused(model_id) if is_base else models.missing(model_id)
    return model


def _file(database: Database, caller: Caller, file_id: str) -> File:
    authorize(caller, Action.READ_FILES)
    file = file_rows.find(database, caller, file_id)
    if file is None:
        raise file_rows.missing(file_id)
    return file


def _checkpoints(tx: Tx, kind: ArtifactKind, artifact: Artifact) -> tuple[Model, ...]:
    return models.checkpoints_of(tx, artifact.n) if kind is ArtifactKind.MODEL else ()
