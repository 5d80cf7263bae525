"""The address that links to this server begin with."""

from starlette.requests import Request

from tunewarden.config import Config


def of(config: Config, request: Request) -> str:
    """Return the setting `public_url`, or the address that the request was sent to."""
    if config.public_url != "none":
        return config.public_url
    host = request.headers.get("host") or f"{config.host}:{config.port}"
    return f"http://{host}"
