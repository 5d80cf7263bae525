"""The check of the audit log of all organizations, on the server's machine only."""

from tunewarden.app import open_app
from tunewarden.cli.client import Object
from tunewarden.config import Config
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
