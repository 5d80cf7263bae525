"""Events that a retention period deleted, and those that only look as if it had."""

from collections.abc import Iterator

import pytest
from tests.lab import audits
from tests.lab.world import World, new_world

from tunewarden import audit
from tunewarden.audit import digests, retention
from tunewarden.clock import to_micros


@pytest.fixture
def world() -> Iterator[World]:
    with new_world() as made:
        yield made


def test_expired_events_are_gone_and_what_is_left_is_still_proven(world: World) -> None:
    caller = world.caller()
    organization = caller.organization_id
    lines: dict[str, bytes] = {}
    for _ in range(3):
        audits.record(world, 4, organization)
        lines |= {event.id: event.line() for event in audits.stored(world, organization)}
        audits.next_day(world)
    with world.app.database.write() as tx:
        retention.set_days(tx, organization, 90, caller.actor)
    world.clock.sleep(88 * audits.DAY_SECONDS)
    deleted = retention.apply(world.app.database, to_micros(world.clock.now()))
    assert 4 <= deleted < len(lines)
    assert retention.apply(world.app.database, to_micros(world.clock.now())) == 0
    audits.next_day(world)
    counts, problems = audits.verified(world)
    assert problems == []
    assert counts.expired == deleted
    types = [event.type for event in audits.stored(world, organization)]
    assert types.count("audit_log.expired") >= 1
    assert types.count("audit_log.retention.updated") == 1
    with world.app.database.read() as tx:
        parts = digests.parts_of(tx, organization, 0, 100)
    kept = {entry.id: entry for part in parts for entry in part.entries()}
    for event_id, line in lines.items():  # an export of before
        assert kept[event_id] == digests.entry_of(event_id, line)
    with audits.behind_the_server(world) as connection:
        gone = audits.stored(world, organization)[-3].id
        connection.execute("DELETE FROM audit_events WHERE id = ?", (gone,))
    assert [one.event for one in audits.verified(world)[1]] == [gone], "not every event may go"


def test_what_did_not_expire_is_missing_though_older_events_did_and_its_row_says_so(
    world: World,
) -> None:
    caller = world.caller()
    organization = caller.organization_id
    for _ in range(3):
        audits.record(world, 4, organization)
        audits.next_day(world)
    with world.app.database.write() as tx:
        retention.set_days(tx, organization, 90, caller.actor)
    world.clock.sleep(88 * audits.DAY_SECONDS)
    assert retention.apply(world.app.database, to_micros(world.clock.now()))
    assert audits.verified(world)[1] == []
    victim = audits.stored(world, organization)[0].id
    with audits.behind_the_server(world) as connection:
        connection.execute("UPDATE audit_parts SET expired_at = 1 WHERE number <= 2")
        connection.execute("DELETE FROM audit_events WHERE id = ?", (victim,))
    [problem] = audits.verified(world)[1]
    assert (problem.event, problem.organization_id) == (victim, organization)
    assert "none says that it expired" in problem.what
    with world.app.database.write() as tx:  # an intruder says so: too early
        audit.record(
            tx,
            audit.EventType.AUDIT_EXPIRED,
            organization_id=organization,
            actor=audit.SERVER,
            resource_id=organization,
            part=2,
            events=1,
        )
    [problem] = audits.verified(world)[1]
    assert problem.event == victim
    assert "cannot have expired" in problem.what


def test_events_that_waited_long_for_their_digest_are_kept_until_the_log_shows_their_age(
    world: World,
) -> None:
    caller = world.caller()
    audits.record(world, 4, caller.organization_id)
    with world.app.database.write() as tx:
        retention.set_days(tx, caller.organization_id, 90, caller.actor)
    world.clock.sleep(100 * audits.DAY_SECONDS)  # without a server
    audits.next_day(world)
    assert retention.apply(world.app.database, to_micros(world.clock.now())) == 0
    world.clock.sleep(91 * audits.DAY_SECONDS)
    assert retention.apply(world.app.database, to_micros(world.clock.now())) >= 4
    assert audits.verified(world)[1] == []
