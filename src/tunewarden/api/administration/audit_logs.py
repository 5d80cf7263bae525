"""`/v1/organization/audit_logs`: the events of the organization. The export and the retention period are our extensions."""

import re
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import StringConstraints
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from tunewarden.api.administration import audit_views, schemas
from tunewarden.api.administration.bodies import InBody
from tunewarden.api.administration.pages import LIMIT, LIMIT_MAX
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import InAdministration
from tunewarden.audit.events import Event
from tunewarden.audit.listing import Filters
from tunewarden.errors import Error, Kind
from tunewarden.identity import audit_access

JSON_LINES = "application/jsonl"
# Values of one filter.
VALUES_MAX = 100
# Lines sent at once.
LINES = 200
TYPE = re.compile(r"[a-z_]+(\.[a-z_]+)+")
SECOND = 1_000_000
_END = 9_000_000_000  # a second that no event has

routes = APIRouter(prefix="/v1/organization/audit_logs")

Text = Annotated[str, StringConstraints(min_length=1, max_length=256)]
# The SDK writes lists in queries with brackets, and objects with the names of their members in them.
Types = Annotated[list[Text], Query(alias="event_types[]", max_length=VALUES_MAX)]
Resources = Annotated[list[Text], Query(alias="resource_ids[]", max_length=VALUES_MAX)]
Actors = Annotated[list[Text], Query(alias="actor_ids[]", max_length=VALUES_MAX)]
Emails = Annotated[list[Text], Query(alias="actor_emails[]", max_length=VALUES_MAX)]
Projects = Annotated[list[Text], Query(alias="project_ids[]", max_length=VALUES_MAX)]
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX)]


def _second(name: str) -> object:
    """Return a bound of `effective_at`, in Unix seconds."""
    return Query(alias=f"effective_at[{name}]", ge=0, le=_END)


class Asked:
    """The filters of a request."""

    def __init__(
        self,
        *,
        event_types: Types = [],  # noqa: B006  FastAPI's way to say that none is fine
        resource_ids: Resources = [],  # noqa: B006  the same
        actor_ids: Actors = [],  # noqa: B006  the same
        actor_emails: Emails = [],  # noqa: B006  the same
        project_ids: Projects = [],  # noqa: B006  the same
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


@routes.get("")
def list_audit_logs(
    context: InAdministration,
    asked: InFilters,
    limit: Limit = LIMIT,
    after: str | None = None,
    before: str | None = None,
) -> JsonAnswer:
    """List the organization's events, newest first."""
    found = audit_access.page(
        context.operations.database,
        context.administrator,
        asked.filters,
        emails=asked.emails,
        after=after,
        before=before,
        limit=limit + 1,
    )
    has_more = len(found) > limit
    # One more than asked for was read: the oldest, or, before a cursor, the newest.
    page = found[-limit:] if before is not None and after is None else found[:limit]
    return JsonAnswer(
        {
            "object": "list",
            "data": [audit_views.shown(one) for one in page],
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
            "has_more": has_more,
        }
    )


@routes.get("/export")
def export_audit_logs(context: InAdministration, asked: InFilters) -> StreamingResponse:
    """Stream all matching events, oldest first, as lines of JSON: the bytes that the daily digests are made of."""
    found = audit_access.everything(
        context.operations.database, context.administrator, asked.filters, emails=asked.emails
    )
    return StreamingResponse(lines(found), media_type=JSON_LINES)


@routes.get("/retention")
def retrieve_audit_retention(context: InAdministration) -> JsonAnswer:
    """Return for how many days events are kept; null: for ever."""
    days = audit_access.retention_days(context.operations.database, context.administrator)
    return JsonAnswer(schemas.AuditRetention("organization.audit_retention", days))


@routes.post("/retention")
async def update_audit_retention(context: InAdministration, body: InBody) -> JsonAnswer:
    """Set for how many days events are kept; without `days`, for ever."""
    body.check("days")
    days = await run_in_threadpool(
        audit_access.set_retention_days,
        context.operations.database,
        context.administrator,
        body.whole_number("days"),
    )
    return JsonAnswer(schemas.AuditRetention("organization.audit_retention", days))


def lines(found: Iterator[Event]) -> Iterator[bytes]:
    """Yield events' lines, some hundred at a time."""
    held = []
    for event in found:
        held.append(event.line())
        if len(held) == LINES:
            yield b"\n".join([*held, b""])
            held = []
    if held:
        yield b"\n".join([*held, b""])
