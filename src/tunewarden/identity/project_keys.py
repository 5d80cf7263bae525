"""API keys of a project, as its administrators see and change them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from tunewarden import ids
from tunewarden.db import cursors
from tunewarden.db.database import Database, Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import (
    admin_keys,
    key_attempts,
    key_rotation,
    key_rows,
    policy,
    projects,
    users,
)
from tunewarden.identity.admin_keys import Administrator
from tunewarden.identity.key_rows import KeyRow
from tunewarden.identity.policy import Role

_COLUMNS = (
    f"{key_rows.COLUMNS}, u.id, u.name, u.email, u.created_at, u.service_project_id, u.role, m.role"
)
_KEYS = (
    "FROM api_keys k JOIN users u ON u.id = k.user_id"
    " LEFT JOIN project_members m ON m.project_id = k.project_id AND m.user_id = k.user_id"
    " WHERE k.project_id = :project AND k.revoked_at IS NULL"
)
_LIST = cursors.ByTime(
    _COLUMNS, _KEYS, "k.created_at", "k.id", cursors="FROM api_keys k WHERE k.project_id = :project"
)
_HAS_ACCESS = "(u.role = 'owner' OR m.role IS NOT NULL)"


class Access(StrEnum):
    """Whether a key's user may do anything in the key's project, in OpenAI's words."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    ANY = "any"


_ONLY_WITH = {
    Access.ACTIVE: f"AND {_HAS_ACCESS}",
    Access.INACTIVE: f"AND NOT {_HAS_ACCESS}",
    Access.ANY: "",
}


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """The user of a key; `project_role` is `none` without one. `created_at` is in microseconds."""

    id: str
    name: str
    email: str | None
    created_at: int
    is_service_account: bool
    project_role: str
    has_access: bool


@dataclass(frozen=True, slots=True)
class ProjectKey:
    """A key that was not revoked, and its user."""

    key: KeyRow
    owner: KeyOwner


def page(
    database: Database,
    administrator: Administrator,
    project_id: str,
    *,
    access: Access = Access.ANY,
    after: str | None,
    limit: int,
) -> list[ProjectKey]:
    """Return up to `limit` keys of a project, newest first; with `access`, only those whose users have it or not.

    Raises Error(UNAUTHENTICATED, NOT_FOUND), Error(INVALID) for an unknown cursor.
    """
    with database.read() as tx:
        admin_keys.check_now(tx, administrator)
        projects.find(tx, administrator.organization_id, project_id)
        rows = _LIST.page(tx, after=after, limit=limit, only=_ONLY_WITH[access], project=project_id)
    return [_of_row(row) for row in rows]


def retrieve(
    database: Database, administrator: Administrator, project_id: str, key_id: str
) -> ProjectKey:
    """Return a key of a project. Raises Error(UNAUTHENTICATED, NOT_FOUND)."""
    with database.read() as tx:
        admin_keys.check_now(tx, administrator)
        projects.find(tx, administrator.organization_id, project_id)
        return _find(tx, project_id, key_id)


def create(
    database: Database,
    administrator: Administrator,
    project_id: str,
    *,
    user_id: str,
    name: str,
    scopes: Iterable[str] = (),
    expires_in_seconds: int | None = None,
    attempt: str | None = None,
) -> tuple[ProjectKey, str]:
    """Create a key of a person; return it and its text, which is not stored.

    Raises Error(UNAUTHENTICATED, NOT_FOUND, INVALID), Error(CONFLICT) if the project is archived or the `attempt`
    has made one, Error(INVALID) for a person who may do nothing in it.
    """
    organization = administrator.organization_id
    with database.write() as tx:
        admin_keys.check_now(tx, administrator)
        key_attempts.claim(tx, administrator, attempt)
        projects.find_active(tx, organization, project_id)
        user = users.find(tx, organization, user_id)
        made, text = key_rows.insert(
            tx,
            organization_id=organization,
            project_id=project_id,
            user_id=user.id,
            name=name,
            scopes=scopes,
            expires_at=key_rows.expiry(tx, expires_in_seconds),
            actor=administrator.actor,
        )
        key = _find(tx, project_id, made.id)
        _check_has_access(key)
        return key, text


def update(
    database: Database,
    administrator: Administrator,
    project_id: str,
    key_id: str,
    *,
    scopes: Iterable[str] | None,
    expires_in_seconds: int | None,
) -> ProjectKey:
    """Change the scopes and the expiry of a key; None leaves them. No scopes are no restriction.

    What the key runs is cut if it may no longer. Raises Error(UNAUTHENTICATED, NOT_FOUND), Error(INVALID) for unknown
    scopes and an expired key, Error(CONFLICT) if the project is archived.
    """
    with database.write(below_floor=True) as tx:
        admin_keys.check_now(tx, administrator)
        projects.find_active(tx, administrator.organization_id, project_id)
        key = _find(tx, project_id, key_id).key
        if key.has_expired(tx.now_micros):
            raise Error(
                Kind.INVALID,
                f"The API key '{key.id}' has expired. An expired key cannot be changed: create another one.",
                param="api_key_id",
                code="key_expired",
            )
        chosen = key.scopes if scopes is None else policy.checked_scopes(scopes)
        expires_at = key_rows.expiry(tx, expires_in_seconds) or key.expires_at
        if (chosen, expires_at) != (key.scopes, key.expires_at):
            key_rows.update(
                tx, key, scopes=chosen, expires_at=expires_at, actor=administrator.actor
            )
        return _find(tx, project_id, key_id)


def rotate(
    database: Database,
    administrator: Administrator,
    project_id: str,
    key_id: str,
    *,
    overlap_seconds: int | None,
    expires_in_seconds: int | None,
    share_limit: Callable[[Tx, str, str], None],
    attempt: str | None = None,
) -> tuple[ProjectKey, str, KeyRow]:
    """Create a key like another one, in one transaction; return it, its text, and the old one, which ends soon.

    The old one ends after `overlap_seconds`, a day without it, if not sooner. `share_limit` gives the rate limit of the
    first key to the second. Raises Error(UNAUTHENTICATED, NOT_FOUND), Error(INVALID) for a key that has expired or
    whose user may do nothing in the project, Error(CONFLICT) if the project is archived or the
    `attempt` has made one.
    """
    with database.write() as tx:
        admin_keys.check_now(tx, administrator)
        key_attempts.claim(tx, administrator, attempt)
        projects.find_active(tx, administrator.organization_id, project_id)
        found = _find(tx, project_id, key_id)
        _check_has_access(found)
        made, text, old = key_rotation.rotate(
            tx,
            found.key,
            overlap_seconds=key_rotation.OVERLAP_SECONDS
            if overlap_seconds is None
            else overlap_seconds,
            expires_in_seconds=expires_in_seconds,
            actor=administrator.actor,
        )
        share_limit(tx, old.id, made.id)
        return _find(tx, project_id, made.id), text, old


def revoke(database: Database, administrator: Administrator, project_id: str, key_id: str) -> None:
    """Revoke a key of a project for good, of a service account's too. Raises Error(UNAUTHENTICATED, NOT_FOUND)."""
    with database.write(below_floor=True) as tx:
        admin_keys.check_now(tx, administrator)
        projects.find(tx, administrator.organization_id, project_id)
        key_rows.revoke(tx, _find(tx, project_id, key_id).key, administrator.actor)


def _find(tx: Tx, project_id: str, key_id: str) -> ProjectKey:
    row = tx.row(f"SELECT {_COLUMNS} {_KEYS} AND k.id = :id", project=project_id, id=key_id)
    if row is None:
        said = f"No such API key: '{ids.shown(key_id)}'."
        raise Error(Kind.NOT_FOUND, said, param="api_key_id")
    return _of_row(row)


def _check_has_access(key: ProjectKey) -> None:
    """Check that a key's user may do something in its project. Raises Error(INVALID)."""
    if not key.owner.has_access:
        raise Error(
            Kind.INVALID,
            f"The user '{key.owner.id}' is not in the project '{key.key.project_id}'. Add the user first, with a role.",
            param="user_id",
            code="user_not_in_project",
        )


def _of_row(row: Row) -> ProjectKey:
    user_id, name, email, created_at, service_project, role, project_role = row[10:]
    owner = KeyOwner(
        user_id,
        name,
        email,
        created_at,
        is_service_account=service_project is not None,
        project_role=project_role or ("owner" if role == Role.OWNER else "none"),
        has_access=role == Role.OWNER or project_role is not None,
    )
    return ProjectKey(key_rows.of_row(row), owner)
