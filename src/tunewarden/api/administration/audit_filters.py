"""The filters of the audit log as a query has them. An unknown one is refused: ignored, it would match all events."""

import re
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from pydantic import StringConstraints

from tunewarden.artifacts.strict_json import shown
from tunewarden.audit.listing import Filters
from tunewarden.errors import Error, Kind

# Values of one filter.
VALUES_MAX = 100
TYPE = re.compile(r"[a-z_]+(\.[a-z_]+)+")
SECOND = 1_000_000
_END = 9_000_000_000  # a second that no event has
LISTS = ("event_types", "resource_ids", "actor_ids", "actor_emails", "project_ids")
BOUNDS = ("gt", "gte", "lt", "lte")
NAMES = (
    *(f"{name}[]" for name in LISTS),
    *(f"effective_at[{name}]" for name in BOUNDS),
    "tenant_only",
)
PAGE = ("limit", "after", "before")

Text = Annotated[str, StringConstraints(min_length=1, max_length=256)]


def only(*others: str) -> Any:
    """Return the dependency that refuses a query with other parameters than the filters and `others`."""
    offered = (*NAMES, *others)

    async def check(request: Request) -> None:
        for name in request.query_params:
            if name not in offered and name not in LISTS:
                raise Error(
                    Kind.INVALID,
                    f"Unknown query parameter: {shown(name)}. Use {', '.join(offered)}.",
                    param=shown(name)[1:-1],
                    code="unknown_parameter",
                )

    return Depends(check)


def _list(name: str) -> Any:
    """Return the dependency that reads a list: the SDK writes its name with brackets, people without."""

    async def read(
        bracketed: Annotated[list[Text], Query(alias=f"{name}[]", max_length=VALUES_MAX)] = [],  # noqa: B006  FastAPI's way to say that none is fine
        plain: Annotated[
            list[Text], Query(alias=name, max_length=VALUES_MAX, include_in_schema=False)
        ] = [],  # noqa: B006  the same
    ) -> list[str]:
        return [*bracketed, *plain]

    return Depends(read)


Types = Annotated[list[str], _list("event_types")]
Resources = Annotated[list[str], _list("resource_ids")]
Actors = Annotated[list[str], _list("actor_ids")]
Emails = Annotated[list[str], _list("actor_emails")]
Projects = Annotated[list[str], _list("project_ids")]


def _second(name: str) -> object:
    """Return a bound of `effective_at`, in Unix seconds."""
    return Query(alias=f"effective_at[{name}]", ge=0, le=_END)


class Asked:
    """The filters of a request."""

    def __init__(
        self,
        *,
        event_types: Types,
        resource_ids: Resources,
        actor_ids: Actors,
        actor_emails: Emails,
        project_ids: Projects,
        effective_after: Annotated[int | None, _second("gt")] = None,
        effective_from: Annotated[int | None, _second("gte")] = None,
        effective_before: Annotated[int | None, _second("lt")] = None,
        effective_to: Annotated[int | None, _second("lte")] = None,
        tenant_only: bool = False,
    ) -> None:
        for one in event_types:
            if not TYPE.fullmatch(one):
                raise Error(
                    Kind.INVALID,
                    "Invalid value for 'event_types[]': use types such as 'resource.deleted'. See"
                    " docs/reference/audit-events.md.",
                    param="event_types[]",
                    code="invalid_value",
                )
        from_second = max(
            effective_from or 0, -1 if effective_after is None else effective_after + 1
        )
        before_second = min(
            _END if effective_before is None else effective_before,
            _END if effective_to is None else effective_to + 1,
        )
        self.emails = actor_emails
        self.filters = Filters(
            types=frozenset(event_types),
            resource_ids=frozenset(resource_ids),
            project_ids=frozenset(project_ids),
            actor_ids=frozenset(actor_ids),
            # Of OpenAI's tenants there are no events here.
            matches_none=tenant_only,
            from_at=from_second * SECOND,
            to_at=before_second * SECOND - 1,
        )


InFilters = Annotated[Asked, Depends()]
