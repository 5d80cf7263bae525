"""Organizations and their users. A new organization has one project and one Owner."""

import re
from dataclasses import dataclass

from tunewarden import audit
from tunewarden.db.database import Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Role
from tunewarden.ids import Prefix, mint

# The name is part of model ids (section 9).
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Organization:
    """An organization and its default project."""

    id: str
    name: str
    project_id: str


def find_or_create(tx: Tx, name: str) -> Organization:
    """Return the organization named `name`, created with a default project if it is new.

    Raises Error(INVALID) for a name that cannot be part of a model id.
    """
    if not NAME.fullmatch(name):
        raise Error(
            Kind.INVALID,
            "Invalid organization name: use 1 to 64 letters, digits, dots, dashes and underscores.",
            param="organization",
        )
    row = tx.row("SELECT id FROM organizations WHERE name = :name", name=name)
    if row is not None:
        project = tx.row(
            "SELECT id FROM projects WHERE organization_id = :id AND is_default = 1", id=row[0]
        )
        assert project is not None, "every organization is made with a default project"
        return Organization(row[0], name, project[0])
    return _create(tx, name)


def add_user(tx: Tx, organization: Organization, name: str, role: Role) -> str:
    """Add a user with `role` and return its id; an existing user of that name and role is reused."""
    row = tx.row(
        "SELECT id FROM users WHERE organization_id = :organization AND name = :name AND role = :role",
        organization=organization.id,
        name=name,
        role=role.value,
    )
    if row is not None:
        return str(row[0])
    user_id = mint(Prefix.USER)
    tx.run(
        "INSERT INTO users VALUES (:id, :organization, :name, :role, :now)",
        id=user_id,
        organization=organization.id,
        name=name,
        role=role.value,
        now=tx.now_micros,
    )
    audit.record(
        tx,
        audit.EventType.USER_ADDED,
        organization_id=organization.id,
        actor=audit.SERVER,
        resource_id=user_id,
        role=role.value,
    )
    return user_id


def _create(tx: Tx, name: str) -> Organization:
    organization = Organization(mint(Prefix.ORGANIZATION), name, mint(Prefix.PROJECT))
    tx.run(
        "INSERT INTO organizations VALUES (:id, :name, :now)",
        id=organization.id,
        name=name,
        now=tx.now_micros,
    )
    tx.run(
        "INSERT INTO projects VALUES (:id, :organization, 'Default project', 1, :now)",
        id=organization.project_id,
        organization=organization.id,
        now=tx.now_micros,
    )
    for event, resource in (
        (audit.EventType.ORGANIZATION_CREATED, organization.id),
        (audit.EventType.PROJECT_CREATED, organization.project_id),
    ):
        audit.record(
            tx, event, organization_id=organization.id, actor=audit.SERVER, resource_id=resource
        )
    return organization


def has_project(tx: Tx, organization_id: str, project_id: str) -> bool:
    """Return whether an organization has this project."""
    sql = "SELECT 1 FROM projects WHERE id = :id AND organization_id = :organization"
    return tx.row(sql, id=project_id, organization=organization_id) is not None


def name_of(tx: Tx, organization_id: str) -> str:
    """Return the name of an organization that must exist."""
    row = tx.row("SELECT name FROM organizations WHERE id = :id", id=organization_id)
    assert row is not None, "organizations are never removed"
    return str(row[0])


def first_name(tx: Tx) -> str:
    """Return the name of the oldest organization. Raises Error(UNAVAILABLE) before the first start."""
    row = tx.row("SELECT name FROM organizations ORDER BY created_at, id LIMIT 1")
    if row is None:
        raise Error(Kind.UNAVAILABLE, "No organization exists yet. Start the server once.")
    return str(row[0])
