"""Keys: their form, and that nothing but the right one is let in."""

import hmac
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunewarden.clock import SystemClock
from tunewarden.db.database import Database
from tunewarden.db.sqlite import SqliteDatabase
from tunewarden.errors import Error, Kind
from tunewarden.identity import key_format, keys, organizations, policy
from tunewarden.identity.policy import ALLOWED, SCOPES, Action, Caller, ProjectRole, Role

quick = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return SqliteDatabase(tmp_path / "test.sqlite", SystemClock(), migrate=True)


@pytest.fixture
def key(database: Database) -> str:
    with database.write() as tx:
        return keys.create(tx, organization="org", role=Role.OWNER, name="n")[1]


def _is_refused(database: Database, text: str) -> bool:
    with pytest.raises(Error) as caught:
        keys.authenticate(database, text, "req")
    assert (caught.value.kind, caught.value.code) == (Kind.UNAUTHENTICATED, "invalid_api_key")
    # At most the kind of key is repeated, never its secret; our own words are no secret.
    said = caught.value.message.replace("(not shown)", "")
    return len(text) <= 6 or text not in said


def test_a_key_says_who_holds_it(database: Database, key: str) -> None:
    caller = keys.authenticate(database, key, "req_1")
    assert (caller.organization_name, caller.role, caller.scopes) == (
        "org",
        Role.OWNER,
        frozenset(),
    )
    assert caller.request_id == "req_1"
    assert caller.actor.key_id == caller.key_id


def test_a_key_has_256_bits_and_its_database_row_none_of_them(database: Database, key: str) -> None:
    match = key_format.FORMAT.fullmatch(key)
    assert match is not None
    secret = match[3][: key_format.SECRET_LENGTH]
    assert len(secret) * 5.954 >= 256
    with database.read() as tx:
        stored = repr([tx.rows(f"SELECT * FROM {name}") for name in ("api_keys", "audit_events")])
    assert secret not in stored
    assert secret[:12] not in stored


def test_every_changed_character_is_refused(database: Database, key: str) -> None:
    for at, character in enumerate(key):
        for other in ("a", "B", "7", "-", "\u00e9", " "):
            if other != character:
                assert _is_refused(database, key[:at] + other + key[at + 1 :])


@pytest.mark.parametrize("change", [str.lower, str.upper, str.title, lambda k: k[:-1],
                                    lambda k: k + "a", lambda k: k + "\n", lambda k: " " + k,
                                    lambda k: k.replace("sk-tw-", ""), lambda k: k + k])  # fmt: skip
def test_a_key_that_is_nearly_right_is_refused(
    database: Database, key: str, change: object
) -> None:
    assert callable(change)
    assert _is_refused(database, change(key))


@quick
@given(text=st.text(max_size=200))
def test_garbage_is_refused(database: Database, text: str) -> None:
    assert _is_refused(database, text)


@quick
@given(body=st.from_regex(re.compile(r"[A-Za-z0-9]{16}-[A-Za-z0-9]{49}"), fullmatch=True))
def test_garbage_of_the_right_form_is_refused(database: Database, body: str) -> None:
    assert _is_refused(database, f"sk-tw-{body}")


def test_a_wrong_checksum_is_refused_before_any_sql(database: Database, key: str) -> None:
    class Untouchable:
        def read(self) -> None:
            raise AssertionError("the database was asked")

    wrong = key[:-1] + ("a" if key[-1] != "a" else "b")
    with pytest.raises(Error):
        keys.authenticate(Untouchable(), wrong, "req")  # type: ignore[arg-type]  # nothing but what it must not ask
    with pytest.raises(AssertionError, match="was asked"):
        keys.authenticate(Untouchable(), key, "req")  # type: ignore[arg-type]  # nothing but what it must not ask


def test_the_right_id_with_anothers_secret_is_refused(database: Database, key: str) -> None:
    with database.write() as tx:
        other = keys.create(tx, organization="org", role=Role.READER, name="other")[1]
    one, two = (key_format.FORMAT.fullmatch(text) for text in (key, other))
    assert one is not None
    assert two is not None
    body, secret = one[2], two[3][: key_format.SECRET_LENGTH]
    assert _is_refused(database, f"sk-tw-{body}-{secret}{key_format.checksum(body + secret)}")


def test_secrets_are_compared_in_constant_time(
    database: Database, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[Any] = []
    original = hmac.compare_digest

    def seen(one: Any, other: Any) -> bool:
        compared.append(one)
        return original(one, other)

    monkeypatch.setattr(hmac, "compare_digest", seen)
    keys.authenticate(database, key, "req")
    assert [type(one) for one in compared] == [str, bytes]
    assert len(compared[1]) == 32


def test_a_revoked_key_is_refused_in_words_like_any_other(database: Database, key: str) -> None:
    caller = keys.authenticate(database, key, "req")
    with database.write() as tx:
        keys.revoke(tx, caller.key_id)
        with pytest.raises(Error, match="revoked"):
            keys.authorize_now(tx, caller, Action.READ_MODELS)
    messages = []
    for text in (key, key[:-6] + "aaaaaa"):
        with pytest.raises(Error) as caught:
            keys.authenticate(database, text, "req")
        messages.append(caught.value.message)
    assert messages[0] == messages[1]


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a/b", "a:b", "é", "a\n"])
def test_an_organization_that_could_not_stand_in_an_id_is_refused(
    database: Database, name: str
) -> None:
    with pytest.raises(Error) as caught, database.write() as tx:
        organizations.find_or_create(tx, name)
    assert caught.value.param == "organization"


@pytest.mark.parametrize("name", ["", "x" * 101, "a\nb", "\x00"])
def test_a_keys_name_is_short_and_printable(database: Database, name: str) -> None:
    with pytest.raises(Error), database.write() as tx:
        keys.create(tx, organization="org", role=Role.OWNER, name=name)
    with database.read() as tx:
        assert keys.list_all(tx) == []


PROJECT_ROLES = [None, *ProjectRole]


@given(role=st.sampled_from(Role), project_role=st.sampled_from(PROJECT_ROLES),
       scopes=st.frozensets(st.sampled_from(sorted(SCOPES))), action=st.sampled_from(Action))  # fmt: skip
def test_scopes_only_ever_take_away(
    role: Role, project_role: ProjectRole | None, scopes: frozenset[str], action: Action
) -> None:
    def caller(held: frozenset[str]) -> Caller:
        return Caller(
            key_id="k",
            user_id="u",
            organization_id="o",
            organization_name="o",
            project_id="p",
            role=role,
            project_role=project_role,
            scopes=held,
            request_id="r",
        )

    unrestricted = policy.allows(caller(frozenset()), action)
    assert unrestricted == (action in ALLOWED[role, project_role])
    if policy.allows(caller(scopes), action):
        assert unrestricted
    if scopes == {action.value}:
        assert policy.allows(caller(scopes), action) == unrestricted


def test_only_an_owner_of_the_organization_deletes() -> None:
    allowed = {roles for roles, actions in ALLOWED.items() if Action.DELETE in actions}
    assert allowed == {(Role.OWNER, project_role) for project_role in PROJECT_ROLES}


def test_members_write_viewers_read_and_use_and_who_is_in_no_project_does_nothing() -> None:
    viewer = ALLOWED[Role.READER, ProjectRole.VIEWER]
    assert Action.USE_MODELS in viewer
    assert not {action for action in viewer if action.value.endswith("write")}
    assert ALLOWED[Role.READER, ProjectRole.MEMBER] - viewer == {
        Action.WRITE_MODELS,
        Action.WRITE_FILES,
        Action.WRITE_JOBS,
    }
    assert ALLOWED[Role.READER, None] == frozenset()
