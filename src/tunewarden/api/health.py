"""Whether this worker is alive, and whether it can do its work. No key needed; nothing is told."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from tunewarden.api.operations import Operations
from tunewarden.errors import Error


def router(operations: Operations) -> APIRouter:
    """Return the routes for whoever watches the server."""
    routes = APIRouter()

    @routes.get("/healthz")
    def get_healthz() -> JSONResponse:
        """Answer: the worker is alive."""
        return JSONResponse({"status": "ok"})

    @routes.get("/readyz")
    def get_readyz() -> JSONResponse:
        """Answer 200 when the database can be read."""
        try:
            operations.database.peek("SELECT 1")
        except Error:
            return JSONResponse({"status": "unavailable"}, status_code=503)
        return JSONResponse({"status": "ok"})

    return routes
