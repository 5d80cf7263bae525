"""JSON answers of the API."""

from typing import Any

from starlette.responses import JSONResponse

from tunewarden.json_encoding import encoded


class JsonAnswer(JSONResponse):
    """A JSON answer that never fails on text."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return encoded(content)
