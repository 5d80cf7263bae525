"""Users of an organization: people, and the service accounts of its projects. What this module lists are people."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tunewarden import audit, ids
from tunewarden.audit import Actor
from tunewarden.db import cursors
from tunewarden.db.database import Database, Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import admin_keys
from tunewarden.identity.admin_keys import Administrator
from tunewarden.identity.policy import Role
from tunewarden.ids import Prefix, mint

NAME_LENGTH_MAX = 100
_COLUMNS = "id, name, email, role, created_at"
_PEOPLE = "organization_id = :organization AND removed_at IS NULL AND service_project_id IS NULL"
_LIST = cursors.ByTime(
    _COLUMNS,
    f"FROM users WHERE {_PEOPLE}",
    cursors="FROM users WHERE organization_id = :organization AND service_project_id IS NULL",
)


@dataclass(frozen=True, slots=True)
class User:
    """A person; `email` is None for one that the operator made with a key. `added_at` is in microseconds."""

    id: str
    name: str
    email: str | None
    role: Role
    added_at: int


def page(
    database: Database,
    administrator: Administrator,
    *,
    emails: Iterable[str] = (),
    after: str | None,
    limit: int,
) -> list[User]:
    """Return up to `limit` people of the organization, newest first; with `emails`, only those with one of them.

    Raises Error(UNAUTHENTICATED), Error(INVALID) for an unknown cursor.
    """
    organization = administrator.organization_id
    wanted = {address.strip().lower() for address in emails}
    with database.read() as tx:
        admin_keys.check_now(tx, administrator)
        if wanted:
            last = _LIST.position(tx, after, organization=organization)
            found = [user for one in wanted if (user := _with_address(tx, organization, one))]
            found.sort(key=lambda user: (user.added_at, user.id), reverse=True)
            return [user for user in found if (user.added_at, user.id) < last][:limit]
        rows = _LIST.page(tx, after=after, limit=limit, organization=organization)
    return [_of_row(row) for row in rows]


def retrieve(database: Database, administrator: Administrator, user_id: str) -> User:
    """Return a person of the organization. Raises Error(UNAUTHENTICATED, NOT_FOUND)."""
    with database.read() as tx:
        admin_keys.check_now(tx, administrator)
        return find(tx, administrator.organization_id, user_id)


def find(tx: Tx, organization_id: str, user_id: str) -> User:
    """Return a person of an organization. Raises Error(NOT_FOUND), the same for unknown, foreign and removed ones."""
    row = tx.row(
        f"SELECT {_COLUMNS} FROM users WHERE id = :id AND {_PEOPLE}",
        id=user_id,
        organization=organization_id,
    )
    if row is None:
        raise missing(user_id)
    return _of_row(row)


def find_by_address(tx: Tx, organization_id: str, email: str) -> User | None:
    """Return the person of an organization with this address, which is in lower case, or None."""
    return _with_address(tx, organization_id, email)


def check_is_owner(tx: Tx, organization_id: str, user_id: str) -> None:
    """Check that a user is an Owner of an organization. Raises Error(INVALID), Error(NOT_FOUND) as `find`."""
    row = tx.row(
        "SELECT role FROM users WHERE id = :id AND organization_id = :organization AND removed_at IS NULL",
        id=user_id,
        organization=organization_id,
    )
    if row is None:
        raise missing(user_id)
    if row[0] != Role.OWNER.value:
        raise Error(
            Kind.INVALID,
            f"The user '{user_id}' is not an Owner of the organization, and only Owners have admin keys. Make the user an"
            " Owner first; a service account cannot be one.",
            param="user_id",
            code="user_not_owner",
        )


def oldest_owner(tx: Tx, organization_id: str) -> str | None:
    """Return the id of the Owner of an organization who was added first, or None if it has none."""
    row = tx.row(
        f"SELECT id FROM users WHERE role = 'owner' AND {_PEOPLE} ORDER BY created_at, id LIMIT 1",
        organization=organization_id,
    )
    return None if row is None else str(row[0])


def missing(user_id: str) -> Error:
    """Return the one answer for a user who is unknown, foreign or removed (I9)."""
    return Error(Kind.NOT_FOUND, f"No such user: '{ids.shown(user_id)}'.", param="user_id")


def find_or_add(tx: Tx, organization_id: str, name: str, role: Role, actor: Actor) -> str:
    """Return the id of the user with this name and role and without an address, added if there is none.

    For keys that the operator makes on the server's machine, which name their users.
    """
    row = tx.row(
        "SELECT id FROM users WHERE organization_id = :organization AND name = :name AND role = :role"
        " AND email IS NULL AND service_project_id IS NULL AND removed_at IS NULL",
        organization=organization_id,
        name=name,
        role=role.value,
    )
    if row is not None:
        return str(row[0])
    return add(tx, organization_id, name=name, email=None, role=role, actor=actor)


def add(
    tx: Tx, organization_id: str, *, name: str, email: str | None, role: Role, actor: Actor
) -> str:
    """Add a person and return the id."""
    user_id = mint(Prefix.USER)
    tx.run(
        "INSERT INTO users (id, organization_id, name, email, role, created_at)"
        " VALUES (:id, :organization, :name, :email, :role, :now)",
        id=user_id,
        organization=organization_id,
        name=name,
        email=email,
        role=role.value,
        now=tx.now_micros,
    )
    audit.record(
        tx,
        audit.EventType.USER_ADDED,
        organization_id=organization_id,
        actor=actor,
        resource_id=user_id,
        role=role.value,
    )
    return user_id


def set_role(tx: Tx, organization_id: str, user: User, role: Role, actor: Actor) -> User:
    """Give a person another role in the organization. Raises Error(CONFLICT) if no Owner would be left."""
    if role is user.role:
        return user
    _check_an_owner_is_left(tx, organization_id, user)
    tx.run("UPDATE users SET role = :role WHERE id = :id", role=role.value, id=user.id)
    audit.record(
        tx,
        audit.EventType.USER_UPDATED,
        organization_id=organization_id,
        actor=actor,
        resource_id=user.id,
        role=role.value,
    )
    return replace(user, role=role)


def remove(tx: Tx, organization_id: str, user: User, actor: Actor) -> None:
    """Remove a person: name and address are cleared, the id stays. Raises Error(CONFLICT) if no Owner would be left."""
    _check_an_owner_is_left(tx, organization_id, user)
    tx.run(
        "UPDATE users SET name = '', email = NULL, removed_at = :now WHERE id = :id",
        now=tx.now_micros,
        id=user.id,
    )
    audit.record(
        tx,
        audit.EventType.USER_DELETED,
        organization_id=organization_id,
        actor=actor,
        resource_id=user.id,
    )


def add_service_account(
    tx: Tx, organization_id: str, project_id: str, name: str, actor: Actor
) -> str:
    """Add a service account of a project, without a role in it, and return its id. It is never an Owner."""
    check_name(name)
    user_id = mint(Prefix.USER)
    tx.run(
        "INSERT INTO users (id, organization_id, name, role, created_at, service_project_id)"
        " VALUES (:id, :organization, :name, :role, :now, :project)",
        id=user_id,
        organization=organization_id,
        name=name,
        role=Role.READER.value,
        now=tx.now_micros,
        project=project_id,
    )
    audit.record(
        tx,
        audit.EventType.SERVICE_ACCOUNT_CREATED,
        organization_id=organization_id,
        actor=actor.about(project_id),
        resource_id=user_id,
        in_project=project_id,
    )
    return user_id


def rename_service_account(tx: Tx, user_id: str, name: str) -> None:
    """Give a service account another name. Raises Error(INVALID)."""
    check_name(name)
    tx.run("UPDATE users SET name = :name WHERE id = :id", name=name, id=user_id)


def remove_service_account(tx: Tx, organization_id: str, user_id: str, actor: Actor) -> None:
    """Remove a service account: its name is cleared, the id stays."""
    row = tx.row("SELECT service_project_id FROM users WHERE id = :id", id=user_id)
    tx.run(
        "UPDATE users SET name = '', removed_at = :now WHERE id = :id",
        now=tx.now_micros,
        id=user_id,
    )
    audit.record(
        tx,
        audit.EventType.SERVICE_ACCOUNT_DELETED,
        organization_id=organization_id,
        actor=actor.about(row[0] if row else None),
        resource_id=user_id,
    )


def check_name(name: str) -> None:
    """Check the name of a person or a service account. Raises Error(INVALID)."""
    if not 1 <= len(name) <= NAME_LENGTH_MAX or not name.isprintable() or not name.strip():
        raise Error(
            Kind.INVALID,
            f"Invalid value for 'name': use 1 to {NAME_LENGTH_MAX} printable characters.",
            param="name",
        )


def _check_an_owner_is_left(tx: Tx, organization_id: str, user: User) -> None:
    if user.role is not Role.OWNER:
        return
    another = tx.row(
        f"SELECT 1 FROM users WHERE role = 'owner' AND id <> :id AND {_PEOPLE} LIMIT 1",
        id=user.id,
        organization=organization_id,
    )
    if another is None:
        raise Error(
            Kind.CONFLICT,
            f"The user '{user.id}' is the last Owner of this organization. Make another user an Owner first.",
            param="user_id",
            code="last_owner",
        )


def _with_address(tx: Tx, organization_id: str, email: str) -> User | None:
    row = tx.row(
        f"SELECT {_COLUMNS} FROM users WHERE email = :email AND {_PEOPLE}",
        email=email,
        organization=organization_id,
    )
    return None if row is None else _of_row(row)


def _of_row(row: Row) -> User:
    return User(row[0], row[1], row[2], Role(row[3]), row[4])
