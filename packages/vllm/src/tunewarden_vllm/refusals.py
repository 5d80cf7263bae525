"""The responses that are not 200, and the error event that ends a stream."""

import msgspec

from tunewarden.engine_protocol.codes import Code
from tunewarden.engine_protocol.messages import Problem, Refusal


class Refused(Exception):
    """The engine does not do what it was asked."""

    def __init__(self, status: int, message: str, code: Code | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = msgspec.json.encode(Refusal(Problem(message, _type_of(status), code=code)))

    @property
    def event(self) -> bytes:
        """The refusal as a server-sent event."""
        return b"data: " + self.body + b"\n\n"


def deleted(name: str) -> Refused:
    """Return the refusal of an adapter that was evicted or aborted."""
    return Refused(404, f"The model {name} was deleted.", Code.MODEL_DELETED)


def not_loaded(name: str) -> Refused:
    """Return the refusal of an adapter that is not loaded."""
    return Refused(404, f"The model {name} is not loaded.", Code.ADAPTER_NOT_LOADED)


def no_lease() -> Refused:
    """Return the refusal of everything on adapters, while there is no lease."""
    return Refused(
        503, "This engine has no lease on fine-tuned models. Try again shortly.", Code.NO_LEASE
    )


def invalid(message: str) -> Refused:
    """Return the refusal of a request or an adapter that can never be served."""
    return Refused(400, message, Code.INVALID_ADAPTER)


def _type_of(status: int) -> str:
    return "server_error" if status >= 500 else "invalid_request_error"
