"""Users of an organization: people, and the service accounts of its projects."""

from tunewarden import audit
from tunewarden.audit import Actor
from tunewarden.db.database import Tx
from tunewarden.identity.policy import Role
from tunewarden.ids import Prefix, mint


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
    user_id = mint(Prefix.USER)
    tx.run(
        "INSERT INTO users (id, organization_id, name, role, created_at)"
        " VALUES (:id, :organization, :name, :role, :now)",
        id=user_id,
        organization=organization_id,
        name=name,
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
