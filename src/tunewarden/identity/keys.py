"""API keys at a request: the caller of one, and whether it may act now. The operator's keys of all organizations."""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from tunewarden import audit
from tunewarden.audit import Actor
from tunewarden.db.database import Database, Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import key_rows, organizations, policy, project_members, users
from tunewarden.identity.key_format import Expired, Presented, present, refused
from tunewarden.identity.key_rows import KeyRow
from tunewarden.identity.policy import Action, Caller, ProjectRole, Role

# What a key's caller is now: nothing of it is there if the key was revoked, its user removed, or its project archived.
HOLDER = (
    "SELECT k.id, k.secret_sha256, k.user_id, k.organization_id, o.name, k.project_id, u.role, k.scopes, m.role,"
    " u.service_project_id, k.expires_at, k.expired_at"
    " FROM api_keys k JOIN users u ON u.id = k.user_id JOIN organizations o ON o.id = k.organization_id"
    " JOIN projects p ON p.id = k.project_id"
    " LEFT JOIN project_members m ON m.project_id = k.project_id AND m.user_id = k.user_id"
    " WHERE k.id = :id AND k.revoked_at IS NULL AND u.removed_at IS NULL AND p.archived_at IS NULL"
)
# The role in the default project of a user that the operator makes with a key.
PROJECT_ROLES = {Role.OWNER: ProjectRole.OWNER, Role.READER: ProjectRole.VIEWER}


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as the operator's lists show it, without its secret; times are in microseconds."""

    id: str
    name: str
    role: str
    organization: str
    project_id: str
    user_id: str
    scopes: str
    created_at: int
    expires_at: int | None
    expired_at: int | None
    revoked_at: int | None

    def state(self, now_micros: int) -> str:
        """Return `active`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        has_expired = key_rows.has_expired(self.expires_at, self.expired_at, now_micros)
        return "expired" if has_expired else "active"


def create(
    tx: Tx,
    *,
    organization: str,
    role: Role,
    name: str,
    scopes: Iterable[str] = (),
    project_role: ProjectRole | None = None,
    expires_in_seconds: int | None = None,
) -> tuple[ApiKey, str]:
    """Create a key for a user of `organization` with `role`; return it and its text, which is not stored.

    The organization is created if it is new. `project_role` is the user's role in the default project; without it,
    an owner's or a viewer's. Raises Error(INVALID) for an unknown scope or a bad name.
    """
    owner = organizations.find_or_create(tx, organization)
    user_id = users.find_or_add(tx, owner.id, name, role, audit.SERVER)
    project_members.set_role(tx, owner.project_id, user_id, project_role or PROJECT_ROLES[role])
    key, text = key_rows.insert(
        tx,
        organization_id=owner.id,
        project_id=owner.project_id,
        user_id=user_id,
        name=name,
        scopes=scopes,
        expires_at=key_rows.expiry(tx, expires_in_seconds),
        actor=audit.SERVER,
        role=role.value,
    )
    shown = ApiKey(
        key.id,
        name,
        role.value,
        owner.name,
        key.project_id,
        user_id,
        " ".join(key.scopes),
        key.created_at,
        key.expires_at,
        expired_at=None,
        revoked_at=None,
    )
    return shown, text


def list_all(tx: Tx) -> list[ApiKey]:
    """Return every key of every organization, oldest first."""
    rows = tx.rows(
        "SELECT k.id, k.name, u.role, o.name, k.project_id, k.user_id, k.scopes, k.created_at, k.expires_at,"
        " k.expired_at, k.revoked_at FROM api_keys k"
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


def find(tx: Tx, key_id: str) -> KeyRow:
    """Return a key of any organization, for the operator. Raises Error(NOT_FOUND)."""
    key = key_rows.find(tx, key_id)
    if key is None:
        raise missing(key_id)
    return key


def revoke(tx: Tx, key_id: str, actor: Actor = audit.SERVER) -> None:
    """Revoke a key of any organization for good. Idempotent. Raises Error(NOT_FOUND)."""
    key_rows.revoke(tx, find(tx, key_id), actor)


def missing(key_id: str) -> Error:
    """Return the error for an unknown key."""
    said = f"No API key '{key_id}'. See `tunewarden keys list`."
    return Error(Kind.NOT_FOUND, said, param="key")


def authenticate(database: Database, text: str, request_id: str) -> Caller:
    """Return the caller of the key `text`. Raises Error(UNAUTHENTICATED), the same for every reason but expiry."""
    return look_up(database, present(text), request_id)


def look_up(database: Database, presented: Presented, request_id: str) -> Caller:
    """Return the caller of a key. Raises Error(UNAUTHENTICATED)."""
    with database.read() as tx:
        return holder(tx, presented, request_id)


def holder(tx: Tx, presented: Presented, request_id: str) -> Caller:
    """Return the caller of a key, read in this transaction.

    Raises Error(UNAUTHENTICATED), the same for every reason; but `Expired` for the right secret of an expired key.
    """
    if presented.is_admin:
        raise admin_key_here()
    row = tx.row(HOLDER, id=presented.id)
    if row is None or not hmac.compare_digest(row[1], presented.digest):
        raise refused(presented.shown)
    return _unexpired(tx, row, request_id)


def organization_of(database: Database, key_id: str) -> str | None:
    """Return the organization of a key, valid or not; None if there is no such key."""
    row = database.peek("SELECT organization_id FROM api_keys WHERE id = :id", id=key_id)
    return None if row is None else str(row[0])


def tried(database: Database, presented: Presented, request_id: str) -> tuple[str, Actor] | None:
    """Return the organization of a key, valid or not, and who presents it; None if there is no such key.

    Without its secret that is nobody: who knows only an id acts in nobody's name.
    """
    row = database.peek(
        "SELECT organization_id, secret_sha256, user_id, project_id FROM api_keys WHERE id = :id",
        id=presented.id,
    )
    if row is None:
        return None
    is_right = hmac.compare_digest(row[1], presented.digest)
    return row[0], Actor(
        key_id=presented.id if is_right else None,
        user_id=row[2] if is_right else None,
        project_id=row[3] if is_right else None,
        request_id=request_id,
    )


def actor_of(tx: Tx, key_id: str, request_id: str | None) -> Actor:
    """Return who acted with a key as the actor of an audit event; without a key of that id it is the server."""
    row = tx.row("SELECT user_id, project_id FROM api_keys WHERE id = :id", id=key_id)
    if row is None:
        return Actor(key_id=None, user_id=None, project_id=None, request_id=request_id)
    return Actor(key_id=key_id, user_id=row[0], project_id=row[1], request_id=request_id)


def standing(tx: Tx, key_id: str) -> Caller:
    """Return what the caller of a key that was admitted is now, without a request id.

    Raises Error(UNAUTHENTICATED) if the key was revoked or expired, its user removed or its project archived.
    """
    row = tx.row(HOLDER, id=key_id)
    if row is None:
        raise revoked()
    return _unexpired(tx, row, "")


def authorize_now(tx: Tx, caller: Caller, action: Action) -> None:
    """Check that the caller may do `action`, by key, scopes and roles as this transaction reads them.

    Raises Error(UNAUTHENTICATED) if the key was revoked or expired, its user removed or its project archived since;
    Error(FORBIDDEN).
    """
    policy.authorize(standing(tx, caller.key_id), action)


def check_now(database: Database, caller: Caller, action: Action) -> None:
    """Check like `authorize_now`, in a transaction of its own: while something that takes long goes on (I19)."""
    with database.read() as tx:
        authorize_now(tx, caller, action)


def _unexpired(tx: Tx, row: Row, request_id: str) -> Caller:
    expires_at, expired_at = row[10], row[11]
    if key_rows.has_expired(expires_at, expired_at, tx.now_micros):
        raise Expired(row[0], is_noted=expired_at is not None)
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
        is_service_account=row[9] is not None,
        expires_at=expires_at,
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
