"""The canary's access: an Owner's API key of the server's own organization. Its text is in this process's memory only."""

from tunewarden import audit
from tunewarden.audit import retention
from tunewarden.db.database import Database
from tunewarden.errors import Error
from tunewarden.identity import key_rows, keys, organizations, users
from tunewarden.identity.organizations import INTERNAL_ID
from tunewarden.identity.policy import Caller, Role

NAME = "canary"


class Account:
    """Makes the key when it is first needed, and revokes that of the process before."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.key = ""

    def caller(self) -> Caller:
        """Return who acts with the key, which is made anew if it is not valid. Raises Error(UNAVAILABLE)."""
        if self.key:
            try:
                return keys.authenticate(self._database, self.key, "")
            except Error:
                pass  # An operator revoked it, or the database was restored.
        with self._database.write() as tx:
            organization = organizations.find_or_create_internal(tx)
            retention.set_days(tx, INTERNAL_ID, retention.DAYS_MIN, audit.SERVER)
            user = users.find_or_add(tx, INTERNAL_ID, NAME, Role.OWNER, audit.SERVER)
            key_rows.revoke_all_of(tx, user, audit.SERVER)
            _, self.key = keys.create(tx, organization=organization, role=Role.OWNER, name=NAME)
        return keys.authenticate(self._database, self.key, "")
