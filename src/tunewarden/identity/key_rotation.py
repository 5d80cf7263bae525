"""Rotation of an API key: a new one with the same user, name and scopes; the old one expires after a while."""

from dataclasses import replace

from tunewarden import audit
from tunewarden.db.database import Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import key_rows, keys
from tunewarden.identity.key_rows import SECOND, KeyRow


def rotate(
    tx: Tx, key_id: str, *, grace_seconds: int, expires_in_seconds: int | None
) -> tuple[KeyRow, str, KeyRow]:
    """Rotate a key of any organization, for the operator; return the new one, its text, and the old one.

    The old one ends after `grace_seconds`, if not sooner. The new one lives for `expires_in_seconds`, without that as
    long as the old one was made for. Raises Error(NOT_FOUND), Error(INVALID) for one that was revoked or has expired.
    """
    old = keys.find(tx, key_id)
    if old.revoked_at is not None or old.has_expired(tx.now_micros):
        raise Error(
            Kind.INVALID,
            f"The API key '{old.id}' is not valid any more. Create another one instead.",
            param="key",
        )
    if expires_in_seconds is None and old.expires_at is not None:
        # As lists show both, in whole seconds.
        expires_in_seconds = old.expires_at // SECOND - old.created_at // SECOND
    made, text = key_rows.insert(
        tx,
        organization_id=old.organization_id,
        project_id=old.project_id,
        user_id=old.user_id,
        name=old.name,
        scopes=old.scopes,
        expires_at=key_rows.expiry(tx, expires_in_seconds),
        actor=audit.SERVER,
        rotates=old.id,
    )
    end = key_rows.expiry(tx, grace_seconds, param="grace")
    assert end is not None, "a number of seconds has an end"
    if old.expires_at is None or old.expires_at > end:
        key_rows.update(tx, old, scopes=old.scopes, expires_at=end, actor=audit.SERVER)
        old = replace(old, expires_at=end)
    return made, text, old
