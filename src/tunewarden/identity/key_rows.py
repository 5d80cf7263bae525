"""Rows of API keys. A key belongs to one user in one project; its secret is stored as a digest only."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tunewarden import audit
from tunewarden.audit import Actor
from tunewarden.db import lists
from tunewarden.db.database import Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import key_format, policy
from tunewarden.ids import Prefix

SECOND = 1_000_000
LIFE_SECONDS_MAX = 365 * 24 * 3600  # OpenAI's limit for admin keys
COLUMNS = (
    "k.id, k.organization_id, k.project_id, k.user_id, k.name, k.scopes, k.created_at, k.expires_at,"
    " k.expired_at, k.revoked_at"
)


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key without its secret. Times are in microseconds.

    `expired_at` is when its expiry was first noticed: from then on it is refused whatever the clock says.
    """

    id: str
    organization_id: str
    project_id: str
    user_id: str
    name: str
    scopes: tuple[str, ...]
    created_at: int
    expires_at: int | None
    expired_at: int | None
    revoked_at: int | None

    def has_expired(self, now_micros: int) -> bool:
        """Return whether it is refused because of its expiry."""
        return has_expired(self.expires_at, self.expired_at, now_micros)


def has_expired(expires_at: int | None, expired_at: int | None, now_micros: int) -> bool:
    """Return whether a key with these times is refused because of its expiry."""
    return expired_at is not None or (expires_at is not None and now_micros >= expires_at)


def seconds_of(micros: int | None) -> int | None:
    """Return a time as responses show it: Unix seconds, None if there is none."""
    return None if micros is None else micros // SECOND


def of_row(row: Row) -> KeyRow:
    """Convert a row that begins with COLUMNS."""
    identity, scopes, times = row[:5], row[5], row[6:10]
    fields: list[Any] = [*identity, tuple(scopes.split()), *times]
    return KeyRow(*fields)


def expiry(tx: Tx, seconds: int | None, *, param: str = "expires_in_seconds") -> int | None:
    """Return when a key expires that is made or changed now; None: never. Raises Error(INVALID).

    A whole second, so that a key expires exactly when lists show it.
    """
    if seconds is None:
        return None
    if not 1 <= seconds <= LIFE_SECONDS_MAX:
        raise Error(
            Kind.INVALID,
            f"Invalid value for '{param}': use 1 to {LIFE_SECONDS_MAX} seconds, which is a year.",
            param=param,
            code="invalid_value",
        )
    return (tx.now_micros // SECOND + seconds) * SECOND


def insert(
    tx: Tx,
    *,
    organization_id: str,
    project_id: str,
    user_id: str,
    name: str,
    scopes: Iterable[str],
    expires_at: int | None,
    actor: Actor,
    **details: object,
) -> tuple[KeyRow, str]:
    """Add a key; return it and its text, which is not stored. Raises Error(INVALID) for a bad name or scope."""
    key_format.check_name(name)
    chosen = policy.checked_scopes(scopes)
    secret = key_format.generate(Prefix.API_KEY)
    tx.run(
        "INSERT INTO api_keys (id, organization_id, project_id, user_id, name, secret_sha256, scopes, created_at,"
        " expires_at) VALUES (:id, :organization, :project, :user, :name, :sha, :scopes, :now, :expires)",
        id=secret.id,
        organization=organization_id,
        project=project_id,
        user=user_id,
        name=name,
        sha=secret.digest,
        scopes=" ".join(chosen),
        now=tx.now_micros,
        expires=expires_at,
    )
    audit.record(
        tx,
        audit.EventType.API_KEY_CREATED,
        organization_id=organization_id,
        actor=actor.about(project_id),
        resource_id=secret.id,
        user_id=user_id,
        in_project=project_id,
        scopes=list(chosen),
        **details,
    )
    key = KeyRow(
        secret.id, organization_id, project_id, user_id, name, chosen, tx.now_micros, expires_at,
        expired_at=None, revoked_at=None,
    )  # fmt: skip
    return key, secret.text


def find(tx: Tx, key_id: str) -> KeyRow | None:
    """Return a key of any organization, revoked or not."""
    row = tx.row(f"SELECT {COLUMNS} FROM api_keys k WHERE k.id = :id", id=key_id)
    return None if row is None else of_row(row)


def for_sso(tx: Tx, user_id: str, project_id: str) -> str | None:
    """Return the id of the key that a person's sessions by single sign-on belong to, if one is valid."""
    row = tx.row(
        "SELECT id FROM api_keys WHERE user_id = :user AND project_id = :project AND is_for_sso = 1"
        " AND revoked_at IS NULL AND expired_at IS NULL AND (expires_at IS NULL OR expires_at > :now)"
        " ORDER BY id DESC LIMIT 1",
        user=user_id,
        project=project_id,
        now=tx.now_micros,
    )
    return None if row is None else str(row[0])


def keep_for_sso(tx: Tx, key: KeyRow) -> None:
    """Note that a key is for single sign-on: nobody has its text, or gets one by its rotation."""
    tx.run("UPDATE api_keys SET is_for_sso = 1 WHERE id = :id", id=key.id)


def is_for_sso(tx: Tx, key: KeyRow) -> bool:
    """Return whether a key is for single sign-on."""
    row = tx.row("SELECT is_for_sso FROM api_keys WHERE id = :id", id=key.id)
    return row is not None and bool(row[0])


def for_sso_among(tx: Tx, key_ids: Sequence[str]) -> set[str]:
    """Return which of some keys are for single sign-on."""
    found: set[str] = set()
    for listed, values in lists.parts(key_ids):
        sql = f"SELECT id FROM api_keys WHERE id IN ({listed}) AND is_for_sso = 1"
        found.update(str(row[0]) for row in tx.rows(sql, **values))
    return found


def successor_seconds(tx: Tx, key: KeyRow) -> int | None:
    """Return how long a key lives that replaces this one: as long as this one was made for; None: without an end."""
    row = tx.row("SELECT successor_seconds FROM api_keys WHERE id = :id", id=key.id)
    assert row is not None, "keys are never removed"
    if row[0] is not None:
        return int(row[0]) or None
    # As lists show both, in whole seconds.
    return None if key.expires_at is None else key.expires_at // SECOND - key.created_at // SECOND


def note_successor_seconds(tx: Tx, key: KeyRow, seconds: int | None) -> None:
    """Keep what `successor_seconds` says before a rotation shortens the key's life."""
    tx.run(
        "UPDATE api_keys SET successor_seconds = :seconds WHERE id = :id",
        seconds=seconds or 0,
        id=key.id,
    )


def update(
    tx: Tx, key: KeyRow, *, scopes: tuple[str, ...], expires_at: int | None, actor: Actor
) -> None:
    """Set a key's scopes, which must be checked, and its expiry."""
    tx.run(
        "UPDATE api_keys SET scopes = :scopes, expires_at = :expires,"
        " successor_seconds = CASE WHEN :is_other = 0 THEN successor_seconds END WHERE id = :id",
        scopes=" ".join(scopes),
        expires=expires_at,
        is_other=int(expires_at != key.expires_at),
        id=key.id,
    )
    audit.record(
        tx,
        audit.EventType.API_KEY_UPDATED,
        organization_id=key.organization_id,
        actor=actor.about(key.project_id),
        resource_id=key.id,
        scopes=list(scopes),
        expires_at=None if expires_at is None else expires_at // SECOND,
    )


def revoke(tx: Tx, key: KeyRow, actor: Actor) -> None:
    """Revoke a key for good. Idempotent."""
    if tx.run(
        "UPDATE api_keys SET revoked_at = :now WHERE id = :id AND revoked_at IS NULL",
        now=tx.now_micros,
        id=key.id,
    ):
        audit.record(
            tx,
            audit.EventType.API_KEY_REVOKED,
            organization_id=key.organization_id,
            actor=actor.about(key.project_id),
            resource_id=key.id,
        )


def revoke_all_of(
    tx: Tx,
    user_id: str,
    actor: Actor,
    *,
    project_id: str | None = None,
    but_of: Collection[str] = (),
) -> None:
    """Revoke all keys of a user for good, or those of one project; not those of the projects `but_of`."""
    rows = tx.rows(
        f"SELECT {COLUMNS} FROM api_keys k WHERE k.user_id = :user AND k.revoked_at IS NULL"
        " AND k.project_id = COALESCE(:project, k.project_id) ORDER BY k.id",
        user=user_id,
        project=project_id,
    )
    for key in map(of_row, rows):
        if key.project_id not in but_of:
            revoke(tx, key, actor)


def note_expired(tx: Tx, key_id: str) -> None:
    """Note that a key was refused because it has expired. Idempotent."""
    tx.run(
        "UPDATE api_keys SET expired_at = :now WHERE id = :id AND expired_at IS NULL",
        now=tx.now_micros,
        id=key_id,
    )
