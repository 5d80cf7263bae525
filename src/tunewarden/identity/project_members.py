"""Who is in which project, with which role."""

from dataclasses import dataclass

from tunewarden.db import cursors
from tunewarden.db.database import Database, Row, Tx
from tunewarden.identity import admin_keys, projects
from tunewarden.identity.admin_keys import Administrator
from tunewarden.identity.policy import ProjectRole

_COLUMNS = "u.id, u.name, u.email, m.role, m.added_at"
# People: service accounts are members of their project too, and have a list of their own.
_MEMBERS = (
    "FROM project_members m JOIN users u ON u.id = m.user_id"
    " WHERE m.project_id = :project AND u.service_project_id IS NULL AND u.removed_at IS NULL"
)


@dataclass(frozen=True, slots=True)
class Member:
    """A person in a project; `added_at` is in microseconds."""

    user_id: str
    name: str
    email: str | None
    role: ProjectRole
    added_at: int


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
        time, user_id = cursors.time_of(
            tx.row,
            f"SELECT m.added_at {_MEMBERS} AND m.user_id = :after",
            after=after,
            project=project_id,
        )
        rows = tx.rows(
            f"SELECT {_COLUMNS} {_MEMBERS} AND (m.added_at, m.user_id) < (:time, :user)"
            " ORDER BY m.added_at DESC, m.user_id DESC LIMIT :limit",
            project=project_id,
            time=time,
            user=user_id,
            limit=limit,
        )
    return [_of_row(row) for row in rows]


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


def _of_row(row: Row) -> Member:
    return Member(row[0], row[1], row[2], ProjectRole(row[3]), row[4])
