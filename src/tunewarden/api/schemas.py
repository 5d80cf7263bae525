"""Types of request and response bodies, for the OpenAPI document. A test decodes real responses with them.

Those of inference are in `inference_schemas`.
"""

from typing import Annotated, Any, Generic, Literal, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

from tunewarden.engines.adapter_states import AdapterState

T = TypeVar("T")
Seconds = Annotated[int, Meta(description="Unix seconds")]
Fraction = Annotated[float, Meta(description="Unix seconds with fractions")]
DeletionStatus = Literal["deleting", "deleted", "erased"]
Binary = Annotated[
    str, Meta(extra_json_schema={"contentMediaType": "application/octet-stream", "type": "string"})
]


class Problem(Struct, forbid_unknown_fields=True):
    """An error; `param` names the offending parameter, `code` is the machine-readable reason."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(Struct, forbid_unknown_fields=True):
    """The body of every response with a status of 400 or more."""

    error: Problem


class Listing(Struct, Generic[T], forbid_unknown_fields=True):
    """A page of a list; `after` with `last_id` asks for the next."""

    object: Literal["list"]
    data: list[T]
    has_more: bool
    first_id: str | UnsetType | None = UNSET
    last_id: str | UnsetType | None = UNSET


class Deleted(Struct, forbid_unknown_fields=True):
    """Confirms a deletion."""

    id: str
    object: str
    deleted: Literal[True]


class Model(Struct, forbid_unknown_fields=True):
    """A base or a fine-tuned model; the latter has a `root`, its base, and so has another name of a base.

    `deletion_due_at`: a retention rule announces to delete it then. Where they are known: `max_model_len`, how many tokens a prompt and its completion may have, and `capabilities`, of
    `completions`, `chat` and `fine_tuning`.
    """

    id: str
    object: Literal["model"]
    created: Seconds
    owned_by: str
    root: str | UnsetType = UNSET
    archived: bool | UnsetType = UNSET
    protected: bool | UnsetType = UNSET
    metadata: dict[str, str] | UnsetType = UNSET
    deletion_due_at: Seconds | UnsetType = UNSET
    alias_of: list[str] | UnsetType = UNSET
    max_model_len: int | UnsetType = UNSET
    capabilities: list[str] | UnsetType = UNSET


class ConsoleLink(Struct, forbid_unknown_fields=True):
    """A link that signs in to the console once, until `expires_at`. Treat it like a key."""

    object: Literal["console.link"]
    url: str
    expires_at: Seconds


class EngineOfModel(Struct, forbid_unknown_fields=True):
    """A fine-tuned model's state in one engine of its base: `embedded`, or BASE/REPLICA.

    `reason`: why its last load there failed. `not_loaded`: it is loaded on first use.
    """

    object: Literal["model.engine"]
    engine: str
    state: AdapterState
    reason: str | None


class ModelUsage(Struct, forbid_unknown_fields=True):
    """How the organization used a model; `last_used_at` is null if it never did.

    Requests of the last 60 minutes and of the last 24 hours, each with the current one.
    """

    object: Literal["model.usage"]
    model: str
    last_used_at: Seconds | None
    requests_last_hour: int
    requests_last_day: int


class ImportForm(Struct):
    """A PEFT LoRA. `metadata` is a JSON object of up to 16 pairs of text."""

    base: str
    adapter_config: Binary
    adapter_model: Binary
    suffix: str = ""
    metadata: str = ""


class ModelChanges(Struct, forbid_unknown_fields=True):
    """What to change of a model. `metadata` replaces all of it."""

    archived: bool | None = None
    protected: bool | None = None
    metadata: dict[str, str] | None = None


class File(Struct, forbid_unknown_fields=True):
    """A file."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: Seconds
    filename: str
    purpose: str
    status: Literal["processed"]
    expires_at: Seconds | UnsetType = UNSET
    derived_from: list[str] | UnsetType = UNSET
    source: str | UnsetType = UNSET


class ExpiresAfter(Struct, forbid_unknown_fields=True):
    """When a file expires: this many seconds after `anchor`."""

    anchor: str
    seconds: int


class FileForm(Struct):
    """A file. `expires_after` is JSON, or two fields: `expires_after[anchor]` and `expires_after[seconds]`."""

    purpose: str
    file: Binary
    expires_after: ExpiresAfter | None = None


class NewUpload(Struct):
    """A file to be uploaded in parts."""

    bytes: int
    filename: str
    mime_type: str
    purpose: str
    expires_after: ExpiresAfter | None = None


class PartForm(Struct):
    """A part of an upload."""

    data: Binary


class CompleteUpload(Struct):
    """The parts in their order, and if it is to be checked the MD5 of all of it.

    `bytes` is for who did not know it at the beginning; `derived_from` names files that it was made from, `source`
    says in words where it came from.
    """

    part_ids: list[str]
    md5: str | None = None
    bytes: int | None = None
    derived_from: list[str] = []
    source: str | None = None


class Upload(Struct, forbid_unknown_fields=True):
    """A file uploaded in parts; once completed, with its `file`."""

    id: str
    object: Literal["upload"]
    bytes: int
    created_at: Seconds
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    expires_at: Seconds
    file: File | None


class Part(Struct, forbid_unknown_fields=True):
    """A part of an upload."""

    id: str
    object: Literal["upload.part"]
    created_at: Seconds
    upload_id: str


class NewJob(Struct):
    """A fine-tuning job: `method` chooses supervised fine-tuning or DPO and its hyperparameters."""

    model: str
    training_file: str
    validation_file: str | None = None
    method: dict[str, Any] | None = None
    hyperparameters: dict[str, Any] | None = None
    suffix: str | None = None
    seed: int | None = None
    metadata: dict[str, str] | None = None


class Job(Struct, forbid_unknown_fields=True):
    """A fine-tuning job. `paused` and `fine_tuned_model_deleted` are present only when true."""

    id: str
    object: Literal["fine_tuning.job"]
    created_at: Seconds
    finished_at: Seconds | None
    status: str
    model: str
    fine_tuned_model: str | None
    organization_id: str
    training_file: str
    validation_file: str | None
    result_files: list[str]
    hyperparameters: dict[str, Any]
    method: dict[str, Any]
    seed: int
    trained_tokens: int | None
    estimated_finish: Seconds | None
    error: dict[str, Any] | None
    integrations: list[Any]
    metadata: dict[str, str] | None
    user_provided_suffix: str | None
    paused: Literal[True] | UnsetType = UNSET
    fine_tuned_model_deleted: Literal[True] | UnsetType = UNSET


class JobEvent(Struct, forbid_unknown_fields=True):
    """An event of a job; `data` holds metrics."""

    id: str
    object: Literal["fine_tuning.job.event"]
    created_at: Seconds
    level: str
    type: str
    message: str
    data: dict[str, Any] | UnsetType = UNSET


class MetricPoint(Struct, forbid_unknown_fields=True):
    """A value of a curve, and the step that it was measured at."""

    step: int
    value: float


class JobMetrics(Struct, forbid_unknown_fields=True):
    """A job's curves. `step`: the last one that was recorded, of `total_steps`; null before the first.

    The steps are divided into buckets; of each, a curve has its least and its greatest value, in the order of steps.
    """

    object: Literal["fine_tuning.job.metrics"]
    job_id: str
    step: int | None
    total_steps: int | None
    train_loss: list[MetricPoint]
    train_mean_token_accuracy: list[MetricPoint]
    valid_loss: list[MetricPoint]
    valid_mean_token_accuracy: list[MetricPoint]


class Checkpoint(Struct, forbid_unknown_fields=True):
    """The model at one step of its job; `deleted` is present if it was deleted."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"]
    created_at: Seconds
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    step_number: int
    metrics: dict[str, float]
    deleted: Literal[True] | UnsetType = UNSET


class NewPermissions(Struct):
    """The projects to grant access to a checkpoint."""

    project_ids: Annotated[list[str], Meta(min_length=1, max_length=100)]


class Permission(Struct, forbid_unknown_fields=True):
    """One project's access to a checkpoint."""

    id: str
    object: Literal["checkpoint.permission"]
    created_at: Seconds
    project_id: str


class Health(Struct, forbid_unknown_fields=True):
    """The worker is alive."""

    status: Literal["ok"]


class Readiness(Struct, forbid_unknown_fields=True):
    """Whether to send new requests here (else 503), and disk usage; `bases` if the request asks for them."""

    status: Literal["ok", "draining", "loading"]
    draining: bool
    disk: str
    bases: Literal["loaded", "loading"] | UnsetType = UNSET
