"""Sessions of the console. Each belongs to an API key, which every request reads again with its user and roles.

So a session can do what its key can do now, and ends with it, at once and on every worker (I19).
"""

from dataclasses import dataclass, replace

from tunewarden import audit
from tunewarden.audit import EventType
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import admin_keys, key_format, keys, session_rows
from tunewarden.identity.admin_keys import Administrator
from tunewarden.identity.key_format import Expired, Presented
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.identity.session_rows import SEEN_MICROS, SessionRow

# How old the last proof of who it is may be for an act that destroys.
PROOF_MICROS = 5 * 60 * session_rows.SECOND


@dataclass(frozen=True, slots=True)
class Session:
    """A session that goes on, and its key's caller as a request has just read it."""

    row: SessionRow
    caller: Caller
    now: int  # microseconds, when it was read
    administrator: Administrator | None = None  # the same of its admin key, if it administers

    @property
    def has_fresh_proof(self) -> bool:
        """Whether its holder has proved lately who it is."""
        return 0 <= self.now - self.row.proof_at < PROOF_MICROS


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session that has just begun, with its cookie's secret, which is not stored."""

    caller: Caller
    secret: str


@dataclass(frozen=True, slots=True)
class NewLink:
    """A link that opens one session; `secret` is not stored, `expires_at` in microseconds."""

    secret: str
    expires_at: int


def sign_in(database: Database, presented: Presented, request_id: str) -> NewSession:
    """Begin a session with an API key. Raises Error(UNAUTHENTICATED), Error(FORBIDDEN) for an admin key."""
    with database.write() as tx:
        return _begin(tx, keys.holder(tx, presented, request_id), by="key")


def begin_by_sso(tx: Tx, caller: Caller, *, proof_at: int) -> NewSession:
    """Begin the session of a person whom the identity provider vouches for (`sso`), which proves who it is from now on."""
    return _begin(tx, caller, by="sso", sso_proof_at=proof_at)


def open_link(database: Database, secret: str, request_id: str) -> NewSession:
    """Begin a session with a link, which opens nothing again. Raises Error(UNAUTHENTICATED), the same for every reason."""
    with database.write() as tx:
        key_id = session_rows.key_of_link(tx, secret)
        if key_id is None:
            raise no_link()
        session_rows.delete_link(tx, secret)
        caller = replace(_holder(tx, key_id, no_link()), request_id=request_id)
        return _begin(tx, caller, by="link")


def make_link(database: Database, caller: Caller) -> NewLink:
    """Make a link that opens one session of the caller's key, for ten minutes.

    Raises Error(FORBIDDEN) for who may not even read models, Error(UNAUTHENTICATED) if the key was revoked since.
    """
    authorize(caller, Action.READ_MODELS)
    with database.write() as tx:
        keys.authorize_now(tx, caller, Action.READ_MODELS)
        secret, expires_at = session_rows.insert_link(tx, caller.key_id)
        audit.record(
            tx,
            EventType.LOGIN_LINK_CREATED,
            organization_id=caller.organization_id,
            actor=caller.actor,
            resource_id=caller.key_id,
        )
    return NewLink(secret, expires_at)


def is_open(database: Database, secret: str) -> bool:
    """Return whether a link would open a session now. Changes nothing."""
    with database.read() as tx:
        return session_rows.key_of_link(tx, secret) is not None


def current(database: Database, secret: str, request_id: str, *, is_use: bool = True) -> Session:
    """Return the session of a cookie. Raises Error(UNAUTHENTICATED) if it has ended, or its key cannot be used now.

    `is_use`: somebody asks, not a page by itself; only that keeps a session from ending.
    """
    with database.read() as tx:
        row = session_rows.of_secret(tx, secret)
        if row is None or row.is_over(tx.now_micros):
            raise ended()
        caller = replace(_holder(tx, row.key_id, ended()), request_id=request_id)
        found = Session(row, caller, tx.now_micros, _administrator(tx, row, caller))
    if is_use and found.now - row.last_seen_at >= SEEN_MICROS:
        # In place, so that a full disk signs nobody out who frees room.
        with database.write(survives=False, below_floor=True) as tx:
            session_rows.note_use(tx, row)
    return found


def leave(database: Database, secret: str, request_id: str) -> None:
    """End the session of a cookie that another one takes the place of; nothing if it has ended."""
    try:
        session = current(database, secret, request_id, is_use=False)
    except Error:
        return
    sign_out(database, session)


def prove(database: Database, session: Session, presented: Presented) -> Session:
    """Note that the holder of a session has shown its key again. Raises Error(UNAUTHENTICATED) for any other key."""
    with database.write(survives=False, below_floor=True) as tx:
        caller = keys.holder(tx, presented, session.caller.request_id)
        if caller.key_id != session.row.key_id:
            said = "This is another key than the one you signed in with."
            raise Error(Kind.UNAUTHENTICATED, said, code="invalid_api_key")
        session_rows.note_proof(tx, session.row, tx.now_micros)
        return Session(replace(session.row, proof_at=tx.now_micros), caller, tx.now_micros)


def administer(database: Database, session: Session, presented: Presented) -> None:
    """Let a session administer with an admin key of its organization. Raises Error(UNAUTHENTICATED)."""
    caller = session.caller
    with database.write(below_floor=True) as tx:
        administrator = admin_keys.holder(tx, presented, caller.request_id)
        if administrator.organization_id != caller.organization_id:
            # As of an unknown one: what another organization has is not said (I9).
            raise key_format.refused(presented.shown, is_admin=True)
        session_rows.set_admin_key(tx, session.row, administrator.key_id)
        audit.record(
            tx,
            EventType.LOGIN_SUCCEEDED,
            organization_id=caller.organization_id,
            actor=administrator.actor,
            resource_id=session.row.id,
            by="admin_key",
        )


def stop_administering(database: Database, session: Session) -> None:
    """Let a session administer no more; it goes on. Idempotent."""
    with database.write(below_floor=True) as tx:
        session_rows.set_admin_key(tx, session.row, None)


def sign_out(database: Database, session: Session) -> None:
    """End a session. Idempotent."""
    caller = session.caller
    with database.write(below_floor=True) as tx:
        end(tx, session.row, caller)


def end(tx: Tx, row: SessionRow, by: Caller) -> None:
    """End a session, and record who did. Idempotent."""
    if session_rows.delete(tx, row):
        audit.record(
            tx,
            EventType.LOGOUT_SUCCEEDED,
            organization_id=by.organization_id,
            actor=by.actor,
            resource_id=row.id,
        )


def ended() -> Error:
    """Return the error of a request whose session has ended."""
    return Error(Kind.UNAUTHENTICATED, "Your session has ended. Sign in again.")


def no_link() -> Error:
    """Return the error of a link that opens nothing: unknown, used, expired, or of a key that cannot be used."""
    return Error(
        Kind.UNAUTHENTICATED,
        "This link was used already, or has expired. Make another with `tunewarden console link`.",
    )


def _begin(tx: Tx, caller: Caller, *, by: str, sso_proof_at: int | None = None) -> NewSession:
    row, secret = session_rows.insert(tx, caller.key_id, sso_proof_at, by_link=by == "link")
    audit.record(
        tx,
        EventType.LOGIN_SUCCEEDED,
        organization_id=caller.organization_id,
        actor=caller.actor,
        resource_id=row.id,
        by=by,
    )
    return NewSession(caller, secret)


def _administrator(tx: Tx, row: SessionRow, caller: Caller) -> Administrator | None:
    """Return what the administrator of a session's admin key is now; None without one, or if it cannot be used now."""
    if row.admin_key_id is None:
        return None
    try:
        return admin_keys.standing(tx, row.admin_key_id, caller.request_id)
    except Error:
        return None


def _holder(tx: Tx, key_id: str, otherwise: Error) -> Caller:
    """Return what the caller of a key is now. Raises `Expired`, and the error `otherwise` if it was revoked."""
    try:
        return keys.standing(tx, key_id)
    except Expired:
        raise
    except Error as refused:
        raise otherwise from refused
