"""Keys that expire: at the very second that lists show, also where a reading is cached, and for good."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tests.fakes.fence import FakeFence, Floor

from tunewarden import audit
from tunewarden.db.database import Database
from tunewarden.db.sqlite import SqliteDatabase
from tunewarden.errors import Error, Kind
from tunewarden.identity import admin_keys, expiry, key_format, key_rows, keys
from tunewarden.identity.key_format import Expired
from tunewarden.identity.policy import Action, Role
from tunewarden.registry import bases
from tunewarden.registry.bases import BaseKind
from tunewarden.serving.admission import Admissions

START = datetime.fromisoformat("2026-11-22T10:00:00.25+00:00")


class SetClock:
    """A clock that stands still where it is set, forwards or back."""

    def __init__(self) -> None:
        self.moment = START

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()

    def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def database(tmp_path: Path, clock: SetClock) -> Database:
    return SqliteDatabase(tmp_path / "test.sqlite", clock, migrate=True)


def _key(database: Database, seconds: int | None = 60) -> str:
    with database.write() as tx:
        return keys.create(
            tx, organization="org", role=Role.OWNER, name="n", expires_in_seconds=seconds
        )[1]


def _refusal(database: Database, key: str) -> Error:
    with pytest.raises(Error) as caught:
        keys.authenticate(database, key, "req")
    assert caught.value.kind is Kind.UNAUTHENTICATED
    return caught.value


def test_a_key_is_valid_until_the_second_that_lists_show_and_not_in_it(
    database: Database, clock: SetClock
) -> None:
    key = _key(database)
    expires_at = keys.authenticate(database, key, "req").expires_at
    assert expires_at == (int(START.timestamp()) + 60) * 1_000_000
    clock.moment = START.replace(microsecond=0) + timedelta(seconds=60, microseconds=-1)
    caller = keys.authenticate(database, key, "req")
    clock.moment += timedelta(microseconds=1)
    assert "expired" in _refusal(database, key).message
    with pytest.raises(Expired), database.read() as tx:
        keys.authorize_now(tx, caller, Action.READ_MODELS)


def test_a_key_that_was_refused_stays_refused_when_the_clock_is_set_back(
    database: Database, clock: SetClock
) -> None:
    key, never_used = _key(database), _key(database)
    clock.moment += timedelta(hours=1)
    refusal = _refusal(database, key)
    assert isinstance(refusal, Expired)
    expiry.note(database, refusal)
    clock.moment = START
    again = _refusal(database, key)
    assert isinstance(again, Expired)
    assert again.is_noted
    keys.authenticate(database, never_used, "req")  # a control: nobody was refused with it


def test_a_wrong_secret_is_not_told_that_the_key_expired(
    database: Database, clock: SetClock
) -> None:
    key, other = _key(database), _key(database)
    clock.moment += timedelta(hours=1)
    one, two = (key_format.FORMAT.fullmatch(text) for text in (key, other))
    assert one is not None
    assert two is not None
    body, secret = one[2], two[3][: key_format.SECRET_LENGTH]
    forged = f"sk-tw-{body}-{secret}{key_format.checksum(body + secret)}"
    assert "expired" not in _refusal(database, forged).message


def test_an_admin_key_expires_like_any_other(database: Database, clock: SetClock) -> None:
    caller = keys.authenticate(database, _key(database, None), "req")
    with database.write() as tx:
        _, text = admin_keys.create(
            tx,
            organization_id=caller.organization_id,
            user_id=caller.user_id,
            name="n",
            actor=audit.SERVER,
            expires_in_seconds=1,
        )
    presented = key_format.present(text)
    administrator = admin_keys.look_up(database, presented, "req")
    clock.moment += timedelta(seconds=1)
    with pytest.raises(Expired), database.read() as tx:
        admin_keys.check_now(tx, administrator)
    with pytest.raises(Expired) as caught:
        admin_keys.look_up(database, presented, "req")
    expiry.note(database, caught.value)
    clock.moment = START
    with pytest.raises(Expired):
        admin_keys.look_up(database, presented, "req")


@pytest.mark.parametrize("seconds", [0, -1, key_rows.LIFE_SECONDS_MAX + 1])
def test_a_life_of_no_second_or_more_than_a_year_is_refused(
    database: Database, seconds: int
) -> None:
    with pytest.raises(Error) as caught:
        _key(database, seconds)
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, "expires_in_seconds")


class _Client:
    """Asks for the base, as a worker does for a request."""

    def __init__(self, database: Database, clock: SetClock, key: str) -> None:
        self.admissions = Admissions(database, FakeFence(Floor(), clock), clock)
        self.presented = key_format.present(key)
        self.aborted: list[str] = []

    def ask(self) -> Callable[[], object]:
        _, serving = self.admissions.admit(
            "base",
            self.presented,
            lambda tx: keys.holder(tx, self.presented, ""),
            lambda: self.aborted.append("aborted"),
            lambda: 0,
        )
        return lambda: serving.ended_by


def _add_base(database: Database) -> None:
    with database.write() as tx:
        bases.add(
            tx, name="base", kind=BaseKind.REMOTE, location="http://x", engine_model="b", modules={}
        )


def test_a_cached_reading_ends_with_its_key(database: Database, clock: SetClock) -> None:
    _add_base(database)

    async def ask() -> None:
        client = _Client(database, clock, _key(database))
        client.ask()
        stamp = database.stamp()
        client.ask()
        assert database.stamp() == stamp, "nothing was committed: the second reading was cached"
        clock.moment += timedelta(seconds=60)
        with pytest.raises(Expired):
            client.ask()

    asyncio.run(ask())


@pytest.mark.parametrize("seconds", [30, None])
def test_what_runs_with_a_key_ends_with_it(
    database: Database, clock: SetClock, seconds: int | None
) -> None:
    """The control is a key that does not expire."""
    _add_base(database)

    async def run() -> tuple[list[str], object]:
        client = _Client(database, clock, _key(database, seconds))
        ended_by = client.ask()
        await asyncio.sleep(0.4)
        assert client.aborted == []
        clock.moment += timedelta(seconds=30)
        await asyncio.sleep(0.8)
        return client.aborted, ended_by()

    aborted, reason = asyncio.run(run())
    assert (aborted, isinstance(reason, Expired)) == (
        (["aborted"], True) if seconds else ([], False)
    )
