"""A form that makes a key says which attempt it is: sent twice, it makes one key, whose text is not there to show again."""

import hashlib

from tunewarden.db.database import Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity.admin_keys import Administrator

# A form is of a session, which lasts half a day.
KEPT_MICROS = 24 * 3600 * 1_000_000


def claim(tx: Tx, administrator: Administrator, attempt: str | None) -> None:
    """Note that this transaction makes the key of an attempt. Raises Error(CONFLICT) if another one has; None is none.

    An attempt is of an organization: no other one learns of it.
    """
    if not attempt:
        return
    tx.run("DELETE FROM key_attempts WHERE made_at < :old", old=tx.now_micros - KEPT_MICROS)
    digest = hashlib.sha256(f"{administrator.organization_id}\n{attempt}".encode()).digest()
    is_first = tx.run(
        "INSERT INTO key_attempts (attempt_sha256, made_at) VALUES (:sha, :now)"
        " ON CONFLICT (attempt_sha256) DO NOTHING",
        sha=digest,
        now=tx.now_micros,
    )
    if not is_first:
        raise Error(
            Kind.CONFLICT,
            "This form was sent before and has made its key, which was shown once only. It makes no second one. If you"
            " have not copied the key, revoke it and make another.",
        )
