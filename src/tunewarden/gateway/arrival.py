"""Timeouts of a client connection: what it waits for, since when, and for how long.

Its states, and what each event does (empty: nothing, or it cannot happen then):

    event                     REQUEST      HEAD         BODY         NOTHING      END
    the first byte of a       -> HEAD                                -> HEAD
     request
    a repeated head, whole    -> NOTHING
     with its body
    its head is complete                   -> BODY
    its body is complete                                -> NOTHING
    the response is complete                                         -> REQUEST
    it cannot be parsed, is                -> END       -> END       -> END
     too slow, or the response
     is the last one

In END a client may still read its last response: the connection closes after LINGER_SECONDS of silence, or after
`client_seconds` in all. A REQUEST is waited for as long as the keep-alive timeout, a HEAD for `client_seconds` of silence
(408), a BODY for the same, or until it comes more slowly than BODY_RATE_MIN on average (408).
"""

from collections.abc import Callable
from enum import Enum, auto

# Slowloris bound: the minimum average rate of a body, in bytes a second, beside the time that a client may be silent.
BODY_RATE_MIN = 500
SILENCES_MAX = 4  # of `client_seconds` each, in one body, before that rate counts
# How long a refused client may be silent before its connection is closed: closing while it still sends
# resets the connection, and the client loses the response.
LINGER_SECONDS = 2.0
# Clients send a whole body, of up to 512 MiB, before they read that it was refused; beyond this nobody reads.
DROPPED_BYTES_MAX = 1024 * 1024 * 1024


class Waiting(Enum):
    """What a connection waits for from its client."""

    REQUEST = auto()  # the next one, or the first
    HEAD = auto()  # the rest of a request's head
    BODY = auto()  # the rest of a request's body
    NOTHING = auto()  # the server is to act
    END = auto()  # discarding what the client still sends


# By name: a look-up in the enum's class takes longer than the rest of a comparison.
REQUEST, HEAD, BODY, NOTHING, END = Waiting


class Arrival:
    """The state of one connection's input. Times are in seconds of the event loop (`now`)."""

    __slots__ = ("_body_bytes", "_body_since", "_now", "_since", "waiting")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.waiting = REQUEST
        self._since = now()
        # When the body or the end began, less the time in which reading was paused, and bytes received.
        self._body_since = 0.0
        self._body_bytes = 0

    def wait_for(self, what: Waiting) -> None:
        """Change the state; its timeout starts now."""
        self.waiting = what
        self._since = self._now()

    def begin(self, what: Waiting) -> None:
        """Change to BODY or END, which also have a total timeout."""
        self.wait_for(what)
        self._body_since = self._since
        self._body_bytes = 0

    def received(self) -> None:
        """Restart the idle timeout: bytes arrived."""
        self._since = self._now()

    def add_to_body(self, count: int) -> None:
        """Note that `count` bytes of a body arrived."""
        self._body_bytes += count

    def drop(self, count: int) -> bool:
        """Note that `count` bytes arrived after END; return whether the client has sent too many."""
        self.received()
        self._body_bytes += count
        return self._body_bytes > DROPPED_BYTES_MAX

    def is_idle(self, now: float, seconds: float) -> bool:
        """Return whether no request has begun for that long."""
        return self.waiting is REQUEST and now - self._since > seconds

    def has_lingered(self, now: float, client_seconds: float) -> bool:
        """Return whether the client has had its time to read the last response."""
        is_long = now - self._body_since > client_seconds
        return self.waiting is END and (now - self._since > LINGER_SECONDS or is_long)

    def is_slow(self, now: float, client_seconds: float, *, is_read: bool) -> bool:
        """Return whether a head or a body takes too long. Time in which reading was paused does not count."""
        if self.waiting not in {HEAD, BODY}:
            return False
        return now - self._since > client_seconds or self._trickles(now, client_seconds, is_read)

    def _trickles(self, now: float, client_seconds: float, is_read: bool) -> bool:  # noqa: FBT001  on the hot path
        if self.waiting is not BODY:
            return False
        if not is_read:
            self._body_since, self._body_bytes = now, 0
        allowed = client_seconds * SILENCES_MAX + self._body_bytes / BODY_RATE_MIN
        return now - self._body_since > allowed
