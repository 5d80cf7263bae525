"""The audit log as administrators read it: events with what is known now of who acted and where.

Events hold ids only. Names and addresses are read when they are shown, so that they are gone when a person is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from tunewarden.audit import listing, retention
from tunewarden.audit.events import Event
from tunewarden.audit.listing import Filters
from tunewarden.db.database import Database, Tx
from tunewarden.identity import admin_keys
from tunewarden.identity.admin_keys import Administrator


@dataclass(frozen=True, slots=True)
class Shown:
    """An event, the actor's address (None: unknown, none, or of who was removed), and the project's name."""

    event: Event
    email: str | None
    is_service_account: bool
    project_name: str | None

    @property
    def id(self) -> str:
        """Its id, which is also a cursor."""
        return self.event.id


def page(
    database: Database,
    administrator: Administrator,
    filters: Filters,
    *,
    emails: Iterable[str] = (),
    after: str | None,
    before: str | None,
    limit: int,
) -> list[Shown]:
    """Return up to `limit` events of the organization, newest first; with `emails` only those of people with one.

    Raises Error(UNAUTHENTICATED), Error(INVALID) for an unknown cursor.
    """
    organization_id = administrator.organization_id
    with database.read() as tx:
        admin_keys.check_now(tx, administrator)
        chosen = _of_people(tx, organization_id, filters, emails)
    return page_of(database, organization_id, chosen, after=after, before=before, limit=limit)


def page_of(
    database: Database,
    organization_id: str,
    filters: Filters,
    *,
    after: str | None,
    before: str | None,
    limit: int,
) -> list[Shown]:
    """Return what `page` does, to the operator. Raises Error(INVALID)."""
    found = listing.page(
        database, organization_id, filters, after=after, before=before, limit=limit
    )
    with database.read() as tx:
        return _shown(tx, found)


def everything(
    database: Database, administrator: Administrator, filters: Filters, *, emails: Iterable[str]
) -> Iterator[Event]:
    """Return all matching events of the organization, oldest first, in constant memory.

    Raises Error(UNAUTHENTICATED), later too: no event is read after the key was revoked. # I19
    """
    with database.read() as tx:
        admin_keys.check_now(tx, administrator)
        chosen = _of_people(tx, administrator.organization_id, filters, emails)
    return listing.everything(
        database,
        administrator.organization_id,
        chosen,
        check=lambda tx: admin_keys.check_now(tx, administrator),
    )


def retention_days(database: Database, administrator: Administrator) -> int | None:
    """Return for how many days events are kept; None: for ever. Raises Error(UNAUTHENTICATED)."""
    with database.read() as tx:
        admin_keys.check_now(tx, administrator)
        return retention.days_of(tx, administrator.organization_id)


def set_retention_days(
    database: Database, administrator: Administrator, days: int | None
) -> int | None:
    """Set for how many days events are kept; return it. Raises Error(UNAUTHENTICATED, INVALID)."""
    with database.write() as tx:
        admin_keys.check_now(tx, administrator)
        retention.set_days(tx, administrator.organization_id, days, administrator.actor)
        return retention.days_of(tx, administrator.organization_id)


def _of_people(tx: Tx, organization_id: str, filters: Filters, emails: Iterable[str]) -> Filters:
    """Return the filters for the people of the organization with one of these addresses, if any are given."""
    wanted = {email.strip().lower() for email in emails}
    if not wanted:
        return filters
    found = set()
    for email in wanted:
        rows = tx.rows(
            "SELECT id FROM users WHERE organization_id = :organization AND email = :email",
            organization=organization_id,
            email=email,
        )
        found |= {str(row[0]) for row in rows}
    return replace(
        filters, user_ids=frozenset(found), matches_none=filters.matches_none or not found
    )


def _shown(tx: Tx, events: list[Event]) -> list[Shown]:
    people: dict[str, tuple[str | None, bool]] = {}
    projects: dict[str, str] = {}
    for event in events:
        user_id, project_id = event.actor_user_id, event.project_id
        if user_id is not None and user_id not in people:
            row = tx.row("SELECT email, service_project_id FROM users WHERE id = :id", id=user_id)
            people[user_id] = (row[0], row[1] is not None) if row else (None, False)
        if project_id is not None and project_id not in projects:
            row = tx.row("SELECT name FROM projects WHERE id = :id", id=project_id)
            projects[project_id] = str(row[0]) if row else ""
    return [
        Shown(
            event,
            *people.get(event.actor_user_id or "", (None, False)),
            projects.get(event.project_id or "") or None,
        )
        for event in events
    ]
