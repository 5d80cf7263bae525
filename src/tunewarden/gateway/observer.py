"""What is seen of an inference request from outside, when it has ended: it is counted.

Neither bodies nor keys nor names of fine-tunes leave here: the label is the base.
"""

from typing import TYPE_CHECKING, Final, Protocol

from tunewarden.config import Config
from tunewarden.errors import Error
from tunewarden.gateway import access_log
from tunewarden.gateway.access_log import Access
from tunewarden.gateway.relay import Relay
from tunewarden.gateway.tracing import Tracing, is_installed
from tunewarden.identity.organizations import INTERNAL_ID
from tunewarden.identity.policy import Caller
from tunewarden.metrics import recording
from tunewarden.problems import WIRE
from tunewarden.registry.model_lookup import Target

if TYPE_CHECKING:
    from opentelemetry.trace import Span

# The failure of a request whose client left before the end.
DISCONNECTED: Final = ConnectionResetError("the client disconnected")
# nginx's status for it, where no response had begun.
STATUS_OF_NONE: Final = 499
NO_TOKENS: Final = (0, 0, 0)


class Request(Protocol):
    """A request, as `incoming.Incoming` knows it. Caller and target are None if it was refused before they were."""

    path: str
    caller: Caller | None
    target: Target | None
    span: "Span | None"


class Client(Protocol):
    """A client's connection."""

    def written_since_last(self) -> int:
        """Return how many bytes were written since the last call."""


class Observer:
    """Observes the inference requests of a worker; logs and traces them if that is wanted."""

    def __init__(
        self, counts: recording.Inference, tracing: Tracing | None, *, logs_accesses: bool
    ) -> None:
        self._counts = counts
        self.tracing = tracing
        self._logs_accesses = logs_accesses
        self._is_verbose = logs_accesses or tracing is not None

    @classmethod
    def of(cls, config: Config) -> "Observer":
        """Return the observer of this process."""
        is_traced = config.otel_endpoint != "none" and is_installed()
        tracing = Tracing(config.otel_endpoint) if is_traced else None
        counts = recording.Inference(recording.own())
        return cls(counts, tracing, logs_accesses=config.access_log)

    def close(self) -> None:
        """Export the last spans."""
        if self.tracing is not None:
            self.tracing.close()

    def ended(  # noqa: PLR0917  keywords cost time on the hot path
        self,
        request_id: str,
        request: Request,
        client: Client,
        response: Relay | None,
        status: int,
        failure: Exception | None,
        times: tuple[float, float],
    ) -> None:
        """Observe a request. `status` is of the server's own response, 0 if it made none.

        `response` is the engine's; times are its begin and end, in seconds of the event loop.
        """
        if request.caller is not None and request.caller.organization_id == INTERNAL_ID:
            return  # the canary's own: metrics count what clients ask
        target = request.target
        base = "" if target is None else target.base.name
        began, ended = times
        seconds = ended - began
        if failure is not None:
            sent = 0 if response is None or not response.first_at else response.status
            what = request.path, base, status or sent or STATUS_OF_NONE, code_of(failure)
            tokens = NO_TOKENS
            self._counts.ended(what, seconds, tokens)
        else:
            assert response is not None, "only an engine's response is complete"
            status, tokens = response.status, response.tokens or NO_TOKENS
            what = request.path, base, status, "" if status < 400 else str(status)
            at = self._counts.ended(what, seconds, tokens)
            if response.is_stream:
                self._counts.streamed(at, seconds, response.first_at - began, tokens[1])
        if self._is_verbose:
            self._tell(request_id, request, client, what, seconds, tokens)

    def _tell(  # noqa: PLR0917  as above
        self,
        request_id: str,
        request: Request,
        client: Client,
        outcome: tuple[str, str, int, str],
        seconds: float,
        tokens: tuple[int, int, int],
    ) -> None:
        """Log the request and end its span, as far as that is wanted."""
        if self.tracing is not None and request.span is not None:
            self.tracing.end(request.span, request_id, outcome, tokens)
        if self._logs_accesses:
            access_log.write(
                Access(
                    request_id=request_id,
                    method="POST",
                    route=outcome[0],
                    status=outcome[2],
                    error=outcome[3],
                    seconds=seconds,
                    sent_bytes=client.written_since_last(),
                    caller=request.caller,
                    target=request.target,
                )
            )


def code_of(failure: Exception) -> str:
    """Return the label of a failure: a code of ours, or its status."""
    if isinstance(failure, Error):
        return failure.code or str(WIRE[failure.kind][0])
    return "client_disconnected" if failure is DISCONNECTED else "500"
