"""D2: what a deletion would take with it, and what forbids it. Read in the transaction that commits it."""

from dataclasses import dataclass

from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.finetuning import jobs
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry import artifacts, bases, models
from tunewarden.registry.artifacts import ID_LENGTH_MAX, Artifact, ArtifactKind
from tunewarden.registry.models import Model


@dataclass(frozen=True, slots=True)
class Plan:
    """What the deletion of one artifact would do now. `blockers` are the ids of unfinished jobs."""

    artifact: Artifact
    checkpoints: tuple[Artifact, ...]
    blobs: int
    sealed_bytes: int
    blockers: tuple[str, ...]


def plan(database: Database, caller: Caller, model_id: str) -> Plan:
    """Return what deleting a model would do. Raises Error(FORBIDDEN), Error(NOT_FOUND)."""
    authorize(caller, Action.READ_MODELS)
    model = models.find(database, caller, model_id)
    if model is None:
        is_base = bases.find(database, model_id) is not None
        raise base_refused(model_id) if is_base else models.missing(model_id)
    with database.read() as tx:
        return of(tx, ArtifactKind.MODEL, model)


def of(tx: Tx, kind: ArtifactKind, artifact: Artifact) -> Plan:
    """Return the plan of an artifact, which the caller of this may see."""
    checkpoints = _checkpoints(tx, kind, artifact)
    everything = (artifact, *checkpoints)
    blobs = [blob for one in everything for blob in artifacts.blobs_of(tx, one.n)]
    blockers = {job for one in everything for job in jobs.that_need(tx, one.n)}
    return Plan(
        artifact,
        checkpoints,
        len(blobs),
        sum(blob.sealed_bytes for blob in blobs),
        tuple(sorted(blockers)),
    )


def check(found: Plan) -> None:
    """Return if nothing forbids the deletion. Raises Error(CONFLICT), naming what does."""
    if found.blockers:
        named = ", ".join(found.blockers[:5])
        raise Error(
            Kind.CONFLICT,
            f"'{found.artifact.id}' is needed by a fine-tuning job that has not ended: {named}."
            " Cancel it or wait for it, then delete.",
            code="needed_by_job",
        )


def base_refused(name: str) -> Error:
    """Return the answer to whoever wants to delete a base."""
    return Error(
        Kind.FORBIDDEN,
        f"The model '{name[:ID_LENGTH_MAX]}' is a base model. Only fine-tuned models can be deleted.",
        param="model",
        code="base_model_not_deletable",
    )


def _checkpoints(tx: Tx, kind: ArtifactKind, artifact: Artifact) -> tuple[Model, ...]:
    return models.checkpoints_of(tx, artifact.n) if kind is ArtifactKind.MODEL else ()
