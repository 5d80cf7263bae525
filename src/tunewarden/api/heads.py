"""The head of an inference request, as a connection repeats it with each one."""

from dataclasses import dataclass

from tunewarden.identity.keys import Presented
from tunewarden.serving import repeated
from tunewarden.serving.repeated import Repeated

# With these a head says more than is kept here, or may say something else the next time.
SPECIAL = frozenset({b"expect", b"transfer-encoding", b"upgrade", b"x-client-request-id"})


@dataclass(frozen=True, slots=True)
class Head:
    """A head that was parsed."""

    written: Repeated
    path: str
    presented: Presented


def learn(
    data: bytes, headers: list[tuple[bytes, bytes]], path: str, presented: Presented
) -> Head | None:
    """Return the head that `data` begins with, as a parser took it; None if it is not one to keep."""
    names = [name for name, _ in headers]
    if names.count(b"content-length") != 1 or not SPECIAL.isdisjoint(names):
        return None
    found = repeated.learn(data)
    return None if found is None else Head(found, path, presented)
