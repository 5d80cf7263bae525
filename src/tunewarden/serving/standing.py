"""Follows the callers of running requests, and aborts what a caller may no longer do (I19).

A key may be revoked or expire, its scopes and its user's roles may change, the user may be removed and the project
archived. All but expiry is a commit, so callers are read again only after one.
"""

import asyncio
import logging
from collections.abc import Collection
from typing import Protocol

from tunewarden.clock import Clock, to_micros
from tunewarden.db.database import Database
from tunewarden.errors import Error, Kind
from tunewarden.identity import expiry, keys, policy
from tunewarden.identity.key_format import Expired
from tunewarden.identity.policy import Action, Caller

# Polls between looks for commits and expired keys: a caller is read again within about 0.3 s. I19 allows 1 s.
POLLS = 64
# Read per poll, so that none takes longer than some milliseconds: 6,400 callers each 0.3 s.
KEYS_PER_POLL = 100

logger = logging.getLogger(__name__)


class Running(Protocol):
    """A running request."""

    caller: Caller

    @property
    def action(self) -> Action:
        """What its caller must be allowed to do."""

    def abort(self, reason: Error) -> None:
        """Abort it."""


class Standing:
    """The callers of one worker's running requests."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._seen: object = None
        self.unread: list[str] = []  # ids of keys

    def forget(self) -> None:
        """Read all callers again at the next look: nothing ran in between, and nothing was followed."""
        self._seen = None
        self.unread.clear()

    def look(self, running: Collection[Running], stamp: object) -> None:
        """Abort what runs with expired keys; find out whom to read, by the database's present stamp.

        Called at each POLLS polls.
        """
        self._cut_expired(running)
        if stamp != self._seen and not self.unread:
            self._seen = stamp
            self.unread = list({one.caller.key_id for one in running})

    def read_some(self, running: Collection[Running]) -> None:
        """Read some of the `unread`, and abort what they may no longer do; called at each poll until all were read."""
        # They are forgotten only when they were read: a database that fails is asked again.
        self._read(set(self.unread[-KEYS_PER_POLL:]), running)
        del self.unread[-KEYS_PER_POLL:]

    def note_expired(self, expired: Expired) -> None:
        """Record in the background that a key was refused because it has expired."""
        if not expired.is_noted:
            asyncio.get_running_loop().run_in_executor(None, self._note, expired)

    def _note(self, expired: Expired) -> None:
        try:
            expiry.note(self._database, expired)
        except Error as error:
            logger.warning("that a key has expired could not be noted: %s", error.message)

    def _cut_expired(self, running: Collection[Running]) -> None:
        now = to_micros(self._clock.now())
        for one in list(running):
            until = one.caller.expires_at
            if until is not None and now >= until:
                expired = Expired(one.caller.key_id, is_noted=False)
                self.note_expired(expired)
                one.abort(expired)

    def _read(self, key_ids: set[str], running: Collection[Running]) -> None:
        now: dict[str, Caller | Error] = {}
        with self._database.read() as tx:
            for key_id in key_ids:
                try:
                    now[key_id] = keys.standing(tx, key_id)
                except Error as refused:
                    if refused.kind is not Kind.UNAUTHENTICATED:
                        raise
                    now[key_id] = refused
        for one in [one for one in running if one.caller.key_id in now]:
            caller = now[one.caller.key_id]
            if isinstance(caller, Error):
                if isinstance(caller, Expired):
                    self.note_expired(caller)
                one.abort(caller)
            elif policy.allows(caller, one.action):
                one.caller = caller  # its key may expire at another time now
            else:
                one.abort(lost_access())


def lost_access() -> Error:
    """Return the error that ends a request whose caller lost the role or the scope for it while it ran."""
    return Error(
        Kind.FORBIDDEN,
        "The role of this API key's user, or the key's scopes, no longer allow this request. They were changed while"
        " it was running.",
        code="missing_scope",
    )
