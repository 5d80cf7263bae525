"""Checkpoint permissions: each grants another project of the organization access to a model.

Only a caller who may write checkpoints, with a key of the owning project, grants and revokes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tunewarden import audit
from tunewarden.audit import EventType
from tunewarden.db import cursors
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys, projects
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.ids import Prefix, mint
from tunewarden.registry import artifacts, models
from tunewarden.registry.artifacts import ID_LENGTH_MAX, VISIBLE, ArtifactKind
from tunewarden.registry.models import Model

PROJECTS_MAX = 100
_COLUMNS = "id, project_id, created_at"


@dataclass(frozen=True, slots=True)
class Permission:
    """One project's access to another's model; `created_at` is in microseconds."""

    id: str
    project_id: str
    created_at: int


def precheck(caller: Caller) -> None:
    """Check whether the caller may grant permissions, before the body is read. Raises Error(FORBIDDEN)."""
    authorize(caller, Action.WRITE_CHECKPOINTS)


def create(
    database: Database, caller: Caller, model_id: str, project_ids: Sequence[str]
) -> list[Permission]:
    """Grant projects access to a model, all or none; return their permissions, existing ones included.

    Raises Error(FORBIDDEN, NOT_FOUND), Error(INVALID) for a project that is unknown or owns the model.
    """
    authorize(caller, Action.WRITE_CHECKPOINTS)
    model = _own(database, caller, model_id)
    with database.write() as tx:
        keys.authorize_now(tx, caller, Action.WRITE_CHECKPOINTS)
        found = artifacts.find_any(tx, ArtifactKind.MODEL, caller.organization_id, model_id)
        if found is None or found.state not in VISIBLE:
            raise models.missing(model_id)
        return [_share(tx, caller, model, project) for project in dict.fromkeys(project_ids)]


def page(
    database: Database,
    caller: Caller,
    model_id: str,
    *,
    after: str | None,
    limit: int,
    project_id: str | None = None,
    is_ascending: bool = False,
) -> list[Permission]:
    """Return up to `limit` permissions of a model by age, newest first unless `is_ascending`.

    `after` is the cursor; one that was revoked is as none. Only those of `project_id`, if given. Raises
    Error(FORBIDDEN, NOT_FOUND, INVALID).
    """
    authorize(caller, Action.READ_CHECKPOINTS)
    model = _own(database, caller, model_id)
    compared, order = (">", "ASC") if is_ascending else ("<", "DESC")
    with database.read() as tx:
        start = cursors.position(
            tx.row,
            "SELECT n FROM checkpoint_permissions WHERE id = :after AND model_n = :model",
            after=after,
            first=cursors.BEFORE_ALL if is_ascending else cursors.AFTER_ALL,
            may_be_gone=Prefix.PERMISSION,
            model=model.n,
        )
        rows = tx.rows(
            f"SELECT {_COLUMNS} FROM checkpoint_permissions WHERE model_n = :model"
            " AND project_id = COALESCE(:project, project_id)"
            f" AND n {compared} :start ORDER BY n {order} LIMIT :limit",
            model=model.n,
            project=project_id,
            start=start,
            limit=limit,
        )
    return [Permission(*row) for row in rows]


def delete(database: Database, caller: Caller, model_id: str, permission_id: str) -> None:
    """Revoke a permission; from then on the model does not exist for its project.

    Raises Error(FORBIDDEN, NOT_FOUND).
    """
    authorize(caller, Action.WRITE_CHECKPOINTS)
    model = _own(database, caller, model_id)
    with database.write() as tx:
        keys.authorize_now(tx, caller, Action.WRITE_CHECKPOINTS)
        row = tx.row(
            "SELECT project_id FROM checkpoint_permissions WHERE id = :id AND model_n = :model",
            id=permission_id,
            model=model.n,
        )
        if row is None:
            raise _missing(permission_id)
        tx.run("DELETE FROM checkpoint_permissions WHERE id = :id", id=permission_id)
        _note(
            tx, caller, EventType.CHECKPOINT_UNSHARED, permission_id, model=model_id, project=row[0]
        )


def _share(tx: Tx, caller: Caller, model: Model, project_id: str) -> Permission:
    if project_id == model.project_id:
        raise Error(
            Kind.INVALID,
            f"The project '{project_id}' owns the checkpoint and needs no permission for it.",
            param="project_ids",
        )
    if not projects.exists(tx, caller.organization_id, project_id):
        raise Error(
            Kind.INVALID,
            f"Your organization has no project '{project_id[:ID_LENGTH_MAX]}'.",
            param="project_ids",
        )
    row = tx.row(
        f"SELECT {_COLUMNS} FROM checkpoint_permissions WHERE model_n = :model"
        " AND project_id = :project",
        model=model.n,
        project=project_id,
    )
    if row is not None:
        return Permission(*row)
    permission = Permission(mint(Prefix.PERMISSION), project_id, tx.now_micros)
    tx.run(
        "INSERT INTO checkpoint_permissions (id, model_n, project_id, created_by, created_at)"
        " VALUES (:id, :model, :project, :by, :now)",
        id=permission.id,
        model=model.n,
        project=project_id,
        by=caller.key_id,
        now=tx.now_micros,
    )
    _note(
        tx, caller, EventType.CHECKPOINT_SHARED, permission.id, model=model.id, project=project_id
    )
    return permission


def _own(database: Database, caller: Caller, model_id: str) -> Model:
    """Return a model owned by the caller's project."""
    model = models.find(database, caller, model_id)
    if model is None:
        raise models.missing(model_id)
    if model.project_id != caller.project_id:
        raise Error(
            Kind.FORBIDDEN,
            f"The project '{model.project_id}' owns the model '{model.id}'. Use a key of that project"
            " for its permissions.",
        )
    return model


def _missing(permission_id: str) -> Error:
    shown = permission_id[:ID_LENGTH_MAX]
    return Error(
        Kind.NOT_FOUND,
        f"Could not find permission: {shown}",
        param="permission_id",
        code="permission_not_found",
    )


def _note(tx: Tx, caller: Caller, event: EventType, permission_id: str, **details: str) -> None:
    audit.record(
        tx,
        event,
        organization_id=caller.organization_id,
        actor=caller.actor,
        resource_id=permission_id,
        **details,
    )
