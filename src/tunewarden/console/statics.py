"""Style sheets and modules: files of this package, read once. Browsers ask each time whether theirs is still the one."""

import hashlib
from functools import cache
from pathlib import Path

from starlette.responses import Response

from tunewarden.console.requests import Asked
from tunewarden.errors import Error, Kind

DIRECTORY = Path(__file__).parent / "static"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def show(asked: Asked) -> Response:
    """Return one file."""
    content, tag = _files().get(asked.segments["name"], (None, ""))
    if content is None:
        raise Error(Kind.NOT_FOUND, "There is no such file.")
    headers = {"etag": tag, "cache-control": "no-cache"}
    if asked.request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    kind = TYPES[Path(asked.segments["name"]).suffix]
    return Response(content, media_type=kind, headers=headers)


def address(name: str) -> str:
    """Return the address of a file, which must be there."""
    assert name in _files(), name
    return f"/console/static/{name}"


@cache
def _files() -> dict[str, tuple[bytes, str]]:
    found = {}
    for path in DIRECTORY.iterdir():
        if path.suffix in TYPES:
            content = path.read_bytes()
            found[path.name] = content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return found
