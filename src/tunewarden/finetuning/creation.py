"""Creates jobs: the request is validated completely before a row is written."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

from tunewarden import audit, ids
from tunewarden.artifacts.keyring import KeyErased, Keyring
from tunewarden.artifacts.plain_memory import PlainMemory
from tunewarden.artifacts.strict_json import shown
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.finetuning import events, hyperparameters, jobs, transitions
from tunewarden.finetuning import metadata as job_metadata
from tunewarden.finetuning.hyperparameters import Method, Values
from tunewarden.finetuning.jobs import Job, NamedJob
from tunewarden.identity import keys
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.ids import Prefix, mint, random_bytes
from tunewarden.registry import artifacts, bases, file_rows, metadata, models
from tunewarden.registry.artifacts import Artifact, ArtifactKind, State
from tunewarden.registry.bases import BaseKind
from tunewarden.registry.quota import Quota

PURPOSE = "fine-tune"
SEED_MAX = 2**31 - 1
# Per project; each poll of the runner reads all unfinished jobs.
UNFINISHED_MAX = 1000
IDEMPOTENCY_KEY_LENGTH_MAX = 255
PARAMETERS = frozenset(
    {
        "model",
        "training_file",
        "validation_file",
        "method",
        "hyperparameters",
        "suffix",
        "seed",
        "integrations",
        "metadata",
    }
)


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A validated request, in the form in which it is stored."""

    model: str
    training_file: str
    validation_file: str | None
    method: Method
    hyperparameters: Values
    suffix: str
    seed: int
    metadata: dict[str, str] | None
    # A digest: a client may put anything into its key.
    idempotency_sha256: bytes | None = None


def parse(body: Mapping[str, object], idempotency_key: str | None = None) -> JobRequest:
    """Validate a JSON body and an Idempotency-Key. Raises Error(INVALID), naming the parameter."""
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= IDEMPOTENCY_KEY_LENGTH_MAX:
        raise _invalid(
            f"An Idempotency-Key must have 1 to {IDEMPOTENCY_KEY_LENGTH_MAX} characters.",
            "Idempotency-Key",
        )
    for name in body:
        if name not in PARAMETERS:
            raise _invalid(
                f"Unrecognized request argument supplied: {shown(name)}", name[:64] or None
            )
    if body.get("integrations"):
        raise _invalid(
            "Integrations such as wandb are not supported by this server. Omit 'integrations'; the"
            " job's events and its result file have the metrics.",
            "integrations",
        )
    method, values = hyperparameters.parse(body.get("method"), body.get("hyperparameters"))
    suffix = _text(body, "suffix") or ""
    models.check_suffix(suffix)
    return JobRequest(
        _required(body, "model"),
        _required(body, "training_file"),
        _text(body, "validation_file"),
        method,
        values,
        suffix,
        _seed(body.get("seed")),
        metadata.checked(body.get("metadata")),
        sha256(idempotency_key.encode()).digest() if idempotency_key else None,
    )


def precheck(caller: Caller) -> None:
    """Check whether the caller may create jobs, before the body is read. Raises Error(FORBIDDEN)."""
    authorize(caller, Action.WRITE_JOBS)


def create(  # noqa: PLR0917  each is of another type
    database: Database,
    memory: PlainMemory,
    keyring: Keyring,
    quota: Quota,
    caller: Caller,
    request: JobRequest,
) -> NamedJob:
    """Create a job, in `validating_files`, and return it; or the one that an equal Idempotency-Key made.

    Raises Error(FORBIDDEN), Error(INVALID) for a model or a file that cannot be trained on, Error(CONFLICT) for an
    Idempotency-Key of another request, Error(RATE_LIMITED) beyond the limit, Error(QUOTA_EXCEEDED) if the project may
    have no more models than it has and unfinished jobs will make, Error(MISCONFIGURED) if memory may be swapped to a
    disk.
    """
    authorize(caller, Action.WRITE_JOBS)
    memory.check()
    base, start = _model(database, caller, request.model)
    training = _file(database, caller, request.training_file, "training_file")
    validation = None
    if request.validation_file is not None:
        validation = _file(database, caller, request.validation_file, "validation_file")
    job_id, internal_id = mint(Prefix.JOB), mint(Prefix.SLOT)
    sealed = _sealed(keyring, training, internal_id, request)
    with database.write() as tx:
        keys.authorize_now(tx, caller, Action.WRITE_JOBS)
        earlier = jobs.by_idempotency(tx, caller, request.idempotency_sha256)
        if earlier is not None:
            _check_is_same(earlier, request, training)
            return job_metadata.opened(keyring, [jobs.named(database, caller, earlier.id)])[0]
        _check_are_there(tx, caller, start, training, validation)
        _check_limits(tx, caller.project_id, quota)
        job_n = transitions.created(
            tx,
            caller,
            job_id=job_id,
            internal_id=internal_id,
            model=request.model,
            base=base,
            start_n=start.n if start else None,
            training_n=training.n,
            validation_n=validation.n if validation else None,
            method=request.method,
            hyperparameters=request.hyperparameters,
            suffix=request.suffix,
            seed=request.seed,
            sealed_metadata=sealed,
            idempotency_sha256=request.idempotency_sha256,
        )
        _note(tx, caller, job_id, job_n, request)
    # Not `retrieve`: a key that may only create jobs gets the one that it created.
    made = jobs.named(database, caller, job_id)
    return replace(made, job=replace(made.job, metadata=request.metadata))


def _check_is_same(earlier: Job, request: JobRequest, training: Artifact) -> None:
    if (earlier.model, earlier.training_n) != (request.model, training.n):
        raise Error(
            Kind.CONFLICT,
            f"This Idempotency-Key made {earlier.id}, with another model or training file. Use a new one.",
            param="Idempotency-Key",
            code="idempotency_key_reused",
        )


def _check_are_there(
    tx: Tx, caller: Caller, start: Artifact | None, training: Artifact, validation: Artifact | None
) -> None:
    """Check again, in the transaction: no job may read an artifact that is being deleted."""
    for artifact, kind, param in (
        (start, ArtifactKind.MODEL, "model"),
        (training, ArtifactKind.FILE, "training_file"),
        (validation, ArtifactKind.FILE, "validation_file"),
    ):
        if artifact is not None and not _is_there(tx, kind, caller, artifact):
            raise _no_model(artifact.id) if param == "model" else _no_file(artifact.id, param)


def _check_limits(tx: Tx, project_id: str, quota: Quota) -> None:
    unfinished = jobs.count_unfinished(tx, project_id)
    if unfinished >= UNFINISHED_MAX:
        raise Error(
            Kind.RATE_LIMITED,
            f"Too many unfinished fine-tuning jobs in this project: {unfinished} of {UNFINISHED_MAX}. Wait"
            " until some have ended, or cancel some that are queued or paused.",
            code="too_many_jobs",
        )
    quota.check_room_for_model(tx, project_id, coming=unfinished)


def _sealed(
    keyring: Keyring, training: Artifact, internal_id: str, request: JobRequest
) -> bytes | None:
    if request.metadata is None:
        return None
    try:
        return metadata.seal(keyring, training.key_id, internal_id, request.metadata)
    except KeyErased as error:  # being deleted
        raise _no_file(training.id, "training_file") from error


def _note(tx: Tx, caller: Caller, job_id: str, job_n: int, request: JobRequest) -> None:
    events.record(tx, job_n, f"Created fine-tuning job: {job_id}")
    reading = f"Validating training file: {request.training_file}"
    if request.validation_file is not None:
        reading += f" and validation file: {request.validation_file}"
    events.record(tx, job_n, reading)
    audit.record(
        tx,
        audit.EventType.JOB_CREATED,
        organization_id=caller.organization_id,
        actor=caller.actor,
        resource_id=job_id,
        model=request.model,
        training_file=request.training_file,
    )


def _model(database: Database, caller: Caller, name: str) -> tuple[str, Artifact | None]:
    """Return the base to train on and the model to continue from, if one is named."""
    base = bases.find(database, name)
    start = None
    if base is None:
        start = models.find(database, caller, name)
        if start is None:
            raise _no_model(name)
        if start.state is not State.ACTIVE:
            raise _invalid(
                f"The model '{start.id}' is archived. Activate it to continue from it.", "model"
            )
        base = bases.find(database, start.base)
        assert base is not None, "a base that has models is never deleted"
    if base.kind is not BaseKind.LOCAL:
        raise _invalid(
            f"The base '{base.name}' is served by a remote engine, so its weights are not available for"
            " fine-tuning. Choose a base that was added with a path (`tunewarden bases list`).",
            "model",
            "model_not_available",
        )
    return base.name, start


def _file(database: Database, caller: Caller, file_id: str, param: str) -> Artifact:
    file = file_rows.find(database, caller, file_id)
    if file is None:
        raise _no_file(file_id, param)
    if file.purpose != PURPOSE:
        raise _invalid(
            f"The file '{file.id}' has the purpose '{file.purpose}'. Upload it with the purpose"
            f" '{PURPOSE}' to fine-tune with it.",
            param,
            "invalid_file_purpose",
        )
    return file


def _is_there(tx: Tx, kind: ArtifactKind, caller: Caller, artifact: Artifact) -> bool:
    found = artifacts.find_any(tx, kind, caller.organization_id, artifact.id)
    if found is None or found.state is not State.ACTIVE:
        return False
    return kind is ArtifactKind.FILE or models.is_seen_by(tx, caller, found.n)


def _no_model(name: str) -> Error:
    return _invalid(
        f"Model {ids.shown(name)} is not available for fine-tuning or does not exist.",
        "model",
        "model_not_available",
    )


def _no_file(file_id: str, param: str) -> Error:
    return _invalid(
        f"The file '{ids.shown(file_id)}' does not exist. Upload it with the purpose '{PURPOSE}' first.",
        param,
        "invalid_file",
    )


def _required(body: Mapping[str, object], name: str) -> str:
    value = _text(body, name)
    if not value:
        raise _invalid(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    return value


def _text(body: Mapping[str, object], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise _invalid(f"'{name}' must be text.", name)
    return value


def _seed(value: object) -> int:
    if value is None:
        return int.from_bytes(random_bytes(4)) & SEED_MAX
    if type(value) is not int or not 0 <= value <= SEED_MAX:
        raise _invalid(f"'seed' must be a whole number from 0 to {SEED_MAX}.", "seed")
    return value


def _invalid(message: str, param: str | None, code: str | None = None) -> Error:
    return Error(Kind.INVALID, message, param=param, code=code)
