"""The bases whose rate limits, and the events, that the suite's fixed ids are to find."""

from tunewarden import audit
from tunewarden.app import App
from tunewarden.registry import bases
from tunewarden.registry.bases import BaseKind

RATE_LIMIT = "rate_limit_id"
CURSORS = ("after", "before")  # in the order in which lists by name have them
# OpenAI's default page: strict clients read no types of events that OpenAI has not.
LISTED = 20


def restore_bases(app: App) -> None:
    """Have a base of each name: a rate limit is of a base, and may be named by it."""
    there = {base.name for base in bases.list_all(app.database)}
    with app.database.write() as tx:
        for name in {RATE_LIMIT, *CURSORS} - there:
            bases.add(
                tx,
                name=name,
                kind=BaseKind.REMOTE,
                location="http://127.0.0.1:9/v1",
                engine_model=name,
                modules={},
            )


def restore_events(app: App, organization_id: str) -> None:
    """Have the events of both cursors, the newer one first in the list, and a page of newer ones of OpenAI's types."""
    with app.database.write() as tx:
        for name in CURSORS[::-1]:
            if tx.row("SELECT 1 FROM audit_events WHERE id = :id", id=name) is None:
                tx.run(
                    "INSERT INTO audit_events (id, type, effective_at, organization_id, resource_id, details)"
                    " VALUES (:id, 'project.updated', :now, :organization, 'project_id', '{}')",
                    id=name,
                    now=tx.now_micros,
                    organization=organization_id,
                )
        for _ in range(LISTED):
            audit.record(
                tx,
                audit.EventType.PROJECT_UPDATED,
                organization_id=organization_id,
                actor=audit.SERVER,
                resource_id="project_id",
            )
