"""What administrators do with people: change a role, remove. Each is one transaction (I19)."""

from tunewarden.db.database import Database
from tunewarden.identity import admin_keys, invite_rows, key_rows, project_members, users
from tunewarden.identity.admin_keys import Administrator
from tunewarden.identity.policy import Role
from tunewarden.identity.users import User


def set_role(
    database: Database, administrator: Administrator, user_id: str, role: Role | None
) -> User:
    """Give a person another role in the organization; None leaves it.

    With the role of an Owner go for good the admin keys, what this Owner invited, and the API keys of projects that the
    person is not in. Who becomes an Owner begins without such keys: those from an earlier time are revoked.
    Raises Error(UNAUTHENTICATED, NOT_FOUND), Error(CONFLICT) for the last Owner, and for oneself while no other Owner
    has a valid admin key.
    """
    organization = administrator.organization_id
    with database.write(below_floor=True) as tx:
        admin_keys.check_now(tx, administrator)
        user = users.find(tx, organization, user_id)
        if role is None:
            return user
        if role is not Role.OWNER:
            invite_rows.withdraw_all_of(tx, user_id, administrator.actor)
        changed = users.set_role(tx, organization, user, role, administrator.actor)
        if changed is not user:
            admin_keys.revoke_all_of(tx, organization, user_id, administrator.actor)
            # Without the role of an Owner they can do nothing, and nobody expects that they can again.
            own = project_members.own_project_ids(tx, user_id)
            key_rows.revoke_all_of(tx, user_id, administrator.actor, but_of=own)
        if user_id == administrator.user_id and role is not Role.OWNER:
            admin_keys.check_another_has_one(tx, organization, user_id)
        return changed


def remove(database: Database, administrator: Administrator, user_id: str) -> None:
    """Remove a person: clear name and address, end memberships, revoke all keys and admin keys, withdraw invites.

    Raises Error(UNAUTHENTICATED, NOT_FOUND), Error(CONFLICT) for the last Owner, and for oneself while no other Owner
    has a valid admin key.
    """
    organization, actor = administrator.organization_id, administrator.actor
    with database.write(below_floor=True) as tx:
        admin_keys.check_now(tx, administrator)
        user = users.find(tx, organization, user_id)
        users.remove(tx, organization, user, actor)
        if user_id == administrator.user_id:
            admin_keys.check_another_has_one(tx, organization, user_id)
        project_members.remove_everywhere(tx, organization, user_id, actor)
        key_rows.revoke_all_of(tx, user_id, actor)
        admin_keys.revoke_all_of(tx, organization, user_id, actor)
        invite_rows.withdraw_all_of(tx, user_id, actor)
        invite_rows.forget(tx, user_id)
