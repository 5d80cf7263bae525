"""What is done with the audit log on the server's machine only: the check of all organizations, the operator's own."""

from tunewarden.api.administration import audit_views
from tunewarden.app import open_app
from tunewarden.audit.listing import Filters
from tunewarden.cli.client import ADMINISTRATION_PAGE_SIZE, Object
from tunewarden.config import Config
from tunewarden.identity import audit_access
from tunewarden.transparency.audit_verification import Verification


def verify(settings: Config) -> Object:
    """Check all events against the digests in the log; return what was found. Raises Error(UNAVAILABLE)."""
    app = open_app(settings)
    verification = Verification(app.database, app.open_log()[0])
    problems = [
        {
            "what": one.what,
            "digest": one.digest,
            "organization": one.organization_id,
            "event": one.event,
        }
        for one in verification.problems()
    ]
    counts = verification.counts
    return {
        "object": "audit_log.verification",
        "problems": problems,
        "digests": counts.digests,
        "unproven": counts.unproven,
        "events": counts.events,
        "expired": counts.expired,
        "undigested": counts.undigested,
    }


def of_the_operator(settings: Config, *, limit: int | None) -> Object:
    """Return what the operator and the server did for no organization alone, newest first, as a list object."""
    database = open_app(settings).database
    found: list[audit_access.Shown] = []
    has_more = True
    while has_more and (limit is None or len(found) < limit):
        page = audit_access.page_of(
            database,
            "",
            Filters(),
            after=found[-1].id if found else None,
            before=None,
            limit=ADMINISTRATION_PAGE_SIZE + 1,
        )
        has_more = len(page) > ADMINISTRATION_PAGE_SIZE
        found += page[:ADMINISTRATION_PAGE_SIZE]
    has_more = has_more or (limit is not None and len(found) > limit)
    data = [audit_views.shown(one) for one in found[:limit]]
    return {"object": "list", "data": data, "has_more": has_more}
