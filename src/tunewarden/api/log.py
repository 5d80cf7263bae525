"""The deletion log for everybody: checkpoint, tiles and the public key. C2SP tlog-tiles."""

from fastapi import APIRouter
from fastapi.responses import Response

from tunewarden.api.operations import Operations
from tunewarden.errors import Error, Kind

# A tile that is full never changes; a partial one and the checkpoint do.
FOREVER = "public, max-age=31536000, immutable"


def router(operations: Operations) -> APIRouter:
    """Return the routes of the log. They need no key: the log names ids only."""
    routes = APIRouter()

    @routes.get("/log/checkpoint")
    def get_checkpoint() -> Response:
        """Return the newest signed checkpoint."""
        log, _ = operations.open_log()
        return Response(
            log.checkpoint(),
            media_type="text/plain; charset=utf-8",
            headers={"cache-control": "no-cache"},
        )

    @routes.get("/log/tile/{path:path}")
    def get_tile(path: str) -> Response:
        """Return a tile or an entry bundle."""
        log, _ = operations.open_log()
        tile = log.tile(f"tile/{path}")
        if tile is None:
            raise Error(Kind.NOT_FOUND, "The log has no such tile.", code="tile_not_found")
        return Response(
            tile, media_type="application/octet-stream", headers={"cache-control": FOREVER}
        )

    @routes.get("/.well-known/tunewarden-log-key")
    def get_log_key() -> Response:
        """Return the log's public key in PEM, as openssl reads it; a header has it as a C2SP vkey."""
        _, signer = operations.open_log()
        return Response(
            signer.public_pem(),
            media_type="application/x-pem-file",
            headers={"tunewarden-log-vkey": signer.vkey()},
        )

    return routes
