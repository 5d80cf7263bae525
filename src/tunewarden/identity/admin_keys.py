"""Admin keys, which only administer their organization. One is valid while its user is an Owner of it."""

import hmac
from dataclasses import dataclass

from tunewarden import audit
from tunewarden.audit import Actor
from tunewarden.db import cursors
from tunewarden.db.database import Database, Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import key_format, key_rows
from tunewarden.identity.key_format import Expired, Presented
from tunewarden.identity.policy import Role
from tunewarden.ids import Prefix

HOLDER = (
    "SELECT k.id, k.secret_sha256, k.user_id, k.organization_id, o.name, k.expires_at, k.expired_at"
    " FROM admin_api_keys k"
    " JOIN users u ON u.id = k.user_id JOIN organizations o ON o.id = k.organization_id"
    " WHERE k.id = :id AND k.revoked_at IS NULL AND u.removed_at IS NULL AND u.role = :owner"
)
_COLUMNS = "k.id, k.organization_id, k.name, k.created_at, k.expires_at, k.user_id, u.name, u.role, u.created_at"
_KEYS = (
    "FROM admin_api_keys k JOIN users u ON u.id = k.user_id"
    " WHERE k.organization_id = :organization AND k.revoked_at IS NULL"
)
_LIST = cursors.ByTime(
    _COLUMNS,
    _KEYS,
    "k.created_at",
    "k.id",
    cursors="FROM admin_api_keys k WHERE k.organization_id = :organization",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Administrator:
    """The authenticated caller of /v1/organization: an admin key, and the Owner whose key it is."""

    key_id: str
    user_id: str
    organization_id: str
    organization_name: str
    request_id: str

    @property
    def actor(self) -> Actor:
        """The administrator as the actor of an audit event; an admin key belongs to no project."""
        return Actor(
            key_id=self.key_id, user_id=self.user_id, project_id=None, request_id=self.request_id
        )


@dataclass(frozen=True, slots=True)
class AdminKey:
    """An admin key without its secret, and its user. Times are in microseconds."""

    id: str
    organization_id: str
    name: str
    created_at: int
    expires_at: int | None
    user_id: str
    user_name: str
    user_role: str
    user_created_at: int


def create(
    tx: Tx,
    *,
    organization_id: str,
    user_id: str,
    name: str,
    actor: Actor,
    expires_in_seconds: int | None = None,
) -> tuple[AdminKey, str]:
    """Create an admin key of a user; return it and its text, which is not stored. Raises Error(INVALID)."""
    key_format.check_name(name)
    expires_at = key_rows.expiry(tx, expires_in_seconds)
    secret = key_format.generate(Prefix.ADMIN_KEY)
    tx.run(
        "INSERT INTO admin_api_keys (id, organization_id, user_id, name, secret_sha256, created_at, expires_at)"
        " VALUES (:id, :organization, :user, :name, :sha, :now, :expires)",
        id=secret.id,
        organization=organization_id,
        user=user_id,
        name=name,
        sha=secret.digest,
        now=tx.now_micros,
        expires=expires_at,
    )
    audit.record(
        tx,
        audit.EventType.ADMIN_KEY_CREATED,
        organization_id=organization_id,
        actor=actor,
        resource_id=secret.id,
        user_id=user_id,
    )
    return find(tx, organization_id, secret.id), secret.text


def find(tx: Tx, organization_id: str, key_id: str) -> AdminKey:
    """Return an admin key that was not revoked. Raises Error(NOT_FOUND)."""
    row = tx.row(
        f"SELECT {_COLUMNS} {_KEYS} AND k.id = :id",
        id=key_id,
        organization=organization_id,
    )
    if row is None:
        raise Error(
            Kind.NOT_FOUND,
            f"No such admin API key: '{key_id[: key_format.NAME_LENGTH_MAX]}'.",
            param="key_id",
        )
    return AdminKey(*row)


def page(
    tx: Tx, organization_id: str, *, is_ascending: bool, after: str | None, limit: int
) -> list[AdminKey]:
    """Return up to `limit` admin keys that were not revoked, oldest first if `is_ascending`.

    Raises Error(INVALID) for an unknown cursor.
    """
    rows = _LIST.page(
        tx, after=after, limit=limit, is_ascending=is_ascending, organization=organization_id
    )
    return [AdminKey(*row) for row in rows]


def revoke(tx: Tx, organization_id: str, key_id: str, actor: Actor) -> None:
    """Revoke an admin key for good. Raises Error(NOT_FOUND)."""
    key = find(tx, organization_id, key_id)
    tx.run(
        "UPDATE admin_api_keys SET revoked_at = :now WHERE id = :id", now=tx.now_micros, id=key.id
    )
    audit.record(
        tx,
        audit.EventType.ADMIN_KEY_REVOKED,
        organization_id=organization_id,
        actor=actor,
        resource_id=key.id,
    )


def check_another_has_one(tx: Tx, organization_id: str, user_id: str) -> None:
    """Check that an Owner other than this user has a valid admin key. Raises Error(CONFLICT)."""
    another = tx.row(
        "SELECT 1 FROM admin_api_keys k JOIN users u ON u.id = k.user_id"
        " WHERE k.organization_id = :organization AND k.user_id <> :user AND k.revoked_at IS NULL"
        " AND k.expired_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > :now)"
        " AND u.removed_at IS NULL AND u.role = :owner LIMIT 1",
        organization=organization_id,
        user=user_id,
        now=tx.now_micros,
        owner=Role.OWNER.value,
    )
    if another is None:
        raise Error(
            Kind.CONFLICT,
            f"No Owner but '{user_id}' has a valid admin key, so nobody could administer this organization. Make an"
            " admin key for another Owner first: `tunewarden admin-keys create --user`.",
            param="user_id",
            code="last_admin_key",
        )


def note_expired(tx: Tx, key_id: str) -> None:
    """Note that a key was refused because it has expired. Idempotent."""
    tx.run(
        "UPDATE admin_api_keys SET expired_at = :now WHERE id = :id AND expired_at IS NULL",
        now=tx.now_micros,
        id=key_id,
    )


def revoke_all_of(tx: Tx, organization_id: str, user_id: str, actor: Actor) -> None:
    """Revoke all admin keys of a user for good."""
    rows = tx.rows(
        "SELECT id FROM admin_api_keys WHERE user_id = :user AND revoked_at IS NULL ORDER BY id",
        user=user_id,
    )
    for (key_id,) in rows:
        tx.run(
            "UPDATE admin_api_keys SET revoked_at = :now WHERE id = :id",
            now=tx.now_micros,
            id=key_id,
        )
        audit.record(
            tx,
            audit.EventType.ADMIN_KEY_REVOKED,
            organization_id=organization_id,
            actor=actor,
            resource_id=key_id,
        )


def look_up(database: Database, presented: Presented, request_id: str) -> Administrator:
    """Return the administrator of a key. Raises Error(UNAUTHENTICATED), for an API key too."""
    with database.read() as tx:
        return holder(tx, presented, request_id)


def holder(tx: Tx, presented: Presented, request_id: str) -> Administrator:
    """Return what `look_up` does, in the caller's transaction."""
    row = tx.row(HOLDER, id=presented.id, owner=Role.OWNER.value)
    if row is None or not hmac.compare_digest(row[1], presented.digest):
        raise key_format.refused(presented.shown, is_admin=True)
    return _unexpired(tx, row, request_id)


def standing(tx: Tx, key_id: str, request_id: str) -> Administrator:
    """Return the administrator of a key that was shown before. Raises Error(UNAUTHENTICATED) if it is none any more."""
    row = tx.row(HOLDER, id=key_id, owner=Role.OWNER.value)
    if row is None:
        raise key_format.refused(key_format.PREFIX, is_admin=True)
    return _unexpired(tx, row, request_id)


def tried(database: Database, presented: Presented, request_id: str) -> tuple[str, Actor] | None:
    """Return the organization of an admin key, valid or not, and who presents it; None if there is no such key.

    Without its secret that is nobody.
    """
    row = database.peek(
        "SELECT organization_id, secret_sha256, user_id FROM admin_api_keys WHERE id = :id",
        id=presented.id,
    )
    if row is None:
        return None
    is_right = hmac.compare_digest(row[1], presented.digest)
    return row[0], Actor(
        key_id=presented.id if is_right else None,
        user_id=row[2] if is_right else None,
        project_id=None,
        request_id=request_id,
    )


def api_key_here() -> Error:
    """Return the error of a valid API key where an admin key is needed."""
    return Error(
        Kind.FORBIDDEN,
        "You have insufficient permissions for this operation. Missing scopes: api.management.write."
        " Only an admin key administers an organization. `tunewarden admin-keys create` makes one: for another Owner with"
        " --user, for the first on the server's machine.",
        code="missing_scope",
    )


def check_now(tx: Tx, administrator: Administrator) -> None:
    """Check in this transaction that the key is valid and its user an Owner. Raises Error(UNAUTHENTICATED)."""
    standing(tx, administrator.key_id, administrator.request_id)


def _unexpired(tx: Tx, row: Row, request_id: str) -> Administrator:
    if key_rows.has_expired(row[5], row[6], tx.now_micros):
        raise Expired(row[0], is_noted=row[6] is not None)
    return Administrator(
        key_id=row[0],
        user_id=row[2],
        organization_id=row[3],
        organization_name=row[4],
        request_id=request_id,
    )
