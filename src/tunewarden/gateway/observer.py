"""What is seen of an inference request from outside, when it has ended: it is counted.

Neither bodies nor keys nor names of fine-tunes leave here: the label is the base.
"""

from typing import Final, Protocol

from tunewarden.errors import Error
from tunewarden.gateway import access_log
from tunewarden.gateway.access_log import Access
from tunewarden.gateway.relay import Relay
from tunewarden.identity.policy import Caller
from tunewarden.metrics import recording
from tunewarden.problems import WIRE
from tunewarden.registry.model_lookup import Target

# The failure of a request whose client left before the end.
DISCONNECTED: Final = ConnectionResetError("the client disconnected")
# nginx's status for it, where no response had begun.
STATUS_OF_NONE: Final = 499
NO_TOKENS: Final = (0, 0)


class Request(Protocol):
    """A request, as `incoming.Incoming` knows it. Caller and target are None if it was refused before they were."""

    path: str
    caller: Caller | None
    target: Target | None


class Observer:
    """Observes the inference requests of a worker; logs them if `logs_accesses`."""

    def __init__(self, counts: recording.Inference, *, logs_accesses: bool = False) -> None:
        self._counts = counts
        self.logs_accesses = logs_accesses

    def ended(  # noqa: PLR0917  keywords cost time on the hot path
        self,
        request: Request,
        response: Relay | None,
        status: int,
        failure: Exception | None,
        began: float,
        ended: float,
    ) -> tuple[str, str, int, str]:
        """Count a request; return its route, base, status and error. `status` is of the server's own response, 0 if it made none.

        `response` is the engine's; times are in seconds of the event loop.
        """
        target = request.target
        base = "" if target is None else target.base.name
        seconds = ended - began
        if failure is not None:
            sent = 0 if response is None or not response.first_at else response.status
            what = request.path, base, status or sent or STATUS_OF_NONE, code_of(failure)
            self._counts.ended(what, seconds, NO_TOKENS)
            return what
        assert response is not None, "only an engine's response is complete"
        status, tokens = response.status, response.tokens
        error = "" if status < 400 else str(status)
        what = request.path, base, status, error
        at = self._counts.ended(what, seconds, tokens)
        if response.is_stream:
            self._counts.streamed(at, seconds, response.first_at - began, tokens[1])
        return what

    def log(
        self,
        request_id: str,
        request: Request,
        outcome: tuple[str, str, int, str],
        seconds: float,
        sent_bytes: int,
    ) -> None:
        """Log a request; `outcome` is what `ended` returned."""
        access_log.write(
            Access(
                request_id=request_id,
                method="POST",
                route=request.path,
                status=outcome[2],
                error=outcome[3],
                seconds=seconds,
                sent_bytes=sent_bytes,
                caller=request.caller,
                target=request.target,
            )
        )


def code_of(failure: Exception) -> str:
    """Return the label of a failure: a code of ours, or its status."""
    if isinstance(failure, Error):
        return failure.code or str(WIRE[failure.kind][0])
    return "client_disconnected" if failure is DISCONNECTED else "500"
