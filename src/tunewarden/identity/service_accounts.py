"""Service accounts: users of one project who are no people. None is ever an Owner of the organization, so none deletes."""

from collections.abc import Iterable
from dataclasses import dataclass

from tunewarden import audit, ids
from tunewarden.db import cursors
from tunewarden.db.database import Database, Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import admin_keys, key_attempts, key_rows, project_members, projects, users
from tunewarden.identity.admin_keys import Administrator
from tunewarden.identity.key_rows import KeyRow
from tunewarden.identity.policy import ProjectRole, ServiceAccountRole

KEY_NAME = "Secret Key"  # OpenAI's, where none is given
_COLUMNS = "u.id, u.name, m.role, u.created_at"
_ACCOUNTS = (
    "FROM users u LEFT JOIN project_members m ON m.project_id = u.service_project_id AND m.user_id = u.id"
    " WHERE u.service_project_id = :project AND u.removed_at IS NULL"
)
_LIST = cursors.ByTime(
    _COLUMNS,
    _ACCOUNTS,
    "u.created_at",
    "u.id",
    cursors="FROM users u WHERE u.service_project_id = :project",
)


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A service account; `created_at` is in microseconds."""

    id: str
    name: str
    role: ServiceAccountRole
    created_at: int


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new key, and its text, which is not stored."""

    key: KeyRow
    text: str


def create(
    database: Database,
    administrator: Administrator,
    project_id: str,
    *,
    name: str,
    has_key: bool = True,
    expires_in_seconds: int | None = None,
    attempt: str | None = None,
) -> tuple[ServiceAccount, NewKey | None]:
    """Create a service account, with the role of a member and a key; without `has_key`, with neither.

    Raises Error(UNAUTHENTICATED, NOT_FOUND, INVALID), Error(CONFLICT) if the project is archived or the `attempt` has
    made one.
    """
    organization, actor = administrator.organization_id, administrator.actor
    if not has_key and expires_in_seconds is not None:
        raise Error(
            Kind.INVALID,
            "'expires_in_seconds' is of the API key that is created with the account. Omit it, or omit"
            " 'create_service_account_only'.",
            param="expires_in_seconds",
        )
    with database.write() as tx:
        admin_keys.check_now(tx, administrator)
        key_attempts.claim(tx, administrator, attempt)
        projects.find_active(tx, organization, project_id)
        account_id = users.add_service_account(tx, organization, project_id, name, actor)
        made = None
        if has_key:
            project_members.set_role(tx, project_id, account_id, ProjectRole.MEMBER)
            made = _add_key(
                tx, administrator, project_id, account_id, expires_in_seconds=expires_in_seconds
            )
        return _find(tx, project_id, account_id), made


def create_key(
    database: Database,
    administrator: Administrator,
    project_id: str,
    account_id: str,
    *,
    name: str | None = None,
    scopes: Iterable[str] = (),
    expires_in_seconds: int | None = None,
    attempt: str | None = None,
) -> NewKey:
    """Create another key of a service account.

    Raises Error(UNAUTHENTICATED, NOT_FOUND, INVALID), Error(CONFLICT) if the project is archived or the `attempt` has
    made one.
    """
    with database.write() as tx:
        admin_keys.check_now(tx, administrator)
        key_attempts.claim(tx, administrator, attempt)
        projects.find_active(tx, administrator.organization_id, project_id)
        account = _find(tx, project_id, account_id)
        return _add_key(
            tx,
            administrator,
            project_id,
            account.id,
            name=KEY_NAME if name is None else name,
            scopes=scopes,
            expires_in_seconds=expires_in_seconds,
        )


def page(
    database: Database,
    administrator: Administrator,
    project_id: str,
    *,
    after: str | None,
    limit: int,
) -> list[ServiceAccount]:
    """Return up to `limit` service accounts of a project, newest first.

    Raises Error(UNAUTHENTICATED, NOT_FOUND), Error(INVALID) for an unknown cursor.
    """
    with database.read() as tx:
        admin_keys.check_now(tx, administrator)
        projects.find(tx, administrator.organization_id, project_id)
        rows = _LIST.page(tx, after=after, limit=limit, project=project_id)
    return [_of_row(row) for row in rows]


def retrieve(
    database: Database, administrator: Administrator, project_id: str, account_id: str
) -> ServiceAccount:
    """Return a service account of a project. Raises Error(UNAUTHENTICATED, NOT_FOUND)."""
    with database.read() as tx:
        admin_keys.check_now(tx, administrator)
        projects.find(tx, administrator.organization_id, project_id)
        return _find(tx, project_id, account_id)


def update(
    database: Database,
    administrator: Administrator,
    project_id: str,
    account_id: str,
    *,
    name: str | None,
    role: ServiceAccountRole | None,
) -> ServiceAccount:
    """Change name and role of a service account; None leaves them. What its keys run is cut if the role ends it.

    Raises Error(UNAUTHENTICATED, NOT_FOUND, INVALID), Error(CONFLICT) if the project is archived.
    """
    organization = administrator.organization_id
    with database.write(below_floor=True) as tx:
        admin_keys.check_now(tx, administrator)
        projects.find_active(tx, organization, project_id)
        account = _find(tx, project_id, account_id)
        if name is not None:
            users.rename_service_account(tx, account.id, name)
        if role is ServiceAccountRole.NONE:
            project_members.unset_role(tx, project_id, account.id)
        elif role is not None:
            project_members.set_role(tx, project_id, account.id, ProjectRole(role.value))
        changed = _find(tx, project_id, account_id)
        if changed != account:
            audit.record(
                tx,
                audit.EventType.SERVICE_ACCOUNT_UPDATED,
                organization_id=organization,
                actor=administrator.actor.about(project_id),
                resource_id=account.id,
                role=changed.role.value,
            )
        return changed


def remove(
    database: Database, administrator: Administrator, project_id: str, account_id: str
) -> None:
    """Delete a service account; its keys are revoked in the same transaction (I19).

    Raises Error(UNAUTHENTICATED, NOT_FOUND).
    """
    organization, actor = administrator.organization_id, administrator.actor
    with database.write(below_floor=True) as tx:
        admin_keys.check_now(tx, administrator)
        projects.find(tx, organization, project_id)
        account = _find(tx, project_id, account_id)
        users.remove_service_account(tx, organization, account.id, actor)
        project_members.unset_role(tx, project_id, account.id)
        key_rows.revoke_all_of(tx, account.id, actor)


def _add_key(
    tx: Tx,
    administrator: Administrator,
    project_id: str,
    account_id: str,
    *,
    name: str = KEY_NAME,
    scopes: Iterable[str] = (),
    expires_in_seconds: int | None,
) -> NewKey:
    key, text = key_rows.insert(
        tx,
        organization_id=administrator.organization_id,
        project_id=project_id,
        user_id=account_id,
        name=name,
        scopes=scopes,
        expires_at=key_rows.expiry(tx, expires_in_seconds),
        actor=administrator.actor,
    )
    return NewKey(key, text)


def _find(tx: Tx, project_id: str, account_id: str) -> ServiceAccount:
    row = tx.row(f"SELECT {_COLUMNS} {_ACCOUNTS} AND u.id = :id", project=project_id, id=account_id)
    if row is None:
        raise Error(
            Kind.NOT_FOUND,
            f"No such service account: '{ids.shown(account_id)}'.",
            param="service_account_id",
        )
    return _of_row(row)


def _of_row(row: Row) -> ServiceAccount:
    return ServiceAccount(row[0], row[1], ServiceAccountRole(row[2] or "none"), row[3])
