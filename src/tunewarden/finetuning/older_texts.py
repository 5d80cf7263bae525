"""Encrypts texts that versions before migration 3 stored in plaintext: once, at start (I18)."""

from collections.abc import Iterator, Sequence

from tunewarden.artifacts import sealed_text
from tunewarden.artifacts.keyring import Keyring
from tunewarden.db.database import Database, Row

# Per table: a query of such rows as (context, key id or NULL, text, n), and the update.
_TABLES = (
    (
        """SELECT a.internal_id, a.key_id, f.filename, f.n FROM files f JOIN artifacts a ON a.n = f.n
        WHERE f.filename <> '' AND f.n > COALESCE(:after, 0) ORDER BY f.n LIMIT :size""",
        "UPDATE files SET filename = '', sealed_name = :sealed WHERE n = :n",
    ),
    (
        """SELECT u.internal_id, COALESCE(d.key_id, a.key_id), u.filename, u.n FROM uploads u
        LEFT JOIN drafts d ON d.internal_id = u.internal_id
        LEFT JOIN artifacts a ON a.internal_id = u.internal_id
        WHERE u.filename <> '' AND u.n > COALESCE(:after, 0) ORDER BY u.n LIMIT :size""",
        "UPDATE uploads SET filename = '', sealed_name = :sealed WHERE n = :n",
    ),
    (
        """SELECT j.internal_id, a.key_id, j.metadata, j.n
        FROM jobs j JOIN artifacts a ON a.n = j.training_n
        WHERE j.metadata IS NOT NULL AND j.n > COALESCE(:after, 0) ORDER BY j.n LIMIT :size""",
        "UPDATE jobs SET metadata = NULL, sealed_metadata = :sealed WHERE n = :n",
    ),
)
_PAGE_SIZE = 500


def seal_all(database: Database, keyring: Keyring) -> int:
    """Encrypt every such text, and clear those whose key is gone; return their number."""
    count = 0
    for select, update in _TABLES:
        for page in database.pages(select, size=_PAGE_SIZE):
            sealed = list(_sealed(keyring, page))
            with database.write(below_floor=True) as tx:
                for n, text in sealed:
                    tx.run(update, n=n, sealed=text)
            count += len(sealed)
    return count


def count_plain(database: Database) -> int:
    """Return the number of rows with such a text."""
    row = database.peek(
        "SELECT (SELECT COUNT(*) FROM files WHERE filename <> '')"
        " + (SELECT COUNT(*) FROM uploads WHERE filename <> '')"
        " + (SELECT COUNT(*) FROM jobs WHERE metadata IS NOT NULL)"
    )
    return int(row[0]) if row else 0


def _sealed(keyring: Keyring, page: Sequence[Row]) -> Iterator[tuple[int, bytes | None]]:
    secrets = sealed_text.keys_of(keyring, {row[1] for row in page if row[1] is not None})
    for context, key_id, text, n in page:
        secret = secrets.get(key_id)
        yield n, None if secret is None else sealed_text.seal(secret, context, text)
