"""`/v1/organization/audit_logs`: the events of the organization. The export and the retention period are our extensions."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tunewarden.api.administration import audit_views, schemas
from tunewarden.api.administration.audit_filters import PAGE, InFilters, only
from tunewarden.api.administration.bodies import InBody
from tunewarden.api.administration.long_answers import Lines
from tunewarden.api.administration.pages import LIMIT, Limit
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import InAdministration
from tunewarden.identity import audit_access, audit_proofs
from tunewarden.identity.key_rows import seconds_of
from tunewarden.transparency.audit_digests import line_of

# Lines sent at once.
LINES = 200

routes = APIRouter(prefix="/v1/organization/audit_logs")
Number = Annotated[int, Path(ge=1, le=2**31)]


@routes.get("", dependencies=[only(*PAGE)])
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
    is_backward = before is not None and after is None
    page = found[max(len(found) - limit, 0) :] if is_backward else found[:limit]
    return JsonAnswer(
        {
            "object": "list",
            "data": [audit_views.shown(one) for one in page],
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
            "has_more": has_more,
        }
    )


@routes.get("/export", dependencies=[only()])
def export_audit_logs(context: InAdministration, asked: InFilters) -> Response:
    """Stream all matching events, oldest first, as lines of JSON: the bytes that the daily digests are made of."""
    found = audit_access.everything(
        context.operations.database, context.administrator, asked.filters, emails=asked.emails
    )
    return Lines(context, lines(event.line() for event in found))


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


@routes.get("/digests/{number}")
def retrieve_audit_digest(context: InAdministration, number: Number) -> JsonAnswer:
    """Return what a daily digest keeps of the organization's events, with its proof; they are numbered from 1."""
    log, signer = context.operations.open_log()
    found = audit_proofs.prove(
        context.operations.database, context.administrator, number, lambda: log
    )
    said, chain = found.part.said, signer.chain
    log_key = chain.newest if found.index is None else chain.of_entry(found.index)
    return JsonAnswer(
        schemas.AuditDigest(
            id=str(said.number),
            object="organization.audit_digest",
            organization_id=said.organization_id,
            number=said.number,
            digest=found.part.sequence,
            events=said.events,
            root=said.root,
            previous=said.previous,
            salt=found.part.salt.hex(),
            entries=[schemas.AuditEntry(one.id, one.hash.hex()) for one in found.part.entries()],
            expired_at=seconds_of(found.part.expired_at),
            path=[
                schemas.AuditPathStep("left" if is_left else "right", one.hex())
                for is_left, one in found.path
            ],
            receipt=None if found.receipt is None else found.receipt.decode(),
            log_key=log_key.pem().decode(),
            hand_overs=chain.document().decode(),
        )
    )


@routes.get("/digests/{number}/events")
def export_digested_events(context: InAdministration, number: Number) -> Response:
    """Stream the events of a daily digest, oldest first, as lines of JSON; after the last one, those without a digest."""
    found = audit_proofs.events_of(context.operations.database, context.administrator, number)
    return Lines(context, lines(map(line_of, found)))


def lines(found: Iterator[bytes]) -> Iterator[bytes]:
    """Yield events' lines, some hundred at a time."""
    held = []
    for line in found:
        held.append(line)
        if len(held) == LINES:
            yield b"\n".join([*held, b""])
            held = []
    if held:
        yield b"\n".join([*held, b""])
