"""Admin keys of any organization, on the server's machine only: the operator's, whatever `DIR/owner.key` says."""

from contextlib import suppress
from typing import Any

import msgspec

from tunewarden import audit
from tunewarden.api.administration.admin_api_keys import shown
from tunewarden.app import open_app
from tunewarden.config import Config
from tunewarden.db.database import Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import admin_keys, organizations, users


def create(
    settings: Config, *, organization: str | None, user: str | None, name: str, expires: int | None
) -> dict[str, Any]:
    """Create an admin key of an Owner; its text is in `value`, and cannot be read again.

    `user` is an id or an address, and the oldest Owner without it; `organization` is a name, and the oldest one without
    it. `expires` is in seconds. Raises Error(NOT_FOUND), Error(INVALID) for a user who is no Owner.
    """
    with open_app(settings).database.write() as tx:
        chosen = organizations.first_name(tx) if organization is None else organization
        organization_id = organizations.find(tx, chosen)
        if user is None:
            user_id = users.oldest_owner(tx, organization_id)
            if user_id is None:
                raise Error(
                    Kind.NOT_FOUND,
                    f"The organization '{chosen}' has no Owner. Make one with"
                    f" `tunewarden keys create --role owner --organization {chosen}`.",
                )
        else:
            user_id = _id_of(tx, organization_id, user)
            users.check_is_owner(tx, organization_id, user_id)
        made, text = admin_keys.create(
            tx,
            organization_id=organization_id,
            user_id=user_id,
            name=name,
            actor=audit.SERVER,
            expires_in_seconds=expires,
        )
    object_: dict[str, Any] = msgspec.to_builtins(shown(made, None))
    return {**object_, "value": text}


def revoke(settings: Config, organization: str, key_id: str) -> None:
    """Revoke an admin key of an organization, unless that was done. Raises Error(NOT_FOUND) for the organization."""
    with open_app(settings).database.write(below_floor=True) as tx:
        organization_id = organizations.find(tx, organization)
        with suppress(Error):
            admin_keys.revoke(tx, organization_id, key_id, audit.SERVER)


def _id_of(tx: Tx, organization_id: str, user: str) -> str:
    if "@" not in user:
        return user
    person = users.find_by_address(tx, organization_id, user.strip().lower())
    if person is None:
        raise users.missing(user)
    return person.id
