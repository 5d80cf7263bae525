"""The audit log of a world: days pass, digests are made, and events are tampered with behind the server's back."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import apsw
from tests.lab.world import World

from tunewarden import audit
from tunewarden.app import audit_digests
from tunewarden.audit.events import Event
from tunewarden.db.database import Tx
from tunewarden.transparency.audit_verification import Counts, Problem, Verification

DAY_SECONDS = timedelta(days=1).total_seconds()


def record(world: World, count: int, organization_id: str = "org_a") -> list[str]:
    """Record events, each in a transaction of its own; return their ids."""
    for number in range(count):
        with world.app.database.write() as tx:
            record_in(tx, organization_id, number)
    with world.app.database.read() as tx:
        rows = tx.rows(
            "SELECT id FROM audit_events WHERE organization_id = :id ORDER BY n DESC LIMIT :count",
            id=organization_id,
            count=count,
        )
    return [str(row[0]) for row in rows][::-1]


def record_in(tx: Tx, organization_id: str, number: int) -> None:
    audit.record(
        tx,
        audit.EventType.FILE_CREATED,
        organization_id=organization_id,
        actor=audit.Actor(
            key_id="key_1", user_id="user_1", project_id="proj_1", request_id="req_1"
        ),
        resource_id=f"file-{number}",
        purpose="fine-tune",
    )


def next_day(world: World) -> int:
    """Let a day pass, and make the digests that are due; return how many."""
    world.clock.sleep(DAY_SECONDS)
    return audit_digests(world.app).run()


def verified(world: World) -> tuple[Counts, list[Problem]]:
    """Check the audit log."""
    verification = Verification(world.app.database, world.log())
    problems = list(verification.problems())
    return verification.counts, problems


def stored(world: World, organization_id: str = "org_a") -> list[Event]:
    """Return an organization's events, oldest first."""
    with world.app.database.read() as tx:
        found = audit.events.within(tx, 1, 2**62)
    return [event for event in found if event.organization_id == organization_id]


@contextmanager
def behind_the_server(world: World) -> Iterator[apsw.Connection]:
    """Open the database as an intruder who may do anything with it: without the triggers that protect events."""
    connection = apsw.Connection(str(world.config.database))
    try:
        for name in ("audit_events_never_change", "audit_events_stay"):
            connection.execute(f"DROP TRIGGER IF EXISTS {name}")
        yield connection
    finally:
        connection.close()
