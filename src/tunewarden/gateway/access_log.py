"""The access log (setting `access_log`): one line for each request that ended.

It names what ids are for: the request, the organization, the key (its id, never its secret), and an artifact by its
number, which says nothing when the artifact is gone. No path, query, header, body, model id or name of a client's.
"""

import logging
from dataclasses import dataclass

from tunewarden.identity.policy import Caller
from tunewarden.registry.model_lookup import Target

logger = logging.getLogger("tunewarden.access")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A request that ended. `route` is a template; `error` is the code of an error response, or empty."""

    request_id: str
    method: str
    route: str
    status: int
    error: str
    seconds: float
    sent_bytes: int
    caller: Caller | None
    target: Target | None = None


def enable() -> None:
    """Have accesses logged, whatever the level of other logs."""
    logger.setLevel(logging.INFO)


def write(one: Access) -> None:
    """Log an access."""
    caller, target = one.caller, one.target
    fields = {
        "request_id": one.request_id,
        "method": one.method,
        "route": one.route,
        "status": one.status,
        "error": one.error or None,
        "duration_ms": round(one.seconds * 1000, 3),
        "bytes": one.sent_bytes,
        "organization": caller.organization_id if caller else None,
        "key": caller.key_id if caller else None,
        "base": target.base.name if target else None,
        "artifact": target.n if target else None,
    }
    known = {name: value for name, value in fields.items() if value is not None}
    logger.info("access", extra={"fields": known})
