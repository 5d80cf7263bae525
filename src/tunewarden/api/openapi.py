"""The OpenAPI document: parameters from the routes themselves, bodies and answers from `schemas`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from tunewarden import __version__
from tunewarden.api import schemas
from tunewarden.engine_protocol import paths
from tunewarden.gateway.inference import ROUTES
from tunewarden_receipts.receipt import MEDIA_TYPE

JSON = "application/json"
FORM = "multipart/form-data"
EVENTS = "text/event-stream"
BINARY = "application/octet-stream"
JOBS = "/v1/fine_tuning/jobs"
PERMISSIONS = "/v1/fine_tuning/checkpoints/{model_id}/permissions"
METADATA = {
    "name": "metadata",
    "in": "query",
    "required": False,
    "style": "deepObject",
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}


@dataclass(frozen=True, slots=True)
class Described:
    """A route: the type of its response (or the media type, if not JSON) and the type of its request body."""

    answer: Any
    body: Any = None
    body_media: str = JSON
    is_public: bool = False
    parameters: list[dict[str, Any]] = field(default_factory=list)


ROUTED = {
    "GET /healthz": Described(schemas.Health, is_public=True),
    "GET /readyz": Described(schemas.Readiness, is_public=True),
    "GET /v1/models": Described(schemas.Listing[schemas.Model]),
    "POST /v1/models": Described(schemas.Model, schemas.ImportForm, FORM),
    "GET /v1/models/{model_id}": Described(schemas.Model),
    "DELETE /v1/models/{model_id}": Described(schemas.Deleted),
    "GET /v1/models/{model_id}/deletion_plan": Described(schemas.DeletionPlan),
    "GET /v1/deletions": Described(schemas.Listing[schemas.Deletion]),
    "GET /v1/deletions/{deletion_id}": Described(schemas.Deletion),
    "GET /v1/deletions/{deletion_id}/receipt": Described(MEDIA_TYPE),
    "GET /v1/files": Described(schemas.Listing[schemas.File]),
    "POST /v1/files": Described(schemas.File, schemas.FileForm, FORM),
    "GET /v1/files/{file_id}": Described(schemas.File),
    "GET /v1/files/{file_id}/content": Described(BINARY),
    "GET /v1/files/{file_id}/deletion_plan": Described(schemas.DeletionPlan),
    "DELETE /v1/files/{file_id}": Described(schemas.Deleted),
    "POST /v1/uploads": Described(schemas.Upload, schemas.NewUpload),
    "POST /v1/uploads/{upload_id}/parts": Described(schemas.Part, schemas.PartForm, FORM),
    "POST /v1/uploads/{upload_id}/complete": Described(schemas.Upload, schemas.CompleteUpload),
    "POST /v1/uploads/{upload_id}/cancel": Described(schemas.Upload),
    f"GET {JOBS}": Described(schemas.Listing[schemas.Job], parameters=[METADATA]),
    f"POST {JOBS}": Described(schemas.Job, schemas.NewJob),
    f"GET {JOBS}/{{job_id}}": Described(schemas.Job),
    f"GET {JOBS}/{{job_id}}/events": Described(schemas.Listing[schemas.JobEvent]),
    f"GET {JOBS}/{{job_id}}/checkpoints": Described(schemas.Listing[schemas.Checkpoint]),
    f"POST {JOBS}/{{job_id}}/cancel": Described(schemas.Job),
    f"POST {JOBS}/{{job_id}}/pause": Described(schemas.Job),
    f"POST {JOBS}/{{job_id}}/resume": Described(schemas.Job),
    f"GET {PERMISSIONS}": Described(schemas.Listing[schemas.Permission]),
    f"POST {PERMISSIONS}": Described(schemas.Listing[schemas.Permission], schemas.NewPermissions),
    f"DELETE {PERMISSIONS}/{{permission_id}}": Described(schemas.Deleted),
    "POST /v1/fine_tuning/alpha/graders/run": Described(None),
    "POST /v1/fine_tuning/alpha/graders/validate": Described(None),
    "GET /log/checkpoint": Described("text/plain", is_public=True),
    "GET /log/tile/{path}": Described(BINARY, is_public=True),
    "GET /.well-known/tunewarden-log-key": Described("application/x-pem-file", is_public=True),
    "GET /openapi.json": Described(dict[str, Any]),
    "GET /docs": Described("text/html"),
}
INFERENCE = {
    paths.CHAT_COMPLETIONS: Described(schemas.Completion, schemas.ChatRequest),
    paths.COMPLETIONS: Described(schemas.Completion, schemas.CompletionRequest),
    f"{paths.OPENAI}/embeddings": Described(schemas.Embeddings, schemas.EmbeddingsRequest),
    f"{paths.OPENAI}/responses": Described(schemas.ResponsesAnswer, schemas.ResponsesRequest),
}


def document(routes: Sequence[BaseRoute], *, docs_are_open: bool) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of these routes and of the inference routes."""
    found = get_openapi(
        title="Tunewarden", version=__version__, openapi_version="3.1.0", routes=routes
    )
    types = [one for of in (*ROUTED.values(), *INFERENCE.values()) for one in (of.answer, of.body)]
    named = [one for one in types if one is not None and not isinstance(one, str)]
    shown, components = msgspec.json.schema_components(
        [*named, schemas.ErrorAnswer], ref_template="#/components/schemas/{name}"
    )
    references = dict(zip([*named, schemas.ErrorAnswer], shown, strict=True))
    for path in ROUTES:
        asked = INFERENCE[path].body
        operation = {"summary": asked.__doc__.partition("\n")[0], "operationId": path[4:]}
        found["paths"][path] = {"post": operation}
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            described = INFERENCE.get(path) or ROUTED[f"{method.upper()} {path}"]
            is_open = described.is_public or (docs_are_open and path in {"/docs", "/openapi.json"})
            _describe(operation, described, references, is_open=is_open, streams=path in ROUTES)
    found["components"] = {
        "schemas": components,
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
    }
    return found


def _describe(
    operation: dict[str, Any],
    described: Described,
    references: dict[Any, Any],
    *,
    is_open: bool,
    streams: bool,
) -> None:
    operation["security"] = [] if is_open else [{"key": []}]
    operation["parameters"] = operation.get("parameters", []) + described.parameters
    if described.body is not None:
        content = {described.body_media: {"schema": references[described.body]}}
        operation["requestBody"] = {"required": True, "content": content}
    problem = {"schema": references[schemas.ErrorAnswer]}
    operation["responses"] = {"default": {"description": "Error", "content": {JSON: problem}}}
    if described.answer is not None:
        is_json = not isinstance(described.answer, str)
        media = JSON if is_json else described.answer
        content = {media: {"schema": references[described.answer] if is_json else {}}}
        if streams:
            content[EVENTS] = {"schema": {"type": "string"}}
        operation["responses"]["200"] = {"description": "Success", "content": content}
