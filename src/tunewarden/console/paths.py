"""A page's place: what a module of pages lists in its PAGES."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.responses import Response
from starlette.routing import Route

from tunewarden.console.requests import Asked, Visit

Answer = Response | Awaitable[Response]


@dataclass(frozen=True, slots=True)
class Page:
    """A page for who is signed in. `answer` runs on a thread unless it is a coroutine function."""

    method: str
    path: str
    answer: Callable[[Visit], Answer]
    route: Route = field(init=False)

    def __post_init__(self) -> None:
        """Compile the path."""
        object.__setattr__(self, "route", Route(self.path, self.answer, methods=[self.method]))


@dataclass(frozen=True, slots=True)
class OpenPage:
    """A page for everybody, which needs a reason: it is how one signs in, or holds nothing of anybody's."""

    method: str
    path: str
    answer: Callable[[Asked], Answer]
    route: Route = field(init=False)

    def __post_init__(self) -> None:
        """Compile the path."""
        object.__setattr__(self, "route", Route(self.path, self.answer, methods=[self.method]))
