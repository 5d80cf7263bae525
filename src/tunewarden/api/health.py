"""Liveness and readiness probes, by GET or HEAD. They need no key.

Neither uses the database or the thread pool: they answer even if the disk is full and every thread
is busy, so that a load balancer does not take away the one server that can run deletions.
"""

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
async def check_readiness(request: Request) -> JsonAnswer:
    """Answer 503 during graceful shutdown. During start-up the port is not open yet."""
    services = services_of(request)
    is_draining = services.readiness.is_draining
    return JsonAnswer(
        {
            "status": "draining" if is_draining else "ok",
            "draining": is_draining,
            "disk": services.operations.floor.state(),
        },
        status_code=503 if is_draining else 200,
    )
