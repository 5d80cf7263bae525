"""`/v1/models`: list, retrieve, delete as OpenAI defines them, and importing, which is ours."""

import re
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Query
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from tunewarden.api import views
from tunewarden.api.forms import read_form
from tunewarden.api.operations import Operations
from tunewarden.api.segments import Calling, Segment
from tunewarden.deletion.requests import Attempt
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry import bases, models
from tunewarden.registry.artifacts import ArtifactKind

ADAPTER_FILES = ("adapter_config", "adapter_model")
PAGE_SIZE = 1000


def router(operations: Operations) -> APIRouter:
    """Return the routes of models."""
    routes = APIRouter()
    database = operations.database

    @routes.get("/v1/models")
    def get_models(
        caller: Calling,
        limit: Annotated[int | None, Query(ge=1, le=10_000)] = None,
        after: str | None = None,
    ) -> StreamingResponse:
        """Stream bases and own models, complete: the stock SDK never asks for a second page."""
        authorize(caller, Action.READ_MODELS)
        shown = _shown(operations, caller, after, limit)
        return StreamingResponse(_listing(shown, limit), media_type="application/json")

    @routes.get("/v1/models/{model_id}")
    def get_model(caller: Calling, model_id: Segment) -> JSONResponse:
        """Return a base or an own model."""
        authorize(caller, Action.READ_MODELS)
        if (base := bases.find(database, model_id)) is not None:
            return JSONResponse(views.base_object(base))
        model = models.find(database, caller, model_id)
        if model is None:
            raise models.missing(model_id)
        return JSONResponse(views.model_object(model, caller.organization_name))

    @routes.delete("/v1/models/{model_id}")
    def delete_model(
        caller: Calling,
        model_id: Segment,
        idempotency_key: Annotated[str | None, Header()] = None,
        x_stainless_retry_count: Annotated[str, Header()] = "0",
    ) -> JSONResponse:
        """Delete a model; answer when it is gone (D8)."""
        is_count = re.fullmatch("[0-9]{1,4}", x_stainless_retry_count)
        count = int(x_stainless_retry_count) if is_count else 0
        attempt = Attempt(retry_count=count, idempotency_key=idempotency_key)
        deletion = operations.executor.delete(caller, ArtifactKind.MODEL, model_id, attempt)
        return JSONResponse(
            {"id": deletion.artifact_id, "object": "model", "deleted": True},
            headers={"tunewarden-deletion": deletion.id},
        )

    @routes.post("/v1/models")
    async def post_model(caller: Calling, request: Request) -> JSONResponse:
        """Import a PEFT LoRA: multipart fields `base`, `suffix`, `adapter_config`, `adapter_model`."""
        authorize(caller, Action.WRITE_MODELS)
        form = await read_form(
            request, files=ADAPTER_FILES, file_bytes_max=operations.config.adapter_bytes_max
        )
        try:
            base = form.field("base")
            suffix = form.field("suffix", default="")
            config, weights = (form.file(name) for name in ADAPTER_FILES)
            model = await run_in_threadpool(
                operations.imports.bring_in,
                caller,
                base=base,
                suffix=suffix,
                config=config,
                weights=weights,
            )
        finally:
            form.close()
        return JSONResponse(views.model_object(model, caller.organization_name))

    return routes


def _shown(
    operations: Operations, caller: Caller, after: str | None, limit: int | None
) -> Iterator[dict[str, Any]]:
    """Yield the bases, then the models, each after the one called `after`; nothing if it is none."""
    shown = [views.base_object(base) for base in bases.list_all(operations.database)]
    names = [base["id"] for base in shown]
    if after in names:
        shown, after = shown[names.index(after) + 1 :], None
    if after is None:
        yield from shown
    size = PAGE_SIZE if limit is None else min(PAGE_SIZE, limit + 1)
    for page in models.pages(operations.database, caller, after=after, size=size):
        for model in page:
            yield views.model_object(model, caller.organization_name)


def _listing(shown: Iterator[dict[str, Any]], limit: int | None) -> Iterator[bytes]:
    """Yield the list object in pieces: flat memory, however many models there are."""
    yield b'{"object":"list","data":['
    separator = b""
    has_more = False
    buffer = bytearray()
    encoder = msgspec.json.Encoder()
    for count, model in enumerate(shown):
        if count == limit:
            has_more = True
            break
        buffer += separator + encoder.encode(model)
        separator = b","
        if len(buffer) > 64 * 1024:
            yield bytes(buffer)
            buffer.clear()
    yield bytes(buffer) + b'],"has_more":' + (b"true}" if has_more else b"false}")
