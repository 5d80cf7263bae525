"""The types of events that endpoints can ask for. Only ever added; those that OpenAI has keep its names and shapes."""

from enum import StrEnum


class WebhookEventType(StrEnum):
    """What happened. `data.id` of an event is the id of what it happened to."""

    MODEL_CREATED = "model.created"
    MODEL_ARCHIVED = "model.archived"
    MODEL_DELETED = "model.deleted"
    FILE_CREATED = "file.created"
    FILE_DELETED = "file.deleted"
    # OpenAI's, which its SDK types.
    JOB_SUCCEEDED = "fine_tuning.job.succeeded"
    JOB_FAILED = "fine_tuning.job.failed"
    JOB_CANCELLED = "fine_tuning.job.cancelled"
    CASE_COMPLETED = "deletion_case.completed"
    CASE_PARTIAL = "deletion_case.partial"
    RETENTION_UPCOMING = "retention.upcoming"


MEANINGS: dict[WebhookEventType, str] = {
    WebhookEventType.MODEL_CREATED: "a model was imported, or made by a job; checkpoints too",
    WebhookEventType.MODEL_ARCHIVED: "a model was archived: it is not served",
    WebhookEventType.MODEL_DELETED: "a model is deleted: `data.deletion_id` names the deletion, whose receipt can be had",
    WebhookEventType.FILE_CREATED: "a file was stored",
    WebhookEventType.FILE_DELETED: "a file is deleted: `data.deletion_id` as above",
    WebhookEventType.JOB_SUCCEEDED: "a fine-tuning job succeeded",
    WebhookEventType.JOB_FAILED: "a fine-tuning job failed",
    WebhookEventType.JOB_CANCELLED: "a fine-tuning job was cancelled",
    WebhookEventType.CASE_COMPLETED: "a case is done: everything that learned from a file is deleted",
    WebhookEventType.CASE_PARTIAL: "a case is done as far as it reaches: some members are not the caller's to delete",
    WebhookEventType.RETENTION_UPCOMING: "a retention rule will delete a model, not before its `deletion_due_at`",
}
