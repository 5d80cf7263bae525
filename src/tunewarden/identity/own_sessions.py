"""The sessions of one person at the console, who sees and ends them.

A session of a restricted key reaches those of that key only: it must not end what may more than it.
"""

from dataclasses import dataclass

from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import session_rows, sessions
from tunewarden.identity.policy import Caller
from tunewarden.identity.session_rows import SESSIONS_MAX, SessionRow
from tunewarden.identity.sessions import Session
from tunewarden.ids import shown


@dataclass(frozen=True, slots=True)
class OwnSession:
    """A session of the person, and the name of its key. `is_this`: the one that asks."""

    row: SessionRow
    key_name: str
    is_this: bool


def page(
    database: Database, session: Session, *, after: str | None, limit: int
) -> list[OwnSession]:
    """Return up to `limit` sessions of the person that go on, the newest first. Raises Error(INVALID)."""
    with database.read() as tx:
        found = _page(tx, session.caller, after=after, limit=limit)
    return [OwnSession(row, name, row.id == session.row.id) for row, name in found]


def end(database: Database, session: Session, session_id: str) -> None:
    """End one of the person's sessions; it may be the one that asks. Raises Error(NOT_FOUND)."""
    with database.write(below_floor=True) as tx:
        for row in _all(tx, session.caller):
            if row.id == session_id:
                return sessions.end(tx, row, session.caller)
    raise Error(Kind.NOT_FOUND, f"You have no session '{shown(session_id)}', or it has ended.")


def end_others(database: Database, session: Session) -> None:
    """End all of the person's sessions but the one that asks, and links that were not opened. Idempotent."""
    caller = session.caller
    with database.write(below_floor=True) as tx:
        session_rows.delete_links_of_user(tx, caller.user_id, key_id=_only_key(caller))
        for row in _all(tx, caller):
            if row.id != session.row.id:
                sessions.end(tx, row, caller)


def _all(tx: Tx, caller: Caller) -> list[SessionRow]:
    found: list[SessionRow] = []
    while True:
        after = found[-1].id if found else None
        page = [row for row, _ in _page(tx, caller, after=after, limit=SESSIONS_MAX)]
        found += page
        if len(page) < SESSIONS_MAX:
            return found


def _page(tx: Tx, caller: Caller, *, after: str | None, limit: int) -> list[tuple[SessionRow, str]]:
    key_id = _only_key(caller)
    return session_rows.page_of_user(tx, caller.user_id, key_id=key_id, after=after, limit=limit)


def _only_key(caller: Caller) -> str | None:
    return caller.key_id if caller.scopes else None
