"""The inference routes, and what all their exchanges on a worker share."""

from typing import Final, NamedTuple

from tunewarden.engine_protocol import paths
from tunewarden.errors import Error, Kind
from tunewarden.gateway.long_bodies import LongBodies
from tunewarden.gateway.observer import Observer
from tunewarden.gateway.rate_limiting import RateLimiter
from tunewarden.gateway.rewriting import (
    EVENTS_OF_CHAT,
    EVENTS_OF_COMPLETIONS,
    EVENTS_OF_RESPONSES,
    Events,
)
from tunewarden.gateway.routing import Gateway
from tunewarden.registry.usage import COMPLETIONS, EMBEDDINGS, KindOfRequest
from tunewarden.registry.usage_counter import UsageCounter
from tunewarden.serving.admission import Admissions


class Route(NamedTuple):
    """An inference route: the engine's path, and whether its streams carry usage only on request (`stream_options`).

    `stores`: an engine would store what it answers. `counted_as`: in reports of usage.
    """

    path: str
    asks_usage: bool = False
    stores: bool = False
    counted_as: KindOfRequest = COMPLETIONS
    events: Events = EVENTS_OF_CHAT


ROUTES: Final = {
    paths.CHAT_COMPLETIONS: Route(
        paths.CHAT_COMPLETIONS.removeprefix(paths.OPENAI),
        asks_usage=True,
    ),
    paths.COMPLETIONS: Route(
        paths.COMPLETIONS.removeprefix(paths.OPENAI), asks_usage=True, events=EVENTS_OF_COMPLETIONS
    ),
    f"{paths.OPENAI}/embeddings": Route("/embeddings", counted_as=EMBEDDINGS),
    paths.RESPONSES: Route(
        paths.RESPONSES.removeprefix(paths.OPENAI), stores=True, events=EVENTS_OF_RESPONSES
    ),
}


class Inference:
    """What all exchanges of a worker share."""

    def __init__(  # noqa: PLR0917  each is of another type
        self,
        admissions: Admissions,
        gateway: Gateway,
        usage: UsageCounter,
        observer: Observer,
        rate_limiter: RateLimiter,
        body_bytes_max: int,
    ) -> None:
        self.admissions = admissions
        self.gateway = gateway
        self.usage = usage
        self.observer = observer
        self.rate_limiter = rate_limiter
        self.body_bytes_max = body_bytes_max
        self.long_bodies = LongBodies()


def too_slow() -> Error:
    """Return the error for a request that arrives too slowly."""
    return Error(Kind.TOO_SLOW, "The request did not arrive in time.", code="request_timeout")


def too_large(bytes_max: int) -> Error:
    """Return the error for a request whose body is over the limit."""
    return Error(Kind.TOO_LARGE, f"Request body too large (limit {bytes_max} bytes).")


def engine_silent(seconds: float) -> Error:
    """Return the error for an engine that has sent nothing for that long."""
    said = f"The engine of this model has been silent for {seconds:g} s."
    return Error(Kind.UNAVAILABLE, said, code="engine_timeout")


def shutting_down() -> Error:
    """Return the error for requests that shutdown ends."""
    return Error(
        Kind.UNAVAILABLE,
        "The server is shutting down. Try again shortly.",
        code="server_shutting_down",
        retry_after_seconds=1,
    )
