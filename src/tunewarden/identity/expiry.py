"""Notes that keys have expired, once they were refused for it: no clock that is set back revives them."""

from tunewarden.db.database import Database
from tunewarden.identity import admin_keys, key_rows
from tunewarden.identity.key_format import Expired
from tunewarden.ids import Prefix


def note(database: Database, expired: Expired) -> None:
    """Record that a key was refused because it has expired, unless that is recorded. Raises Error(UNAVAILABLE)."""
    if expired.is_noted:
        return
    is_admin = expired.key_id.startswith(f"{Prefix.ADMIN_KEY}_")
    with database.write(below_floor=True) as tx:
        (admin_keys if is_admin else key_rows).note_expired(tx, expired.key_id)
