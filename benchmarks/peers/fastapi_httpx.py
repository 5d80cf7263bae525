"""The gateway that one writes first: FastAPI and httpx. It checks a key, routes a model, passes streams on."""

import hashlib
import os
from typing import Any

import httpx  # type: ignore[import-not-found]  # installed beside the peers only
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

app = FastAPI()
client = httpx.AsyncClient(
    base_url=os.environ["UPSTREAM"],
    limits=httpx.Limits(max_connections=1000, max_keepalive_connections=1000),
    timeout=600,
)
keys = {hashlib.sha256(os.environ["KEY"].encode()).digest()}
models = {os.environ["MODEL"]: "stand-in"}


@app.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    _, _, key = request.headers.get("authorization", "").partition(" ")
    if hashlib.sha256(key.encode()).digest() not in keys:
        raise HTTPException(401)
    fields: dict[str, Any] = await request.json()
    if fields.get("model") not in models:
        raise HTTPException(404)
    fields["model"] = models[fields["model"]]
    asked = client.build_request("POST", "/chat/completions", json=fields)
    answer = await client.send(asked, stream=bool(fields.get("stream")))
    kind = answer.headers["content-type"]
    if not fields.get("stream"):
        return Response(answer.content, answer.status_code, media_type=kind)
    closing = BackgroundTask(answer.aclose)
    return StreamingResponse(answer.aiter_raw(), answer.status_code, None, kind, closing)
