"""SQL on invites, and the text of their links. A link's secret has 256 bits and is stored as SHA-256."""

import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from enum import StrEnum

from tunewarden import audit, ids
from tunewarden.audit import Actor
from tunewarden.db import cursors
from tunewarden.db.database import Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import GrantedRole, Role
from tunewarden.ids import TOKEN_LENGTH, Prefix, mint, token

SECRET_LENGTH = 43  # 43 alphanumerics carry 256 bits
# What a link has after its last slash: the invite's id without its prefix, and the secret.
TOKEN = re.compile(rf"([A-Za-z0-9]{{{TOKEN_LENGTH}}})([A-Za-z0-9]{{{SECRET_LENGTH}}})")
COLUMNS = "id, organization_id, email, role, grants, secret_sha256, invited_by, created_at, expires_at, accepted_at"
LIST = cursors.ByTime(
    COLUMNS, "FROM invites WHERE organization_id = :organization", may_be_gone=Prefix.INVITE
)


class Status(StrEnum):
    """What became of an invite, in OpenAI's words."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Grant:
    """A project that who accepts becomes a member of, and the role there."""

    project_id: str
    role: GrantedRole


@dataclass(frozen=True, slots=True)
class Invite:
    """An invite. Times are in microseconds; `digest` is of its link's secret."""

    id: str
    organization_id: str
    email: str
    role: Role
    grants: tuple[Grant, ...]
    digest: bytes
    invited_by: str
    created_at: int
    expires_at: int
    accepted_at: int | None

    def status(self, now_micros: int) -> Status:
        """Return what became of it by now."""
        if self.accepted_at is not None:
            return Status.ACCEPTED
        return Status.EXPIRED if self.expires_at <= now_micros else Status.PENDING


def insert(
    tx: Tx,
    *,
    organization_id: str,
    email: str,
    role: Role,
    grants: tuple[Grant, ...],
    invited_by: str,
    expires_at: int,
) -> tuple[Invite, str]:
    """Add an invite; return it and its token, which is not stored."""
    invite_id, secret = mint(Prefix.INVITE), token(SECRET_LENGTH)
    digest = hashlib.sha256(secret.encode()).digest()
    tx.run(
        "INSERT INTO invites (id, organization_id, email, role, grants, secret_sha256, invited_by, created_at,"
        " expires_at) VALUES (:id, :organization, :email, :role, :grants, :sha, :by, :now, :expires)",
        id=invite_id,
        organization=organization_id,
        email=email,
        role=role.value,
        grants=json.dumps([[one.project_id, one.role.value] for one in grants]),
        sha=digest,
        by=invited_by,
        now=tx.now_micros,
        expires=expires_at,
    )
    invite = Invite(
        invite_id, organization_id, email, role, grants, digest, invited_by, tx.now_micros, expires_at,
        accepted_at=None,
    )  # fmt: skip
    return invite, invite_id[-TOKEN_LENGTH:] + secret


def find(tx: Tx, organization_id: str, invite_id: str) -> Invite:
    """Return an invite of an organization. Raises Error(NOT_FOUND), the same for unknown and foreign ones (I9)."""
    row = tx.row(
        f"SELECT {COLUMNS} FROM invites WHERE id = :id AND organization_id = :organization",
        id=invite_id,
        organization=organization_id,
    )
    if row is None:
        said = f"No such invite: '{ids.shown(invite_id)}'."
        raise Error(Kind.NOT_FOUND, said, param="invite_id")
    return of_row(row)


def of_token(tx: Tx, text: str) -> Invite | None:
    """Return the pending invite of a link's token, or None: the same for every reason."""
    match = TOKEN.fullmatch(text)
    if match is None:
        return None
    invite_id = f"{Prefix.INVITE}-{match[1]}"
    row = tx.row(f"SELECT {COLUMNS} FROM invites WHERE id = :id", id=invite_id)
    if row is None:
        return None
    invite = of_row(row)
    is_right = hmac.compare_digest(invite.digest, hashlib.sha256(match[2].encode()).digest())
    return invite if is_right and invite.status(tx.now_micros) is Status.PENDING else None


def pending_to(tx: Tx, organization_id: str, email: str) -> str | None:
    """Return the id of a pending invite to an address, or None."""
    row = tx.row(
        "SELECT id FROM invites WHERE organization_id = :organization AND email = :email"
        " AND accepted_at IS NULL AND expires_at > :now",
        organization=organization_id,
        email=email,
        now=tx.now_micros,
    )
    return None if row is None else str(row[0])


def count_unaccepted(tx: Tx, organization_id: str) -> int:
    """Return how many invites of an organization were not accepted, expired ones included."""
    row = tx.row(
        "SELECT COUNT(*) FROM invites WHERE organization_id = :organization AND accepted_at IS NULL",
        organization=organization_id,
    )
    return 0 if row is None else int(row[0])


def note_accepted(tx: Tx, invite: Invite, user_id: str) -> None:
    """Note who accepted an invite; its link does nothing from then on."""
    tx.run(
        "UPDATE invites SET accepted_at = :now, accepted_by = :user WHERE id = :id",
        now=tx.now_micros,
        user=user_id,
        id=invite.id,
    )


def delete(tx: Tx, invite: Invite, actor: Actor) -> None:
    """Delete an invite, with its address, and record it."""
    tx.run("DELETE FROM invites WHERE id = :id", id=invite.id)
    audit.record(
        tx,
        audit.EventType.INVITE_DELETED,
        organization_id=invite.organization_id,
        actor=actor,
        resource_id=invite.id,
    )


def withdraw_all_of(tx: Tx, user_id: str, actor: Actor) -> None:
    """Delete what a user invited and nobody accepted yet: who is no Owner any more invites nobody."""
    rows = tx.rows(
        f"SELECT {COLUMNS} FROM invites WHERE invited_by = :user AND accepted_at IS NULL ORDER BY id",
        user=user_id,
    )
    for row in rows:
        delete(tx, of_row(row), actor)


def has_expired(tx: Tx, before: int) -> bool:
    """Return whether `delete_expired` has something to do."""
    row = tx.row(
        "SELECT 1 FROM invites WHERE accepted_at IS NULL AND expires_at < :before LIMIT 1",
        before=before,
    )
    return row is not None


def delete_expired(tx: Tx, before: int, limit: int) -> int:
    """Delete up to `limit` invites that expired before a time and that nobody accepted; return how many."""
    rows = tx.rows(
        f"SELECT {COLUMNS} FROM invites WHERE accepted_at IS NULL AND expires_at < :before"
        " ORDER BY expires_at LIMIT :limit",
        before=before,
        limit=limit,
    )
    for row in rows:
        delete(tx, of_row(row), audit.SERVER)
    return len(rows)


def forget(tx: Tx, user_id: str) -> None:
    """Delete the invite that a user accepted, which has the address."""
    tx.run("DELETE FROM invites WHERE accepted_by = :user", user=user_id)


def of_row(row: Row) -> Invite:
    """Convert a row of COLUMNS."""
    grants = tuple(Grant(project, GrantedRole(role)) for project, role in json.loads(row[4]))
    return Invite(
        row[0], row[1], row[2], Role(row[3]), grants, row[5], row[6], row[7], row[8], row[9]
    )
