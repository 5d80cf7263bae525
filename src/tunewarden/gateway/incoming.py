"""An inference request as it arrives: its path, key, body and caller."""

from typing import TYPE_CHECKING

from tunewarden.db.database import Tx
from tunewarden.errors import Error
from tunewarden.gateway.inference import Inference, too_large
from tunewarden.identity import keys
from tunewarden.identity.key_format import Presented
from tunewarden.identity.policy import Caller
from tunewarden.registry.model_lookup import Target

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class Incoming:
    """One request. `presented` is its key, or the error if it has no valid one."""

    __slots__ = (
        "_announced",
        "_body",
        "_shared",
        "_size",
        "caller",
        "path",
        "presented",
        "span",
        "target",
    )

    def __init__(
        self,
        shared: Inference,
        path: str,
        presented: Presented | Error,
        body: bytes | None = None,
        announced: int = 0,
        *,
        span: "Span | None" = None,
    ) -> None:
        """`body` if all of it is here; `announced` is the Content-Length, 0 if there is none."""
        self._announced = announced
        self._shared = shared
        self._body = [] if body is None else [body]
        self._size = 0 if body is None else len(body)
        self.path = path
        self.presented = presented
        self.caller: Caller | None = None
        self.target: Target | None = None  # once it is admitted
        self.span = span  # if spans are wanted

    def add(self, piece: bytes) -> None:
        """Add a part of the body; bytes beyond the limit are discarded."""
        self._size += len(piece)
        if self._size <= self._shared.body_bytes_max:
            self._body.append(piece)

    def check(self) -> None:
        """Raise Error if the request is already known to fail: first for a missing or invalid key."""
        if isinstance(self.presented, Error):
            raise self.presented
        if max(self._size, self._announced) > self._shared.body_bytes_max:
            self.authenticate()
            raise too_large(self._shared.body_bytes_max)

    def take_body(self) -> bytes:
        """Return the body and release it."""
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        return body

    def authenticate(self) -> Caller:
        """Return the caller. Raises Error(UNAUTHENTICATED)."""
        if self.caller is None:
            self._shared.admissions.identify(self.identify)
        assert self.caller is not None, "`identify` sets it or raises"
        return self.caller

    def identify(self, tx: Tx) -> Caller:
        """Return the caller, read in the given transaction."""
        assert isinstance(self.presented, Presented), "`check` comes first"
        # The caller is cached for the key's later requests, so it must not hold a request id.
        self.caller = keys.holder(tx, self.presented, "")
        return self.caller
