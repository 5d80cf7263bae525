"""Digests of the audit log: what was digested cannot be taken out, changed or added to unseen, crashes or not."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator

import apsw
import pytest
from tests.lab import audits, budgets
from tests.lab.power import Power
from tests.lab.world import Start, World, copied, new_world, one_dies, started

from tunewarden.app import audit_digests
from tunewarden.audit import retention
from tunewarden.clock import to_micros
from tunewarden.transparency import audit_digests as module
from tunewarden_receipts import receipt
from tunewarden_receipts.audit_digest import AuditDigestLeaf


@pytest.fixture
def world() -> Iterator[World]:
    with new_world() as made:
        yield made


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    with started(1) as begun:
        yield begun


def _leaves(world: World) -> list[AuditDigestLeaf]:
    facts = [receipt.parse_entry(entry) for _, entry in world.log().entries()]
    return [one for one in facts if isinstance(one, AuditDigestLeaf)]


def _three_days(world: World) -> None:
    for _ in range(3):
        audits.record(world, 4)
        audits.record(world, 2, "org_b")
        audits.next_day(world)


def test_each_day_with_events_has_one_leaf_that_names_nobody(world: World) -> None:
    audits.record(world, 3)
    assert audit_digests(world.app).run() == 0, "the day is not over"
    assert audits.next_day(world) == 1
    assert audits.next_day(world) == 0, "nothing happened"
    audits.record(world, 1, "org_b")
    assert audits.next_day(world) == 1
    assert [leaf.sequence for leaf in _leaves(world)] == [1, 2]
    log, _ = world.app.open_log()
    written = b"".join(entry for _, entry in log.entries())
    statements = b"".join(receipt.build(leaf) for leaf in _leaves(world))
    for name in (b"org_a", b"org_b", b"key_1", b"user_1", b"file-0"):
        assert name not in written + statements
    counts, problems = audits.verified(world)
    assert problems == []
    assert counts.digests == 2
    assert counts.events == len(audits.stored(world)) + len(audits.stored(world, "org_b")) + len(
        audits.stored(world, "")
    )


def test_days_without_a_server_are_caught_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVENTS_MAX", 5)
    for _ in range(4):
        audits.record(world, 3)
        world.clock.sleep(audits.DAY_SECONDS)
    assert audit_digests(world.app).run() >= 3, "more events than one digest holds"
    counts, problems = audits.verified(world)
    assert (problems, counts.undigested) == ([], 0)


def test_a_clock_that_was_set_back_delays_no_digest(world: World) -> None:
    world.clock.sleep(40 * audits.DAY_SECONDS)
    audits.record(world, 2)
    past = World(world.root, world.parts).open()  # its clock begins forty days earlier
    audits.record(past, 2)
    assert audits.next_day(past) == 1
    counts, problems = audits.verified(past)
    assert (problems, counts.undigested) == ([], 0)


def _middle(world: World) -> str:
    return audits.stored(world)[5].id


def _change(connection: apsw.Connection, world: World) -> str:
    connection.execute("UPDATE audit_events SET resource_id = 'x' WHERE id = ?", (_middle(world),))
    return "an event was changed"


def _remove(connection: apsw.Connection, world: World) -> str:
    connection.execute("DELETE FROM audit_events WHERE id = ?", (_middle(world),))
    return "an event is missing"


def _break_the_details(connection: apsw.Connection, world: World) -> str:
    connection.execute("UPDATE audit_events SET details = '{' WHERE id = ?", (_middle(world),))
    return "an event was changed"


def _give_to_another(connection: apsw.Connection, world: World) -> str:
    sql = "UPDATE audit_events SET organization_id = 'org_b' WHERE id = ?"
    connection.execute(sql, (_middle(world),))
    return "an event is missing"


@pytest.mark.parametrize("tamper", [_change, _remove, _break_the_details, _give_to_another])
def test_the_first_event_that_is_missing_or_changed_is_named(
    world: World, tamper: Callable[[apsw.Connection, World], str]
) -> None:
    _three_days(world)
    victim = _middle(world)
    assert audits.verified(world)[1] == []
    with audits.behind_the_server(world) as connection:
        what = tamper(connection, world)
        later = audits.stored(world)[-1].id
        connection.execute("UPDATE audit_events SET request_id = 'x' WHERE id = ?", (later,))
    first = next(one for one in audits.verified(world)[1] if one.organization_id == "org_a")
    assert (first.what, first.event) == (what, victim)


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("UPDATE audit_events SET organization_id = 'org_c' WHERE n = 4", "an event was inserted"),
        ("DELETE FROM audit_parts WHERE number = 2 AND organization_id = 'org_a'", "not those"),
        ("DELETE FROM audit_parts WHERE organization_id = 'org_b'", "not those"),
        ("UPDATE audit_parts SET events = events + 1 WHERE number = 2", "not those"),
        ("UPDATE audit_parts SET entries = zeroblob(72) WHERE number = 2", "kept hashes"),
        ("UPDATE audit_parts SET salt = zeroblob(32) WHERE number = 2", "not those"),
        ("DELETE FROM audit_digests WHERE sequence = 3", "the database does not"),
        ("UPDATE audit_digests SET statement = x'00' WHERE sequence = 2", "another statement"),
        ("UPDATE audit_parts SET expired_at = 1; DELETE FROM audit_events WHERE n < 8", "expired"),
    ],
)
def test_rows_of_digests_cannot_be_forged(world: World, sql: str, what: str) -> None:
    _three_days(world)
    with audits.behind_the_server(world) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(sql)
    problems = audits.verified(world)[1]
    assert any(what in one.what for one in problems), problems


def test_rewriting_events_and_all_rows_about_them_does_not_convince_the_log(world: World) -> None:
    _three_days(world)
    with audits.behind_the_server(world) as connection:
        connection.execute("DELETE FROM audit_events WHERE id = ?", (_middle(world),))
        connection.execute("DELETE FROM audit_digests")
        connection.execute("DELETE FROM audit_parts")
    problems = audits.verified(world)[1]
    assert [one.digest for one in problems] == [1, 2, 3]


def test_events_never_change_and_are_deleted_by_their_retention_period_only(world: World) -> None:
    _three_days(world)
    rest = "project_id, actor_key_id, actor_user_id, resource_id, request_id, details FROM audit_events"
    for sql in (
        "UPDATE audit_events SET resource_id = 'x' WHERE n = 3",
        "DELETE FROM audit_events WHERE n = 3",
        "DELETE FROM audit_events",
        f"REPLACE INTO audit_events SELECT n, id, type, effective_at, 'org_b', {rest} WHERE n = 3",
        f"REPLACE INTO audit_events SELECT 3, 'x', type, effective_at, organization_id, {rest} WHERE n = 3",
    ):
        with (
            pytest.raises(apsw.ConstraintError, match="audit events"),
            world.app.database.write() as tx,
        ):
            tx.run(sql)
    assert audits.verified(world)[1] == []


def _live(world: World, made: Counter[str]) -> None:
    """Two days with a digest each, and a retention period that lets the first one expire."""
    with one_dies():
        world.open()
        caller = world.caller()
        with world.app.database.write() as tx:
            retention.set_days(tx, caller.organization_id, 90, caller.actor)
        for _ in range(2):
            audits.record(world, 3, caller.organization_id)
            made["recorded"] += 3
            audits.next_day(world)
        world.clock.sleep(91 * audits.DAY_SECONDS)
        retention.apply(world.app.database, to_micros(world.clock.now()))
    world.close()


def _judge_after(world: World, made: Counter[str]) -> None:
    world.restart()
    audits.next_day(world)
    retention.apply(world.app.database, to_micros(world.clock.now()))
    sequences = [leaf.sequence for leaf in _leaves(world)]
    assert sequences == list(range(1, len(sequences) + 1)), (
        "a digest is twice in the log, or missing"
    )
    counts, problems = audits.verified(world)
    assert problems == []
    assert counts.undigested <= 2, "an event fell between two digests"
    assert counts.digests == len(sequences)
    made["judged"] += 1


def test_a_crash_at_any_effect_loses_no_digest_and_makes_none_twice(start: Start) -> None:
    crashes = 0
    made: Counter[str] = Counter()
    while True:
        with copied(start.world, power=Power(crashes)) as world:
            _live(world, made)
            was_cut = world.power.dead
            _judge_after(world, made)
        if not was_cut:
            break
        crashes += 1
    print(f"audit-digests crashes {crashes} {dict(made)}")
    assert crashes > 40


def test_control_digests_that_are_logged_before_they_are_stored_are_caught(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = module.AuditDigests._make

    def forgets(self: module.AuditDigests) -> bool:
        """Append the leaf of a digest that is not stored, as after a crash between the two."""
        make(self)
        self._append_pending()
        with self.database.write() as tx:
            tx.run("DELETE FROM audit_parts")
            tx.run("DELETE FROM audit_digests")
        return False

    with copied(start.world) as world:
        world.open()
        audits.record(world, 3)
        with monkeypatch.context() as mutant:
            mutant.setattr(module.AuditDigests, "_make", forgets)
            audits.next_day(world)
        audits.next_day(world)
        assert [leaf.sequence for leaf in _leaves(world)] == [1, 1], (
            "the digest is twice in the log"
        )
        assert audits.verified(world)[1] != []


def test_a_restored_database_is_told_by_its_digests(start: Start) -> None:
    with copied(start.world) as world:
        world.open()
        caller = world.caller()
        audits.record(world, 3)
        audits.next_day(world)
        old = world.config.database.with_name("old")
        world.app.database.copy_to(old)
        for _ in range(2):
            audits.record(world, 3)
            audits.next_day(world)
        world.close()
        for name in ("", "-wal", "-shm"):
            world.config.database.with_name(f"{world.config.database.name}{name}").unlink(
                missing_ok=True
            )
        old.rename(world.config.database)
        world.restart()
        _, problems = audits.verified(world)
        assert [(one.digest, "restored" in one.what) for one in problems] == [(2, True), (3, True)]
        told = [
            e
            for e in audits.stored(world, caller.organization_id)
            if e.type == "audit_log.restored"
        ]
        assert len(told) == 1
        # It goes on behind what was lost.
        audits.record(world, 2)
        assert audits.next_day(world) == 1
        assert [leaf.sequence for leaf in _leaves(world)] == [1, 2, 3, 4]
        assert [one.digest for one in audits.verified(world)[1]] == [2, 3]


def test_an_event_that_commits_late_is_in_the_next_digest(start: Start) -> None:
    """Writers and a maker of digests at once: every event is in exactly one part."""
    seed = budgets.new_seed()
    with copied(start.world) as world:
        world.open()
        stop = threading.Event()
        failures: list[BaseException] = []

        def write(name: str) -> None:
            try:
                while not stop.is_set():
                    with world.app.database.write() as tx:
                        for number in range(3):
                            audits.record_in(tx, name, number)
            except BaseException as error:  # noqa: BLE001 - raised again below
                failures.append(error)

        threads = [threading.Thread(target=write, args=(f"org_{n}",)) for n in range(3)]
        for thread in threads:
            thread.start()
        made, wanted = 0, budgets.count(30, 500)
        while made < wanted and not failures:
            made += audits.next_day(world)
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        audits.next_day(world)
        audits.next_day(world)
        counts, problems = audits.verified(world)
        print(
            f"audit-digests concurrent seed {seed} events {counts.events} digests {counts.digests}"
        )
        assert problems == []
        assert counts.digests >= wanted
        with world.app.database.read() as tx:
            [[total]] = tx.rows("SELECT COUNT(*) FROM audit_events")
            [[kept]] = tx.rows("SELECT SUM(events) FROM audit_parts")
        assert kept == total - counts.undigested
