"""The outbox: with the act or not at all, bounded, in order, and what becomes of endpoints that fail for long."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tunewarden.clock import SystemClock
from tunewarden.db.sqlite import SqliteDatabase
from tunewarden.errors import Error, Kind
from tunewarden.webhooks import details, endpoint_rows, outbox, sender
from tunewarden.webhooks.addresses import AddressPolicy
from tunewarden.webhooks.attempts import Answer, Attempts
from tunewarden.webhooks.details import Details, Sealer
from tunewarden.webhooks.endpoint_rows import Endpoint
from tunewarden.webhooks.event_types import WebhookEventType
from tunewarden.webhooks.failures import Failure
from tunewarden.webhooks.outbox import DeliveryState
from tunewarden.webhooks.sender import Sender
from tunewarden.webhooks.sweeping import Sweeper

SEALER = Sealer(lambda purpose: purpose.ljust(32, b"."))
URL = "https://receiver.test/"
DAY = timedelta(days=1)


class MovedClock(SystemClock):
    """The machine's clocks, with a wall clock that a test moves on."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead


class Answering(Attempts):
    """Answers as a test says, without a network: by host."""

    def __init__(self) -> None:
        super().__init__(AddressPolicy(), SystemClock())
        self.answers: dict[str, list[Answer]] = {}
        self.bodies: list[tuple[str, dict[str, str], bytes]] = []

    def send(self, url: Any, headers: Any, body: bytes) -> Answer:
        self.bodies.append((url.host, dict(headers), body))
        queued = self.answers.get(url.host)
        return queued.pop(0) if queued else Answer(200, None)

    def stop(self) -> None:
        pass


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def database(tmp_path: Path, clock: MovedClock) -> SqliteDatabase:
    opened = SqliteDatabase(tmp_path / "test.sqlite", clock, migrate=True)
    with opened.write() as tx:
        for name in ("org_a", "org_b"):
            tx.run("INSERT INTO organizations (id, name, created_at) VALUES (:id, :id, 1)", id=name)
    return opened


@pytest.fixture
def sending(database: SqliteDatabase, clock: MovedClock) -> Iterator[tuple[Sender, Answering]]:
    attempts = Answering()
    made = Sender(database, clock, SEALER, attempts)
    yield made, attempts
    made.stop()


def make(
    database: SqliteDatabase,
    name: str = "one",
    organization: str = "org_a",
    *types: WebhookEventType,
) -> int:
    """Make an endpoint at https://<name>.test/; return its number."""
    sealed = SEALER.seal(f"whe_{name}", Details(name, f"https://{name}.test/", "whsec_YWJj"))
    with database.write() as tx:
        endpoint_rows.insert(
            tx, f"whe_{name}", organization, sealed, types or tuple(WebhookEventType)
        )
        return endpoint_rows.find(tx, organization, f"whe_{name}").n


def publish(database: SqliteDatabase, object_id: str = "x", organization: str = "org_a") -> None:
    with database.write() as tx:
        outbox.publish(tx, organization, WebhookEventType.MODEL_CREATED, object_id)


def endpoint(database: SqliteDatabase, n: int) -> Endpoint:
    with database.read() as tx:
        found = endpoint_rows.by_n(tx, n)
    assert found is not None
    return found


def objects(database: SqliteDatabase, n: int) -> list[str]:
    with database.read() as tx:
        return [json.loads(one.data)["id"] for one in outbox.due(tx, n, limit=20_000)]


def run_until_idle(made: Sender, attempts: Answering, count: int) -> None:
    """Take turns until `count` attempts were made and recorded."""
    for _ in range(2000):
        made.turn()
        if len(attempts.bodies) >= count and not made._in_flight:
            return
        made.wait()
    raise AssertionError(f"{len(attempts.bodies)} attempts")


def test_an_event_is_there_with_its_act_or_not_at_all(database: SqliteDatabase) -> None:
    n = make(database)

    def act(*, fails: bool) -> None:
        with database.write() as tx:
            outbox.publish(tx, "org_a", WebhookEventType.MODEL_DELETED, "x", deletion_id="del_1")
            assert not fails, "undone"

    with pytest.raises(AssertionError, match="undone"):
        act(fails=True)
    assert (objects(database, n), endpoint(database, n).pending) == ([], 0)
    act(fails=False)
    with database.read() as tx:
        [found] = outbox.due(tx, n, limit=5)
    assert json.loads(found.data) == {"id": "x", "deletion_id": "del_1"}


def test_only_who_asks_for_a_type_gets_it_and_no_other_organization(
    database: SqliteDatabase,
) -> None:
    asking = make(database, "one", "org_a", WebhookEventType.MODEL_CREATED)
    others = [
        make(database, "two", "org_a", WebhookEventType.MODEL_DELETED),
        make(database, "three", "org_b"),
    ]
    disabled = make(database, "four")
    with database.write() as tx:
        endpoint_rows.disable(tx, disabled, endpoint_rows.DisabledBecause.OWNER)
    publish(database)
    assert objects(database, asking) == ["x"]
    assert [objects(database, n) for n in (*others, disabled)] == [[], [], []]


def test_of_more_than_ten_thousand_the_oldest_are_dropped_and_counted(
    database: SqliteDatabase,
) -> None:
    n, other = make(database), make(database, "other", "org_b")
    publish(database, "of others", "org_b")
    with database.write() as tx:
        for number in range(outbox.PENDING_MAX):
            outbox.publish(tx, "org_a", WebhookEventType.MODEL_CREATED, str(number))
    assert endpoint(database, n).pending == outbox.PENDING_MAX
    second = make(database, "second")
    publish(database, "newest")  # for both
    found = endpoint(database, n)
    assert (found.pending, found.dropped) == (outbox.PENDING_MAX - 1, 2)
    assert objects(database, n)[0] == "2"
    assert objects(database, n)[-1] == "newest"
    assert (objects(database, second), endpoint(database, second).dropped) == (["newest"], 0)
    assert objects(database, other) == ["of others"]
    count = database.peek("SELECT COUNT(*) FROM webhook_deliveries WHERE organization_id = 'org_a'")
    assert count == (outbox.PENDING_MAX,)


def test_what_waited_for_three_days_has_failed(database: SqliteDatabase, clock: MovedClock) -> None:
    n = make(database)
    with database.write() as tx:
        for number in range(outbox.SWEPT_MAX + 5):
            outbox.publish(tx, "org_a", WebhookEventType.MODEL_CREATED, str(number))
    sweeper = Sweeper(database)
    clock.ahead = 3 * DAY - timedelta(hours=1)
    publish(database, "young")
    assert not sweeper.run()
    assert endpoint(database, n).pending == outbox.SWEPT_MAX + 6
    clock.ahead = 3 * DAY + timedelta(hours=1)
    assert sweeper.run(), "a part at a time"
    assert not sweeper.run()
    found = endpoint(database, n)
    assert (found.pending, found.failed) == (1, outbox.SWEPT_MAX + 5)
    assert objects(database, n) == ["young"]
    with database.read() as tx:
        [newest, before] = outbox.page(tx, n, state=None, after=None, limit=2)
    assert (newest.state, before.state) == (DeliveryState.PENDING, DeliveryState.FAILED)
    assert before.error == "expired"


def test_the_log_of_an_endpoint_is_cut_and_what_is_pending_is_not(
    database: SqliteDatabase, sending: tuple[Sender, Answering], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "LOGGED_MAX", 5)
    n = make(database)
    made, attempts = sending
    for number in range(12):
        publish(database, str(number))
    run_until_idle(made, attempts, 12)
    publish(database, "pending")
    Sweeper(database).run()
    with database.read() as tx:
        left = outbox.page(tx, n, state=None, after=None, limit=50)
    assert [json.loads(one.data)["id"] for one in left if one.state is DeliveryState.PENDING] == [
        "pending"
    ]
    assert len(left) == 6
    assert endpoint(database, n).delivered == 12


def test_deliveries_of_one_endpoint_begin_in_order_and_ids_of_events_sort(
    database: SqliteDatabase,
    sending: tuple[Sender, Answering],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender, "PER_ENDPOINT_MAX", 1)
    make(database)
    made, attempts = sending
    for number in range(30):
        publish(database, str(number))
    run_until_idle(made, attempts, 30)
    bodies = [json.loads(body) for _, _, body in attempts.bodies]
    assert [one["data"]["id"] for one in bodies] == [str(number) for number in range(30)]
    ids = [one["id"] for one in bodies]
    assert ids == sorted(ids)
    assert [headers["webhook-id"] for _, headers, _ in attempts.bodies] == ids


def test_what_fails_waits_longer_each_time_and_the_endpoint_as_a_whole_after_three(
    database: SqliteDatabase, clock: MovedClock, sending: tuple[Sender, Answering]
) -> None:
    n = make(database)
    made, attempts = sending
    attempts.answers["one.test"] = [Answer(None, Failure.CONNECT)] * 100
    publish(database)
    delays = []
    for number in range(1, 8):
        run_until_idle(made, attempts, number)
        row = database.peek("SELECT due_at, attempted_at FROM webhook_deliveries")
        assert row is not None
        delays.append((row[0] - row[1]) / 1_000_000)
        clock.ahead += timedelta(hours=6 if number < 7 else 0)
    for delay, usual in zip(delays, sender.DELAYS_SECONDS, strict=False):
        assert usual * 0.74 < delay < usual * 1.26 + 1
    found = endpoint(database, n)
    assert found.failures == 7
    paused = database.peek("SELECT retry_at FROM webhook_endpoints")
    assert paused is not None
    assert paused[0] > 0
    publish(database, "another")
    made.turn()
    assert len(attempts.bodies) == 7, "nothing is sent to it meanwhile"


@pytest.mark.parametrize(("asked", "waited"), [(7200, 7200), (10**9, 28_800)])
def test_a_busy_receiver_is_left_alone_for_as_long_as_it_asks_but_not_for_longer_than_a_bound(
    database: SqliteDatabase,
    clock: MovedClock,
    sending: tuple[Sender, Answering],
    asked: int,
    waited: int,
) -> None:
    n = make(database)
    made, attempts = sending
    attempts.answers["one.test"] = [Answer(503, Failure.STATUS, asked), Answer(500, Failure.STATUS)]
    publish(database, "first")
    publish(database, "second")
    run_until_idle(made, attempts, 2)
    clock.ahead += timedelta(seconds=waited - 60)
    publish(database, "third")
    made.turn()
    assert len(attempts.bodies) == 2, "nothing else is sent either, whatever another attempt met"
    clock.ahead += timedelta(seconds=120)
    run_until_idle(made, attempts, 5)
    assert endpoint(database, n).delivered == 3


def test_one_success_ends_the_wait(
    database: SqliteDatabase, clock: MovedClock, sending: tuple[Sender, Answering]
) -> None:
    n = make(database)
    made, attempts = sending
    attempts.answers["one.test"] = [Answer(500, Failure.STATUS)] * 4
    for number in range(10):
        publish(database, str(number))
    run_until_idle(made, attempts, 4)
    assert endpoint(database, n).failing_since is not None
    clock.ahead += timedelta(hours=1)
    run_until_idle(made, attempts, 14)
    found = endpoint(database, n)
    assert (found.delivered, found.pending, found.failing_since, found.failures) == (10, 0, None, 0)


def test_an_endpoint_that_fails_for_three_days_is_disabled_with_an_event_in_the_audit_log(
    database: SqliteDatabase, clock: MovedClock, sending: tuple[Sender, Answering]
) -> None:
    n = make(database)
    made, attempts = sending
    attempts.answers["one.test"] = [Answer(None, Failure.TIMEOUT)] * 100
    for number in range(1, 14):
        publish(database, str(number))
        run_until_idle(made, attempts, number)
        if endpoint(database, n).disabled_at is not None:
            break
        clock.ahead += timedelta(hours=8)
    found = endpoint(database, n)
    assert found.disabled_because is endpoint_rows.DisabledBecause.FAILING
    assert found.failing_since is not None
    assert found.disabled_at is not None
    assert found.disabled_at - found.failing_since >= sender.DISABLED_AFTER_MICROS
    assert found.failures >= sender.DISABLED_AFTER_ATTEMPTS
    row = database.peek("SELECT type, resource_id, details, actor_key_id FROM audit_events")
    assert row == (
        "webhook_endpoint.disabled",
        "whe_one",
        '{"because": "failing"}',
        None,
    )
    attempts.bodies.clear()
    publish(database, "later")
    made.turn()
    assert attempts.bodies == []


def test_an_endpoint_of_another_server_is_disabled_and_not_sent_to(
    database: SqliteDatabase, sending: tuple[Sender, Answering]
) -> None:
    n = make(database)
    other = Sealer(lambda purpose: purpose.ljust(32, b"!"))
    with database.write() as tx:
        sealed = other.seal("whe_one", Details("one", URL, "whsec_YWJj"))
        endpoint_rows.change(tx, n, sealed, ["model.created"])
    publish(database)
    made, attempts = sending
    made.turn()
    assert attempts.bodies == []
    assert endpoint(database, n).disabled_because is endpoint_rows.DisabledBecause.UNREADABLE


def test_endpoints_of_one_organization_leave_room_for_others(
    database: SqliteDatabase, clock: MovedClock
) -> None:
    for number in range(10):
        make(database, f"busy-{number}")
    make(database, "quiet", "org_b")
    for number in range(50):
        publish(database, str(number))
    publish(database, "of the quiet one", "org_b")
    made = Sender(database, clock, SEALER, Answering())
    due = made._due()
    assert sum(one.organization_id == "org_a" for one, _ in due) == sender.PER_ORGANIZATION_MAX
    assert [of.id for one, of in due if one.organization_id == "org_b"] == ["whe_quiet"]
    seen = {of.n for _, of in due}
    for _ in range(10):
        seen |= {of.n for _, of in made._due()}
    assert len(seen) == 11, "they take turns"


def test_below_the_floor_nothing_is_sent(
    database: SqliteDatabase, sending: tuple[Sender, Answering], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(database)
    publish(database)

    def full(_: object) -> None:
        raise Error(Kind.STORAGE_FULL, "full")

    monkeypatch.setattr(SqliteDatabase, "check_room", full)
    made, attempts = sending
    with pytest.raises(Error, match="full"):
        made.turn()
    assert attempts.bodies == []


def test_an_endpoint_that_is_deleted_while_it_is_sent_to_is_no_error(
    database: SqliteDatabase, sending: tuple[Sender, Answering]
) -> None:
    n = make(database)
    publish(database)
    made, attempts = sending
    made.turn()
    with database.write() as tx:
        outbox.forget(tx, n)
        endpoint_rows.delete(tx, n)
    run_until_idle(made, attempts, 1)
    assert database.peek("SELECT 1 FROM webhook_deliveries") is None


def test_the_old_secret_signs_for_a_day() -> None:
    both = Details("x", URL, "new", "old", old_until=details.OLD_SECRET_MICROS)
    assert both.secrets(details.OLD_SECRET_MICROS - 1) == ["new", "old"]
    assert both.secrets(details.OLD_SECRET_MICROS) == ["new"]


def test_an_organization_without_endpoints_pays_one_look_up_in_an_index(
    database: SqliteDatabase,
) -> None:
    plan = database.peek(
        "EXPLAIN QUERY PLAN SELECT n, event_types, pending FROM webhook_endpoints"
        " WHERE organization_id = 'org_a' AND disabled_at IS NULL ORDER BY n"
    )
    assert plan is not None
    assert "USING INDEX webhook_endpoints_of_organization" in plan[3]
