"""Objects as JSON shows them: on the wire and on the command line alike."""

import json
from typing import Any

from tunewarden.deletion.records import Deletion
from tunewarden.registry.bases import Base
from tunewarden.registry.models import Model, State


def base_object(base: Base) -> dict[str, Any]:
    """Return a base as OpenAI's Model."""
    return {
        "id": base.name,
        "object": "model",
        "created": base.created_at // 1_000_000,
        "owned_by": "system",
    }


def model_object(model: Model, organization_name: str) -> dict[str, Any]:
    """Return a fine-tuned model as OpenAI's Model, with its base and whether it is archived."""
    return {
        "id": model.id,
        "object": "model",
        "created": model.created_at // 1_000_000,
        "owned_by": organization_name,
        "root": model.base,
        "archived": model.state is State.ARCHIVED,
    }


def deletion_object(deletion: Deletion) -> dict[str, Any]:
    """Return a deletion. Times are Unix seconds with fractions; a step that is not done yet is null."""
    return {
        "id": deletion.id,
        "object": "model.deletion",
        "model": deletion.model_id,
        "status": _status(deletion),
        "requested_by": deletion.requested_by,
        "requested_at": _seconds(deletion.requested_at),
        "fenced_at": _seconds(deletion.fenced_at),
        "evicted_at": _seconds(deletion.evicted_at),
        "key_erased_at": _seconds(deletion.key_erased_at),
        "deleted_at": _seconds(deletion.deleted_at),
        "blobs_erased_at": _seconds(deletion.blobs_erased_at),
        "fence": json.loads(deletion.fence_report or "[]"),
        "engines": json.loads(deletion.evict_report or "[]"),
        "log_index": deletion.log_index,
        "blobs_log_index": deletion.blobs_log_index,
    }


def _status(deletion: Deletion) -> str:
    if deletion.deleted_at is None:
        return "deleting"
    return "deleted" if deletion.blobs_erased_at is None else "erased"


def _seconds(micros: int | None) -> float | None:
    return None if micros is None else micros / 1_000_000
