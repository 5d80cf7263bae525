"""Rotation of an API key: a new one with the same user, name and scopes; the old one expires after a while."""

from dataclasses import replace

from tunewarden.audit import Actor
from tunewarden.db.database import Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import key_rows
from tunewarden.identity.key_rows import KeyRow

OVERLAP_SECONDS = 24 * 3600  # unless another time is given


def rotate(
    tx: Tx, old: KeyRow, *, overlap_seconds: int, expires_in_seconds: int | None, actor: Actor
) -> tuple[KeyRow, str, KeyRow]:
    """Rotate a key; return the new one, its text, and the old one as it is then.

    The old one ends after `overlap_seconds`, if not sooner. The new one lives for `expires_in_seconds`, without that as
    long as the old one was made for, also when it is rotated again. Raises Error(INVALID) for a key that was revoked or has expired.
    """
    if old.revoked_at is not None or old.has_expired(tx.now_micros):
        raise Error(
            Kind.INVALID,
            f"The API key '{old.id}' is not valid any more: it has expired or was revoked. Create another one instead.",
            param="api_key_id",
            code="key_expired",
        )
    if key_rows.is_for_sso(tx, old):
        raise Error(
            Kind.INVALID,
            f"The API key '{old.id}' is for single sign-on: it has no text that could be replaced. Revoke it instead: its"
            " sessions end, and the next sign-in makes another.",
            param="api_key_id",
            code="key_without_text",
        )
    seconds = key_rows.successor_seconds(tx, old)
    made, text = key_rows.insert(
        tx,
        organization_id=old.organization_id,
        project_id=old.project_id,
        user_id=old.user_id,
        name=old.name,
        scopes=old.scopes,
        expires_at=key_rows.expiry(
            tx, seconds if expires_in_seconds is None else expires_in_seconds
        ),
        actor=actor,
        rotates=old.id,
    )
    end = key_rows.expiry(tx, overlap_seconds, param="overlap_seconds")
    assert end is not None, "a number of seconds has an end"
    if old.expires_at is None or old.expires_at > end:
        key_rows.update(tx, old, scopes=old.scopes, expires_at=end, actor=actor)
        key_rows.note_successor_seconds(tx, old, seconds)
        old = replace(old, expires_at=end)
    return made, text, old
