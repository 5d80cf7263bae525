"""Objects as JSON shows them: on the wire and on the command line alike."""

import json
from typing import Any

from tunewarden.deletion.plan import Plan
from tunewarden.deletion.records import Deletion
from tunewarden.registry.artifacts import State
from tunewarden.registry.bases import Base
from tunewarden.registry.files import File
from tunewarden.registry.models import Model
from tunewarden.registry.upload_rows import Part, Upload


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


def file_object(file: File) -> dict[str, Any]:
    """Return a file as OpenAI's File. Its checks are done before it is there, or by a job."""
    shown = {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at // 1_000_000,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
    }
    if file.expires_at is not None:
        shown["expires_at"] = file.expires_at // 1_000_000
    return shown


def upload_object(upload: Upload, file: File | None) -> dict[str, Any]:
    """Return an upload as OpenAI's Upload, with its file once it is completed."""
    return {
        "id": upload.id,
        "object": "upload",
        "bytes": upload.bytes,
        "created_at": upload.created_at // 1_000_000,
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": upload.status.value,
        "expires_at": upload.expires_at // 1_000_000,
        "file": None if file is None else file_object(file),
    }


def part_object(part: Part, upload_id: str) -> dict[str, Any]:
    """Return one part of an upload as OpenAI's UploadPart."""
    return {
        "id": part.id,
        "object": "upload.part",
        "created_at": part.created_at // 1_000_000,
        "upload_id": upload_id,
    }


def deletion_object(deletion: Deletion) -> dict[str, Any]:
    """Return a deletion. Times are Unix seconds with fractions; a step that is not done yet is null."""
    return {
        "id": deletion.id,
        "object": f"{deletion.kind}.deletion",
        deletion.kind: deletion.artifact_id,
        "parent": deletion.parent,
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


def plan_object(plan: Plan) -> dict[str, Any]:
    """Return what a deletion would do; bytes are those of the sealed blobs."""
    return {
        "object": "model.deletion_plan",
        "model": plan.artifact.id,
        "checkpoints": [checkpoint.id for checkpoint in plan.checkpoints],
        "blobs": plan.blobs,
        "bytes": plan.sealed_bytes,
        "blockers": [{"type": "fine_tuning.job", "id": job} for job in plan.blockers],
    }


def _status(deletion: Deletion) -> str:
    if deletion.deleted_at is None:
        return "deleting"
    return "deleted" if deletion.blobs_erased_at is None else "erased"


def _seconds(micros: int | None) -> float | None:
    return None if micros is None else micros / 1_000_000
