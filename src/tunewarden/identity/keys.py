"""API keys: `sk-tw-<id>-<secret><checksum>`, shown once, stored as SHA-256.

The secret has 256 bits, so a fast hash is enough (a slow one is for guessable secrets). The
checksum rejects mistyped and invented keys without SQL; the id finds the row, and the
secret is compared in constant time.
"""

import hashlib
import hmac
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from tunewarden import audit
from tunewarden.db.database import Database, Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import organizations
from tunewarden.identity.policy import SCOPES, Caller, Role
from tunewarden.ids import ALPHANUMERICS, Prefix, token

ID_LENGTH = 16
SECRET_LENGTH = 43  # 43 alphanumerics carry 256 bits
CHECKSUM_LENGTH = 6
PREFIX = "sk-tw-"
FORMAT = re.compile(
    rf"{PREFIX}([A-Za-z0-9]{{{ID_LENGTH}}})-([A-Za-z0-9]{{{SECRET_LENGTH + CHECKSUM_LENGTH}}})"
)
NAME_LENGTH_MAX = 100
HOLDER = (
    "SELECT k.id, k.secret_sha256, k.user_id, k.organization_id, o.name, k.project_id, u.role, k.scopes"
    " FROM api_keys k JOIN users u ON u.id = k.user_id JOIN organizations o ON o.id = k.organization_id"
    " WHERE k.id = :id AND k.revoked_at IS NULL"
)


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


@dataclass(frozen=True, slots=True)
class Presented:
    """A well-formed key from a request, not looked up yet; `shown` is its redacted form for errors."""

    id: str
    digest: bytes
    shown: str


def create(
    tx: Tx, *, organization: str, role: Role, name: str, scopes: Iterable[str] = ()
) -> tuple[ApiKey, str]:
    """Create a key for a user of `organization` with `role`; return it and its text, which is not stored.

    The organization is created if it is new. Raises Error(INVALID) for an unknown scope or a bad name.
    """
    chosen = sorted(set(scopes))
    if not 1 <= len(name) <= NAME_LENGTH_MAX or not name.isprintable():
        raise Error(
            Kind.INVALID, "Invalid key name: use 1 to 100 printable characters.", param="name"
        )
    for scope in chosen:
        if scope not in SCOPES:
            raise Error(
                Kind.INVALID,
                f"Unknown scope '{scope}'. Known: {', '.join(sorted(SCOPES))}.",
                param="scopes",
            )
    owner = organizations.find_or_create(tx, organization)
    user_id = organizations.add_user(tx, owner, name, role)
    key = ApiKey(
        f"{Prefix.API_KEY}_{token(ID_LENGTH)}",
        name,
        role.value,
        owner.name,
        " ".join(chosen),
        tx.now_micros,
        None,
    )
    secret = token(SECRET_LENGTH)
    tx.run(
        "INSERT INTO api_keys VALUES (:id, :organization, :project, :user, :name, :sha, :scopes, :now, NULL)",
        id=key.id,
        organization=owner.id,
        project=owner.project_id,
        user=user_id,
        name=name,
        sha=_digest(secret),
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
    body = key.id.removeprefix(f"{Prefix.API_KEY}_")
    return key, f"{PREFIX}{body}-{secret}{_checksum(body + secret)}"


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


def missing(key_id: str) -> Error:
    """Return the error for an unknown key."""
    said = f"No API key '{key_id}'. See `tunewarden keys list`."
    return Error(Kind.NOT_FOUND, said, param="key")


def present(text: str) -> Presented:
    """Parse a key, without looking it up. Raises Error(UNAUTHENTICATED)."""
    match = FORMAT.fullmatch(text)
    if match is None:
        raise _refused(text[:6])
    body, secret = match[1], match[2][:SECRET_LENGTH]
    if not hmac.compare_digest(_checksum(body + secret), match[2][SECRET_LENGTH:]):
        raise _refused(text[:6])
    return Presented(f"{Prefix.API_KEY}_{body}", _digest(secret), text[:6])


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


def role_now(tx: Tx, caller: Caller) -> Role | None:
    """Return the current role of the caller's user, read in this transaction; None if the key is revoked."""
    row = tx.row(
        "SELECT u.role FROM api_keys k JOIN users u ON u.id = k.user_id"
        " WHERE k.id = :id AND k.revoked_at IS NULL",
        id=caller.key_id,
    )
    return Role(row[0]) if row else None


def _caller(row: Row | None, presented: Presented, request_id: str) -> Caller:
    if row is None or not hmac.compare_digest(row[1], presented.digest):
        raise _refused(presented.shown)
    return Caller(
        key_id=row[0],
        user_id=row[2],
        organization_id=row[3],
        organization_name=row[4],
        project_id=row[5],
        role=Role(row[6]),
        scopes=frozenset(row[7].split()),
        request_id=request_id,
    )


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _checksum(text: str) -> str:
    number = zlib.crc32(text.encode())
    digits = ""
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(ALPHANUMERICS))
        digits += ALPHANUMERICS[digit]
    return digits


def _refused(beginning: str) -> Error:
    shown = f"{beginning}…" if beginning.startswith("sk-") else "(not shown)"
    return Error(
        Kind.UNAUTHENTICATED,
        f"Incorrect API key provided: {shown}. Make one with `tunewarden keys create`.",
        code="invalid_api_key",
    )


def revoked() -> Error:
    """Return the error that ends a request whose API key was revoked while it ran."""
    return Error(
        Kind.UNAUTHENTICATED,
        "The API key was revoked while this request was running.",
        code="invalid_api_key",
    )
