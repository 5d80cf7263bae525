"""Projects of an organization, and who is in them with which role."""

from tunewarden import audit
from tunewarden.audit import Actor
from tunewarden.db.database import Tx
from tunewarden.identity.policy import ProjectRole
from tunewarden.ids import Prefix, mint


def create(tx: Tx, organization_id: str, name: str, actor: Actor, *, is_default: bool) -> str:
    """Create a project and return its id. Each organization has exactly one default project."""
    project_id = mint(Prefix.PROJECT)
    tx.run(
        "INSERT INTO projects (id, organization_id, name, is_default, created_at)"
        " VALUES (:id, :organization, :name, :default, :now)",
        id=project_id,
        organization=organization_id,
        name=name,
        default=int(is_default),
        now=tx.now_micros,
    )
    audit.record(
        tx,
        audit.EventType.PROJECT_CREATED,
        organization_id=organization_id,
        actor=actor,
        resource_id=project_id,
    )
    return project_id


def default_of(tx: Tx, organization_id: str) -> str:
    """Return the id of an organization's default project."""
    row = tx.row(
        "SELECT id FROM projects WHERE organization_id = :id AND is_default = 1", id=organization_id
    )
    assert row is not None, "every organization is made with a default project"
    return str(row[0])


def exists(tx: Tx, organization_id: str, project_id: str) -> bool:
    """Return whether an organization has this project."""
    sql = "SELECT 1 FROM projects WHERE id = :id AND organization_id = :organization"
    return tx.row(sql, id=project_id, organization=organization_id) is not None


def set_member(tx: Tx, project_id: str, user_id: str, role: ProjectRole) -> None:
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
