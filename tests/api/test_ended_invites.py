"""How invites end, and what is left of an address then."""

import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import openai
import pytest
from openai import OpenAI
from tests.support import administration, links, servers
from tests.support.administration import make_user
from tests.support.servers import Server, WithoutTorch

from tunewarden.clock import to_micros
from tunewarden.identity import invite_rows, invites, organizations, users
from tunewarden.identity.policy import Role

KEPT, SECOND = invites.KEPT_SECONDS, 1_000_000
_numbers = count()


@pytest.fixture
def organization() -> str:
    return f"ended-invites-{next(_numbers)}"


@pytest.fixture
def admin(server: Server, organization: str) -> Iterator[OpenAI]:
    key = administration.make_admin_key(server.app, organization)
    with administration.client(server, key) as client:
        yield client


@pytest.fixture(autouse=True)
def _unhurried() -> Iterator[None]:
    """The pages of links answer so many a second only: leave the next test its share."""
    yield
    time.sleep(0.3)


def test_who_became_a_user_otherwise_cannot_accept(
    server: Server, admin: OpenAI, organization: str
) -> None:
    path = links.of(admin.admin.organization.invites.create(email="a@example.com", role="owner"))
    make_user(server.app, "ada", email="a@example.com", organization=organization)
    assert links.accepted(server, path).status == 409
    assert len(list(admin.admin.organization.users.list(emails=["a@example.com"]))) == 1


def test_an_expired_invite_says_so_and_its_link_does_nothing(server: Server, admin: OpenAI) -> None:
    resource = admin.admin.organization.invites
    invite = resource.create(email="late@example.com", role="reader")
    with server.app.database.write() as tx:
        tx.run(
            "UPDATE invites SET expires_at = :now WHERE id = :id", now=tx.now_micros, id=invite.id
        )
    assert resource.retrieve(invite.id).status == "expired"
    assert [
        links.opened(server, links.of(invite)).status,
        links.accepted(server, links.of(invite)).status,
    ] == [404] * 2
    # The address can be invited again.
    assert resource.create(email="late@example.com", role="reader").status == "pending"
    assert resource.delete(invite.id).deleted


@pytest.mark.parametrize("how", ["demoted", "removed"])
def test_what_an_owner_invited_is_withdrawn_with_the_owner(
    server: Server, admin: OpenAI, organization: str, how: str
) -> None:
    app, users = server.app, admin.admin.organization.users
    leaving = make_user(app, "leaving", role=Role.OWNER, organization=organization)
    key = administration.make_admin_key(app, organization, user_id=leaving)
    with administration.client(server, key) as theirs:
        invite = theirs.admin.organization.invites.create(email="me@home.example", role="owner")
    assert links.opened(server, links.of(invite)).status == 200
    if how == "demoted":
        users.update(leaving, role="reader")
    else:
        users.delete(leaving)
    assert links.accepted(server, links.of(invite)).status == 404
    with pytest.raises(openai.NotFoundError):
        admin.admin.organization.invites.retrieve(invite.id)


def test_the_address_of_an_accepted_invite_goes_with_its_user(
    server: Server, admin: OpenAI
) -> None:
    resource = admin.admin.organization
    invite = resource.invites.create(email="forget.me@example.com", role="reader")
    links.accepted(server, links.of(invite))
    (user,) = resource.users.list(emails=["forget.me@example.com"])
    resource.users.delete(user.id)
    with pytest.raises(openai.NotFoundError):
        resource.invites.retrieve(invite.id)
    left = "SELECT COUNT(*) FROM invites WHERE email = 'forget.me@example.com'"
    assert server.app.database.peek(left) == (0,)


def test_neither_log_nor_rows_have_a_links_token_or_an_events_address(
    server: Server, admin: OpenAI
) -> None:
    invite = admin.admin.organization.invites.create(email="quiet@example.com", role="reader")
    path = links.of(invite)
    links.opened(server, path)
    links.accepted(server, path, "Quiet Name")
    secret = path[-43:]
    assert secret not in server.log() + server.printed()
    files = [one for one in server.data.rglob("*") if one.is_file()]
    assert not any(secret.encode() in one.read_bytes() for one in files)
    with server.app.database.read() as tx:
        told = str(tx.rows("SELECT * FROM audit_events"))
    assert invite.id in told
    assert "invite.accepted" in told
    assert "quiet" not in told
    assert "Quiet" not in told


def test_expired_invites_go_with_their_addresses_after_thirty_days(
    server: Server, admin: OpenAI, organization: str
) -> None:
    resource, app = admin.admin.organization.invites, server.app
    _, late, old, accepted = (
        resource.create(email=f"{name}@example.com", role="reader")
        for name in ("pending", "late", "old", "accepted")
    )
    links.accepted(server, links.of(accepted))
    with app.database.write() as tx:
        now = tx.now_micros
        for invite, ago in ((late, KEPT - 10), (old, KEPT + 10), (accepted, 2 * KEPT)):
            expired_at = now - ago * SECOND
            tx.run(
                "UPDATE invites SET expires_at = :at WHERE id = :id", at=expired_at, id=invite.id
            )
    assert invites.forget_expired(app.database, now) >= 1
    assert {one.email: one.status for one in resource.list()} == {
        "accepted@example.com": "accepted",  # it goes with its user
        "late@example.com": "expired",
        "pending@example.com": "pending",
    }
    event = app.database.peek(
        "SELECT type, actor_user_id FROM audit_events WHERE resource_id = :id ORDER BY n DESC",
        id=old.id,
    )
    assert event == ("invite.deleted", None), "the server itself"
    assert invites.forget_expired(app.database, now) == 0


def test_more_expired_invites_than_one_transaction_takes_go_too(
    server: Server, admin: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invites, "FORGOTTEN_AT_ONCE", 2)
    for number in range(5):
        admin.admin.organization.invites.create(email=f"{number}@example.com", role="reader")
    later = to_micros(server.app.clock.now()) + (invites.LIFE_SECONDS + KEPT + 10) * SECOND
    assert invites.forget_expired(server.app.database, later) >= 5
    assert list(admin.admin.organization.invites.list()) == []


def test_the_runner_forgets_expired_invites(tmp_path: Path) -> None:
    data = tmp_path / "data"
    servers.prepare_local_base(data)
    app = servers.open_data(data)
    with app.database.write() as tx:
        organization = organizations.find(tx, servers.ORGANIZATION)
        owner = users.oldest_owner(tx, organization)
        assert owner is not None
        for email, ago in (("old@example.com", 2 * KEPT), ("new@example.com", 0)):
            invite_rows.insert(
                tx,
                organization_id=organization,
                email=email,
                role=Role.READER,
                grants=(),
                invited_by=owner,
                expires_at=tx.now_micros - ago * SECOND,
            )
    with servers.serving(data, kind=WithoutTorch):

        def left() -> list[str]:
            with app.database.read() as tx:
                return [str(row[0]) for row in tx.rows("SELECT email FROM invites")]

        servers.wait_until(lambda: "old@example.com" not in left(), "the runner deletes it")
        assert left() == ["new@example.com"]
