"""Refuses what a request that changes something asks for in vain: a query parameter or a precondition its route ignores.

`dry_run`, `force` or `If-Match` that are ignored, or written wrongly, would delete what their sender meant to spare.
What a route takes is what its handler declares, as in the OpenAPI document; a new route takes nothing by itself.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qsl

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.types import Scope

from tunewarden.artifacts.strict_json import shown
from tunewarden.errors import Error, Kind

CHANGING = frozenset({"DELETE", "POST"})
# RFC 9110 §13.1: who sends one wants nothing to change unless it holds.
PRECONDITIONS = {
    b"if-match": "If-Match",
    b"if-none-match": "If-None-Match",
    b"if-unmodified-since": "If-Unmodified-Since",
}


@dataclass(frozen=True, slots=True)
class _Taken:
    """What one route takes: names of its query, and of headers in lower case."""

    name: str
    path: re.Pattern[str]
    method: str
    query: frozenset[str]
    headers: frozenset[str]

    @classmethod
    def of(cls, method: str, route: APIRoute) -> Self:
        return cls(
            f"{method} {route.path}",
            route.path_regex,
            method,
            frozenset(_declared(route.dependant, "query_params")),
            frozenset(name.lower() for name in _declared(route.dependant, "header_params")),
        )

    def refusal(self, what: str, param: str) -> Error:
        offered = [PRECONDITIONS[one] for one in PRECONDITIONS if one.decode() in self.headers]
        takes = ", ".join([*sorted(self.query), *offered]) or "none"
        return Error(
            Kind.INVALID,
            f"{self.name} does not take the {what}, so nothing was done. Of query parameters and preconditions it takes:"
            f" {takes}.",
            param=param,
            code="unknown_parameter",
        )


class TakenParameters:
    """What the routes that change something take."""

    def __init__(self, routers: Sequence[APIRouter]) -> None:
        self._taken = [
            _Taken.of(method, route)
            for router in routers
            for route in router.routes
            if isinstance(route, APIRoute)
            for method in CHANGING & (route.methods or set())
        ]

    def check(self, scope: Scope) -> None:
        """Check a request whose path is one of a route. Raises Error(INVALID), naming the first that is not taken."""
        if scope["method"] not in CHANGING:
            return
        sent = [name for name, _ in scope["headers"] if name in PRECONDITIONS]
        if not (sent or scope["query_string"]):
            return
        taken = next((one for one in self._taken if self._is_of(scope, one)), None)
        if taken is None:
            return
        for name, _ in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
            if name not in taken.query:
                raise taken.refusal(f"query parameter {shown(name)}", shown(name)[1:-1])
        for header in sent:
            if header.decode() not in taken.headers:
                named = PRECONDITIONS[header]
                raise taken.refusal(f"precondition '{named}'", named)

    @staticmethod
    def _is_of(scope: Scope, one: _Taken) -> bool:
        return one.method == scope["method"] and one.path.fullmatch(scope["path"]) is not None


def _declared(dependant: Any, of: str) -> Iterator[str]:
    """Yield the names of a handler's parameters, and of those that it depends on."""
    yield from (field.alias for field in getattr(dependant, of))
    for deeper in dependant.dependencies:
        yield from _declared(deeper, of)
