"""Why an attempt to send an event failed."""

from enum import StrEnum


class Failure(StrEnum):
    """Why an attempt failed, as the log of deliveries has it."""

    NAME = "name_not_resolved"
    ADDRESS = "address_not_allowed"
    CONNECT = "connection_failed"
    TLS = "tls_failed"
    TIMEOUT = "timeout"
    CLOSED = "connection_closed"
    PROTOCOL = "not_http"
    REDIRECT = "redirected"
    STATUS = "status"
    SERVER = "server_error"  # ours


class AttemptFailed(Exception):
    """An attempt failed before there was a status."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.value)
        self.failure = failure


class Interrupted(Exception):
    """The server is shutting down: the attempt does not count."""
