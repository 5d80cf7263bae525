"""The public deletion log: checkpoint, tiles and public key (C2SP tlog-tiles).

Reading it needs no API key, except for entries of format 1, which contain names.
"""

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.requests import Request

from tunewarden.api.parameters import services_of
from tunewarden.deletion.log_readers import check_reader
from tunewarden.errors import Error, Kind
from tunewarden_receipts.key_chain import MEDIA_TYPE

# Full tiles never change; partial tiles and the checkpoint do.
FOREVER = "public, max-age=31536000, immutable"

routes = APIRouter()


@routes.get("/log/checkpoint")
def retrieve_checkpoint(request: Request) -> Response:
    """Return the newest signed checkpoint."""
    log, _ = services_of(request).operations.open_log()
    return Response(
        log.checkpoint(),
        media_type="text/plain; charset=utf-8",
        headers={"cache-control": "no-cache"},
    )


@routes.get("/log/hand-overs")
def retrieve_hand_overs(request: Request) -> Response:
    """Return what proves each rotation of the log's key: the receipts of the hand-overs, oldest first."""
    _, signer = services_of(request).operations.open_log()
    return Response(
        signer.chain.document(),
        media_type=MEDIA_TYPE,
        headers={"cache-control": "no-cache"},
    )


@routes.get("/log/tile/{path:path}")
def retrieve_tile(request: Request, path: str) -> Response:
    """Return a tile or an entry bundle."""
    services = services_of(request)
    log, _ = services.operations.open_log()
    tile = log.tile(f"tile/{path}")
    if tile is None:
        raise Error(Kind.NOT_FOUND, "The log has no such tile.", code="tile_not_found")
    caching = FOREVER
    if path.startswith("entries/") and (named := services.log_bundles.named_in(f"tile/{path}")):
        check_reader(request.scope.get("state", {}).get("caller"), named)
        caching = "private, no-store"
    return Response(tile, media_type="application/octet-stream", headers={"cache-control": caching})


@routes.get("/.well-known/tunewarden-log-key")
def retrieve_log_key(request: Request) -> Response:
    """Return the log's public key as PEM; a response header holds it as a C2SP vkey."""
    _, signer = services_of(request).operations.open_log()
    return Response(
        signer.public_pem(),
        media_type="application/x-pem-file",
        headers={"tunewarden-log-vkey": signer.vkey()},
    )
