"""The audit log of the organization: what was done, by whom, when; filters are in the address."""

import json
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from starlette.responses import Response

from tunewarden.audit import EventType
from tunewarden.audit.listing import Filters
from tunewarden.console import lists, rendering, tables
from tunewarden.console.administration import administered, shown_key
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.console.tables import Table
from tunewarden.db import cursors
from tunewarden.errors import Error, Kind
from tunewarden.identity import audit_access
from tunewarden.identity.admin_keys import Administrator
from tunewarden.identity.audit_access import Shown

SECOND = 1_000_000
FIELDS = ("type", "actor", "resource", "project", "from", "to")


def _read(visit: Visit, after: str | None, limit: int) -> tuple[Sequence[Shown], str | None]:
    found = audit_access.page(
        visit.operations.database,
        shown_key(visit),
        _filters(_chosen(visit)),
        after=after,
        before=None,
        limit=limit + 1,
    )
    return lists.cut(found, lambda one: one.id, limit)


def _chosen(visit: Visit) -> dict[str, str]:
    return {name: visit.asked.asked_for(name).strip() for name in FIELDS}


EVENTS = Table[Shown](
    "audit",
    _read,
    {
        "id": lambda one: one.id,
        "effective_at": lambda one: tables.instant(one.event.effective_at),
        "type": lambda one: one.event.type,
        "actor_email": lambda one: one.email,
        "actor_user_id": lambda one: one.event.actor_user_id,
        "actor_key_id": lambda one: one.event.actor_key_id,
        "project_id": lambda one: one.event.project_id,
        "resource_id": lambda one: one.event.resource_id,
        "details": lambda one: one.event.details,
    },
)


@administered
@tables.also_as(EVENTS)
def show_audit(visit: Visit, administrator: Administrator) -> Response:
    """Return a page of events, the newest first."""
    chosen = _chosen(visit)
    rows, values = EVENTS.page(visit)
    values |= {
        "chosen": chosen,
        "is_filtered": any(chosen.values()),
        "types": sorted(one.value for one in EventType),
        "details": {one.id: _details(one.event.details) for one in rows},
        "retention_days": audit_access.retention_days(visit.operations.database, administrator),
        "cli": _command(chosen),
    }
    return rendering.page(visit, "audit.html", values)


def _command(chosen: dict[str, str]) -> str:
    """Return the command that lists the same."""
    options = {name: name for name in ("type", "actor", "resource", "project")}
    options |= {"from": "since", "to": "until"}
    said = [f" --{options[name]} {shlex.quote(value)}" for name, value in chosen.items() if value]
    return f"tunewarden audit list{''.join(said)}"


def _filters(chosen: dict[str, str]) -> Filters:
    def one(name: str) -> frozenset[str]:
        return frozenset({chosen[name]} if chosen[name] else ())

    chosen_from, chosen_to = chosen["from"], chosen["to"]
    return Filters(
        types=one("type"),
        actor_ids=one("actor"),
        resource_ids=one("resource"),
        project_ids=one("project"),
        from_at=_midnight(chosen_from) if chosen_from else 0,
        to_at=_midnight(chosen_to, days=1) - 1 if chosen_to else cursors.AFTER_ALL,
    )


def _midnight(day: str, *, days: int = 0) -> int:
    """Return when a day begins (UTC), in microseconds, or so many days later. Raises Error(INVALID)."""
    try:
        at = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=days)
    except (ValueError, OverflowError) as error:
        raise Error(Kind.INVALID, "Give days such as 2026-12-01.") from error
    return max(0, int(at.timestamp())) * SECOND


def _details(stored: str) -> str:
    """Return an event's details as pairs."""
    found = json.loads(stored)
    return ", ".join(f"{name} {_said(value)}" for name, value in found.items())


def _said(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


PAGES = (Page("GET", "/console/audit", show_audit),)
