"""The people, projects and invites that the suite's fixed ids are to find, restored before each of its tests."""

from tests.support import servers

from tunewarden import audit
from tunewarden.app import App
from tunewarden.db.database import Tx
from tunewarden.identity import invite_rows, organizations, project_members, users
from tunewarden.identity.policy import ProjectRole, Role

USER, INVITE, PROJECT, CURSOR = "user_id", "invite_id", "project_id", "after"
ADDRESSES = {INVITE: "invited@example.com", CURSOR: "cursor@example.com"}
YEAR_MICROS = 365 * 86_400 * 1_000_000


def restore(app: App) -> None:
    """Have a user, an invite and a project of each fixed id, whatever the test before did with them."""
    with app.database.write() as tx:
        organization = organizations.find_or_create(tx, servers.ORGANIZATION).id
        for user_id in (USER, CURSOR):
            _user(tx, organization, user_id)
        for project_id in (PROJECT, CURSOR):
            _project(tx, organization, project_id)
        for user_id in (USER, CURSOR):
            project_members.set_role(tx, PROJECT, user_id, ProjectRole.MEMBER)
        for invite_id in (INVITE, CURSOR):
            _invite(tx, organization, invite_id)


def _user(tx: Tx, organization_id: str, user_id: str) -> None:
    if tx.row("SELECT 1 FROM users WHERE id = :id", id=user_id) is None:
        made = users.add(
            tx,
            organization_id,
            name=user_id,
            email=f"{user_id}@example.com",
            role=Role.READER,
            actor=audit.SERVER,
        )
        tx.run("UPDATE users SET id = :to WHERE id = :was", to=user_id, was=made)
    tx.run(
        "UPDATE users SET removed_at = NULL, name = :id, email = :email, service_project_id = NULL WHERE id = :id",
        id=user_id,
        email=f"{user_id}@example.com",
    )


def _project(tx: Tx, organization_id: str, project_id: str) -> None:
    tx.run(
        "INSERT INTO projects (id, organization_id, name, is_default, created_at)"
        " VALUES (:id, :organization, :id, 0, :now) ON CONFLICT (id) DO UPDATE SET archived_at = NULL",
        id=project_id,
        organization=organization_id,
        now=tx.now_micros,
    )


def _invite(tx: Tx, organization_id: str, invite_id: str) -> None:
    if tx.row("SELECT 1 FROM invites WHERE id = :id", id=invite_id) is not None:
        return
    made, _ = invite_rows.insert(
        tx,
        organization_id=organization_id,
        email=ADDRESSES[invite_id],
        role=Role.READER,
        grants=(),
        invited_by=USER,
        expires_at=tx.now_micros + YEAR_MICROS,
    )
    tx.run("UPDATE invites SET id = :to WHERE id = :was", to=invite_id, was=made.id)
