"""API keys of all organizations, on the server's machine only: the operator's."""

from tunewarden import audit
from tunewarden.app import open_app
from tunewarden.cli.client import Object
from tunewarden.config import Config
from tunewarden.identity import key_rotation, keys, organizations
from tunewarden.identity.key_rows import seconds_of
from tunewarden.identity.keys import ApiKey
from tunewarden.identity.policy import ProjectRole, Role
from tunewarden.registry import rate_limits


def create(
    settings: Config,
    *,
    organization: str | None,
    role: str,
    name: str,
    scopes: tuple[str, ...],
    expires: int | None = None,
) -> Object:
    """Create a key of a user who is made with it; its text is in `value`, and cannot be read again.

    `expires` is in seconds. Raises Error(INVALID).
    """
    with open_app(settings).database.write() as tx:
        chosen = organization or organizations.first_name(tx)
        is_member = role == ProjectRole.MEMBER
        key, text = keys.create(
            tx,
            organization=chosen,
            role=Role.READER if is_member else Role(role),
            project_role=ProjectRole.MEMBER if is_member else None,
            name=name,
            scopes=scopes,
            expires_in_seconds=expires,
        )
        return {**_object(key, tx.now_micros), "value": text}


def list_all(settings: Config) -> list[Object]:
    """Return the keys of all organizations, oldest first."""
    with open_app(settings).database.read() as tx:
        return [_object(key, tx.now_micros) for key in keys.list_all(tx)]


def find(settings: Config, key_id: str) -> Object:
    """Return one key. Raises Error(NOT_FOUND)."""
    for one in list_all(settings):
        if one["id"] == key_id:
            return one
    raise keys.missing(key_id)


def rotate(settings: Config, key_id: str, *, grace: int, expires: int | None) -> Object:
    """Rotate a key with its rate limit, in one transaction; the new one's text is in `value`. Times are in seconds.

    Raises Error(NOT_FOUND), Error(INVALID) for a key that was revoked or has expired.
    """
    with open_app(settings).database.write() as tx:
        made, text, old = key_rotation.rotate(
            tx,
            keys.find(tx, key_id),
            overlap_seconds=grace,
            expires_in_seconds=expires,
            actor=audit.SERVER,
        )
        rate_limits.share_of_key(tx, old.id, made.id)
        rotated = {"id": old.id, "expires_at": seconds_of(old.expires_at)}
        shown = next(key for key in keys.list_all(tx) if key.id == made.id)
        return {**_object(shown, tx.now_micros), "value": text, "rotated": rotated}


def revoke(settings: Config, key_id: str) -> None:
    """Revoke a key permanently, even on a full disk. Raises Error(NOT_FOUND)."""
    app = open_app(settings)

    def revoke_it() -> None:
        with app.database.write(below_floor=True) as tx:
            keys.revoke(tx, key_id)

    app.ballast.run(revoke_it)


def _object(key: ApiKey, now_micros: int) -> Object:
    """Return a key as JSON shows it: times are Unix seconds, no scopes are no restriction."""
    return {
        "id": key.id,
        "object": "api_key",
        "name": key.name,
        "role": key.role,
        "organization": key.organization,
        "project": key.project_id,
        "user": key.user_id,
        "scopes": key.scopes.split(),
        "created_at": key.created_at // 1_000_000,
        "expires_at": seconds_of(key.expires_at),
        "revoked_at": seconds_of(key.revoked_at),
        "state": key.state(now_micros),
    }
