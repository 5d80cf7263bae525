"""API keys of users in projects: create, list, revoke, look up the caller of one."""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from tunewarden import audit
from tunewarden.audit import Actor
from tunewarden.db.database import Database, Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import key_format, organizations, policy, project_members, users
from tunewarden.identity.key_format import Presented, present, refused
from tunewarden.identity.policy import SCOPES, Action, Caller, ProjectRole, Role
from tunewarden.ids import Prefix

# What a key's caller is now: nothing of it is there if the key was revoked, its user removed, or its project archived.
HOLDER = (
    "SELECT k.id, k.secret_sha256, k.user_id, k.organization_id, o.name, k.project_id, u.role, k.scopes, m.role"
    " FROM api_keys k JOIN users u ON u.id = k.user_id JOIN organizations o ON o.id = k.organization_id"
    " JOIN projects p ON p.id = k.project_id"
    " LEFT JOIN project_members m ON m.project_id = k.project_id AND m.user_id = k.user_id"
    " WHERE k.id = :id AND k.revoked_at IS NULL AND u.removed_at IS NULL AND p.archived_at IS NULL"
)
# The role in the default project of a user that the operator makes with a key.
PROJECT_ROLES = {Role.OWNER: ProjectRole.OWNER, Role.READER: ProjectRole.VIEWER}


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as lists show it, without its secret."""

    id: str
    name: str
    role: str
    organization: str
    scopes: str
    created_at: int
    revoked_at: int | None


def create(
    tx: Tx,
    *,
    organization: str,
    role: Role,
    name: str,
    scopes: Iterable[str] = (),
    project_role: ProjectRole | None = None,
) -> tuple[ApiKey, str]:
    """Create a key for a user of `organization` with `role`; return it and its text, which is not stored.

    The organization is created if it is new. `project_role` is the user's role in the default project; without it,
    an owner's or a viewer's. Raises Error(INVALID) for an unknown scope or a bad name.
    """
    chosen = sorted(set(scopes))
    key_format.check_name(name)
    for scope in chosen:
        if scope not in SCOPES:
            raise Error(
                Kind.INVALID,
                f"Unknown scope '{scope}'. Known: {', '.join(sorted(SCOPES))}.",
                param="scopes",
            )
    owner = organizations.find_or_create(tx, organization)
    user_id = users.find_or_add(tx, owner.id, name, role, audit.SERVER)
    project_members.set_role(tx, owner.project_id, user_id, project_role or PROJECT_ROLES[role])
    secret = key_format.generate(Prefix.API_KEY)
    key = ApiKey(
        secret.id, name, role.value, owner.name, " ".join(chosen), tx.now_micros, revoked_at=None
    )
    tx.run(
        "INSERT INTO api_keys (id, organization_id, project_id, user_id, name, secret_sha256, scopes, created_at)"
        " VALUES (:id, :organization, :project, :user, :name, :sha, :scopes, :now)",
        id=key.id,
        organization=owner.id,
        project=owner.project_id,
        user=user_id,
        name=name,
        sha=secret.digest,
        scopes=key.scopes,
        now=tx.now_micros,
    )
    audit.record(
        tx,
        audit.EventType.API_KEY_CREATED,
        organization_id=owner.id,
        actor=audit.SERVER,
        resource_id=key.id,
        role=role.value,
        scopes=chosen,
    )
    return key, secret.text


def list_all(database: Database) -> list[ApiKey]:
    """Return every key, oldest first."""
    with database.read() as tx:
        rows = tx.rows(
            "SELECT k.id, k.name, u.role, o.name, k.scopes, k.created_at, k.revoked_at FROM api_keys k"
            " JOIN users u ON u.id = k.user_id JOIN organizations o ON o.id = k.organization_id"
            " ORDER BY k.created_at, k.id"
        )
    return [ApiKey(*row) for row in rows]


def exist(tx: Tx) -> bool:
    """Return whether any key was ever created."""
    return tx.row("SELECT 1 FROM api_keys LIMIT 1") is not None


def ids_of(tx: Tx, organization_id: str) -> list[str]:
    """Return the ids of an organization's keys, revoked ones too."""
    rows = tx.rows("SELECT id FROM api_keys WHERE organization_id = :id", id=organization_id)
    return [str(row[0]) for row in rows]


def revoke(tx: Tx, key_id: str) -> None:
    """Revoke a key for good. Idempotent. Raises Error(NOT_FOUND)."""
    row = tx.row("SELECT organization_id FROM api_keys WHERE id = :id", id=key_id)
    if row is None:
        raise missing(key_id)
    if tx.run(
        "UPDATE api_keys SET revoked_at = :now WHERE id = :id AND revoked_at IS NULL",
        now=tx.now_micros,
        id=key_id,
    ):
        audit.record(
            tx,
            audit.EventType.API_KEY_REVOKED,
            organization_id=row[0],
            actor=audit.SERVER,
            resource_id=key_id,
        )


def revoke_all_of(tx: Tx, user_id: str, actor: Actor) -> None:
    """Revoke all keys of a user for good."""
    rows = tx.rows(
        "SELECT id, organization_id FROM api_keys WHERE user_id = :user AND revoked_at IS NULL ORDER BY id",
        user=user_id,
    )
    for key_id, organization_id in rows:
        tx.run("UPDATE api_keys SET revoked_at = :now WHERE id = :id", now=tx.now_micros, id=key_id)
        audit.record(
            tx,
            audit.EventType.API_KEY_REVOKED,
            organization_id=organization_id,
            actor=actor,
            resource_id=key_id,
        )


def missing(key_id: str) -> Error:
    """Return the error for an unknown key."""
    said = f"No API key '{key_id}'. See `tunewarden keys list`."
    return Error(Kind.NOT_FOUND, said, param="key")


def holder(tx: Tx, presented: Presented, request_id: str) -> Caller:
    """Return the caller of a key, read in this transaction. Raises Error(UNAUTHENTICATED), the same for every reason."""
    return _caller(tx.row(HOLDER, id=presented.id), presented, request_id)


def authenticate(database: Database, text: str, request_id: str) -> Caller:
    """Return the caller of the key `text`. Raises Error(UNAUTHENTICATED), the same for every reason."""
    return look_up(database, present(text), request_id)


def look_up(database: Database, presented: Presented, request_id: str) -> Caller:
    """Return the caller of a key. Raises Error(UNAUTHENTICATED)."""
    return _caller(database.peek(HOLDER, id=presented.id), presented, request_id)


def is_active(database: Database, key_id: str) -> bool:
    """Return whether a key is not revoked: one read by primary key, no cache."""
    row = database.peek("SELECT 1 FROM api_keys WHERE id = :id AND revoked_at IS NULL", id=key_id)
    return row is not None


def check_active(database: Database, caller: Caller) -> None:
    """Check that the caller's key was not revoked since. Raises Error(UNAUTHENTICATED) (I19)."""
    if not is_active(database, caller.key_id):
        raise revoked()


def authorize_now(tx: Tx, caller: Caller, action: Action) -> None:
    """Check that the caller may do `action`, by key, scopes and roles as this transaction reads them.

    Raises Error(UNAUTHENTICATED) if the key was revoked, its user removed or its project archived since;
    Error(FORBIDDEN).
    """
    row = tx.row(HOLDER, id=caller.key_id)
    if row is None:
        raise revoked()
    policy.authorize(_of_row(row, caller.request_id), action)


def _caller(row: Row | None, presented: Presented, request_id: str) -> Caller:
    if presented.is_admin:
        raise admin_key_here()
    if row is None or not hmac.compare_digest(row[1], presented.digest):
        raise refused(presented.shown)
    return _of_row(row, request_id)


def _of_row(row: Row, request_id: str) -> Caller:
    return Caller(
        key_id=row[0],
        user_id=row[2],
        organization_id=row[3],
        organization_name=row[4],
        project_id=row[5],
        role=Role(row[6]),
        project_role=ProjectRole(row[8]) if row[8] else None,
        scopes=frozenset(row[7].split()),
        request_id=request_id,
    )


def admin_key_here() -> Error:
    """Return the error of an admin key where an API key is needed. It does not say whether the key is valid."""
    return Error(
        Kind.FORBIDDEN,
        "An admin key only administers: it can be used under /v1/organization. Use an API key of a project here.",
        code="missing_scope",
    )


def revoked() -> Error:
    """Return the error that ends a request whose API key was revoked while it ran."""
    return Error(
        Kind.UNAUTHENTICATED,
        "The API key was revoked while this request was running.",
        code="invalid_api_key",
    )
