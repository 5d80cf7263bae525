"""Lists of audit events: any filters, in any order, give what a look at every event gives, by the right index."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewarden.audit import events, listing
from tunewarden.audit.events import Event
from tunewarden.audit.listing import Filters
from tunewarden.clock import SystemClock
from tunewarden.db.sqlite import SqliteDatabase

VALUES = ["a", "b", "c"]
some = st.frozensets(st.sampled_from(VALUES), max_size=2)
ANY = st.builds(
    Filters,
    types=some,
    resource_ids=some,
    project_ids=some,
    actor_ids=some,
    user_ids=some,
    from_at=st.integers(0, 6),
    to_at=st.integers(0, 9),
)
ONE = st.sampled_from(VALUES)
MAYBE = st.none() | ONE
# Times go back too, as clocks do.
ROW = st.tuples(st.integers(0, 9), st.sampled_from(["org", "other"]), ONE, ONE, MAYBE, MAYBE, MAYBE)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> SqliteDatabase:
    path: Path = tmp_path_factory.mktemp("audit") / "test.sqlite"
    return SqliteDatabase(path, SystemClock(), migrate=True)


def _fill(database: SqliteDatabase, rows: Sequence[tuple[Any, ...]]) -> list[Event]:
    """Replace all events; return those of `org`, newest first."""
    with database.write() as tx:
        tx.run("DROP TRIGGER IF EXISTS audit_events_stay")
        tx.run("DELETE FROM audit_events")
        for number, (at, organization, kind, resource, project, key, user) in enumerate(rows):
            tx.run(
                "INSERT INTO audit_events (id, type, effective_at, organization_id, project_id, actor_key_id,"
                " actor_user_id, resource_id, request_id, details)"
                " VALUES (:id, :type, :at, :organization, :project, :key, :user, :resource, NULL, '{}')",
                id=f"audit_log_{number}",
                type=kind,
                at=at,
                organization=organization,
                project=project,
                key=key,
                user=user,
                resource=resource,
            )
        found = events.after(tx, 0, 1000)
    own = [event for event in found if event.organization_id == "org"]
    return sorted(own, key=lambda event: (event.effective_at, event.n), reverse=True)


def _matches(event: Event, filters: Filters) -> bool:
    actors = {event.actor_key_id, event.actor_user_id}
    return (
        (not filters.types or event.type in filters.types)
        and (not filters.resource_ids or event.resource_id in filters.resource_ids)
        and (not filters.project_ids or event.project_id in filters.project_ids)
        and (not filters.user_ids or event.actor_user_id in filters.user_ids)
        and (not filters.actor_ids or bool(actors & filters.actor_ids))
        and filters.from_at <= event.effective_at <= filters.to_at
    )


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(ROW, max_size=25), filters=ANY, limit=st.integers(1, 5), data=st.data())
def test_pages_are_what_a_look_at_every_event_gives(
    database: SqliteDatabase,
    rows: Sequence[tuple[Any, ...]],
    filters: Filters,
    limit: int,
    data: st.DataObject,
) -> None:
    everything = _fill(database, rows)
    wanted = [event for event in everything if _matches(event, filters)]
    assert _followed(database, filters, limit) == wanted
    assert list(listing.everything(database, "org", filters, check=bool)) == wanted[::-1]
    if not everything:
        return
    cursor = data.draw(st.sampled_from(everything))
    place = cursor.effective_at, cursor.n
    newer = [event for event in wanted if (event.effective_at, event.n) > place]
    found = listing.page(database, "org", filters, after=None, before=cursor.id, limit=limit)
    assert found == newer[-limit:]
    another = data.draw(st.sampled_from(everything))
    between = [
        event
        for event in wanted
        if place < (event.effective_at, event.n) < (another.effective_at, another.n)
    ]
    found = listing.page(database, "org", filters, after=another.id, before=cursor.id, limit=limit)
    assert found == between[:limit]
    assert listing.page(
        database, "org", replace(filters, matches_none=True), after=None, before=None, limit=limit
    ) == []  # fmt: skip


def _followed(database: SqliteDatabase, filters: Filters, limit: int) -> list[Event]:
    found: list[Event] = []
    after = None
    while page := listing.page(database, "org", filters, after=after, before=None, limit=limit):
        found += page
        after = page[-1].id
    return found


INDEXES = {
    "audit_events_listed": Filters(),
    "audit_events_of_type": Filters(types=frozenset("a")),
    "audit_events_of_resource": Filters(resource_ids=frozenset("a")),
    "audit_events_of_project": Filters(project_ids=frozenset("a")),
    "audit_events_of_user": Filters(user_ids=frozenset("a")),
    "audit_events_of_key": Filters(actor_ids=frozenset("a")),
}


@pytest.fixture
def plans(tmp_path: Path) -> Iterator[list[str]]:
    """The plans of all statements on connections that are opened now."""
    found: list[str] = []

    def explained(cursor: apsw.Cursor, sql: str, bound: Any) -> bool:
        if sql.startswith("SELECT effective_at, n FROM audit_events WHERE organization_id = "):
            plain = apsw.Connection(cursor.connection.db_filename("main"))
            plan = plain.execute(f"EXPLAIN QUERY PLAN {sql}", bound)
            found.extend(str(step[3]) for step in plan)
            plain.close()
        return True

    def hook(connection: apsw.Connection) -> None:
        connection.exec_trace = explained

    apsw.connection_hooks.append(hook)
    yield found
    apsw.connection_hooks.remove(hook)


@pytest.mark.parametrize("index", INDEXES)
def test_each_filter_reads_its_own_index_in_order(
    tmp_path: Path, plans: list[str], index: str
) -> None:
    made = SqliteDatabase(tmp_path / "plans.sqlite", SystemClock(), migrate=True)
    for filters in (INDEXES[index], replace(INDEXES[index], from_at=5, to_at=9)):
        listing.page(made, "org", filters, after=None, before=None, limit=1)
        list(listing.everything(made, "org", filters, check=bool))
    assert len(plans) >= 4
    wanted = {index, "audit_events_of_user"} if index == "audit_events_of_key" else {index}
    assert {step.partition(" INDEX ")[2].partition(" ")[0] for step in plans} == wanted, plans
    assert not [step for step in plans if "TEMP B-TREE" in step], "it is sorted"
