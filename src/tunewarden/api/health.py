"""Liveness and readiness probes, by GET or HEAD. They need no key.

Neither uses the database or the thread pool: they answer even if the disk is full and every thread is busy, so that a
load balancer does not take away the one server that can run deletions. For the same reason a base that is still loading
makes a server unready only for who asks for that, with `?bases=loaded`: that alone needs a thread, the database and the
engine.
"""

from typing import Literal

from fastapi import APIRouter
from starlette.requests import Request

from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import services_of

routes = APIRouter()


@routes.get("/healthz")
async def check_health() -> JsonAnswer:
    """Answer: the worker is alive."""
    return JsonAnswer({"status": "ok"})


@routes.get("/health")
async def check_health_as_vllm() -> JsonAnswer:
    """Answer as `/healthz`: clients and probes of vLLM, llama.cpp and TGI ask here."""
    return await check_health()


@routes.get("/readyz")
async def check_readiness(request: Request, bases: Literal["loaded"] | None = None) -> JsonAnswer:
    """Answer 503 during graceful shutdown, and, if asked for, until the embedded engine has loaded every local base.

    Deletion, administration and other bases work before: a start-up probe, or one that all traffic needs, asks without.
    During start-up the port is not open yet.
    """
    services = services_of(request)
    readiness = services.readiness
    said: dict[str, str] = {}
    if bases is not None:
        are_loaded = await readiness.are_bases_loaded(services.operations.adapter_states)
        said["bases"] = "loaded" if are_loaded else "loading"
    is_draining = readiness.is_draining
    status = "draining" if is_draining else "loading" if "loading" in said.values() else "ok"
    return JsonAnswer(
        {
            "status": status,
            "draining": is_draining,
            "disk": services.operations.floor.state(),
            **said,
        },
        status_code=200 if status == "ok" else 503,
    )
