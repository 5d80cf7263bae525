"""Rows of the console's sessions and of the links that open one. Their secrets have 256 bits and are stored as SHA-256."""

import hashlib
from dataclasses import dataclass, replace

from tunewarden.db import cursors
from tunewarden.db.database import Row, Tx
from tunewarden.ids import Prefix, mint, token

SECRET_LENGTH = 43  # 43 alphanumerics carry 256 bits
SECOND = 1_000_000
IDLE_MICROS = 30 * 60 * SECOND
LIFE_MICROS = 12 * 3600 * SECOND
LINK_MICROS = 10 * 60 * SECOND
# A clock that is set back by more ends a session: how old it is cannot be known.
CLOCK_MICROS = 60 * SECOND
# How much older than the truth `last_seen_at` may be, so that few requests write.
SEEN_MICROS = 60 * SECOND
# Of one key. One more takes the place of the oldest.
SESSIONS_MAX = 20
LINKS_MAX = 5
COLUMNS = "id, key_id, created_at, last_seen_at, proof_at, admin_key_id, by_sso, by_link"


_OF_USER = cursors.ByTime(
    f"{', '.join(f's.{name}' for name in COLUMNS.split(', '))}, k.name",
    "FROM sessions s JOIN api_keys k ON k.id = s.key_id"
    " WHERE k.user_id = :user AND (CAST(:key AS TEXT) IS NULL OR s.key_id = :key)"
    " AND s.last_seen_at > :idle AND s.created_at > :old AND s.created_at <= :latest"
    # As `keys.standing` reads them: of any other key a session has ended.
    " AND k.revoked_at IS NULL AND k.expired_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > :now)",
    "s.created_at",
    "s.id",
    may_be_gone=Prefix.SESSION,
)


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session. Times are in microseconds. `admin_key_id`: the admin key that it administers with, if any.

    `by_sso`: the identity provider proves who its holder is, not the key, whose text nobody has. `by_link`: it began by
    a link. Where its browser is, and which, is not recorded.
    """

    id: str
    key_id: str
    created_at: int
    last_seen_at: int
    proof_at: int
    admin_key_id: str | None = None
    by_sso: bool = False
    by_link: bool = False

    @property
    def began_by(self) -> str:
        """What began it, in people's words."""
        return "single sign-on" if self.by_sso else "link" if self.by_link else "key"

    def is_over(self, now: int) -> bool:
        """Return whether it has ended: by its age, by not being used, or because the clock was set back."""
        return (
            now - self.created_at >= LIFE_MICROS
            or now - self.last_seen_at >= IDLE_MICROS
            or self.created_at - now > CLOCK_MICROS
        )


def insert(
    tx: Tx, key_id: str, sso_proof_at: int | None = None, *, by_link: bool = False
) -> tuple[SessionRow, str]:
    """Add a session of a key; return it and its secret. Removes what has ended, and the key's oldest above the bound.

    `sso_proof_at`: of one that began at the identity provider, when its holder proved there who it is.
    """
    now = tx.now_micros
    by_sso = sso_proof_at is not None
    proof_at = now if sso_proof_at is None else sso_proof_at
    tx.run(
        "DELETE FROM sessions WHERE last_seen_at <= :idle OR created_at <= :old",
        idle=now - IDLE_MICROS,
        old=now - LIFE_MICROS,
    )
    tx.run(
        "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE key_id = :key"
        " ORDER BY created_at DESC, id LIMIT 1000 OFFSET :kept)",
        key=key_id,
        kept=SESSIONS_MAX - 1,
    )
    secret = token(SECRET_LENGTH)
    session = SessionRow(
        mint(Prefix.SESSION), key_id, now, now, proof_at, by_sso=by_sso, by_link=by_link
    )
    tx.run(
        "INSERT INTO sessions (id, secret_sha256, key_id, created_at, last_seen_at, proof_at, by_sso, by_link)"
        " VALUES (:id, :sha, :key, :now, :now, :proof, :sso, :link)",
        id=session.id,
        sha=_digest(secret),
        key=key_id,
        now=now,
        proof=proof_at,
        sso=int(by_sso),
        link=int(by_link),
    )
    return session, secret


def of_secret(tx: Tx, secret: str) -> SessionRow | None:
    """Return the session of a cookie's secret, ended or not."""
    row = tx.row(f"SELECT {COLUMNS} FROM sessions WHERE secret_sha256 = :sha", sha=_digest(secret))
    return None if row is None else _of_row(row)


def page_of_user(
    tx: Tx, user_id: str, *, key_id: str | None, after: str | None, limit: int
) -> list[tuple[SessionRow, str]]:
    """Return a person's sessions that go on, the newest first, each with its key's name; with `key_id`, that key's only.

    Raises Error(INVALID) for an unknown cursor.
    """
    now = tx.now_micros
    rows = _OF_USER.page(
        tx,
        after=after,
        limit=limit,
        user=user_id,
        key=key_id,
        idle=now - IDLE_MICROS,
        old=now - LIFE_MICROS,
        latest=now + CLOCK_MICROS,
        now=now,
    )
    return [(_of_row(row[:-1]), str(row[-1])) for row in rows]


def note_use(tx: Tx, session: SessionRow) -> None:
    """Note that a session is used now."""
    tx.run(
        "UPDATE sessions SET last_seen_at = :now WHERE id = :id", now=tx.now_micros, id=session.id
    )


def note_proof(tx: Tx, session: SessionRow, at: int) -> None:
    """Note when a session's holder has proved again who it is."""
    tx.run("UPDATE sessions SET proof_at = :at WHERE id = :id", at=at, id=session.id)


def set_admin_key(tx: Tx, session: SessionRow, key_id: str | None) -> None:
    """Note the admin key that a session administers with, or that it administers no more."""
    tx.run("UPDATE sessions SET admin_key_id = :key WHERE id = :id", key=key_id, id=session.id)


def delete(tx: Tx, session: SessionRow) -> bool:
    """End a session; return whether it was there."""
    return tx.run("DELETE FROM sessions WHERE id = :id", id=session.id) > 0


def insert_link(tx: Tx, key_id: str) -> tuple[str, int]:
    """Add a link for a key; return its secret and when it expires. Removes what has expired, and above the bound."""
    now = tx.now_micros
    tx.run("DELETE FROM sign_in_links WHERE expires_at <= :now", now=now)
    tx.run(
        "DELETE FROM sign_in_links WHERE secret_sha256 IN (SELECT secret_sha256 FROM sign_in_links WHERE key_id = :key"
        " ORDER BY expires_at DESC LIMIT 1000 OFFSET :kept)",
        key=key_id,
        kept=LINKS_MAX - 1,
    )
    secret, expires_at = token(SECRET_LENGTH), now + LINK_MICROS
    tx.run(
        "INSERT INTO sign_in_links (secret_sha256, key_id, expires_at) VALUES (:sha, :key, :expires)",
        sha=_digest(secret),
        key=key_id,
        expires=expires_at,
    )
    return secret, expires_at


def key_of_link(tx: Tx, secret: str) -> str | None:
    """Return the key of a link that has not expired."""
    row = tx.row(
        "SELECT key_id FROM sign_in_links WHERE secret_sha256 = :sha AND expires_at > :now"
        " AND expires_at <= :latest",
        sha=_digest(secret),
        now=tx.now_micros,
        latest=tx.now_micros + LINK_MICROS + CLOCK_MICROS,
    )
    return None if row is None else str(row[0])


def delete_links_of_user(tx: Tx, user_id: str, *, key_id: str | None) -> None:
    """Remove the links that would sign in as a person; with `key_id`, as that key only."""
    rows = tx.rows(
        "SELECT l.secret_sha256 FROM sign_in_links l JOIN api_keys k ON k.id = l.key_id"
        " WHERE k.user_id = :user AND (CAST(:key AS TEXT) IS NULL OR l.key_id = :key)",
        user=user_id,
        key=key_id,
    )
    for (digest,) in rows:
        tx.run("DELETE FROM sign_in_links WHERE secret_sha256 = :sha", sha=digest)


def delete_link(tx: Tx, secret: str) -> None:
    """Remove a link, so that it opens nothing again."""
    tx.run("DELETE FROM sign_in_links WHERE secret_sha256 = :sha", sha=_digest(secret))


def _of_row(row: Row) -> SessionRow:
    return replace(SessionRow(*row), by_sso=bool(row[-2]), by_link=bool(row[-1]))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
