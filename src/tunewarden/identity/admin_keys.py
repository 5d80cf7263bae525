"""Admin keys, which only administer their organization: create, look up. One is valid while its user is an Owner."""

import hmac
from dataclasses import dataclass

from tunewarden import audit
from tunewarden.audit import Actor
from tunewarden.db.database import Database, Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import key_format
from tunewarden.identity.key_format import Presented
from tunewarden.identity.policy import Role
from tunewarden.ids import Prefix

HOLDER = (
    "SELECT k.id, k.secret_sha256, k.user_id, k.organization_id, o.name FROM admin_api_keys k"
    " JOIN users u ON u.id = k.user_id JOIN organizations o ON o.id = k.organization_id"
    " WHERE k.id = :id AND k.revoked_at IS NULL AND u.removed_at IS NULL AND u.role = :owner"
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


def create(
    tx: Tx, *, organization_id: str, user_id: str, name: str, actor: Actor
) -> tuple[str, str]:
    """Create an admin key of a user; return its id and its text, which is not stored. Raises Error(INVALID)."""
    key_format.check_name(name)
    secret = key_format.generate(Prefix.ADMIN_KEY)
    tx.run(
        "INSERT INTO admin_api_keys (id, organization_id, user_id, name, secret_sha256, created_at)"
        " VALUES (:id, :organization, :user, :name, :sha, :now)",
        id=secret.id,
        organization=organization_id,
        user=user_id,
        name=name,
        sha=secret.digest,
        now=tx.now_micros,
    )
    audit.record(
        tx,
        audit.EventType.ADMIN_KEY_CREATED,
        organization_id=organization_id,
        actor=actor,
        resource_id=secret.id,
        user_id=user_id,
    )
    return secret.id, secret.text


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
    """Return the administrator of a key. Raises Error(UNAUTHENTICATED), Error(FORBIDDEN) for a key that is none."""
    if not presented.is_admin:
        raise Error(
            Kind.FORBIDDEN,
            "You have insufficient permissions for this operation. Missing scopes: api.management.write."
            " Only an admin key administers an organization: an Owner makes one with `tunewarden admin-keys create`.",
            code="missing_scope",
        )
    row = database.peek(HOLDER, id=presented.id, owner=Role.OWNER.value)
    if row is None or not hmac.compare_digest(row[1], presented.digest):
        raise key_format.refused(presented.shown)
    return _of_row(row, request_id)


def check_now(tx: Tx, administrator: Administrator) -> None:
    """Check in this transaction that the key is valid and its user an Owner. Raises Error(UNAUTHENTICATED)."""
    if tx.row(HOLDER, id=administrator.key_id, owner=Role.OWNER.value) is None:
        raise key_format.refused(key_format.ADMIN_PREFIX[: key_format.SHOWN_LENGTH])


def _of_row(row: Row, request_id: str) -> Administrator:
    return Administrator(
        key_id=row[0],
        user_id=row[2],
        organization_id=row[3],
        organization_name=row[4],
        request_id=request_id,
    )
