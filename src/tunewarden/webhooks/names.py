"""Looks names up, with a bound on time and on threads: the system's resolver cannot be interrupted."""

import socket
import threading
from collections.abc import Callable, Sequence

from tunewarden.clock import Clock
from tunewarden.webhooks.failures import AttemptFailed, Failure, Interrupted
from tunewarden.webhooks.urls import WebhookUrl

SECONDS = 5.0
AT_ONCE_MAX = 32
POLL_SECONDS = 0.1

Resolve = Callable[[str, int], Sequence[str]]


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a name or of an address. Raises OSError, UnicodeError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


class LookUps:
    """Look-ups of one process. One that gets no answer in time goes on in its thread, which counts."""

    def __init__(self, resolve: Resolve, clock: Clock) -> None:
        self._resolve = resolve
        self._clock = clock
        self._free = threading.Semaphore(AT_ONCE_MAX)

    def addresses(self, url: WebhookUrl, stopped: threading.Event) -> list[str]:
        """Return the addresses of a URL's host. Raises AttemptFailed, and Interrupted once `stopped` is set."""
        deadline = self._clock.monotonic() + SECONDS
        if not self._free.acquire(timeout=SECONDS):
            raise AttemptFailed(Failure.NAME)
        found: list[str] = []
        done = threading.Event()
        given = url, found, done
        threading.Thread(target=self._look_up, args=given, daemon=True).start()
        while not done.wait(POLL_SECONDS):
            if stopped.is_set():
                raise Interrupted
            if self._clock.monotonic() > deadline:
                raise AttemptFailed(Failure.NAME)
        return list(found)

    def _look_up(self, url: WebhookUrl, found: list[str], done: threading.Event) -> None:
        try:
            found += self._resolve(url.host, url.port)
        except (OSError, UnicodeError):
            pass  # nothing is found
        finally:
            self._free.release()
            done.set()
