"""The body of a request that comes by ASGI."""

from starlette.types import Receive

from tunewarden.errors import Error, Kind


async def read_body(receive: Receive, bytes_max: int) -> bytes:
    """Return a request's body. Raises Error(TOO_LARGE), and Error(INVALID) if the client went away."""
    message = await receive()
    if message["type"] == "http.request" and not message["more_body"]:
        body: bytes = message["body"]
    else:
        parts = []
        size = 0
        while message["type"] == "http.request":
            parts.append(message["body"])
            size += len(message["body"])
            if size > bytes_max or not message["more_body"]:
                break
            message = await receive()
        else:
            raise Error(Kind.INVALID, "The request ended before its body was complete.")
        body = b"".join(parts)
    if len(body) > bytes_max:
        raise Error(Kind.TOO_LARGE, f"The body of a request may have {bytes_max} bytes.")
    return body
