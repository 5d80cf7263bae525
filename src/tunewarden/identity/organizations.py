"""Organizations. A new one has one project; the operator makes them."""

import re
from dataclasses import dataclass

from tunewarden import audit
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import projects
from tunewarden.ids import Prefix, mint, token

# The server's own organization, in which its canary works. No id that is minted is so short.
INTERNAL_ID = "org_internal"
INTERNAL_NAME = "tunewarden-canary"
# The name is part of model ids (section 9).
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Organization:
    """An organization and its default project."""

    id: str
    name: str
    project_id: str


@dataclass(frozen=True, slots=True)
class Listed:
    """An organization as the operator's list shows it; `created_at` is in microseconds."""

    id: str
    name: str
    created_at: int


def create(tx: Tx, name: str) -> Listed:
    """Create an organization with a default project. Raises Error(INVALID), Error(CONFLICT) for a name that is there."""
    check_name(name)
    if tx.row("SELECT 1 FROM organizations WHERE name = :name", name=name) is not None:
        raise Error(Kind.CONFLICT, f"There is an organization '{name}' already.", param="name")
    return Listed(_create(tx, name).id, name, tx.now_micros)


def list_all(database: Database) -> list[Listed]:
    """Return every organization, oldest first."""
    with database.read() as tx:
        rows = tx.rows("SELECT id, name, created_at FROM organizations ORDER BY created_at, id")
    return [Listed(*row) for row in rows]


def check_name(name: str) -> None:
    """Check that a name can be part of a model id. Raises Error(INVALID)."""
    if not NAME.fullmatch(name):
        raise Error(
            Kind.INVALID,
            "Invalid organization name: use 1 to 64 letters, digits, dots, dashes and underscores.",
            param="organization",
        )


def find_or_create(tx: Tx, name: str) -> Organization:
    """Return the organization named `name`, created with a default project if it is new.

    Raises Error(INVALID) for a name that cannot be part of a model id.
    """
    check_name(name)
    row = tx.row("SELECT id FROM organizations WHERE name = :name", name=name)
    if row is not None:
        return Organization(row[0], name, projects.default_of(tx, row[0]))
    return _create(tx, name)


def find_or_create_internal(tx: Tx) -> str:
    """Return the name of the server's own organization, created if there is none; another if a client's has its name."""
    row = tx.row("SELECT name FROM organizations WHERE id = :id", id=INTERNAL_ID)
    if row is not None:
        return str(row[0])
    name = INTERNAL_NAME
    while tx.row("SELECT 1 FROM organizations WHERE name = :name", name=name) is not None:
        name = f"{INTERNAL_NAME}-{token(8)}"
    return _create(tx, name, INTERNAL_ID).name


def find(tx: Tx, name: str) -> str:
    """Return the id of the organization named `name`. Raises Error(NOT_FOUND)."""
    row = tx.row("SELECT id FROM organizations WHERE name = :name", name=name)
    if row is None:
        said = f"There is no organization {name!r}. See `tunewarden organizations list`."
        raise Error(Kind.NOT_FOUND, said, param="organization")
    return str(row[0])


def _create(tx: Tx, name: str, internal_id: str | None = None) -> Organization:
    organization_id = internal_id or mint(Prefix.ORGANIZATION)
    tx.run(
        "INSERT INTO organizations (id, name, created_at) VALUES (:id, :name, :now)",
        id=organization_id,
        name=name,
        now=tx.now_micros,
    )
    audit.record(
        tx,
        audit.EventType.ORGANIZATION_CREATED,
        organization_id=organization_id,
        actor=audit.SERVER,
        resource_id=organization_id,
    )
    project_id = projects.create(
        tx, organization_id, "Default project", audit.SERVER, is_default=True
    )
    return Organization(organization_id, name, project_id)


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


def ids(tx: Tx) -> list[str]:
    """Return the ids of all organizations."""
    return [str(row[0]) for row in tx.rows("SELECT id FROM organizations ORDER BY id")]
