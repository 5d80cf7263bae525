"""The admin key of commands with `--data`: of the user of the Owner key, in `DIR/admin.key`."""

import os
from pathlib import Path

from tunewarden import audit
from tunewarden.app import open_app
from tunewarden.config import Config
from tunewarden.errors import Error, Kind
from tunewarden.identity import admin_keys, keys
from tunewarden.identity.policy import Role
from tunewarden.ids import Prefix, mint


def make(settings: Config, owner_key: str) -> str:
    """Make an admin key, write it to its file in place of an older one, and return it.

    Raises Error(UNAUTHENTICATED) for an Owner key that was revoked, Error(FORBIDDEN) if its user is no Owner any more.
    """
    database = open_app(settings).database
    make_another = (
        f" Make an admin key of another Owner with `tunewarden admin-keys create --data {settings.data}`,"
        " and use it: set TUNEWARDEN_URL and TUNEWARDEN_ADMIN_KEY."
    )
    try:
        owner = keys.authenticate(database, owner_key, mint(Prefix.REQUEST))
    except Error as error:
        if error.kind is not Kind.UNAUTHENTICATED:
            raise
        said = f"The key in {settings.owner_key} is not valid."
        raise Error(error.kind, said + make_another) from error
    if owner.role is not Role.OWNER:
        said = f"The user of the key in {settings.owner_key} is not an Owner any more."
        raise Error(Kind.FORBIDDEN, said + make_another)
    with database.write() as tx:
        _, text = admin_keys.create(
            tx,
            organization_id=owner.organization_id,
            user_id=owner.user_id,
            name="commands on the server's machine",
            actor=audit.SERVER,
        )
        # Inside the transaction: if the file cannot be written, the key is not created.
        _write(settings.admin_key, text)
    return text


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o600)
        file.write(text + "\n")
        file.flush()
        os.fsync(descriptor)
