"""What administrators do with admin keys: create, list, revoke. Each is one transaction."""

from tunewarden.db.database import Database
from tunewarden.identity import admin_keys, key_attempts, users
from tunewarden.identity.admin_keys import Administrator, AdminKey


def create(
    database: Database,
    administrator: Administrator,
    *,
    name: str,
    user_id: str | None = None,
    expires_in_seconds: int | None,
    attempt: str | None = None,
) -> tuple[AdminKey, str]:
    """Create an admin key of an Owner, by default of the administrator's user; return it and its text, which is not stored.

    Raises Error(UNAUTHENTICATED), Error(NOT_FOUND) for an unknown user, Error(INVALID) for one who is no Owner,
    Error(CONFLICT) if the `attempt` has made one.
    """
    with database.write() as tx:
        admin_keys.check_now(tx, administrator)
        key_attempts.claim(tx, administrator, attempt)
        if user_id is not None:
            users.check_is_owner(tx, administrator.organization_id, user_id)
        return admin_keys.create(
            tx,
            organization_id=administrator.organization_id,
            user_id=user_id or administrator.user_id,
            name=name,
            actor=administrator.actor,
            expires_in_seconds=expires_in_seconds,
        )


def page(
    database: Database,
    administrator: Administrator,
    *,
    is_ascending: bool,
    after: str | None,
    limit: int,
) -> list[AdminKey]:
    """Return up to `limit` admin keys of the organization by age, oldest first if `is_ascending`.

    Raises Error(UNAUTHENTICATED), Error(INVALID) for an unknown cursor.
    """
    organization = administrator.organization_id
    with database.read() as tx:
        admin_keys.check_now(tx, administrator)
        return admin_keys.page(
            tx, organization, is_ascending=is_ascending, after=after, limit=limit
        )


def retrieve(database: Database, administrator: Administrator, key_id: str) -> AdminKey:
    """Return an admin key of the organization. Raises Error(UNAUTHENTICATED, NOT_FOUND)."""
    with database.read() as tx:
        admin_keys.check_now(tx, administrator)
        return admin_keys.find(tx, administrator.organization_id, key_id)


def revoke(database: Database, administrator: Administrator, key_id: str) -> None:
    """Revoke an admin key for good; it may be the administrator's own. Raises Error(UNAUTHENTICATED, NOT_FOUND)."""
    with database.write(below_floor=True) as tx:
        admin_keys.check_now(tx, administrator)
        admin_keys.revoke(tx, administrator.organization_id, key_id, administrator.actor)
