"""Signing in to the console at a real identity provider: who gets a session, what ends it, and what is refused."""

import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.support import administration, identity_provider, servers
from tests.support.console import hidden
from tests.support.identity_provider import Person
from tests.support.servers import ORGANIZATION, Server, WithoutTorch

from tunewarden import audit
from tunewarden.identity import key_rotation, key_rows, organizations, project_members, projects
from tunewarden.identity.policy import ProjectRole, Role
from tunewarden.identity.sso import KEY_NAME

OWNER, MEMBER = "ada@example.com", "mel@example.com"
# Each is asked often enough that both workers answer.
TIMES = 8


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("sso")
    (place / "secret").write_text(identity_provider.SECRET + "\n")
    with identity_provider.running() as issuer:
        settings = {
            "sso_issuer": issuer,
            "sso_client_id": identity_provider.CLIENT_ID,
            "sso_client_secret_file": place / "secret",
            "sso_organization": ORGANIZATION,
        }
        data = place / "data"
        with servers.serving(
            data, workers=2, settings=settings, local_base=True, kind=WithoutTorch
        ) as running:
            _add(running, OWNER, Role.OWNER)
            _add(running, MEMBER, Role.READER, ProjectRole.MEMBER)
            yield running


def _add(server: Server, email: str, role: Role, project_role: ProjectRole | None = None) -> str:
    user = administration.make_user(server.app, email, email=email, role=role)
    if project_role is not None:
        with server.app.database.write() as tx:
            organization = organizations.find(tx, ORGANIZATION)
            default = projects.default_of(tx, organization)
            project_members.set_role(tx, default, user, project_role)
    return user


def _events(server: Server, kind: str) -> list[tuple[str, str]]:
    with server.app.database.read() as tx:
        rows = tx.rows(
            "SELECT details, actor_user_id FROM audit_events WHERE type = :type", type=kind
        )
        return [(str(row[0]), str(row[1])) for row in rows]


def test_a_person_signs_in_and_is_led_where_they_wanted(server: Server) -> None:
    person = Person(server)
    assert "/console/sso" in person.get("/console/sign-in").body.decode()
    reply = person.sign_in(OWNER.upper(), "/console/models?state=active")
    assert (reply.status, _location(reply)) == (
        303,
        "/console/models?state=active",
    ), reply.body
    assert {person.get("/console").status for _ in range(TIMES)} == {200}
    # Not below /v1, and the attempt is over.
    assert person.get("/v1/models").status == 401
    assert not any(name.endswith("-sso") for name in person.cookies)
    assert ('{"by": "sso"}', _user(server, OWNER)) in _events(server, "login.succeeded")


def _location(reply: servers.Reply) -> str | None:
    return reply.header("location")


def _user(server: Server, email: str) -> str:
    with server.app.database.read() as tx:
        row = tx.row("SELECT id FROM users WHERE email = :email", email=email)
        assert row is not None
        return str(row[0])


def test_what_the_provider_is_asked_is_a_code_with_pkce_and_its_way_back_is_ours(
    server: Server,
) -> None:
    asked = [parse_qs(urlsplit(Person(server).begin()).query) for _ in range(2)]
    one, other = asked
    assert one["response_type"] == ["code"]
    assert one["code_challenge_method"] == ["S256"]
    assert one["redirect_uri"] == ["http://{}:{}/console/sso/callback".format(*server.address)]
    assert all(one[name] != other[name] for name in ("state", "nonce", "code_challenge"))
    for name in ("state", "nonce", "code_challenge"):
        assert re.fullmatch(r"[\w-]{43}", one[name][0])


@pytest.mark.parametrize("elsewhere", ["https://evil.example", "//evil.example", "/v1/models"])
def test_signing_in_leads_nowhere_but_to_the_console(server: Server, elsewhere: str) -> None:
    assert _location(Person(server).sign_in(OWNER, elsewhere)) == "/console"


@pytest.mark.parametrize(
    ("changed", "why"),
    [("code_challenge", b"refused this sign-in (status 400)"), ("nonce", b"InvalidClaimError")],
)
def test_a_code_for_another_verifier_or_nonce_signs_nobody_in(
    server: Server, changed: str, why: bytes
) -> None:
    person = Person(server)
    address = person.begin()
    was = parse_qs(urlsplit(address).query)[changed][0]
    path = person.at_provider(address.replace(was, "x" * 43), OWNER)
    reply = person.get(path)
    assert reply.status == 401
    assert why in reply.body
    assert person.get("/console").status == 303


@pytest.mark.parametrize("how", ["state", "issuer", "no issuer", "no code", "another browser"])
def test_what_comes_back_otherwise_signs_nobody_in(server: Server, how: str) -> None:
    person = Person(server)
    path = person.at_provider(person.begin(), OWNER)
    changes = {
        "state": (r"state=[^&]+", "state=x"),
        "issuer": (r"iss=[^&]+", "iss=https%3A%2F%2Fevil.example"),
        "no issuer": (r"&iss=[^&]+", ""),
        "no code": (r"code=[^&]+", "error=access_denied"),
    }
    if how in changes:
        changed = re.sub(*changes[how], path)
        assert changed != path
        path = changed
    back = Person(server) if how == "another browser" else person
    assert back.get(path).status == 401
    assert back.get("/console").status == 303


def test_a_code_signs_in_once(server: Server) -> None:
    person = Person(server)
    path = person.at_provider(person.begin(), OWNER)
    kept = dict(person.cookies)
    assert person.get(path).status == 303
    person.cookies = kept
    assert person.get(path).status == 401


@pytest.mark.parametrize("login", ["nobody@example.com", f"unverified:{OWNER}", "no address"])
def test_who_is_no_user_with_a_verified_address_is_refused_and_that_is_recorded(
    server: Server, login: str
) -> None:
    before = len(_events(server, "request.refused"))
    person = Person(server)
    reply = person.sign_in(login)
    assert (reply.status, person.get("/console").status) == (403, 303)
    assert len(_events(server, "request.refused")) == before + 1
    assert all(
        "GET /console/sso/callback" in said for said, _ in _events(server, "request.refused")
    )


def test_who_is_in_no_project_is_told_so(server: Server) -> None:
    _add(server, "new@example.com", Role.READER)
    reply = Person(server).sign_in("new@example.com")
    assert reply.status == 403
    assert b"in no project" in reply.body


def test_a_session_ends_at_once_with_its_user_on_each_worker(server: Server) -> None:
    email = "gone@example.com"
    user = _add(server, email, Role.READER, ProjectRole.MEMBER)
    person = Person(server)
    assert person.sign_in(email).status == 303
    assert {person.get("/console/models").status for _ in range(TIMES)} == {200}
    admin = administration.make_admin_key(server.app)
    assert administration.ask(server, "DELETE", f"/users/{user}", admin).status == 200
    assert {person.get("/console/models").status for _ in range(TIMES)} == {303}
    assert person.sign_in(email).status == 403


def test_a_session_may_do_what_its_user_may_do_now(server: Server) -> None:
    model = server.make_model().id
    page = f"/console/models/{model}/delete"
    email = "was-owner@example.com"
    user = _add(server, email, Role.OWNER)
    person = Person(server)
    person.sign_in(email)
    assert {person.get(page).status for _ in range(TIMES)} == {200}
    with server.app.database.write() as tx:
        tx.run("UPDATE users SET role = 'reader' WHERE id = :id", id=user)
    assert {person.get(page).status for _ in range(TIMES)} == {403}


def test_all_sessions_of_a_person_belong_to_one_key_that_nobody_can_use_or_replace(
    server: Server,
) -> None:
    for _ in range(2):
        Person(server).sign_in(MEMBER)
    person = Person(server)
    assert person.sign_in(MEMBER).status == 303
    with server.app.database.write() as tx:
        rows = tx.rows(
            "SELECT id FROM api_keys WHERE name = :name AND user_id = :user",
            name=KEY_NAME,
            user=_user(server, MEMBER),
        )
        [(key_id,)] = rows
        key = key_rows.find(tx, key_id)
        assert key is not None
        with pytest.raises(Exception, match="single sign-on"):
            key_rotation.rotate(
                tx, key, overlap_seconds=0, expires_in_seconds=None, actor=audit.SERVER
            )
        key_rows.revoke(tx, key, audit.SERVER)
    assert {person.get("/console").status for _ in range(TIMES)} == {303}
    assert person.sign_in(MEMBER).status == 303


def test_before_deleting_a_person_proves_anew_at_the_provider_who_it_is(server: Server) -> None:
    model = server.make_model().id
    page = f"/console/models/{model}/delete"
    person = Person(server)
    person.sign_in(OWNER)
    assert "/console/sso/proof" not in person.get(page).body.decode()
    grow_old(server)
    shown = person.get(page).body.decode()
    assert "/console/sso/proof?next=" in shown
    form = hidden(shown) | {"confirmation": model}
    refused = person.post(page, form)
    assert refused.status == 403
    assert server.get(f"/v1/models/{model}", key=server.owner_key).status == 200
    # The provider would let in who was there before; it is asked for a new login.
    address = person.begin(f"/console/sso/proof?next={page}")
    asked = parse_qs(urlsplit(address).query)
    assert (asked["prompt"], asked["max_age"]) == (["login"], ["0"])
    assert _location(person.get(person.at_provider(address, OWNER))) == page
    again = hidden(person.get(page).body.decode()) | {"confirmation": model}
    assert person.post(page, again).status == 303
    assert server.get(f"/v1/models/{model}", key=server.owner_key).status == 404


def test_the_proof_of_another_person_or_of_long_ago_is_none(server: Server) -> None:
    person = Person(server)
    person.sign_in(OWNER)
    grow_old(server)
    other = person.get(person.at_provider(person.begin("/console/sso/proof"), MEMBER))
    assert other.status == 403
    page = f"/console/models/{server.make_model().id}/delete"
    assert "/console/sso/proof?next=" in person.get(page).body.decode()
    assert Person(server).get("/console/sso/proof").status == 303


def grow_old(server: Server) -> None:
    """Let every proof of who somebody is be of an hour ago."""
    with server.app.database.write() as tx:
        tx.run("UPDATE sessions SET proof_at = proof_at - 3600000000")


def test_no_code_token_or_secret_is_in_the_log(server: Server) -> None:
    person = Person(server)
    path = person.at_provider(person.begin(), OWNER)
    code = parse_qs(urlsplit(path).query)["code"][0]
    person.get(path)
    person.get(path)
    log = server.log()
    assert code not in log
    assert identity_provider.SECRET not in log


def test_a_key_of_the_api_signs_in_as_before(server: Server) -> None:
    person = Person(server)
    assert person.post("/console/sign-in", {"key": server.owner_key, "next": ""}).status == 303
    grow_old(server)
    page = person.get(f"/console/models/{server.make_model().id}/delete").body.decode()
    assert 'name="key"' in page
    assert "/console/sso/proof" not in page
    # At the provider, a session by key proves nothing.
    address = person.begin("/console/sso/proof")
    assert person.get(person.at_provider(address, OWNER)).status == 403


def test_what_makes_way_for_a_deletion_asks_who_it_is_too(server: Server) -> None:
    person = Person(server)
    person.sign_in(OWNER)
    grow_old(server)
    again = person.post("/console/retention/resume", {"nothing": ""})
    assert again.status == 403
    assert b"/console/sso/proof" in again.body
    assert b'name="key"' not in again.body
    person.get(person.at_provider(person.begin("/console/sso/proof"), OWNER))
    assert b"/console/sso/proof" not in person.post("/console/retention/resume", {"x": ""}).body
