"""Who is in which project, with which role."""

from collections.abc import Sequence
from dataclasses import dataclass

from tunewarden import audit
from tunewarden.audit import Actor
from tunewarden.db import cursors
from tunewarden.db.database import Database, Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import addresses, admin_keys, key_rows, projects, users
from tunewarden.identity.admin_keys import Administrator
from tunewarden.identity.policy import ProjectRole, Role
from tunewarden.ids import Prefix

_COLUMNS = "u.id, u.name, u.email, m.role, m.added_at"
# People: service accounts are members of their project too, and have a list of their own.
_MEMBERS = (
    "FROM project_members m JOIN users u ON u.id = m.user_id"
    " WHERE m.project_id = :project AND u.service_project_id IS NULL AND u.removed_at IS NULL"
)
PROJECTS_SHOWN_MAX = 100  # with a user
# Bounded for each user, which one statement with one limit would not be.
_PROJECTS_OF_ONE = (
    "SELECT * FROM (SELECT m.user_id, m.project_id, p.name, m.role FROM project_members m"
    " JOIN projects p ON p.id = m.project_id"
    " WHERE m.user_id = {user} AND p.archived_at IS NULL ORDER BY m.project_id LIMIT :most) x"
)
_LIST = cursors.ByTime(_COLUMNS, _MEMBERS, "m.added_at", "m.user_id", may_be_gone=Prefix.USER)


@dataclass(frozen=True, slots=True)
class Member:
    """A person in a project; `added_at` is in microseconds."""

    user_id: str
    name: str
    email: str | None
    role: ProjectRole
    added_at: int


@dataclass(frozen=True, slots=True)
class Membership:
    """A project that a person is in, and the role there."""

    project_id: str
    project_name: str
    role: ProjectRole


def page(
    database: Database,
    administrator: Administrator,
    project_id: str,
    *,
    after: str | None,
    limit: int,
) -> list[Member]:
    """Return up to `limit` people of a project, newest first.

    Raises Error(UNAUTHENTICATED, NOT_FOUND), Error(INVALID) for an unknown cursor.
    """
    with database.read() as tx:
        admin_keys.check_now(tx, administrator)
        projects.find(tx, administrator.organization_id, project_id)
        rows = _LIST.page(tx, after=after, limit=limit, project=project_id)
    return [_of_row(row) for row in rows]


def projects_of(tx: Tx, user_ids: Sequence[str]) -> dict[str, list[Membership]]:
    """Return the active projects of some people, at most a page of them; of each PROJECTS_SHOWN_MAX at most."""
    found: dict[str, list[Membership]] = {user_id: [] for user_id in user_ids}
    if not found:
        return found
    names = {f"user{place}": user_id for place, user_id in enumerate(found)}
    of_each = " UNION ALL ".join(_PROJECTS_OF_ONE.format(user=f":{name}") for name in names)
    rows = tx.rows(
        f"SELECT user_id, project_id, name, role FROM ({of_each}) x",
        most=PROJECTS_SHOWN_MAX,
        **names,
    )
    for user_id, project_id, name, role in rows:
        found[user_id].append(Membership(project_id, name, ProjectRole(role)))
    return found


def retrieve(
    database: Database, administrator: Administrator, project_id: str, user_id: str
) -> Member:
    """Return a person in a project. Raises Error(UNAUTHENTICATED, NOT_FOUND)."""
    with database.read() as tx:
        admin_keys.check_now(tx, administrator)
        projects.find(tx, administrator.organization_id, project_id)
        return _find(tx, project_id, user_id)


def add(
    database: Database,
    administrator: Administrator,
    project_id: str,
    *,
    user_id: str | None,
    email: str | None,
    role: ProjectRole,
) -> Member:
    """Add a person of the organization, by id or address, to a project. Keys from an earlier membership stay unusable.

    Raises Error(UNAUTHENTICATED, NOT_FOUND), Error(INVALID) without one of both, Error(CONFLICT) for who is in it.
    """
    if (user_id is None) is (email is None):
        said = "Give one of 'user_id' and 'email'."
        raise Error(Kind.INVALID, said, param="user_id")
    organization = administrator.organization_id
    with database.write() as tx:
        admin_keys.check_now(tx, administrator)
        projects.find_active(tx, organization, project_id)
        if email is not None:
            found = users.find_by_address(tx, organization, addresses.normalized(email))
            if found is None:
                raise Error(
                    Kind.NOT_FOUND,
                    "No user of this organization has this address. Invite them with invites.create.",
                    param="email",
                )
            user_id = found.id
        assert user_id is not None, "one of both is there"
        user = users.find(tx, organization, user_id)
        if _row(tx, project_id, user.id) is not None:
            raise Error(
                Kind.CONFLICT,
                f"The user '{user.id}' is in this project already. Change the role with an update.",
                param="user_id",
                code="already_in_project",
            )
        if user.role is not Role.OWNER:
            # From an earlier membership: they could do nothing, and nobody expects that they can again.
            key_rows.revoke_all_of(tx, user.id, administrator.actor, project_id=project_id)
        assign(
            tx,
            organization,
            project_id,
            user_id=user.id,
            role=role,
            actor=administrator.actor,
        )
        return _find(tx, project_id, user.id)


def update(
    database: Database,
    administrator: Administrator,
    project_id: str,
    user_id: str,
    role: ProjectRole | None,
) -> Member:
    """Give a person in a project another role there; None leaves it. Raises Error(UNAUTHENTICATED, NOT_FOUND, CONFLICT)."""
    organization = administrator.organization_id
    with database.write(below_floor=True) as tx:
        admin_keys.check_now(tx, administrator)
        projects.find_active(tx, organization, project_id)
        member = _find(tx, project_id, user_id)
        if role is not None and role is not member.role:
            assign(
                tx,
                organization,
                project_id,
                user_id=user_id,
                role=role,
                actor=administrator.actor,
            )
        return _find(tx, project_id, user_id)


def remove(database: Database, administrator: Administrator, project_id: str, user_id: str) -> None:
    """Remove a person from a project; keys of it that the person has can do nothing then, unless an Owner's.

    Raises Error(UNAUTHENTICATED, NOT_FOUND).
    """
    with database.write(below_floor=True) as tx:
        admin_keys.check_now(tx, administrator)
        projects.find(tx, administrator.organization_id, project_id)
        _find(tx, project_id, user_id)
        _unassign(tx, administrator.organization_id, project_id, user_id, administrator.actor)


def own_project_ids(tx: Tx, user_id: str) -> list[str]:
    """Return the ids of the projects that a user is in."""
    rows = tx.rows(
        "SELECT project_id FROM project_members WHERE user_id = :user ORDER BY project_id",
        user=user_id,
    )
    return [str(project_id) for (project_id,) in rows]


def remove_everywhere(tx: Tx, organization_id: str, user_id: str, actor: Actor) -> None:
    """End all memberships of a user."""
    for project_id in own_project_ids(tx, user_id):
        _unassign(tx, organization_id, project_id, user_id, actor)


def assign(
    tx: Tx, organization_id: str, project_id: str, *, user_id: str, role: ProjectRole, actor: Actor
) -> None:
    """Give a user a role in a project, and record it."""
    set_role(tx, project_id, user_id, role)
    audit.record(
        tx,
        audit.EventType.ROLE_ASSIGNED,
        organization_id=organization_id,
        actor=actor.about(project_id),
        resource_id=user_id,
        in_project=project_id,
        role=role.value,
    )


def set_role(tx: Tx, project_id: str, user_id: str, role: ProjectRole) -> None:
    """Give a user a role in a project, in place of the one that the user may have there."""
    tx.run(
        "INSERT INTO project_members (project_id, user_id, role, added_at)"
        " VALUES (:project, :user, :role, :now)"
        " ON CONFLICT (project_id, user_id) DO UPDATE SET role = excluded.role",
        project=project_id,
        user=user_id,
        role=role.value,
        now=tx.now_micros,
    )


def unset_role(tx: Tx, project_id: str, user_id: str) -> None:
    """Take the role in a project from a user who may have one there."""
    tx.run(
        "DELETE FROM project_members WHERE project_id = :project AND user_id = :user",
        project=project_id,
        user=user_id,
    )


def _unassign(tx: Tx, organization_id: str, project_id: str, user_id: str, actor: Actor) -> None:
    unset_role(tx, project_id, user_id)
    audit.record(
        tx,
        audit.EventType.ROLE_UNASSIGNED,
        organization_id=organization_id,
        actor=actor.about(project_id),
        resource_id=user_id,
        in_project=project_id,
    )


def _find(tx: Tx, project_id: str, user_id: str) -> Member:
    row = _row(tx, project_id, user_id)
    if row is None:
        raise users.missing(user_id)
    return _of_row(row)


def _row(tx: Tx, project_id: str, user_id: str) -> Row | None:
    return tx.row(
        f"SELECT {_COLUMNS} {_MEMBERS} AND m.user_id = :user", project=project_id, user=user_id
    )


def _of_row(row: Row) -> Member:
    return Member(row[0], row[1], row[2], ProjectRole(row[3]), row[4])
