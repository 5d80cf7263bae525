"""What the OpenAPI document says of a route beside its parameters."""

from dataclasses import dataclass, field
from typing import Any

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Described:
    """A route: its `operationId`, the type of its response (or the media type, if not JSON), and that of its body.

    Generated clients name their methods by `operation`, so it never changes; it is OpenAI's where OpenAI has the route.
    `refusals` are the statuses of a route that is worth telling each; the others' are under `default`.
    """

    operation: str
    answer: Any
    body: Any = None
    body_media: str = JSON
    is_public: bool = False
    parameters: list[dict[str, Any]] = field(default_factory=list)
    refusals: tuple[int, ...] = ()
