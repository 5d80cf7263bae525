"""Sessions of people whom an identity provider vouches for.

Such a session belongs to the person, not to a key that the person holds: to a key of theirs that is made for it, whose
text nobody has. So what is recorded names a key as everywhere, and the session ends with person, role, project or key.
"""

from dataclasses import dataclass, replace

from tunewarden.audit import Actor
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import (
    key_rows,
    keys,
    organizations,
    project_members,
    projects,
    session_rows,
    sessions,
    users,
)
from tunewarden.identity.policy import Role
from tunewarden.identity.sessions import NewSession, Session
from tunewarden.identity.users import User

KEY_NAME = "Single sign-on"


@dataclass(frozen=True, slots=True)
class Vouched:
    """A person as the provider knows them: the verified address, and when they showed who they are.

    In microseconds; None if it does not say.
    """

    email: str
    authenticated_at: int | None


def sign_in(database: Database, organization: str, vouched: Vouched, request_id: str) -> NewSession:
    """Begin a session of the person with this address. Raises Error(FORBIDDEN) for who is no user, or in no project."""
    with database.write() as tx:
        organization_id = organizations.find(tx, organization)
        user = _user(tx, organization_id, vouched)
        key_id = _key_of(tx, organization_id, user, request_id)
        caller = replace(keys.standing(tx, key_id), request_id=request_id)
        # How long ago it was at the provider counts, not when the browser came back.
        return sessions.begin_by_sso(tx, caller, proof_at=_proof_at(tx, vouched))


def prove(database: Database, session: Session, organization: str, vouched: Vouched) -> None:
    """Note that a session's person has shown anew who it is. Raises Error(FORBIDDEN), Error(UNAUTHENTICATED)."""
    with database.write(survives=False, below_floor=True) as tx:
        user = _user(tx, organizations.find(tx, organization), vouched)
        if not session.row.by_sso or user.id != session.caller.user_id:
            said = "You signed in at the identity provider as another person than here. Sign out here first."
            raise Error(Kind.FORBIDDEN, said, code="sso_other_user")
        at = _proof_at(tx, vouched)
        if tx.now_micros - at >= sessions.PROOF_MICROS:
            said = (
                "Your identity provider does not say that you have just signed in there ('auth_time'). Ask who runs it"
                " to send it, or sign in here with an API key to delete."
            )
            raise Error(Kind.UNAUTHENTICATED, said, code="sso_old_proof")
        session_rows.note_proof(tx, session.row, at)


def organization_id(database: Database, name: str) -> str | None:
    """Return the id of the organization whose people sign in; None if there is none of that name."""
    with database.read() as tx:
        try:
            return organizations.find(tx, name)
        except Error:
            return None


def _proof_at(tx: Tx, vouched: Vouched) -> int:
    return min(vouched.authenticated_at or 0, tx.now_micros)


def _user(tx: Tx, organization_id: str, vouched: Vouched) -> User:
    user = users.find_by_address(tx, organization_id, vouched.email)
    if user is None:
        said = (
            f"Nobody here has the address {vouched.email}. Ask an Owner of the organization to invite it, and accept the"
            " invite first."
        )
        raise Error(Kind.FORBIDDEN, said, code="sso_unknown_user")
    return user


def _key_of(tx: Tx, organization_id: str, user: User, request_id: str) -> str:
    """Return the id of the key that a person's sessions belong to; made if there is none, or it was revoked."""
    project_id = _project_of(tx, organization_id, user)
    found = key_rows.for_sso(tx, user.id, project_id)
    if found is not None:
        return found
    actor = Actor(key_id=None, user_id=user.id, project_id=project_id, request_id=request_id)
    key, _ = key_rows.insert(
        tx,
        organization_id=organization_id,
        project_id=project_id,
        user_id=user.id,
        name=KEY_NAME,
        scopes=(),
        expires_at=None,
        actor=actor,
        by="sso",
    )
    key_rows.keep_for_sso(tx, key)
    return key.id


def _project_of(tx: Tx, organization_id: str, user: User) -> str:
    """Return the project that a person's console shows: the default one, for who may see it; else one they are in."""
    default = projects.default_of(tx, organization_id)
    theirs = [one.project_id for one in project_members.projects_of(tx, [user.id])[user.id]]
    if user.role is Role.OWNER or default in theirs:
        return default
    if not theirs:
        said = "You are in no project yet. Ask an Owner of the organization, or of a project, to add you to one."
        raise Error(Kind.FORBIDDEN, said, code="sso_no_project")
    return theirs[0]
