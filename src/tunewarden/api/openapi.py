"""The OpenAPI document: parameters from the routes themselves, bodies and answers from `schemas`."""

from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from tunewarden import __version__
from tunewarden.api import (
    alias_schemas,
    bulk_schemas,
    deletion_schemas,
    retention_schemas,
    schemas,
    search_schemas,
)
from tunewarden.api import inference_schemas as inference
from tunewarden.api import webhook_schemas as webhooks
from tunewarden.api.administration import described as administration
from tunewarden.api.administration import invite_schemas as invites
from tunewarden.api.described import JSON, Described
from tunewarden.api.json_lines import JSON_LINES
from tunewarden.deletion.cases.case_report import CaseReport
from tunewarden.deletion.plan_report import PlanReport
from tunewarden.engine_protocol import paths
from tunewarden.gateway.inference import ROUTES
from tunewarden_receipts import key_chain
from tunewarden_receipts.receipt import MEDIA_TYPE

FORM = "multipart/form-data"
EVENTS = "text/event-stream"
BINARY = "application/octet-stream"
ARCHIVE = "application/zip"
JOBS = "/v1/fine_tuning/jobs"
PERMISSIONS = "/v1/fine_tuning/checkpoints/{model_id}/permissions"
RESPONSE = f"{paths.RESPONSES}/{{response_id}}"
METADATA = {
    "name": "metadata",
    "in": "query",
    "required": False,
    "style": "deepObject",
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}


ROUTED = {
    "GET /healthz": Described("checkHealth", schemas.Health, is_public=True),
    "GET /health": Described("checkHealthAlias", schemas.Health, is_public=True),
    "GET /": Described("showStartPage", "text/html", is_public=True),
    "GET /readyz": Described("checkReadiness", schemas.Readiness, is_public=True),
    "GET /v1/models": Described("listModels", schemas.Listing[schemas.Model]),
    "POST /v1/models": Described("importModel", schemas.Model, schemas.ImportForm, FORM),
    "GET /v1/models/{model_id}": Described("retrieveModel", schemas.Model),
    "DELETE /v1/models/{model_id}": Described("deleteModel", deletion_schemas.DeleteAnswer),
    "GET /v1/models/{model_id}/engines": Described(
        "listModelEngines", schemas.Listing[schemas.EngineOfModel]
    ),
    "GET /v1/models/{model_id}/content": Described("exportModel", ARCHIVE),
    "GET /v1/models/{model_id}/usage": Described("retrieveModelUsage", schemas.ModelUsage),
    "GET /v1/models/{model_id}/deletion_plan": Described(
        "planModelDeletion", deletion_schemas.DeletionPlan
    ),
    "GET /v1/models/{model_id}/lineage": Described(
        "retrieveModelLineage", deletion_schemas.ModelLineage
    ),
    "POST /v1/models/{model_id}": Described("changeModel", schemas.Model, schemas.ModelChanges),
    "POST /v1/aliases": Described("createAlias", alias_schemas.Alias, alias_schemas.NewAlias),
    "GET /v1/aliases": Described("listAliases", schemas.Listing[alias_schemas.Alias]),
    "GET /v1/aliases/{name}": Described("retrieveAlias", alias_schemas.Alias),
    "POST /v1/aliases/{name}": Described(
        "changeAlias", alias_schemas.Alias, alias_schemas.AliasChange
    ),
    "DELETE /v1/aliases/{name}": Described("deleteAlias", schemas.Deleted),
    **webhooks.ROUTED,
    "POST /v1/console/links": Described("makeConsoleLink", schemas.ConsoleLink),
    "POST /v1/holds": Described("placeHold", deletion_schemas.Hold, deletion_schemas.NewHold),
    "GET /v1/holds": Described("listHolds", schemas.Listing[deletion_schemas.Hold]),
    "GET /v1/holds/{hold_id}": Described("retrieveHold", deletion_schemas.Hold),
    "POST /v1/holds/{hold_id}/lift": Described("liftHold", deletion_schemas.Hold),
    "GET /v1/deletions": Described("listDeletions", schemas.Listing[deletion_schemas.Deletion]),
    "GET /v1/retention": Described("retrieveRetention", retention_schemas.RetentionState),
    "POST /v1/retention/resume": Described("resumeRetention", retention_schemas.RetentionState),
    "POST /v1/retention/rules": Described(
        "createRetentionRule", retention_schemas.Rule, retention_schemas.NewRule
    ),
    "GET /v1/retention/rules": Described(
        "listRetentionRules", schemas.Listing[retention_schemas.Rule]
    ),
    "GET /v1/retention/rules/{rule_id}": Described("retrieveRetentionRule", retention_schemas.Rule),
    "POST /v1/retention/rules/{rule_id}": Described(
        "changeRetentionRule", retention_schemas.Rule, retention_schemas.RuleChanges
    ),
    "DELETE /v1/retention/rules/{rule_id}": Described("deleteRetentionRule", schemas.Deleted),
    "GET /v1/retention/rules/{rule_id}/preview": Described("previewRetentionRule", JSON_LINES),
    "POST /v1/retention/rules/{rule_id}/run": Described(
        "runRetentionRule", JSON_LINES, refusals=(401, 403, 404, 409, 412)
    ),
    "POST /v1/deletions": Described(
        "createDeletions",
        JSON_LINES,
        bulk_schemas.NewDeletions,
        refusals=(400, 401, 403, 409, 412, 413, 503),
    ),
    "GET /v1/deletions/{deletion_id}": Described("retrieveDeletion", deletion_schemas.Deletion),
    "GET /v1/deletions/{deletion_id}/receipt": Described("downloadDeletionReceipt", MEDIA_TYPE),
    "GET /v1/deletion_cases": Described(
        "listDeletionCases", schemas.Listing[deletion_schemas.DeletionCase]
    ),
    "GET /v1/deletion_cases/{case_id}": Described(
        "retrieveDeletionCase", deletion_schemas.DeletionCase
    ),
    "GET /v1/deletion_cases/{case_id}/receipt": Described("downloadCaseReceipt", MEDIA_TYPE),
    "GET /v1/deletion_cases/{case_id}/report": Described("reportDeletionCase", CaseReport),
    "GET /v1/files": Described("listFiles", schemas.Listing[schemas.File]),
    "POST /v1/files": Described("createFile", schemas.File, schemas.FileForm, FORM),
    "GET /v1/files/{file_id}": Described("retrieveFile", schemas.File),
    "GET /v1/files/{file_id}/content": Described("downloadFile", BINARY),
    "GET /v1/files/{file_id}/lineage": Described(
        "retrieveFileLineage", deletion_schemas.FileLineage
    ),
    "GET /v1/files/{file_id}/deletion_plan": Described(
        "planFileDeletion", deletion_schemas.DeletionPlan
    ),
    "GET /v1/files/{file_id}/deletion_plan/report": Described("reportFileDeletionPlan", PlanReport),
    "DELETE /v1/files/{file_id}": Described("deleteFile", deletion_schemas.DeleteAnswer),
    "POST /v1/files/search": Described("searchFiles", JSON_LINES, search_schemas.FileSearch),
    "POST /v1/uploads": Described("createUpload", schemas.Upload, schemas.NewUpload),
    "POST /v1/uploads/{upload_id}/parts": Described(
        "addUploadPart", schemas.Part, schemas.PartForm, FORM
    ),
    "POST /v1/uploads/{upload_id}/complete": Described(
        "completeUpload", schemas.Upload, schemas.CompleteUpload
    ),
    "POST /v1/uploads/{upload_id}/cancel": Described("cancelUpload", schemas.Upload),
    f"GET {JOBS}": Described(
        "listPaginatedFineTuningJobs", schemas.Listing[schemas.Job], parameters=[METADATA]
    ),
    f"POST {JOBS}": Described("createFineTuningJob", schemas.Job, schemas.NewJob),
    f"GET {JOBS}/{{job_id}}": Described("retrieveFineTuningJob", schemas.Job),
    f"GET {JOBS}/{{job_id}}/events": Described(
        "listFineTuningEvents", schemas.Listing[schemas.JobEvent]
    ),
    f"GET {JOBS}/{{job_id}}/metrics": Described("retrieveFineTuningMetrics", schemas.JobMetrics),
    f"GET {JOBS}/{{job_id}}/checkpoints": Described(
        "listFineTuningJobCheckpoints", schemas.Listing[schemas.Checkpoint]
    ),
    f"POST {JOBS}/{{job_id}}/cancel": Described("cancelFineTuningJob", schemas.Job),
    f"POST {JOBS}/{{job_id}}/pause": Described("pauseFineTuningJob", schemas.Job),
    f"POST {JOBS}/{{job_id}}/resume": Described("resumeFineTuningJob", schemas.Job),
    f"GET {PERMISSIONS}": Described(
        "listFineTuningCheckpointPermissions", schemas.Listing[schemas.Permission]
    ),
    f"POST {PERMISSIONS}": Described(
        "createFineTuningCheckpointPermission",
        schemas.Listing[schemas.Permission],
        schemas.NewPermissions,
    ),
    f"DELETE {PERMISSIONS}/{{permission_id}}": Described(
        "deleteFineTuningCheckpointPermission", schemas.Deleted
    ),
    "POST /v1/fine_tuning/alpha/graders/run": Described("runGrader", None),
    "POST /v1/fine_tuning/alpha/graders/validate": Described("validateGrader", None),
    f"GET {RESPONSE}": Described("getResponse", None),
    f"DELETE {RESPONSE}": Described("deleteResponse", None),
    f"POST {RESPONSE}/cancel": Described("cancelResponse", None),
    f"GET {RESPONSE}/input_items": Described("listInputItems", None),
    f"POST {paths.RESPONSES}/compact": Described("compactConversation", None),
    f"POST {paths.RESPONSES}/input_tokens": Described("getInputTokenCounts", None),
    "GET /log/checkpoint": Described("retrieveLogCheckpoint", "text/plain", is_public=True),
    "GET /log/hand-overs": Described("retrieveLogHandOvers", key_chain.MEDIA_TYPE, is_public=True),
    "GET /log/tile/{path}": Described("retrieveLogTile", BINARY, is_public=True),
    "GET /.well-known/tunewarden-log-key": Described(
        "retrieveLogKey", "application/x-pem-file", is_public=True
    ),
    "GET /openapi.json": Described("retrieveOpenApi", dict[str, Any]),
    "GET /docs": Described("retrieveDocs", "text/html"),
    "GET /invites/{token}": Described("showInvite", "text/html", is_public=True),
    "POST /invites/{token}": Described(
        "acceptInvite", invites.Accepted, invites.Acceptance, is_public=True
    ),
    **administration.ROUTED,
}
INFERENCE = {
    paths.CHAT_COMPLETIONS: Described(
        "createChatCompletion", inference.Completion, inference.ChatRequest
    ),
    paths.COMPLETIONS: Described(
        "createCompletion", inference.Completion, inference.CompletionRequest
    ),
    f"{paths.OPENAI}/embeddings": Described(
        "createEmbedding", inference.Embeddings, inference.EmbeddingsRequest
    ),
    paths.RESPONSES: Described(
        "createResponse", inference.ResponsesAnswer, inference.ResponsesRequest
    ),
}


def document(routes: Sequence[BaseRoute], *, docs_are_open: bool) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of these routes and of the inference routes."""
    found = get_openapi(
        title="Tunewarden",
        version=__version__,
        openapi_version="3.1.0",
        description="Each path with GET also answers HEAD: the headers of GET, without the body.",
        routes=routes,
    )
    types = [one for of in (*ROUTED.values(), *INFERENCE.values()) for one in (of.answer, of.body)]
    named = [one for one in types if one is not None and not isinstance(one, str)]
    shown, components = msgspec.json.schema_components(
        [*named, schemas.ErrorAnswer], ref_template="#/components/schemas/{name}"
    )
    references = dict(zip([*named, schemas.ErrorAnswer], shown, strict=True))
    for path in ROUTES:
        asked = INFERENCE[path].body
        found["paths"][path] = {"post": {"summary": asked.__doc__.partition("\n")[0]}}
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
    operation["operationId"] = described.operation
    operation["security"] = [] if is_open else [{"key": []}]
    operation["parameters"] = operation.get("parameters", []) + described.parameters
    if described.body is not None:
        content = {described.body_media: {"schema": references[described.body]}}
        operation["requestBody"] = {"required": True, "content": content}
    problem = {"schema": references[schemas.ErrorAnswer]}
    refused = {"description": "Error", "content": {JSON: problem}}
    operation["responses"] = dict.fromkeys(map(str, described.refusals), refused)
    operation["responses"]["default"] = refused
    if described.answer is not None:
        is_json = not isinstance(described.answer, str)
        media = JSON if is_json else described.answer
        content = {media: {"schema": references[described.answer] if is_json else {}}}
        if streams:
            content[EVENTS] = {"schema": {"type": "string"}}
        operation["responses"]["200"] = {"description": "Success", "content": content}
