"""Projects of an organization: create, list, rename, archive."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tunewarden import audit, ids
from tunewarden.audit import Actor
from tunewarden.db import cursors
from tunewarden.db.database import Database, Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import admin_keys
from tunewarden.identity.admin_keys import Administrator
from tunewarden.ids import Prefix, mint

NAME_LENGTH_MAX = 100
_COLUMNS = "id, name, is_default, created_at, archived_at"
_LIST = cursors.ByTime(_COLUMNS, "FROM projects WHERE organization_id = :organization")


@dataclass(frozen=True, slots=True)
class Project:
    """A project; times are in microseconds. Requests with the keys of an archived one are refused."""

    id: str
    name: str
    is_default: bool
    created_at: int
    archived_at: int | None


def page(
    database: Database,
    administrator: Administrator,
    *,
    include_archived: bool,
    after: str | None,
    limit: int,
) -> list[Project]:
    """Return up to `limit` projects of the organization, newest first.

    Raises Error(UNAUTHENTICATED), Error(INVALID) for an unknown cursor.
    """
    with database.read() as tx:
        admin_keys.check_now(tx, administrator)
        rows = _LIST.page(
            tx,
            after=after,
            limit=limit,
            only="" if include_archived else "AND archived_at IS NULL",
            organization=administrator.organization_id,
        )
    return [_of_row(row) for row in rows]


def retrieve(database: Database, administrator: Administrator, project_id: str) -> Project:
    """Return a project of the organization. Raises Error(UNAUTHENTICATED, NOT_FOUND)."""
    with database.read() as tx:
        admin_keys.check_now(tx, administrator)
        return find(tx, administrator.organization_id, project_id)


def add(database: Database, administrator: Administrator, name: str) -> Project:
    """Create a project. Raises Error(UNAUTHENTICATED, INVALID)."""
    check_name(name)
    with database.write() as tx:
        admin_keys.check_now(tx, administrator)
        organization = administrator.organization_id
        project_id = create(tx, organization, name, administrator.actor, is_default=False)
        return find(tx, organization, project_id)


def rename(
    database: Database, administrator: Administrator, project_id: str, name: str | None
) -> Project:
    """Give a project another name; None leaves it. Raises Error(UNAUTHENTICATED, NOT_FOUND, INVALID, CONFLICT)."""
    if name is not None:
        check_name(name)
    with database.write() as tx:
        admin_keys.check_now(tx, administrator)
        organization = administrator.organization_id
        project = find_active(tx, organization, project_id)
        if name is None or name == project.name:
            return project
        tx.run("UPDATE projects SET name = :name WHERE id = :id", name=name, id=project.id)
        audit.record(
            tx,
            audit.EventType.PROJECT_UPDATED,
            organization_id=organization,
            actor=administrator.actor.about(project.id),
            resource_id=project.id,
        )
        return replace(project, name=name)


def archive(
    database: Database,
    administrator: Administrator,
    project_id: str,
    contents: Callable[[Tx, str], Mapping[str, int]],
) -> Project:
    """Archive a project for good: from then on requests with its keys are refused. Idempotent.

    `contents` counts what must be gone first, by its name. Raises Error(UNAUTHENTICATED, NOT_FOUND), Error(CONFLICT)
    for the default project and for one that has such contents.
    """
    with database.write(below_floor=True) as tx:
        admin_keys.check_now(tx, administrator)
        organization = administrator.organization_id
        project = find(tx, organization, project_id)
        if project.archived_at is not None:
            return project
        _check_may_be_archived(project, contents(tx, project.id))
        tx.run(
            "UPDATE projects SET archived_at = :now WHERE id = :id",
            now=tx.now_micros,
            id=project.id,
        )
        audit.record(
            tx,
            audit.EventType.PROJECT_ARCHIVED,
            organization_id=organization,
            actor=administrator.actor.about(project.id),
            resource_id=project.id,
        )
        return replace(project, archived_at=tx.now_micros)


def _check_may_be_archived(project: Project, contents: Mapping[str, int]) -> None:
    if project.is_default:
        raise Error(
            Kind.CONFLICT,
            f"The project '{project.id}' is the organization's default project, which cannot be archived.",
            param="project_id",
            code="default_project",
        )
    left = [f"{count} {what}" for what, count in contents.items() if count]
    if left:
        raise Error(
            Kind.CONFLICT,
            f"The project '{project.id}' still has {', '.join(left)}. Delete the files, and cancel the uploads and"
            " the jobs, then archive it. Its models may stay: they belong to the organization.",
            param="project_id",
            code="project_not_empty",
        )


def find(tx: Tx, organization_id: str, project_id: str) -> Project:
    """Return a project of an organization, archived or not. Raises Error(NOT_FOUND), for a foreign one too."""
    row = tx.row(
        f"SELECT {_COLUMNS} FROM projects WHERE id = :id AND organization_id = :organization",
        id=project_id,
        organization=organization_id,
    )
    if row is None:
        raise missing(project_id)
    return _of_row(row)


def find_active(tx: Tx, organization_id: str, project_id: str) -> Project:
    """Return a project that is not archived. Raises Error(NOT_FOUND), Error(CONFLICT) for an archived one."""
    project = find(tx, organization_id, project_id)
    if project.archived_at is not None:
        raise Error(
            Kind.CONFLICT,
            f"The project '{project.id}' is archived. An archived project cannot be changed.",
            param="project_id",
            code="project_archived",
        )
    return project


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
        actor=actor.about(project_id),
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


def check_name(name: str) -> None:
    """Check the name of a project. Raises Error(INVALID)."""
    if not 1 <= len(name) <= NAME_LENGTH_MAX or not name.isprintable() or not name.strip():
        raise Error(
            Kind.INVALID,
            f"Invalid value for 'name': use 1 to {NAME_LENGTH_MAX} printable characters.",
            param="name",
        )


def missing(project_id: str) -> Error:
    """Return the one answer for a project that is unknown or foreign (I9)."""
    said = f"No such project: '{ids.shown(project_id)}'."
    return Error(Kind.NOT_FOUND, said, param="project_id")


def _of_row(row: Row) -> Project:
    return Project(row[0], row[1], bool(row[2]), row[3], row[4])
